"""Discriminators that wrap another."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import ganlab

Ratio = Annotated[float, Field(ge=0, le=1)]


class _Wrapper(ganlab.Discriminator):
    """A discriminator around another.

    Args:
        of: the discriminator within.
    """

    def __init__(self, of: ganlab.Discriminator) -> None:
        super().__init__()
        self.of = of
        self.sees = of.sees

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the scores of the discriminator within."""
        scores: Tensor = self.of(x)
        return scores


class SpectralNorm(_Wrapper):
    """The discriminator `of`, the weight of each of its convolutions and linear layers divided by its largest singular
    value (arXiv:1802.05957, eq. 8), which a power iteration each forward estimates (algorithm 1).
    """

    def __init__(self, of: ganlab.Discriminator) -> None:
        super().__init__(of)
        layers = [m for m in of.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)]
        if not layers:
            raise ValueError(f"{type(of).__name__} has no convolution and no linear layer to normalise")
        for layer in layers:
            parametrizations.spectral_norm(layer)


class DiffAugment(_Wrapper):
    """The discriminator `of`, shown each image changed at random and differentiably, reals and fakes alike, in both
    players' turns (arXiv:2006.10738, section 3.2).

    Args:
        colour: brightness + U(-0.5, 0.5), then saturation times U(0, 2), then contrast times U(0.5, 1.5).
        translation: moved by up to this part of a side, zeros behind; 0 leaves it out.
        cutout: zeros in a rectangle with this part of each side, its centre anywhere; 0 leaves it out.
    """

    stateful = True

    def __init__(
        self,
        of: ganlab.Discriminator,
        colour: bool = True,
        translation: Ratio = 0.125,
        cutout: Ratio = 0.5,
    ) -> None:
        super().__init__(of)
        self.colour = colour
        self.translation = translation
        self.cutout = cutout

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the scores of the changed images."""
        if self.colour:
            x = recoloured(x)
        if self.translation:
            x = moved(x, self.translation)
        if self.cutout:
            x = cut(x, self.cutout)
        return super().forward(x)


def recoloured(x: Tensor) -> Tensor:
    """(N, C, H, W), each image with a brightness, saturation and contrast of its own."""
    brightness, saturation, contrast = torch.rand(3, len(x), 1, 1, 1, dtype=x.dtype, device=x.device)
    x = x + (brightness - 0.5)
    grey = x.mean(dim=1, keepdim=True)
    x = grey + 2 * saturation * (x - grey)
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    contrasted: Tensor = mean + (contrast + 0.5) * (x - mean)
    return contrasted


def moved(x: Tensor, ratio: float) -> Tensor:
    """(N, C, H, W), each image moved by a whole number of pixels of its own."""

    def move(side: int) -> Tensor:
        most = int(side * ratio + 0.5)
        shift = torch.randint(-most, most + 1, (len(x), 1, 1, 1), device=x.device)
        place = torch.arange(side, device=x.device)
        return (place[:, None] + shift == place).to(x.dtype)

    # products, since the backward of an indexing adds in no fixed order on CUDA
    return move(x.shape[2]) @ x @ move(x.shape[3]).mT


def cut(x: Tensor, ratio: float) -> Tensor:
    """(N, C, H, W), each image with a hole of its own."""

    def inside(side: int) -> Tensor:
        size = int(side * ratio + 0.5)
        start = torch.randint(side + 1 - size % 2, (len(x), 1), device=x.device) - size // 2
        place = torch.arange(side, device=x.device)
        return (start <= place) & (place < start + size)

    hole = inside(x.shape[2])[:, None, :, None] & inside(x.shape[3])[:, None, None, :]
    return x * ~hole
