"""The places where trials run: this machine, or a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ganlab.comparison import processes
from ganlab.comparison.cluster import check_ray, on_ray
from ganlab.comparison.running import Start


def check_place(on: str | None) -> None:
    """Raises SpecError if trials can't run at a place."""
    if on is not None:
        check_ray(on)


@contextmanager
def place(on: str | None) -> Iterator[Start]:
    """Yields the function that starts trials at a place: None for this machine, otherwise a Ray cluster."""
    if on is None:
        yield processes.start
    else:
        with on_ray(on) as start:
            yield start


def most_at_a_time(jobs: int | None, on: str | None) -> int | None:
    """Returns the number of trials that run at a time, None for as many as have room in a cluster."""
    return jobs if on is not None else jobs or 1
