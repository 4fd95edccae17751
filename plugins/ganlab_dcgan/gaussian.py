"""Gaussian latents that are pictures: noise that is kept, held out, shown in grids and hashed as any other images are.

A latent that a generator drew itself would be another one in each evaluation and no one's pair; a Gaussian rounded to a
pixel's 256 values has no tails. So pictures hold uniform bytes, three of which make a normal number that is exact to
what a float32 can tell apart.
"""

import math
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

import ganlab
from ganlab.draws import keyed

BYTES = 3
"""Of which one latent is made."""


class Gaussian(ganlab.Source):
    """`count` pictures of noise, each pixel uniform in 0..255; the domains "a" and "b" share none. `latents` makes
    Gaussian numbers of them. Mirroring a picture gives other latents, as good as its own.

    Args:
        count: how many pictures each domain has.
    """

    channels = 1

    def __init__(self, count: Annotated[int, Field(ge=2)] = 10_000) -> None:
        self._count = count

    def keys(self, domain: str) -> list[str]:
        """ "a-00000", "a-00001", ..."""
        return [f"{domain}-{index:05d}" for index in range(self._count)]

    def image(self, key: str, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Noise (size, size, 1), the same for the same key and size."""
        return keyed("gaussian", key).integers(0, 256, (size, size, 1), np.uint8)


def latents(images: Tensor, count: int) -> Tensor:
    """(N, C, H, W) of uniform bytes in [-1, 1] -> (N, count, 1, 1), standard normal, within 5.43 of 0.

    z = sqrt(2) erfinv(u), the quantile at the middle of one of 2^24 intervals, u in (-1, 1). Of the pixels the first
    3 count are read.
    """
    pixels = ((images.flatten(1)[:, : BYTES * count] + 1) * 127.5).round()
    high, middle, low = pixels.reshape(-1, count, BYTES).unbind(2)
    # in this order each number is a whole one below 2^24, which float32 holds exactly
    place = (high - 128) * 2**16 + middle * 2**8 + low
    u = (2 * place + 1) / 2**24
    return (math.sqrt(2) * torch.erfinv(u))[:, :, None, None]
