"""Estimates with their 95% intervals: of means, of proportions, of any statistic of two samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import ndtri, stdtrit

from ganlab.draws import keyed
from ganlab.errors import Unavailable
from ganlab.interfaces import Estimate

LEVEL = 0.95
GROUPS = 20
"""Into so many seeded groups the jackknife deals each sample."""

Array = np.ndarray[Any, Any]


def mean(values: Sequence[float] | Array, counted: str = "pairs", chance: float | None = None) -> Estimate:
    """The mean of independent values with Student's interval. Raises Unavailable where there are fewer than two."""
    at = np.asarray(values, np.float64)
    refuse_fewer({counted: len(at)}, 2)
    half = students(len(at) - 1) * float(at.std(ddof=1)) / math.sqrt(len(at))
    value = float(at.mean())
    return Estimate(value, value - half, value + half, {counted: len(at)}, chance)


def proportion(hits: Sequence[bool] | Array, counted: str = "pairs", chance: float | None = None) -> Estimate:
    """How often something holds, with Wilson's interval (1927). Raises Unavailable where there is none to count."""
    count, total = int(np.sum(hits)), len(hits)
    refuse_fewer({counted: total}, 1)
    z, p = float(ndtri((1 + LEVEL) / 2)), count / total
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + (z / (2 * total)) ** 2)
    # at 0 and 1 the ends meet the value, but for rounding
    return Estimate(p, min(p, centre - half), max(p, centre + half), {counted: total}, chance)


def around(value: float, variance: float, counts: Mapping[str, int], freedom: float = math.inf) -> Estimate:
    """An interval on the scale of the value, from the variance of the statistic."""
    half = students(freedom) * math.sqrt(variance)
    return Estimate(value, value - half, value + half, dict(counts))


def students(freedom: float) -> float:
    """By how many standard deviations a 95% interval reaches, with so many degrees of freedom."""
    return float(stdtrit(freedom, (1 + LEVEL) / 2))


def groups(count: int, *key: int | str) -> Array:
    """(count,): to which of at most `GROUPS` groups each of a sample belongs, dealt at random by the key."""
    return keyed("groups", count, *key).permutation(count) % min(GROUPS, count)


def jackknife_variance(left_out: Array) -> Array:
    """(G, ...) values of a statistic, each without one group -> its variance (...) (Efron and Stein, 1981: on
    average not below the true one)."""
    count = len(left_out)
    variance: Array = (count - 1) / count * ((left_out - left_out.mean(0)) ** 2).sum(0)
    return variance


def jackknifed(value: float, left_out: Sequence[Array], counts: Mapping[str, int]) -> Estimate:
    """An estimate from a statistic's values without each group, (G,) for each sample: the samples' variances add up."""
    variance = sum(float(jackknife_variance(without)) for without in left_out)
    return around(value, variance, counts, min(map(len, left_out)) - 1)


def jackknife(
    statistic: Callable[[Array, Array], Sequence[float] | Array],
    counts: tuple[int, int],
    seed: int,
    names: tuple[str, str] = ("outputs", "real"),
) -> list[Estimate]:
    """Estimates of the numbers that `statistic(i, j)` gives for the members `i` of one sample and `j` of another, both
    arrays of indices. Each group of each sample is left out in turn; the two samples' variances add up.

    Raises Unavailable where a sample has fewer than four.
    """
    refuse_fewer(dict(zip(names, counts, strict=True)), 4)
    everyone = [np.arange(count) for count in counts]
    values = np.asarray(statistic(everyone[0], everyone[1]), np.float64)
    left_out: list[Array] = []
    for side, count in enumerate(counts):
        dealt = groups(count, seed, side)
        without = []
        for group in range(dealt.max() + 1):
            members = [*everyone]
            members[side] = np.flatnonzero(dealt != group)
            without.append(np.asarray(statistic(members[0], members[1]), np.float64))
        left_out.append(np.stack(without))
    counted = dict(zip(names, counts, strict=True))
    return [
        jackknifed(float(value), [side[:, number] for side in left_out], counted) for number, value in enumerate(values)
    ]


def refuse_fewer(counts: Mapping[str, int], least: int) -> None:
    """Raises Unavailable where there are too few."""
    for what, count in counts.items():
        if count < least:
            images = "image" if least == 1 else "images"
            raise Unavailable(
                f"needs at least {least} {images} ({what}), and there {'is' if count == 1 else 'are'} {count}"
            )
