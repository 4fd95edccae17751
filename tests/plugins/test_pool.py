"""The pool of past fakes against one written as a plain list."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ganlab_cyclegan.pool import Pool
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

SHAPE = (2, 3, 4)


class AsList:
    """CycleGAN's pool, section 4, as a list. Each fake is represented by its number."""

    def __init__(self, size: int) -> None:
        self.size, self.kept = size, list[int]()

    def show(self, number: int, coin: float, place: float) -> int:
        if len(self.kept) < self.size:
            self.kept.append(number)
            return number
        if coin <= 0.5:
            return number
        index = int(place * self.size)
        old, self.kept[index] = self.kept[index], number
        return old


def fakes(numbers: range, dtype: torch.dtype = torch.float64) -> Tensor:
    """Fakes that can be told apart: each pixel of one is its number and the pixel's place."""
    place = torch.arange(24, dtype=dtype).reshape(SHAPE) / 32
    return torch.stack([number + place for number in numbers])


def numbers(shown: Tensor) -> list[int]:
    found = shown[:, 0, 0, 0].long().tolist()
    torch.testing.assert_close(shown, torch.cat([fakes(range(n, n + 1), shown.dtype) for n in found]), rtol=0, atol=0)
    return list(found)


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("size", [1, 5, 6, 20])
def test_the_pool_is_a_list(size: int, batch: int) -> None:
    pool, plain = Pool(size, *SHAPE).double(), AsList(size)
    random = np.random.default_rng(size * 10 + batch)
    swapped = 0
    for start in range(0, 120, batch):
        given = range(start, start + batch)
        draws = random.random((batch, 2))
        shown = numbers(pool(fakes(given), torch.from_numpy(draws)))
        assert shown == [plain.show(n, coin, place) for n, (coin, place) in zip(given, draws, strict=True)]
        assert numbers(pool.images[: pool.held]) == plain.kept
        assert int(pool.held) == min(size, start + batch)
        swapped += sum(n not in given for n in shown)
    assert swapped > 10


class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations."""

    count = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return operation(*args, **(kwargs or {}))


def test_the_number_of_operations_does_not_depend_on_the_batch() -> None:
    counts = set()
    for batch in (1, 4, 32):
        with Counting() as operations:
            Pool(5, *SHAPE)(fakes(range(batch), torch.float32), torch.zeros(batch, 2))
        counts.add(operations.count - batch)
    assert len(counts) == 1


def test_until_it_is_full_it_passes_every_fake_on() -> None:
    """Draws have no effect until the pool is full. From the next fake on they have, even within a batch."""
    pool = Pool(3, *SHAPE).double()
    always = torch.tensor([[0.99, 0.0]] * 5, dtype=torch.float64)
    assert numbers(pool(fakes(range(5)), always)) == [0, 1, 2, 0, 3]
    assert numbers(pool.images) == [4, 1, 2]


def test_half_of_the_fakes_come_from_the_pool_and_every_place_equally_often() -> None:
    size, count = 4, 4000
    pool = Pool(size, *SHAPE).double()
    pool(fakes(range(size)), torch.zeros(size, 2, dtype=torch.float64))
    draws = torch.from_numpy(np.random.default_rng(0).random((count, 2)))
    shown = numbers(pool(fakes(range(size, size + count)), draws))
    old = [n != size + index for index, n in enumerate(shown)]
    assert abs(sum(old) / count - 1 / 2) < 5 * (1 / 4 / count) ** 0.5
    # a stored fake stays for 2 * size fakes on average
    ages = [size + index - n for index, n in enumerate(shown) if old[index]]
    assert abs(sum(ages) / len(ages) - 2 * size) < 5 * (2 * size) / len(ages) ** 0.5


def test_a_draw_that_was_rounded_up_to_one_is_the_last_place() -> None:
    """The largest draws are 1 in float32."""
    pool = Pool(3, *SHAPE)
    pool(fakes(range(3), torch.float32), torch.zeros(3, 2))
    draws = torch.full((1, 2), 1 - 2.0**-53, dtype=torch.float64).float()
    assert draws.max() == 1
    assert numbers(pool(fakes(range(3, 4), torch.float32), draws)) == [2]
    assert numbers(pool.images) == [0, 1, 3]


def test_its_buffers_are_its_state() -> None:
    """Later changes of a fake do not change the buffers. A pool that loads the buffers continues equally."""
    pool = Pool(2, *SHAPE).double()
    given = fakes(range(2))
    pool(given, torch.zeros(2, 2, dtype=torch.float64))
    given.zero_()
    assert numbers(pool.images) == [0, 1]
    again = Pool(2, *SHAPE).double()
    again.load_state_dict(pool.state_dict())
    draws = torch.tensor([[0.9, 0.6]], dtype=torch.float64)
    assert numbers(pool(fakes(range(2, 3)), draws)) == numbers(again(fakes(range(2, 3)), draws)) == [1]
