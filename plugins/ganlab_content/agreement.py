"""The agreement of two sets of images in the places of their colours and of their edges."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate

import ganlab
from ganlab.evaluation import estimates
from ganlab.interfaces.metrics import Images

COLOUR_SIDE = 8
EDGE_SIDE = 32

_LUMA = (0.299, 0.587, 0.114)
"""The weights of red, green and blue (ITU-R BT.601)."""

_SOBEL = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))

_CONSTANT = 1e-9
"""If an image's distance from the mean image is smaller, they differ only by rounding: pixels are multiples of
1/127.5."""


def shrunk(images: Images, side: int) -> Tensor:
    """Returns (N, 3, side, side) in [-1, 1] for images of any sizes. Each value is the mean of its area."""
    each = (Images([pixels]).tensor() for pixels in images.pixels)
    return torch.cat([interpolate(image, (side, side), mode="area") for image in each])


def colours(images: Images) -> Tensor:
    """Returns the colours (N, 192) of images of any sizes: RGB on an 8x8 grid."""
    return shrunk(images, COLOUR_SIDE).flatten(1)


def edges(images: Images) -> Tensor:
    """Returns the edge strengths (N, 900) of images of any sizes: the norm of the luminance's Sobel gradient at 32x32
    pixels, without the border."""
    luminance = (shrunk(images, EDGE_SIDE) * torch.tensor(_LUMA)[:, None, None]).sum(1, keepdim=True)
    across = torch.tensor(_SOBEL)
    gradient = conv2d(luminance, torch.stack([across, across.T])[:, None])
    return gradient.square().sum(1).sqrt().flatten(1)


def agreement(inputs: Tensor, outputs: Tensor) -> ganlab.Estimate:
    """Returns the mean of cos(x - mean of x, y - mean of y) over the pairs of two sets (N, D).

    Subtracting the means removes what all images of a set have in common. The result is 1 if both sets are equal and -1
    if one is the negative of the other. `chance` is its expectation over all permutations of the outputs. An image that
    equals its set's mean contributes 0. Raises Unavailable if there are fewer than two pairs.
    """
    x, y = (_directions(vectors) for vectors in (inputs, outputs))
    return estimates.mean((x * y).sum(1).numpy(), chance=float(x.mean(0) @ y.mean(0)))


def _directions(vectors: Tensor) -> Tensor:
    centred = vectors.double() - vectors.double().mean(0)
    norms = centred.norm(dim=1, keepdim=True)
    return torch.where(norms > _CONSTANT, centred / norms, 0.0)
