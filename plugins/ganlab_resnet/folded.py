"""The ends of a generator that computes at a quarter of the resolution: pixels are folded into channels and back."""

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_unshuffle

from ganlab_resnet.blocks import Residual
from ganlab_resnet.layers import ReflectionPad

CONTRAST = 1.5
"""The factor on the image before the last tanh at the start: in [-1, 1], tanh(1.5 x) is nearer to x than tanh(x)."""

NOISE = 0.25
"""The factor on the random part of the initial weights: all of it would blur the image."""


class Fold(nn.Module):
    """Folds blocks of 4x4 pixels into channels: (N, C, H, W) -> (N, 16 C, H / 4, W / 4).

    It is pixel_unshuffle by 2, twice, so that pixel_shuffle by 2, twice, undoes it. Raises ValueError if the height or
    the width is not a multiple of 4.
    """

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        if height % 4 or width % 4:
            raise ValueError(f"{height}x{width} pixels are not allowed: height and width should be multiples of 4")
        return pixel_unshuffle(pixel_unshuffle(images, 2), 2)


def folding(channels: int, deep: int) -> nn.Sequential:
    """Returns the first layers of an encoder: images (N, channels, H, W) -> (N, deep, H / 4, W / 4)."""
    return nn.Sequential(Fold(), ReflectionPad(1), nn.Conv2d(16 * channels, deep, 3))


def unfolding(deep: int, channels: int) -> nn.Sequential:
    """Returns the last layers of a decoder: (N, deep, H / 4, W / 4) -> images (N, channels, H, W) in [-1, 1].

    Each of two 3x3 convolutions is followed by pixel_shuffle by 2 (arXiv:1609.05158). Between them is a residual block
    with deep / 4 channels at half of the resolution.
    """
    shallow = deep // 4
    return nn.Sequential(
        ReflectionPad(1),
        nn.Conv2d(deep, deep, 3),
        nn.PixelShuffle(2),
        Residual(shallow, 3, "none", bias=True),
        ReflectionPad(1),
        nn.Conv2d(shallow, 4 * channels, 3),
        nn.PixelShuffle(2),
        nn.Tanh(),
    )


@torch.no_grad()
def pass_through(first: nn.Sequential, last: nn.Sequential) -> None:
    """Adds the identity to the initial weights of `folding` and `unfolding`, which become smaller.

    If all that lies between them adds little, a generator starts near tanh(1.5 x), and colours start where they belong.
    Needs at least 16 channels for each channel of the images; with fewer only some of the pixels pass.
    """
    convolutions = [layer for layer in (*first, *last) if isinstance(layer, nn.Conv2d)]
    for convolution, gain in zip(convolutions, (1.0, 1.0, CONTRAST), strict=True):
        identity = nn.init.dirac_(torch.empty_like(convolution.weight))
        convolution.weight.mul_(NOISE).add_(identity, alpha=gain)
