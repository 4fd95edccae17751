"""A discriminator on embeddings, which makes the embeddings of both generators alike.

It is the "improvement" of face2comic; the idea is XGAN's (arXiv:1711.05139).
"""

from typing import Annotated, Literal

from ganlab_resnet.layers import initialise
from pydantic import Field
from torch import Tensor, nn

import ganlab
from ganlab import Domain, Translation
from ganlab_embedding.probe import EmbeddingSpace


class EmbeddingDiscriminator(ganlab.Discriminator):
    """Scores embeddings: `layers` 3x3 convolutions of stride 2, LeakyReLU 0.2, and a 3x3 convolution.

    Embeddings (N, E, h, w) give scores (N, 1, h', w') with h' = h / 2^layers, rounded up. face2comic does not state its
    layers, so these are ganlab's own choice. There are no norms: an instance norm would remove the statistics in which
    the two embedding spaces differ.

    Args:
        width: channels of the first convolution of stride 2. Each later one has twice as many.
        layers: the number of convolutions of stride 2.
    """

    sees = "embeddings"

    def __init__(
        self,
        shape: Domain,
        width: Annotated[int, Field(ge=1, le=1024)] = 64,
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
    """face2comic's least squares on embeddings: eq. (3) for D_emb, the second term of eq. (1) for the generators.

    D_emb learns to score E_ab(x_a) 0 and E_ba(x_b) 1. The generators minimise (D_emb(E_ab(x_a)) - t)^2. Set the factor
    0.5 of eq. (1) as a weight.

    Args:
        target: "other": t is the label of the other direction, 1 for ab and 0 for ba, so that the generators work
            against D_emb. "as_printed": t is 0 in both directions, so that the generator of ab works for D_emb.
    """

    def __init__(self, target: Literal["other", "as_printed"] = "other") -> None:
        super().__init__()
        self.target = target

    @staticmethod
    def label(direction: str) -> float:
        return 0.0 if direction == "ab" else 1.0

    def generator(self, t: Translation) -> Tensor:
        target = self.label(t.reverse.direction) if self.target == "other" else 0.0
        return (t.score_embedding(t.embedding) - target).square().mean()

    def discriminator(self, t: Translation) -> Tensor:
        return (t.score_embedding(t.embedding) - self.label(t.direction)).square().mean()


@ganlab.hookimpl
def ganlab_discriminators() -> dict[str, type[ganlab.Discriminator]]:
    return {"embedding": EmbeddingDiscriminator}


@ganlab.hookimpl
def ganlab_losses() -> dict[str, type[ganlab.Loss]]:
    return {"embedding_lsgan": EmbeddingLSGAN}


@ganlab.hookimpl
def ganlab_metrics() -> dict[str, type[ganlab.Metric]]:
    return {"embedding_space": EmbeddingSpace}
