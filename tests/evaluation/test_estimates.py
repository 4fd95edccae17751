"""Intervals against scipy's and against closed forms."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm, t, ttest_1samp

from ganlab import Unavailable
from ganlab.evaluation.estimates import (
    GROUPS,
    around,
    groups,
    jackknife,
    jackknife_variance,
    jackknifed,
    mean,
    proportion,
)

Array = np.ndarray[Any, Any]


def test_mean() -> None:
    values = np.random.default_rng(0).exponential(size=17)
    found = mean(values, "faces", chance=0.5)
    expected = ttest_1samp(values, 0).confidence_interval(0.95)
    assert found.value == pytest.approx(values.mean(), rel=1e-12)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-10)
    assert (found.counts, found.chance) == ({"faces": 17}, 0.5)
    with pytest.raises(Unavailable, match=r"needs at least 2 images \(pairs\), and there is 1"):
        mean([1.0])


@pytest.mark.parametrize(("hits", "total"), [(0, 1), (0, 20), (7, 20), (20, 20)])
def test_proportion(hits: int, total: int) -> None:
    """Returns the interval of all p that the score test accepts: |k/n - p| = z (p (1 - p) / n)^(1/2) at both ends."""
    found = proportion([True] * hits + [False] * (total - hits))
    z, p = norm.ppf(0.975), hits / total
    ends = np.roots([1 + z**2 / total, -2 * p - z**2 / total, p**2]).real
    assert found.value == p
    assert (found.low, found.high) == pytest.approx((ends.min(), ends.max()), abs=1e-9)
    with pytest.raises(Unavailable, match=r"needs at least 1 image \(pairs\), and there are 0"):
        proportion([])


def test_around() -> None:
    assert around(3.0, 4.0, {"real": 9})[:3] == pytest.approx((3, 3 - 2 * norm.ppf(0.975), 3 + 2 * norm.ppf(0.975)))
    assert around(3.0, 4.0, {"real": 9}, 5).high == pytest.approx(3 + 2 * t.ppf(0.975, 5))


@pytest.mark.parametrize("count", [4, 19, 20, 21, 250])
def test_groups(count: int) -> None:
    dealt = groups(count, 0, "a")
    sizes = np.bincount(dealt)
    assert len(dealt) == count
    assert len(sizes) == min(count, GROUPS)
    assert sizes.max() - sizes.min() <= 1
    np.testing.assert_array_equal(dealt, groups(count, 0, "a"))
    assert (dealt != groups(count, 1, "a")).any()


def difference_of_means(x: Array, y: Array, i: Array, j: Array) -> list[float]:
    return [float(x[i].mean() - y[j].mean())]


def test_jackknife_of_means() -> None:
    """Groups of one give the textbook variance of a difference of means, exactly."""
    random = np.random.default_rng(1)
    x, y = random.standard_normal(12), random.exponential(size=20)
    difference, first = jackknife(lambda i, j: [x[i].mean() - y[j].mean(), x[i].mean()], (12, 20), 0, ("a", "b"))
    for found, value, variance in (
        (difference, x.mean() - y.mean(), x.var(ddof=1) / 12 + y.var(ddof=1) / 20),
        (first, x.mean(), x.var(ddof=1) / 12),
    ):
        half = t.ppf(0.975, 11) * math.sqrt(variance)
        assert found[:3] == pytest.approx((value, value - half, value + half), rel=1e-10)
        assert found.counts == {"a": 12, "b": 20}


def test_jackknife_of_larger_groups() -> None:
    """Groups of two to three; the interval of a difference of means holds the truth for about 95% of the draws."""
    random = np.random.default_rng(2)
    hits = []
    for seed in range(400):
        x, y = random.standard_normal(47) + 1, random.standard_normal(53) * 2
        (found,) = jackknife(partial(difference_of_means, x, y), (47, 53), seed)
        hits.append(found.low <= 1 <= found.high)
    assert 0.92 <= np.mean(hits) <= 0.98


def test_jackknifed() -> None:
    """The variances of the samples are added; the degrees of freedom are those of the sample with fewer groups."""
    a, b = np.array([1.0, 2.0, 4.0]), np.array([1.0, 3.0])
    variance = 2 / 3 * 14 / 3 + 1 / 2 * 2
    assert jackknife_variance(a) + jackknife_variance(b) == pytest.approx(variance)
    found = jackknifed(2.5, [a, b], {"outputs": 6})
    assert found.high - 2.5 == 2.5 - found.low == pytest.approx(t.ppf(0.975, 1) * math.sqrt(variance))


def test_too_few_for_a_jackknife() -> None:
    with pytest.raises(Unavailable, match=r"needs at least 4 images \(real\), and there are 3"):
        jackknife(lambda i, j: [0.0], (4, 3), 0)
