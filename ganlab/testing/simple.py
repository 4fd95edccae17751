"""Simple components, shapes and noise images that the checks use as the rest of a system."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ganlab.determinism import keyed
from ganlab.interfaces.losses import Loss, Translation
from ganlab.interfaces.networks import Discriminator, Domain, Features, Generator
from ganlab.interfaces.schedules import PLAYERS, Schedule, Turn

IMAGES = Domain("images", 3, 16, 16)
EMBEDDING = Domain("embedding", 4, 8, 8)
DIRECTIONS = ("ab", "ba")


class SimpleGenerator(Generator):
    """Two convolutions: embeddings (N, 4, H / 2, W / 2)."""

    def __init__(self, source: Domain, target: Domain) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(source.channels, 4, 4, 2, 1), nn.Tanh())
        self.decoder = nn.Sequential(nn.ConvTranspose2d(4, target.channels, 4, 2, 1), nn.Tanh())

    def encode(self, images: Tensor) -> Tensor:
        embedding: Tensor = self.encoder(images)
        return embedding

    def decode(self, embedding: Tensor) -> Tensor:
        images: Tensor = self.decoder(embedding)
        return images


class SimpleDiscriminator(Discriminator):
    """Two convolutions: scores (N, `scores`, H / 2, W / 2)."""

    def __init__(self, shape: Domain, scores: int = 1) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(shape.channels, 4, 4, 2, 1), nn.Tanh(), nn.Conv2d(4, scores, 3, 1, 1))

    def features(self, x: Tensor) -> list[Tensor]:
        hidden = self.net[:-1](x)
        return [hidden, self.net[-1](hidden)]


class SimpleEmbeddingDiscriminator(SimpleDiscriminator):
    """The same for embeddings."""

    sees = "embeddings"


class SimpleLoss(Loss):
    """Least squares (arXiv:1611.04076)."""

    def generator(self, t: Translation) -> Tensor:
        return (t.score(t.fake) - 1).square().mean()

    def discriminator(self, t: Translation) -> Tensor:
        return (t.score(t.target) - 1).square().mean() + t.score(t.fake_for_discriminator).square().mean()


class SimpleSchedule(Schedule):
    """Both players' turns in each step, with Adam (arXiv:1412.6980)."""

    steps = 40

    def turns(self, step: int) -> list[Turn]:
        return [Turn(player, self.directions) for player in PLAYERS]

    def optimizer(self, player: str, parameters: list[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters)


class SimpleFeatures(Features):
    """One convolution with four channels and the mean of each: vectors (N, 4)."""

    size = 8
    shipped = True

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh())

    def forward(self, images: Tensor) -> Tensor:
        vectors: Tensor = self.net(images).mean((2, 3))
        return vectors


STAND_INS: dict[str, type] = {
    "generator": SimpleGenerator,
    "discriminator": SimpleDiscriminator,
    "loss": SimpleLoss,
    "schedule": SimpleSchedule,
    "features": SimpleFeatures,
}
"""{kind: the class used for a nested component that the author does not pass}."""


def paired(images: Domain) -> Domain:
    """Returns the shape of a pair of images, concatenated along the channels."""
    return images._replace(channels=2 * images.channels)


def noise(shape: Domain, *key: int | str) -> Tensor:
    """Returns images (2, C, H, W), float64, uniform in [-1, 1]. N differs from C: a layer that mixes them up fails."""
    values = keyed("testing", *key).uniform(-1, 1, (2, shape.channels, shape.height, shape.width))
    return torch.from_numpy(values)
