"""Improved precision and recall (arXiv:1904.06991), density and coverage (arXiv:2002.09797) of two samples."""

from __future__ import annotations

from itertools import count as counting
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

from ganlab.errors import Unavailable
from ganlab.evaluation.estimates import GROUPS, jackknife, proportion, refuse_fewer
from ganlab.interfaces import Estimate

Array = np.ndarray[Any, Any]

NUMBERS = ("precision", "recall", "density", "coverage")

BLOCK = 1 << 22
"""So many distances within a sample are in memory at once."""


def estimate(x: Array, y: Array, k: int, seed: int) -> dict[str, Estimate]:
    """{each of NUMBERS: estimate} of outputs' vectors (n, D) against real ones (m, D), with 95% intervals.

    The ball of an image reaches to its k-th nearest neighbour in its own sample, itself not counted. Then

    - precision is the fraction of outputs in the ball of a real image, recall that of real images in the ball of an
      output; balls are closed, as in the paper's eq. 1;
    - density is the number of real images' balls that an output is in, over k, on average; coverage is the fraction of
      real images with an output in their ball; balls are open, as in the authors' code, so that the density of a set
      against itself is 1.

    Distances are those of differences in float64: duplicates are at 0 exactly. All n m of them are in memory.

    The intervals are the jackknife's that leaves out each of twenty seeded groups of each sample; those of fractions
    are not narrower than Wilson's, since no image left out shows that all of twenty is not all. They err towards too
    wide.

    Raises Unavailable where a sample is too small for k.
    """
    for what, sample in (("outputs", x), ("real", y)):
        _refuse_too_few(what, len(sample), k)
    outputs, reals, between = _Neighbours(x, k), _Neighbours(y, k), cdist(y, x)

    def numbers(i: Array, j: Array) -> list[float]:
        distances = between[np.ix_(j, i)]  # (real, outputs)
        real, output = reals.radii(j)[:, None], outputs.radii(i)[None, :]
        inside = distances < real
        return [
            float((distances <= real).any(0).mean()),
            float((distances <= output).any(1).mean()),
            float(inside.sum(0).mean() / k),
            float(inside.any(1).mean()),
        ]

    found = dict(zip(NUMBERS, jackknife(numbers, (len(x), len(y)), seed), strict=True))
    trials = {"precision": len(x), "recall": len(y), "density": None, "coverage": len(y)}
    return {name: _bounded(found[name], trials[name]) for name in NUMBERS}


def _bounded(estimate: Estimate, trials: int | None) -> Estimate:
    """Its interval within what is possible; that of a fraction of so many trials not narrower than Wilson's."""
    if trials is None:
        return estimate._replace(low=max(0.0, estimate.low))
    wilson = proportion(np.arange(trials) < round(estimate.value * trials))
    return estimate._replace(
        low=max(0.0, min(estimate.low, wilson.low)), high=min(1.0, max(estimate.high, wilson.high))
    )


def _largest_group(count: int) -> int:
    return -(-count // min(GROUPS, count))


def _refuse_too_few(what: str, count: int, k: int) -> None:
    """With any group left out, each image needs k others."""
    least = next(n for n in counting(k + 2) if n - _largest_group(n) > k)
    refuse_fewer({what: count}, 4)
    if count < least:
        raise Unavailable(f"needs at least {least} images ({what}) for k = {k} neighbours, and there are {count}")


class _Neighbours:
    """The nearest neighbours of each of a sample, as many as a sample without one group can need."""

    def __init__(self, sample: Array, k: int) -> None:
        self._k, count = k, len(sample)
        depth = k + _largest_group(count)
        self._distances, self._numbers = np.empty((count, depth)), np.empty((count, depth), np.intp)
        rows = max(1, BLOCK // count)
        for start in range(0, count, rows):
            block = slice(start, start + rows)
            distances = cdist(sample[block], sample)
            own = np.arange(len(distances))
            distances[own, start + own] = np.inf
            nearest = np.argpartition(distances, depth - 1, axis=1)[:, :depth]
            near = np.take_along_axis(distances, nearest, 1)
            order = near.argsort(axis=1)
            self._distances[block] = np.take_along_axis(near, order, 1)
            self._numbers[block] = np.take_along_axis(nearest, order, 1)

    def radii(self, members: Array) -> Array:
        """The distance of each of these to the k-th nearest other of them; all but one group at most are members."""
        here = np.zeros(len(self._numbers), bool)
        here[members] = True
        met = np.cumsum(here[self._numbers[members]], axis=1)
        kth = (met >= self._k).argmax(1)
        radii: Array = self._distances[members, kth]
        return radii
