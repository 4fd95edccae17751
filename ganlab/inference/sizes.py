"""The sizes of images that a network takes, found by trying, and the padding to such a size."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Needs(NamedTuple):
    """The heights and widths that a network takes."""

    multiple: int
    """Both are multiples of it."""
    least: int
    """Neither is less."""

    def of(self, length: int) -> int:
        """Returns the smallest height or width, from `length` up, that the network takes."""
        return max(-(-length // self.multiple) * self.multiple, self.least)


def find_needs(network: Callable[[Tensor], Tensor], channels: int, size: int) -> Needs | None:
    """Returns the sizes at which the outputs are as large as the inputs, or None if `size` x `size` is the only one.

    `network` takes images (1, channels, H, W) on the CPU. It must take `size` x `size`, so that `multiple` divides
    `size`.
    """

    def takes(height: int, width: int) -> bool:
        try:
            return network(torch.zeros(1, channels, height, width)).shape[-2:] == (height, width)
        # a network refuses a size with an error of any kind
        except Exception:
            return False

    for multiple in (m for m in range(1, size + 1) if size % m == 0):
        # two lengths that have no larger divisor in common
        if takes(size + multiple, size + 2 * multiple):
            least = multiple
            while least < size and not takes(least, least):
                least *= 2
            return Needs(multiple, min(least, size))
    return None


def reflected(images: Tensor, height: int, width: int) -> Tensor:
    """Pads (N, C, H, W) at the bottom and at the right to (N, C, height, width), by reflection.

    The reflection is repeated if the padding is larger than the image.
    """
    rows, columns = (_mirrored(images.shape[dim], size) for dim, size in ((2, height), (3, width)))
    return images[:, :, rows[:, None], columns]


def _mirrored(length: int, padded: int) -> Tensor:
    """Returns the indices 0, 1, ..., length - 1, length - 2, ..., 1, 0, 1, ..., `padded` of them."""
    period = max(2 * length - 2, 1)
    places = torch.arange(padded) % period
    return torch.where(places < length, places, period - places)
