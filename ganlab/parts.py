"""The equal parts of a batch. A process computes one part after another and averages their gradients."""

from __future__ import annotations

from typing import NamedTuple

from ganlab.errors import SpecError, plural


class Part(NamedTuple):
    """One of the equal parts of a batch. Part 0 has the first images."""

    number: int = 0
    parts: int = 1

    def rows(self, images: int) -> slice:
        """Returns the rows of the whole batch that a part with this number of images has."""
        return slice(self.number * images, (self.number + 1) * images)


WHOLE = Part()
"""The whole batch."""


def parts_of(accumulate: int) -> list[Part]:
    """Returns the parts that this process computes, one after the other."""
    return [Part(number, accumulate) for number in range(accumulate)]


def check_parts(batch: int, accumulate: int, where: str) -> None:
    """Raises SpecError if `batch` images have no equal parts. `where` names the spec."""
    if batch % accumulate:
        parts = plural(accumulate, "equal part")
        raise SpecError(
            f"{where}: {accumulate} is not allowed: data.batch, {plural(batch, 'image')}, can't be divided into {parts}"
        )
