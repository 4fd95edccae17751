"""Gaussian latents stored in noise images, so that they are held out, shown in grids and hashed as other images are.

If a generator drew its latents, each evaluation would have other latents, and a grid could not show an output beside
its latent. A Gaussian rounded to the 256 values of a pixel has no tails. So the images hold uniform bytes, and three
bytes make one normal number in float32 precision.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

import ganlab
from ganlab.determinism import keyed

BYTES = 3
"""The number of bytes that make one latent number."""


class Gaussian(ganlab.Source):
    """Noise images that hold Gaussian latents: each pixel is uniform in 0..255.

    `ganlab_dcgan.gaussian.latents` computes the latents. The domains share no image. A mirrored image holds other,
    equally valid latents.

    Args:
        count: the number of images of each domain.
    """

    channels = 1

    def __init__(self, count: Annotated[int, Field(ge=2, le=10**6)] = 10_000) -> None:
        self._count = count

    def keys(self, domain: str) -> list[str]:
        """Returns "a-00000", "a-00001", ... for domain "a"."""
        return [f"{domain}-{index:05d}" for index in range(self._count)]

    def image(self, key: str, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Returns noise (size, size, 1), the same for the same key and size."""
        return keyed("gaussian", key).integers(0, 256, (size, size, 1), np.uint8)


def latents(images: Tensor, count: int) -> Tensor:
    """Returns standard normal latents (N, count, 1, 1) for images (N, C, H, W) of uniform bytes, scaled to [-1, 1].

    z = sqrt(2) erfinv(u), where u in (-1, 1) is the middle of one of 2^24 intervals; |z| < 5.43. The first 3 `count`
    pixels are read.
    """
    pixels = ((images.flatten(1)[:, : BYTES * count] + 1) * 127.5).round()
    high, middle, low = pixels.reshape(-1, count, BYTES).unbind(2)
    # in this order every intermediate is an integer below 2^24, which float32 holds exactly
    place = (high - 128) * 2**16 + middle * 2**8 + low
    u = (2 * place + 1) / 2**24
    return (math.sqrt(2) * _erfinv(u))[:, :, None, None]


# polynomials of Giles, "Approximating the erfinv function" (GPU Computing Gems, 2011), from the highest power
_CENTRE = (
    *(2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 2.1858087e-04),
    *(-1.25372503e-03, -4.17768164e-03, 2.46640727e-01, 1.50140941),
)
_TAILS = (
    *(-2.00214257e-04, 1.00950558e-04, 1.34934322e-03, -3.67342844e-03, 5.73950773e-03),
    *(-7.6224613e-03, 9.43887047e-03, 1.00167406, 2.83297682),
)


def _erfinv(u: Tensor) -> Tensor:
    """Returns the inverse error function, to float32's precision."""
    # ONNX has no such operator
    return _approximate_erfinv(u) if torch.compiler.is_compiling() else torch.erfinv(u)


def _approximate_erfinv(u: Tensor) -> Tensor:
    w = -torch.log((1 - u) * (1 + u))
    return u * torch.where(w < 5, _polynomial(_CENTRE, w - 2.5), _polynomial(_TAILS, torch.sqrt(w) - 3))


def _polynomial(factors: Sequence[float], x: Tensor) -> Tensor:
    value = torch.full_like(x, factors[0])
    for factor in factors[1:]:
        value = factor + value * x
    return value
