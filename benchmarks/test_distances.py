"""The distances between feature vectors, by themselves: with fewer images than dimensions and with more."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.linalg import sqrtm

from ganlab.evaluation import fid as frechet
from ganlab.evaluation import kid as kernel
from ganlab.evaluation import prdc

Array = np.ndarray[Any, Any]

ROUNDS = 3
BELOW, ABOVE = (1000, 1000, 1280), (2000, 2000, 1280)
"""The sizes at which the Fréchet distance is timed beside its form with `scipy.linalg.sqrtm`."""


def features(n: int, m: int, dimensions: int) -> tuple[Array, Array]:
    """Like a network's: correlated, none below 0."""
    random = np.random.default_rng(0)
    mixing = random.standard_normal((64, dimensions)) / 8

    def sample(count: int, scale: float) -> Array:
        noise = 0.1 * random.standard_normal((count, dimensions))
        made: Array = np.maximum(scale * random.standard_normal((count, 64)) @ mixing + noise, 0)
        return made

    return sample(n, 1.0), sample(m, 1.1)


def by_sqrtm(x: Array, y: Array) -> float:
    s1, s2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = np.trace(sqrtm(s1 @ s2)).real
    return float(np.square(x.mean(0) - y.mean(0)).sum() + np.trace(s1) + np.trace(s2) - 2 * root)


def seconds(compute: Callable[[], object]) -> float:
    started = time.perf_counter()
    compute()
    return time.perf_counter() - started


@pytest.mark.parametrize(
    ("n", "m", "dimensions"),
    [
        (300, 300, 1280),
        BELOW,
        ABOVE,
        (300, 300, 2048),
        (1000, 1000, 2048),
        (300, 10000, 2048),
        (3000, 3000, 2048),
    ],
)
def test_frechet(n: int, m: int, dimensions: int, benchmark: Any) -> None:
    x, y = features(n, m, dimensions)
    frechet.frechet(x, y)
    benchmark.pedantic(lambda: frechet.frechet(x, y), rounds=ROUNDS)
    median = benchmark.stats.stats.median
    interval = seconds(lambda: frechet.estimate(x, y))
    benchmark.extra_info.update(with_interval=interval)
    line = f"\nFréchet, {n:,} and {m:,} images, {dimensions} dimensions: {median:.3f} s, with interval {interval:.3f} s"
    if (n, m, dimensions) in (BELOW, ABOVE):
        ratios = [seconds(lambda: by_sqrtm(x, y)) / seconds(lambda: frechet.frechet(x, y)) for _ in range(ROUNDS)]
        ratio = statistics.median(ratios)
        benchmark.extra_info.update(ratio=ratio)
        line += f"; with sqrtm {ratio:.1f} times as long ({min(ratios):.1f} to {max(ratios):.1f})"
    print(line)


@pytest.mark.parametrize(("count", "dimensions"), [(300, 1280), (1000, 1280), (1000, 2048)])
@pytest.mark.parametrize("name", ["kid", "prdc"])
def test_with_intervals(name: str, count: int, dimensions: int, benchmark: Any) -> None:
    x, y = features(count, count, dimensions)
    compute = {"kid": lambda: kernel.estimate(x, y, 0), "prdc": lambda: prdc.estimate(x, y, 5, 0)}[name]
    benchmark.pedantic(compute, rounds=ROUNDS, warmup_rounds=1)
    median = benchmark.stats.stats.median
    print(f"\n{name}, {count:,} images a side, {dimensions} dimensions: {median:.3f} s with interval")
