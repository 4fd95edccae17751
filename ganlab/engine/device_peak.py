"""Measures the peak of a device: its floating-point operations and its memory traffic in a second."""

from __future__ import annotations

from typing import NamedTuple

import torch

from ganlab.torch_utils import timed

ROUNDS = 5
"""The number of timed operations. The fastest is the peak."""

SIDES = {"cuda": 8192, "mps": 4096}
"""{type of device: the side of the multiplied square matrices}, large enough to use the whole device."""

SIDE = 2048
"""The side for any other device."""

COPIED = 256 * 2**20
"""The bytes of the copied tensor, more than caches hold."""


class Peak(NamedTuple):
    """What a device does in a second at most, as measured."""

    flops: float
    """Floating-point operations of a product of square matrices; a multiplication and an addition are two."""
    bytes: float
    """Bytes read and written by a copy within the device's memory."""


def measure_peak(device: torch.device, dtype: torch.dtype) -> Peak:
    """Times a product of two matrices of a type, and a copy. Float32 products use TF32 if torch is set to it."""
    side = SIDES.get(device.type, SIDE)
    # random: a GPU multiplies constants at a higher clock, because they take less power
    one, other = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    product = min(timed(lambda: one @ other, ROUNDS, device))
    source = torch.ones(COPIED, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = min(timed(lambda: target.copy_(source), ROUNDS, device))
    return Peak(2 * side**3 / product, 2 * COPIED / copy)
