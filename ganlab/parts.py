"""The equal parts of a batch, whose gradients are averaged: each process computes some of them, one after the other."""

from __future__ import annotations

from typing import NamedTuple

from ganlab import distributed
from ganlab.errors import SpecError, plural


class Part(NamedTuple):
    """One of the equal parts of a batch. Part 0 has the first images."""

    number: int = 0
    parts: int = 1

    @property
    def turn(self) -> Part:
        """The larger part of the batch that all processes compute at the same time; it includes this part."""
        return Part(self.number // distributed.size(), self.parts // distributed.size())

    def rows(self, images: int) -> slice:
        """Returns the rows of the whole batch that a part with this number of images has."""
        return slice(self.number * images, (self.number + 1) * images)


WHOLE = Part()
"""The whole batch."""


def own_parts(accumulate: int) -> list[Part]:
    """Returns the parts that this process computes, `accumulate` of them. The processes take turns, from rank 0 on."""
    ranks, rank = distributed.size(), distributed.rank()
    return [Part(turn * ranks + rank, accumulate * ranks) for turn in range(accumulate)]


def check_parts(batch: int, accumulate: int, where: str, ranks: int = 1) -> None:
    """Raises SpecError if a batch of `batch` images has no equal parts for `ranks` processes. `where` begins the
    message."""
    if batch % (parts := accumulate * ranks):
        shared = f" in each of {ranks} processes" if ranks > 1 else ""
        raise SpecError(
            f"{where}: {accumulate}{shared} is not allowed: data.batch, {plural(batch, 'image')}, can't be divided into"
            f" {plural(parts, 'equal part')}"
        )
