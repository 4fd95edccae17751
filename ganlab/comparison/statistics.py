"""Paired differences over seeds, Holm's correction, and the number of seeds that a difference needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from ganlab.evaluation.estimates import LEVEL

ALPHA = 1 - LEVEL
"""The level of the tests: at most this share of comparisons of equal systems finds a difference."""

POWER = 0.8
"""The power with which `pairs_needed` seeds find a difference."""

MOST_PAIRS = 1000
"""The largest number of pairs that `pairs_needed` considers."""

_EQUAL = 1e-7
"""Differences this close, relative to the values, are equal: results are kept with nine digits."""


class Difference(NamedTuple):
    """The paired difference of two systems over seeds."""

    mean: float
    low: float
    """The lower end of Student's 95% interval."""
    high: float
    """The upper end of the interval."""
    deviation: float
    """The standard deviation of the differences between seeds."""
    p: float | None
    """The p value of the two-sided paired t-test; None if the differences are equal but not 0: without a spread there
    is nothing to test against."""


def paired(values: Sequence[float], baseline: Sequence[float]) -> Difference:
    """Returns the paired difference `values - baseline` of two or more seeds, which are in the same order in both."""
    differences = np.asarray(values, np.float64) - np.asarray(baseline, np.float64)
    mean = float(differences.mean())
    if np.ptp(differences) <= _EQUAL * np.abs([*values, *baseline]).max():
        return Difference(mean, mean, mean, 0.0, 1.0 if np.allclose(values, baseline, _EQUAL, 0) else None)
    test = stats.ttest_rel(values, baseline)
    interval = test.confidence_interval(LEVEL)
    return Difference(
        mean, float(interval.low), float(interval.high), float(differences.std(ddof=1)), float(test.pvalue)
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns the p values corrected for their number by Holm's method (Scandinavian Journal of Statistics 6, 1979).

    If none of the differences exists, the probability that any corrected value is at most x is at most x, whatever the
    dependence of the tests.
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def power(difference: float, pairs: int, tests: int = 1) -> float:
    """Returns the probability that a paired t-test finds a difference, with the right sign.

    Args:
        difference: The true difference, at least 0, in standard deviations of the paired differences.
        pairs: The number of pairs, at least 2.
        tests: The number of tests that are corrected together. With more than one the result is a lower bound: it is
            the power of Holm's first step.
    """
    critical = stats.t.isf(ALPHA / 2 / tests, pairs - 1)
    return float(stats.nct.sf(critical, pairs - 1, difference * math.sqrt(pairs)))


def pairs_needed(difference: float, tests: int = 1) -> int | None:
    """Returns the least number of pairs with which a paired t-test finds a difference with the power `POWER`.

    The arguments are those of `power`. Returns None if `MOST_PAIRS` pairs are not enough.
    """
    if not power(difference, MOST_PAIRS, tests) >= POWER:
        return None
    enough, too_few = MOST_PAIRS, 1
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        if power(difference, middle, tests) >= POWER:
            enough = middle
        else:
            too_few = middle
    return enough
