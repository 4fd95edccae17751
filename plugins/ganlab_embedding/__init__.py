"""A discriminator on the generators' embeddings, so that both come to lie in one space (the idea is XGAN's,
arXiv:1711.05139): the seed's "improvement"."""

from typing import Annotated, Literal

from ganlab_resnet.layers import initialise
from pydantic import Field
from torch import Tensor, nn

import ganlab
from ganlab import Domain, Translation
from ganlab_embedding.probe import EmbeddingSpace


class EmbeddingDiscriminator(ganlab.Discriminator):
    """`layers` 3x3 convolutions of stride 2, LeakyReLU 0.2, and a 3x3 convolution: (N, E, h, w) -> scores
    (N, 1, h', w'), h' = h / 2^layers, rounded up.

    The seed doesn't state its layers; these are ours. Without norms: a norm of each image would hide the statistics
    in which the two spaces differ.

    Args:
        width: channels of the first convolution; each of stride 2 has twice those before.
        layers: how many convolutions of stride 2.
    """

    sees = "embeddings"

    def __init__(
        self,
        shape: Domain,
        width: Annotated[int, Field(ge=1)] = 64,
        layers: Annotated[int, Field(ge=0, le=6)] = 2,
    ) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        channels = shape.channels
        for layer in range(layers):
            outer = width * 2**layer
            parts += [nn.Conv2d(channels, outer, 3, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
            channels = outer
        parts.append(nn.Conv2d(channels, 1, 3, 1, 1))
        self.net = nn.Sequential(*parts)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.net(x)
        return scores


class EmbeddingLSGAN(ganlab.Loss):
    """The seed's eq. (3), D_emb answers 0 to E_ab(x_a) and 1 to E_ba(x_b), and the second term of eq. (1),
    (D_emb(E_ab(x_a)) - t)^2. Eq. (1)'s factor 0.5 is a weight.

    Args:
        target: "other": t is the label of the other way, 1 for ab and 0 for ba, so that the generators work against
            D_emb. "as_printed": t = 0 on both ways, with which the generator of ab helps its discriminator.
    """

    def __init__(self, target: Literal["other", "as_printed"] = "other") -> None:
        super().__init__()
        self.target = target

    @staticmethod
    def label(way: str) -> float:
        return 0.0 if way == "ab" else 1.0

    def generator(self, t: Translation) -> Tensor:
        target = self.label(t.back.name) if self.target == "other" else 0.0
        return (t.score_embedding(t.embedding) - target).square().mean()

    def discriminator(self, t: Translation) -> Tensor:
        return (t.score_embedding(t.embedding) - self.label(t.name)).square().mean()


@ganlab.hookimpl
def ganlab_discriminators() -> dict[str, type[ganlab.Discriminator]]:
    return {"embedding": EmbeddingDiscriminator}


@ganlab.hookimpl
def ganlab_losses() -> dict[str, type[ganlab.Loss]]:
    return {"embedding_lsgan": EmbeddingLSGAN}


@ganlab.hookimpl
def ganlab_metrics() -> dict[str, type[ganlab.Metric]]:
    return {"embedding_space": EmbeddingSpace}
