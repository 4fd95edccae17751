"""Finds borders that are no part of a picture: repeated edges, and bars of one colour."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float32]]

_LEAST_BAR, _LEAST_REPEATED, _PIXELS = 0.03, 0.05, 4
"""The smallest bar and the fewest equal rows that are reported, as a share of the height or width, and in pixels."""

REPEATED = 0.15
"""The most that a repeated edge changes across itself, relative to its changes along itself. Compression makes it
change a little."""

_ROW = 0.4
"""The same for a single row: one that compression has mixed with the picture."""

_EDGE = 24.0
"""The most that a difference of two neighbours counts, of 255: a few upright edges are no stripes."""

_DETAIL, _STRIPES = 0.25, 0.1
"""The least mean difference of neighbours along a repeated edge, of 255, and the least share of neighbours that differ.

A wall of one colour also has equal rows, and so does a drawing with few upright lines."""

_STEP = 20.0
"""The difference from the colour of a bar at which the picture begins, of 255. Compression leaves less on a bar."""

_FLAT, _CONTINUES = 3.0, 8.0
"""The most that a bar differs from its colour in the mean, of 255, and the most that a background differs from its own
a little further in."""

_SPECKS, _MIXED = 0.03, 2
"""The largest share of columns in which compression may have left a speck on a bar, and the most rows at its end that
are a mixture of the bar and the picture."""

_BLOCK = 8
"""The height of the blocks of JPEG: compression mixes no rows that are further apart."""

_ALIKE = 12.0
"""The largest difference between the colours of two bars of one picture, of 255."""

_BOTH, _ONE = 0.3, 0.85
"""The least share of columns in which a bar ends on one straight line: each of two bars of one colour, and a bar on one
side alone. A plain background has one colour too, but does not end on a straight line."""

_ENDS = 0.8
"""The least share of columns in which a bar ends at all there. The background of a drawing continues beside a flat
head."""


def repeated_edge(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> bool:
    """Returns True if a side of a picture (H, W, 3) ends in copies of one row or column.

    Cutting a square around a face that is near the edge of its picture leaves such a border, as in IMDB-WIKI.
    """
    return any(_repeats(side) >= max(_PIXELS, _LEAST_REPEATED * side.shape[1]) for side in _sides(pixels))


def letterbox(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> bool:
    """Returns True if a picture (H, W, 3) has bars of one colour above and below it, left and right of it, or on one
    side."""
    top, bottom, left, right = (_bar(side) for side in _sides(pixels))
    if max(share for _, share in (top, bottom, left, right)) >= _ONE:
        return True
    return any(
        min(one[1], other[1]) >= _BOTH and np.abs(one[0] - other[0]).max() <= _ALIKE
        for one, other in ((top, bottom), (left, right))
    )


def _sides(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> Iterator[Floats]:
    """Yields the picture four times, (3, rows, columns), turned so that its top, bottom, left and right side comes
    first.

    A picture that is too small to have a border and something inside it is one of black pixels.
    """
    if min(pixels.shape[:2]) <= 2 * _PIXELS:
        pixels = np.zeros((4 * _PIXELS, 4 * _PIXELS, 3), np.uint8)
    values = np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32)
    across = np.ascontiguousarray(values.transpose(0, 2, 1))
    yield from (values, values[:, ::-1], across, across[:, ::-1])


def _repeats(side: Floats) -> int:
    """Returns the number of rows that repeat the first one."""
    outer = side[:, : side.shape[1] // 2 + 1]
    across = np.abs(np.diff(outer, axis=1)).mean((0, 2))
    neighbours = np.abs(np.diff(outer[:, :-1], axis=2)).mean(0)
    along = neighbours.clip(max=_EDGE).mean(1)
    apart = np.flatnonzero(across > _ROW * along)
    end = apart[0] if len(apart) else len(along)
    repeats = np.flatnonzero(across[:end].cumsum() <= REPEATED * along[:end].cumsum())
    if not len(repeats):
        return 0
    rows = int(repeats[-1]) + 1
    shows = along[:rows].mean() >= _DETAIL and (neighbours[:rows] > 1).mean() >= _STRIPES
    return rows + 1 if shows else 0


def _bar(side: Floats) -> tuple[Floats, float]:
    """Returns the colour of the first row, and the share of the columns in which a bar of that colour ends on one
    straight line; 0 if there is no bar."""
    rows, colour = side.shape[1], np.median(side[:, 0], axis=1)
    apart = np.abs(side[:, : rows // 2 + 2 * _BLOCK] - colour[:, None, None]).max(0)
    differs = apart > _STEP
    ends = np.where(differs.any(0), differs.argmax(0), rows)
    first = int(np.quantile(ends, _SPECKS))
    flat = apart[: max(1, first - _BLOCK)].mean() <= _FLAT
    if not flat or not max(_PIXELS, _LEAST_BAR * rows) <= first < len(apart):
        return colour, 0.0
    shares = [((ends >= line) & (ends <= line + _MIXED)).mean() for line in range(first, first + _BLOCK + 1)]
    line = first + int(np.argmax(shares))
    behind = apart[line : line + 2 * _MIXED + 1].max(0)
    return colour, float(max(shares)) if (behind > _CONTINUES).mean() >= _ENDS else 0.0
