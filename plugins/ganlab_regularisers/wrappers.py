"""Discriminators that wrap another discriminator."""

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import ganlab

Ratio = Annotated[float, Field(ge=0, le=1)]


class _Wrapper(ganlab.Discriminator):
    """Wraps a discriminator.

    Args:
        of: the wrapped discriminator.
    """

    def __init__(self, of: ganlab.Discriminator) -> None:
        super().__init__()
        self.of = of
        self.sees = of.sees

    def features(self, x: Tensor) -> Sequence[Tensor]:
        """Images (N, C, H, W) -> the activations of the wrapped discriminator."""
        return self.of.features(x)


class SpectralNorm(_Wrapper):
    """Divides the weight of each of a discriminator's trainable convolutions and linear layers by its spectral norm.

    arXiv:1802.05957, eq. 8. One power iteration in each forward estimates the norm (algorithm 1). Raises
    ValueError if the discriminator has no such layer.
    """

    def __init__(self, of: ganlab.Discriminator) -> None:
        super().__init__(of)
        kinds = nn.Conv2d | nn.ConvTranspose2d | nn.Linear
        # a pretrained network inside the discriminator keeps its weights
        layers = [m for m in of.modules() if isinstance(m, kinds) and m.weight.requires_grad]
        if not layers:
            raise ValueError(f"{type(of).__name__} has no convolution and no linear layer to normalise")
        for layer in layers:
            parametrizations.spectral_norm(layer)


class DiffAugment(_Wrapper):
    """Differentiable augmentation of a discriminator's input (arXiv:2006.10738, section 3.2).

    Real images and fakes are changed at random, in both players' turns. Both images of a pair are moved and cut alike.

    Args:
        colour: if true, adds U(-0.5, 0.5) to the brightness, then multiplies the saturation by U(0, 2) and the contrast
            by U(0.5, 1.5). It must be false for a discriminator of pairs: the colours of the two images would be mixed.
        translation: the largest shift as a fraction of the side; uncovered pixels become 0. 0 turns it off.
        cutout: the sides of a rectangle of zeros as fractions of the image's sides; its centre is anywhere. 0 turns it
            off.
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
        if colour and of.sees == "pairs":
            raise ValueError("colour would mix the two images of a pair: set colour to false")
        self.colour = colour
        self.translation = translation
        self.cutout = cutout

    def features(self, x: Tensor) -> Sequence[Tensor]:
        """Images (N, C, H, W) -> the activations of the wrapped discriminator for the augmented images."""
        if self.colour:
            x = recoloured(x)
        if self.translation:
            x = moved(x, self.translation)
        if self.cutout:
            x = cut(x, self.cutout)
        return super().features(x)


def recoloured(x: Tensor) -> Tensor:
    """Changes brightness, saturation and contrast of each image of (N, C, H, W) at random."""
    brightness, saturation, contrast = torch.rand(3, len(x), 1, 1, 1, dtype=x.dtype, device=x.device)
    x = x + (brightness - 0.5)
    grey = x.mean(dim=1, keepdim=True)
    x = grey + 2 * saturation * (x - grey)
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    contrasted: Tensor = mean + (contrast + 0.5) * (x - mean)
    return contrasted


def moved(x: Tensor, ratio: float) -> Tensor:
    """Moves each image of (N, C, H, W) by a random whole number of pixels in each dimension."""

    def move(side: int) -> Tensor:
        most = int(side * ratio + 0.5)
        shift = torch.randint(-most, most + 1, (len(x), 1, 1, 1), device=x.device)
        place = torch.arange(side, device=x.device)
        return (place[:, None] + shift == place).to(x.dtype)

    # matrix products: on CUDA, the backward of indexing sums in no fixed order
    return move(x.shape[2]) @ x @ move(x.shape[3]).mT


def cut(x: Tensor, ratio: float) -> Tensor:
    """Sets a random rectangle of each image of (N, C, H, W) to 0."""

    def inside(side: int) -> Tensor:
        size = int(side * ratio + 0.5)
        start = torch.randint(side + 1 - size % 2, (len(x), 1), device=x.device) - size // 2
        place = torch.arange(side, device=x.device)
        return (start <= place) & (place < start + size)

    hole = inside(x.shape[2])[:, None, :, None] & inside(x.shape[3])[:, None, None, :]
    return x * ~hole
