"""The statistics of a comparison, against closed forms, published values and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from ganlab.comparison.statistics import holm, paired, pairs_needed, power
from helpers.paths import DOCS

# Student (1908), "The probable error of a mean": hours of sleep gained by ten patients with either drug
FIRST = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SECOND = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def test_students_sleep_data() -> None:
    # R: t.test(extra ~ group, paired = TRUE): t = -4.0621, df = 9, p-value = 0.002833, interval -2.4598858 -0.7001142
    found = paired(FIRST, SECOND)
    assert found.mean == pytest.approx(-1.58)
    assert (found.low, found.high) == pytest.approx((-2.4598858, -0.7001142), abs=1e-7)
    assert found.p == pytest.approx(0.002833, abs=5e-7)
    assert found.mean / found.deviation * math.sqrt(10) == pytest.approx(-4.0621, abs=5e-5)


def test_two_pairs_are_tested_with_cauchys_distribution() -> None:
    # Student's t with one degree of freedom is Cauchy's distribution: p = 1 - 2/pi atan |t|
    found = paired([5.0, 7.0], [4.0, 4.0])
    assert found.p == pytest.approx(1 - 2 / math.pi * math.atan(2.0))
    assert found.high - found.mean == pytest.approx(math.tan(math.pi * 0.475) * 1.0)


def test_equal_differences_are_not_tested() -> None:
    assert paired([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]) == (0, 0, 0, 0, 1)
    assert paired([0.0, 0.0], [0.0, 0.0]) == (0, 0, 0, 0, 1)
    # equal but for the rounding of the results
    found = paired([0.4, 0.6, 0.8], [0.3, 0.5, 0.700000001])
    assert found == pytest.approx((0.1, 0.1, 0.1, 0, None), abs=1e-9)
    close = paired([1e-5 + 1.0, 1.0, 1.0], [1.0, 1.0, 1.0])
    assert close.p == pytest.approx(2 * 0.211325, abs=1e-5)


@pytest.mark.parametrize(
    ("p_values", "corrected"),
    [
        # R: p.adjust(p, "holm")
        ([0.01, 0.02, 0.03, 0.04], [0.04, 0.06, 0.06, 0.06]),
        ([0.04, 0.01, 0.03, 0.005], [0.06, 0.03, 0.06, 0.02]),
        ([0.5, 0.9], [1.0, 1.0]),
        ([], []),
    ],
)
def test_holm_as_published(p_values: list[float], corrected: list[float]) -> None:
    assert holm(p_values) == pytest.approx(corrected)


def test_holm_is_the_closed_test_of_bonferroni() -> None:
    random = np.random.default_rng(0)
    for count in (1, 2, 5, 7):
        p_values = random.uniform(0, 0.2, count).tolist()
        subsets = [s for size in range(1, count + 1) for s in itertools.combinations(range(count), size)]
        closed = [
            max(min(1.0, len(s) * min(p_values[j] for j in s)) for s in subsets if index in s) for index in range(count)
        ]
        assert holm(p_values) == pytest.approx(closed)


@pytest.mark.parametrize(
    ("difference", "pairs", "found"),
    # G*Power 3.1, "means: difference between two dependent means", two tails, level 0.05
    [(0.5, 34, 0.8077775), (0.8, 15, 0.8213105)],
)
def test_power_as_published(difference: float, pairs: int, found: float) -> None:
    assert power(difference, pairs) == pytest.approx(found, abs=1e-6)
    assert pairs_needed(difference) == pairs


def test_a_correction_and_small_differences_need_more_pairs() -> None:
    needed = pairs_needed(0.5, tests=10)
    assert needed is not None
    assert needed > 34
    assert power(0.5, needed - 1, 10) < 0.8 <= power(0.5, needed, 10)
    assert pairs_needed(100) == 2
    assert pairs_needed(0.01) is None
    assert pairs_needed(0.0) is None


def test_the_power_of_3_and_5_seeds_is_documented() -> None:
    page = (DOCS / "compare.md").read_text()
    for tests in (1, 10):
        shares = [f"{power(3 / math.sqrt(2), pairs, tests):.0%}" for pairs in (3, 5)]
        assert f"| {tests} | {shares[0]} | {shares[1]} |" in page


@pytest.mark.parametrize(
    ("pairs", "tests", "critical"),
    # the critical values of Student's t at 0.05 and 0.005 (Fisher and Yates, table III)
    [(3, 1, 4.303), (5, 1, 2.776), (3, 10, 14.089), (5, 10, 5.598)],
)
def test_the_power_at_three_standard_deviations(pairs: int, tests: int, critical: float) -> None:
    """The true difference is 3, and the values of two systems are independent with a standard deviation of 1."""
    random = np.random.default_rng(1)
    count = 100_000
    differences = 3 + random.standard_normal((count, pairs)) - random.standard_normal((count, pairs))
    t = differences.mean(1) / differences.std(1, ddof=1) * math.sqrt(pairs)
    # five standard errors of a simulated proportion
    assert (t > critical).mean() == pytest.approx(power(3 / math.sqrt(2), pairs, tests), abs=5 * 0.5 / math.sqrt(count))
