"""Improved precision and recall (arXiv:1904.06991), density and coverage (arXiv:2002.09797) of two samples."""

from __future__ import annotations

from itertools import count as counting
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

from ganlab.errors import Unavailable
from ganlab.evaluation.estimates import GROUPS, jackknife, proportion, refuse_fewer
from ganlab.interfaces.metrics import Estimate

Array = np.ndarray[Any, Any]

NUMBERS = ("precision", "recall", "density", "coverage")

BLOCK = 1 << 22
"""The number of distances within a sample that are in memory at once."""


def estimate(x: Array, y: Array, k: int, seed: int) -> dict[str, Estimate]:
    """Returns {name: estimate} for NUMBERS, of outputs' vectors (n, D) against real vectors (m, D).

    The ball of an image reaches to its k-th nearest neighbour in its own sample, the image itself not counted.

    - Precision is the fraction of outputs in the ball of some real image. Recall is the fraction of real images in the
      ball of some output. Balls are closed, as in the paper's eq. 1.
    - Density is the mean number of real images' balls that contain an output, over k. Coverage is the fraction of real
      images with an output in their ball. Balls are open, as in the authors' code, so that a set's density against
      itself is 1.

    Distances are computed from differences in float64, so that duplicates are exactly 0 apart. All n m distances are in
    memory.

    The 95% intervals come from a jackknife that leaves out each of twenty random groups of each sample. The interval of
    a fraction is at least as wide as Wilson's, because a jackknife sees no variance in a fraction of 0 or 1. Intervals
    tend to be too wide.

    Raises Unavailable if a sample is too small for k.
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
    """Clips the interval to the possible values. For a fraction of `trials`, widens it to Wilson's interval."""
    if trials is None:
        return estimate._replace(low=max(0.0, estimate.low))
    wilson = proportion(np.arange(trials) < round(estimate.value * trials))
    return estimate._replace(
        low=max(0.0, min(estimate.low, wilson.low)), high=min(1.0, max(estimate.high, wilson.high))
    )


def _largest_group(count: int) -> int:
    return -(-count // min(GROUPS, count))


def fewest(k: int) -> int:
    """Returns the smallest number of images with which each has k others, even without one group of the jackknife."""
    return max(4, next(n for n in counting(k + 2) if n - _largest_group(n) > k))


def _refuse_too_few(what: str, count: int, k: int) -> None:
    """Raises Unavailable if there are fewer images than k neighbours need."""
    refuse_fewer({what: count}, 4)
    if count < (least := fewest(k)):
        raise Unavailable(f"needs at least {least} images ({what}) for k = {k} neighbours, and there are {count}")


class _Neighbours:
    """The nearest neighbours of each vector: enough to find the k-th one when any group is left out."""

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
        """Returns the distance from each member to the k-th nearest other member.

        `members` are indices that leave out one group at most.
        """
        here = np.zeros(len(self._numbers), bool)
        here[members] = True
        met = np.cumsum(here[self._numbers[members]], axis=1)
        kth = (met >= self._k).argmax(1)
        radii: Array = self._distances[members, kth]
        return radii
