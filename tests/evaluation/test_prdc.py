"""Precision, recall, density and coverage against loops over the definitions, and against the papers' expectations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from ganlab import Unavailable
from ganlab.evaluation.estimates import jackknife, proportion
from ganlab.evaluation.prdc import NUMBERS, estimate

Array = np.ndarray[Any, Any]


def by_loops(outputs: Array, real: Array, k: int) -> list[float]:
    """The definitions, one pair of images after another."""

    def radius(of: int, sample: Array) -> float:
        return sorted(math.dist(sample[of], other) for j, other in enumerate(sample) if j != of)[k - 1]

    real_radii = [radius(i, real) for i in range(len(real))]
    output_radii = [radius(j, outputs) for j in range(len(outputs))]
    precise = recalled = covered = balls = 0
    for output in outputs:
        distances = [math.dist(output, image) for image in real]
        precise += any(d <= r for d, r in zip(distances, real_radii, strict=True))
        balls += sum(d < r for d, r in zip(distances, real_radii, strict=True))
    for image, r in zip(real, real_radii, strict=True):
        distances = [math.dist(image, output) for output in outputs]
        recalled += any(d <= s for d, s in zip(distances, output_radii, strict=True))
        covered += any(d < r for d in distances)
    return [precise / len(outputs), recalled / len(real), balls / (k * len(outputs)), covered / len(real)]


def continuous(n: int, m: int) -> tuple[Array, Array]:
    random = np.random.default_rng(0)
    return random.standard_normal((n, 3)) * 0.8 + 0.7, random.standard_normal((m, 3))


def on_a_grid(n: int, m: int) -> tuple[Array, Array]:
    """The samples have duplicates and ties and lie far from the origin."""
    random = np.random.default_rng(1)
    return tuple(random.integers(0, 4, (count, 2)) + 1e6 for count in (n, m))  # type: ignore[return-value]


@pytest.mark.parametrize("draw", [continuous, on_a_grid])
@pytest.mark.parametrize(("n", "m", "k"), [(26, 23, 5), (12, 41, 3), (30, 9, 1), (50, 20, 7)])
def test_by_loops(draw: Any, n: int, m: int, k: int) -> None:
    """Values, and intervals by the generic jackknife. The intervals of fractions are at least as wide as Wilson's."""
    x, y = draw(n, m)
    found = estimate(x, y, k, seed=3)
    expected = jackknife(lambda i, j: by_loops(x[i], y[j], k), (n, m), seed=3)
    assert list(found) == list(NUMBERS)
    trials = {"precision": n, "recall": m, "coverage": m}
    for name, reference in zip(NUMBERS, expected, strict=True):
        low, high = max(reference.low, 0), reference.high
        if name in trials:
            hits = round(reference.value * trials[name])
            wilson = proportion([True] * hits + [False] * (trials[name] - hits))
            low, high = max(0, min(low, wilson.low)), min(1, max(high, wilson.high))
        assert found[name][:3] == pytest.approx((reference.value, low, high), abs=1e-12)
        assert found[name].counts == {"outputs": n, "real": m}


def values(x: Array, y: Array, k: int) -> list[float]:
    return [each.value for each in estimate(x, y, k, 0).values()]


def test_on_a_line() -> None:
    """Reals at 0, 1, 3, 7, k = 1: radii 1, 1, 2, 4. Outputs at 2, 11, 12, 20: radii 9, 1, 1, 8.

    2 is on the border of the ball of 1 and inside that of 3; 11 is on the border of the ball of 7. All reals are within
    9 of 2.
    """
    x, y = (np.array([points], float).T for points in ([2, 11, 12, 20], [0, 1, 3, 7]))
    assert values(x, y, 1) == [2 / 4, 4 / 4, 1 / 4, 1 / 4]


def test_the_same_set_far_sets_and_a_lost_mode() -> None:
    random = np.random.default_rng(2)
    x = random.standard_normal((40, 6)) + 1e5
    assert values(x, x[random.permutation(40)], 5) == [1, 1, 1, 1]
    assert values(x, x + 1e3, 5) == [0, 0, 0, 0]
    # 0 of 40 is not exactly 0: Wilson's interval
    assert estimate(x, x + 1e3, 5, 0)["precision"][:3] == (0, 0, proportion([False] * 40).high)
    assert estimate(x, x, 5, 0)["coverage"][:3] == (1, proportion([True] * 40).low, 1)
    modes = np.concatenate([x, x + 100])
    precision, recall, _, coverage = values(x, modes, 3)
    assert (precision, recall, coverage) == (1, 0.5, 0.5)
    collapsed = np.repeat(x[:1], 40, axis=0)
    precision, recall, _, coverage = values(collapsed, x, 5)
    assert precision == 1
    assert recall == 1 / 40
    assert coverage < 0.5


def test_expectations() -> None:
    """If both samples have one distribution, the mean of the density is 1 and that of the coverage is
    1 - (N - 1)...(N - k) / ((N + M - 1)...(N + M - k)) with N reals and M outputs (arXiv:2002.09797, lemma 2)."""
    random = np.random.default_rng(3)
    n, m, k = 30, 24, 4
    found = np.array([values(random.standard_normal((m, 5)), random.standard_normal((n, 5)), k) for _ in range(150)])
    missed = math.prod((n - i) / (n + m - i) for i in range(1, k + 1))
    for number, expected in (("density", 1), ("coverage", 1 - missed)):
        column = found[:, NUMBERS.index(number)]
        assert abs(column.mean() - expected) < 4 * column.std() / math.sqrt(len(column))
        assert 4 * column.std() / math.sqrt(len(column)) < 0.1


def test_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = continuous(45, 60)
    whole = estimate(x, y, 3, 0)
    monkeypatch.setattr("ganlab.evaluation.prdc.BLOCK", 7 * 60)
    assert estimate(x, y, 3, 0) == whole


def test_refusals() -> None:
    """Each image needs k others when the largest group is left out."""
    x, y = continuous(60, 6)
    with pytest.raises(Unavailable, match=r"needs at least 7 images \(real\) for k = 5 neighbours, and there are 6"):
        estimate(x, y, 5, 0)
    with pytest.raises(
        Unavailable, match=r"needs at least 22 images \(outputs\) for k = 19 neighbours, and there are 21"
    ):
        estimate(x[:21], x, 19, 0)
    with pytest.raises(Unavailable, match=r"needs at least 4 images \(outputs\), and there is 1"):
        estimate(x[:1], y, 1, 0)
    assert set(estimate(x[:22], x[:7], 5, 0)) == set(estimate(x[:22], x[:22], 19, 0)) == set(NUMBERS)
