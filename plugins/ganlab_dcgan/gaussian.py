"""Gaussian latents stored in noise images, so that they are held out, shown in grids and hashed as other images are.

If a generator drew its latents, each evaluation would have other latents, and a grid could not show an output beside
its latent. A Gaussian rounded to the 256 values of a pixel has no tails. So the images hold uniform bytes, and three
bytes make one normal number in float32 precision.
"""

import math
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
    return (math.sqrt(2) * torch.erfinv(u))[:, :, None, None]
