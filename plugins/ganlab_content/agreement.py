"""What a translation kept of its input that needs no labels: where its colours are, and where its edges are."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate

import ganlab
from ganlab.evaluation import estimates
from ganlab.evaluation.evidence import Images

COLOUR_SIDE = 8
EDGE_SIDE = 32

_LUMA = (0.299, 0.587, 0.114)
"""Of red, green and blue (ITU-R BT.601)."""

_SOBEL = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))

_CONSTANT = 1e-9
"""A centred image with a smaller norm is the mean image but for rounding; pixels are multiples of 1/127.5."""


def shrunk(images: Images, side: int) -> Tensor:
    """Images of any sizes -> (N, 3, side, side) in [-1, 1], each value the mean of its area."""
    each = (Images([pixels]).tensor() for pixels in images.pixels)
    return torch.cat([interpolate(image, (side, side), mode="area") for image in each])


def colours(images: Images) -> Tensor:
    """Images of any sizes -> their colours (N, 192), RGB on an 8x8 grid."""
    return shrunk(images, COLOUR_SIDE).flatten(1)


def edges(images: Images) -> Tensor:
    """Images of any sizes -> the strength of their edges (N, 900): the norm of Sobel's gradient of the luminance, at
    32x32 pixels, without the border."""
    luminance = (shrunk(images, EDGE_SIDE) * torch.tensor(_LUMA)[:, None, None]).sum(1, keepdim=True)
    across = torch.tensor(_SOBEL)
    gradient = conv2d(luminance, torch.stack([across, across.T])[:, None])
    return gradient.square().sum(1).sqrt().flatten(1)


def agreement(inputs: Tensor, outputs: Tensor) -> ganlab.Estimate:
    """Two sets (N, D), pair by pair -> the mean over pairs of cos(x - mean of x, y - mean of y).

    Without the means, what all images of a set have in common counts for nothing. It is 1 where both sets are the
    same, -1 where one is the other's negative; `chance` is its expectation over all permutations of the outputs.
    An image that is its set's mean agrees with nothing, 0. Raises Unavailable where there are fewer than two pairs.
    """
    x, y = (_directions(vectors) for vectors in (inputs, outputs))
    return estimates.mean((x * y).sum(1).numpy(), chance=float(x.mean(0) @ y.mean(0)))


def _directions(vectors: Tensor) -> Tensor:
    centred = vectors.double() - vectors.double().mean(0)
    norms = centred.norm(dim=1, keepdim=True)
    return torch.where(norms > _CONSTANT, centred / norms, 0.0)
