"""KID against other libraries and double loops, its interval against the generic jackknife and repeated draws."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric
from torchmetrics.image.kid import poly_mmd

from ganlab import Unavailable
from ganlab.evaluation.estimates import jackknife
from ganlab.evaluation.kid import estimate

Array = np.ndarray[Any, Any]


def samples(n: int, m: int, dimensions: int, shift: float, random: np.random.Generator) -> tuple[Array, Array]:
    return random.standard_normal((n, dimensions)), random.standard_normal((m, dimensions)) + shift


@pytest.mark.parametrize(("count", "dimensions", "shift"), [(50, 12, 0.5), (37, 200, 0.05), (300, 64, 0.02)])
def test_parity(count: int, dimensions: int, shift: float) -> None:
    """torchmetrics and torch-fidelity give the same value if their subset is the whole set."""
    x, y = samples(count, count, dimensions, shift, np.random.default_rng(0))
    found = estimate(x, y, 0).value
    tensors = torch.from_numpy(x), torch.from_numpy(y)
    assert found == pytest.approx(poly_mmd(*tensors).item(), rel=1e-6)
    theirs = kid_features_to_metric(*tensors, kid_subsets=1, kid_subset_size=count, verbose=False)
    assert found == pytest.approx(theirs[KEY_METRIC_KID_MEAN], rel=1e-6)


def test_subsets_converge_to_it() -> None:
    """torch-fidelity's mean over many random subsets of both samples, which differ in size."""
    x, y = samples(90, 70, 8, 0.4, np.random.default_rng(1))
    theirs = kid_features_to_metric(
        torch.from_numpy(x), torch.from_numpy(y), kid_subsets=2000, kid_subset_size=40, rng_seed=0, verbose=False
    )
    error = theirs["kernel_inception_distance_std"] / math.sqrt(2000)
    assert abs(estimate(x, y, 0).value - theirs[KEY_METRIC_KID_MEAN]) < 4 * error
    assert 4 * error < 0.05 * theirs[KEY_METRIC_KID_MEAN]


def by_loops(x: Array, y: Array) -> float:
    def kernel(a: Array, b: Array) -> float:
        return float((a @ b / len(a) + 1) ** 3)

    within = [np.mean([kernel(z[i], z[j]) for i in range(len(z)) for j in range(len(z)) if i != j]) for z in (x, y)]
    return float(sum(within) - 2 * np.mean([kernel(a, b) for a in x for b in y]))


def test_value_and_interval_by_loops() -> None:
    """23 and 29 images fall into groups of one and two."""
    x, y = samples(23, 29, 3, 0.7, np.random.default_rng(2))
    found = estimate(x, y, 5)
    (expected,) = jackknife(lambda i, j: [by_loops(x[i], y[j])], (23, 29), seed=5)
    assert found[:3] == pytest.approx(expected[:3], rel=1e-10)
    assert found.counts == expected.counts == {"outputs": 23, "real": 29}


def test_a_seed_only_deals_groups() -> None:
    x, y = samples(60, 50, 6, 0.3, np.random.default_rng(3))
    first, again, other = estimate(x, y, 0), estimate(x, y, 0), estimate(x, y, 1)
    assert first == again
    assert other.value == pytest.approx(first.value, rel=1e-10)
    assert other.high != pytest.approx(first.high, rel=1e-4)


@pytest.mark.parametrize(
    ("n", "m", "dimensions", "shift", "least", "most"),
    [(60, 60, 16, 0.5, 0.9, 0.99), (40, 100, 64, 0.25, 0.9, 0.99), (50, 50, 32, 0.0, 0.95, 1.0)],
)
def test_coverage(n: int, m: int, dimensions: int, shift: float, least: float, most: float) -> None:
    """The interval contains the mean in about 95% of the draws, and in more if the distributions are the same. The
    result has no bias: with one covariance and the means 0 and s, the expectation of k is a sum over its powers."""
    random = np.random.default_rng(4)
    found = [estimate(*samples(n, m, dimensions, shift, random), repeat) for repeat in range(200)]
    # E (1 + u)^3, u = x.y / D: mean(u) = a.b / D, var(u) = (D + |a|^2 + |b|^2) / D^2, third central moment
    # 6 a.b / D^3, for x and y normal around a and b
    means = {"xx": (0.0, 0.0), "xy": (0.0, shift), "yy": (shift, shift)}
    expected = {}
    for pair, (a, b) in means.items():
        mean, variance, third = a * b, (1 + a**2 + b**2) / dimensions, 6 * a * b / dimensions**2
        expected[pair] = (1 + mean) ** 3 + 3 * (1 + mean) * variance + third
    truth = expected["xx"] + expected["yy"] - 2 * expected["xy"]
    values = np.array([each.value for each in found])
    assert abs(values.mean() - truth) < 4 * values.std() / math.sqrt(len(values))
    assert least <= np.mean([each.low <= truth <= each.high for each in found]) <= most


def test_no_matrix_of_all_pairs() -> None:
    """2,000 images a side: a matrix of all pairs would take 32 MB."""
    x, y = samples(2000, 2000, 4, 0.1, np.random.default_rng(5))
    tracemalloc.start()
    estimate(x, y, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6


def test_refusals() -> None:
    x = np.zeros((4, 3))
    assert estimate(x, x, 0)[:3] == (0, 0, 0)
    with pytest.raises(Unavailable, match=r"needs at least 4 images \(outputs\), and there is 1"):
        estimate(x[:1], x, 0)
