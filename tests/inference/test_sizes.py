"""The sizes that a network takes, and the padding to one of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from ganlab.inference.sizes import Needs, find_needs, reflected


def strided(stride: int, least: int = 1) -> Callable[[Tensor], Tensor]:
    """A network whose outputs are as large as the next multiple of `stride`; it refuses less than `least` pixels."""

    def network(images: Tensor) -> Tensor:
        if min(images.shape[2:]) < least:
            raise RuntimeError("too small")
        return images[..., ::stride, ::stride].repeat_interleave(stride, 2).repeat_interleave(stride, 3)

    return network


@pytest.mark.parametrize(
    ("network", "size", "expected"),
    [
        (strided(1), 16, Needs(1, 1)),
        (strided(4), 16, Needs(4, 4)),
        (strided(4, 7), 16, Needs(4, 8)),
        (strided(3, 4), 12, Needs(3, 6)),
        (strided(6, 5), 36, Needs(6, 6)),
        # the last size that is tried is the one that it was trained at
        (strided(4, 12), 12, Needs(4, 12)),
        (lambda images: images[..., :16, :16], 16, None),
    ],
)
def test_the_sizes_are_found(network: Callable[[Tensor], Tensor], size: int, expected: Needs | None) -> None:
    assert find_needs(network, 3, size) == expected


@pytest.mark.parametrize(("length", "padded"), [(1, 8), (8, 8), (9, 12), (12, 12), (6001, 6004)])
def test_a_length_is_padded_to_the_next_that_is_taken(length: int, padded: int) -> None:
    assert Needs(4, 8).of(length) == padded


def test_padding_is_torchs_reflection() -> None:
    images = torch.rand(2, 3, 5, 6)
    assert torch.equal(reflected(images, 9, 11), pad(images, (0, 5, 0, 4), mode="reflect"))
    assert torch.equal(reflected(images, 5, 6), images)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (2, 3), (5, 1)])
def test_a_padding_larger_than_the_image_reflects_again(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).random(shape)
    # numpy repeats the reflection, except for a single row or column, which it repeats as it is
    expected = np.pad(pixels, ((0, 16 - shape[0]), (0, 19 - shape[1])), mode="reflect")
    assert np.array_equal(reflected(torch.from_numpy(pixels)[None, None], 16, 19)[0, 0].numpy(), expected)
