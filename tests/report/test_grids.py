"""Sample grids, pixel by pixel: odd columns inputs, even columns the outputs beside them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import skimage.io
import torch
from torch import Tensor

from ganlab.data.dataset import normalised
from ganlab.data.image_files import to_uint8
from ganlab.report.grids import GAP, MARGIN, STRIP, png, sample_grid

Array = np.ndarray[Any, np.dtype[Any]]
SIZE = 6


def stored(count: int, seed: int, channels: int = 3) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, SIZE, SIZE), dtype=torch.uint8, generator=random)


def shown(images: Tensor) -> Array:
    """Returns tensors (N, C, H, W) as pictures (N, H, W, 3)."""
    return np.repeat(images.numpy(), 3 // images.shape[1], axis=1).transpose(0, 2, 3, 1)


def cells(grid: Array, rows: int, top: int) -> Array:
    """Returns the images of a block of full rows, (rows, 8, H, W, 3), found by the constants of the layout."""
    found = np.zeros((rows, 8, SIZE, SIZE, 3), np.uint8)
    for row in range(rows):
        for column in range(8):
            y = top + STRIP + row * (SIZE + GAP)
            x = MARGIN + column * (SIZE + GAP) + column // 2 * MARGIN
            found[row, column] = grid[y : y + SIZE, x : x + SIZE]
    return found


@pytest.mark.parametrize("channels", [(1, 1), (3, 3), (1, 3)])
def test_inputs_are_in_odd_columns_and_outputs_in_even_ones_for_both_directions(channels: tuple[int, int]) -> None:
    a, b = channels
    images = [stored(8, seed, count) for seed, count in enumerate((a, b, b, a))]
    inputs_ab, outputs_ab, inputs_ba, outputs_ba = (normalised(i, torch.float32) for i in images)
    grid = np.array(sample_grid({"ab": (inputs_ab, outputs_ab), "ba": (inputs_ba, outputs_ba)}))
    assert grid.shape == (2 * (STRIP + 2 * (SIZE + GAP) + MARGIN), 4 * (2 * (SIZE + GAP) + MARGIN) + MARGIN, 3)
    for block, (inputs, outputs) in enumerate((images[:2], images[2:])):
        found = cells(grid, 2, block * grid.shape[0] // 2)
        # counted from one, as the results' captions do
        odd, even = found[:, 0::2], found[:, 1::2]
        assert (odd.reshape(8, SIZE, SIZE, 3) == shown(inputs)).all()
        assert (even.reshape(8, SIZE, SIZE, 3) == shown(outputs)).all()


def test_around_the_pictures_there_is_white_and_the_directions_name() -> None:
    black = torch.full((8, 3, SIZE, SIZE), -1.0)
    grid = np.array(sample_grid({"ab": (black, black)}))
    assert (grid[STRIP:] == 0).all(-1).sum() == 16 * SIZE * SIZE
    assert ((grid[STRIP:] == 0) | (grid[STRIP:] == 255)).all()
    other = np.array(sample_grid({"ba": (black, black)}))
    assert 20 < (grid[:STRIP] < 255).any(-1).sum() < 0.5 * grid[:STRIP].size
    assert (grid[:STRIP] != other[:STRIP]).any()
    assert (grid[STRIP:] == other[STRIP:]).all()


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (3, 1, 3), (4, 1, 4), (5, 2, 4), (9, 3, 4)])
def test_a_row_that_is_not_full_is_left_white(count: int, rows: int, columns: int) -> None:
    gray = torch.zeros(count, 3, SIZE, SIZE)
    grid = np.array(sample_grid({"ab": (gray, gray)}))
    assert grid.shape[0] == STRIP + rows * (SIZE + GAP) + MARGIN
    assert grid.shape[1] == columns * (2 * (SIZE + GAP) + MARGIN) + MARGIN
    assert (grid[STRIP:] == 128).all(-1).sum() == 2 * count * SIZE * SIZE


def test_a_gray_domain_can_stand_beside_a_coloured_one() -> None:
    gray, colour = stored(8, 1, 1), stored(8, 2, 3)
    grid = np.array(sample_grid({"ab": (normalised(gray, torch.float32), normalised(colour, torch.float32))}))
    found = cells(grid, 2, 0)
    assert (found[:, 0::2].reshape(8, SIZE, SIZE, 3) == shown(gray)).all()
    assert (found[:, 1::2].reshape(8, SIZE, SIZE, 3) == shown(colour)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_stored_value_comes_back_as_it_was(dtype: torch.dtype) -> None:
    values = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert (to_uint8(normalised(values, dtype))[0, ..., 0] == values[0, 0].numpy()).all()


def test_values_beyond_the_range_are_clamped_and_others_rounded() -> None:
    values = torch.tensor([-9.0, -1.001, -1.0, 0.0, 0.999, 1.0, 1.001, 9.0, 0.4 / 127.5 - 1, 0.6 / 127.5 - 1])
    found = to_uint8(values.reshape(1, 1, 1, -1))[0, 0, :, 0].tolist()
    assert found == [0, 0, 0, 128, 255, 255, 255, 255, 0, 1]


def test_a_gradient_is_no_hindrance_and_the_images_are_left_alone() -> None:
    images = torch.full((1, 3, SIZE, SIZE), 2.0, requires_grad=True)
    sample_grid({"ab": (images, images)})
    assert (images == 2).all()


def test_the_file_holds_the_pictures_exactly() -> None:
    images = normalised(stored(4, 1), torch.float32)
    grid = sample_grid({"ab": (images, images)})
    content = png(grid)
    assert (skimage.io.imread(io.BytesIO(content)) == np.array(grid)).all()
    assert png(grid) == content
