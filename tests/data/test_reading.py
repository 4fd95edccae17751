"""`in_threads`: the order of the items, and how many are computed ahead."""

from __future__ import annotations

import threading

import pytest

from ganlab.data.reading import in_threads


def test_the_results_keep_the_order_of_the_items() -> None:
    first_is_last = threading.Event()

    def one(item: int) -> int:
        if item:
            first_is_last.set()
        else:
            assert first_is_last.wait(60)
        return -item

    assert list(in_threads(one, range(100), 2)) == [-item for item in range(100)]
    assert list(in_threads(one, [], 2)) == []


def test_who_stops_waits_for_few() -> None:
    seen: list[int] = []
    found = in_threads(seen.append, range(10_000), 2)
    for _ in range(3):
        next(found)
    found.close()
    # the third has been taken, and two more begun in its and its forerunner's place
    assert len(seen) <= 2 + 2 * 2


def test_an_error_reaches_the_caller_after_what_came_before() -> None:
    found = in_threads(lambda item: 1 // (item - 2), range(10_000), 2)
    assert [next(found), next(found)] == [-1, -1]
    with pytest.raises(ZeroDivisionError):
        next(found)
