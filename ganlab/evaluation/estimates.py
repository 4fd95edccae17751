"""Estimates with 95% intervals of means, proportions and any statistic of two samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import ndtri, stdtrit

from ganlab.determinism import keyed
from ganlab.errors import Unavailable
from ganlab.interfaces.metrics import Estimate

LEVEL = 0.95
GROUPS = 20
"""The number of random groups into which the jackknife divides each sample."""

Array = np.ndarray[Any, Any]


def mean(values: Sequence[float] | Array, counted: str = "pairs", chance: float | None = None) -> Estimate:
    """Returns the mean of independent values with Student's interval. Raises Unavailable for fewer than two values.

    `counted` names what the values belong to, `chance` is `Estimate.chance`.
    """
    at = np.asarray(values, np.float64)
    refuse_fewer({counted: len(at)}, 2)
    half = students(len(at) - 1) * float(at.std(ddof=1)) / math.sqrt(len(at))
    value = float(at.mean())
    return Estimate(value, value - half, value + half, {counted: len(at)}, chance)


def proportion(hits: Sequence[bool] | Array, counted: str = "pairs", chance: float | None = None) -> Estimate:
    """Returns the fraction of `hits` that are true with Wilson's interval (1927). Raises Unavailable if there are none.

    `counted` names what the hits belong to, `chance` is `Estimate.chance`.
    """
    count, total = int(np.sum(hits)), len(hits)
    refuse_fewer({counted: total}, 1)
    z, p = float(ndtri((1 + LEVEL) / 2)), count / total
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + (z / (2 * total)) ** 2)
    # at 0 and 1 an end equals the value, but rounding could put it on the wrong side
    return Estimate(p, min(p, centre - half), max(p, centre + half), {counted: total}, chance)


def around(value: float, variance: float, counts: Mapping[str, int], freedom: float = math.inf) -> Estimate:
    """Returns the estimate whose interval is symmetric around `value`, from the variance of the statistic.

    `freedom` is the degrees of freedom of the variance.
    """
    half = students(freedom) * math.sqrt(variance)
    return Estimate(value, value - half, value + half, dict(counts))


def students(freedom: float) -> float:
    """Returns half the width of Student's 95% interval, in standard deviations, for `freedom` degrees of freedom."""
    return float(stdtrit(freedom, (1 + LEVEL) / 2))


def groups(count: int, *key: int | str) -> Array:
    """Returns the group of each member of a sample, (count,), drawn by the key. There are at most `GROUPS` groups."""
    return keyed("groups", count, *key).permutation(count) % min(GROUPS, count)


def jackknife_variance(left_out: Array) -> Array:
    """Returns the variance (...) of a statistic from its values without each group, (G, ...).

    On average it is not below the true variance (Efron and Stein, 1981).
    """
    count = len(left_out)
    variance: Array = (count - 1) / count * ((left_out - left_out.mean(0)) ** 2).sum(0)
    return variance


def jackknifed(value: float, left_out: Sequence[Array], counts: Mapping[str, int]) -> Estimate:
    """Returns the estimate of a statistic from its values without each group, (G,) for each sample.

    The variance is the sum over the samples.
    """
    variance = sum(float(jackknife_variance(without)) for without in left_out)
    return around(value, variance, counts, min(map(len, left_out)) - 1)


def jackknife(
    statistic: Callable[[Array, Array], Sequence[float] | Array],
    counts: tuple[int, int],
    seed: int,
    names: tuple[str, str] = ("outputs", "real"),
) -> list[Estimate]:
    """Returns an estimate of each number that `statistic(i, j)` returns.

    `i` and `j` are arrays of indices into the first and the second sample. `counts` and `names` are the samples' sizes
    and names. The statistic is computed without each group of each sample; its variance is the sum over the samples.

    Raises Unavailable if a sample has fewer than four members.
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
    """Raises Unavailable if one of `counts`, {what is counted: how many}, is below `least`."""
    for what, count in counts.items():
        if count < least:
            images = "image" if least == 1 else "images"
            raise Unavailable(
                f"needs at least {least} {images} ({what}), and there {'is' if count == 1 else 'are'} {count}"
            )
