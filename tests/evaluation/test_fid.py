"""The Fréchet distance against closed forms and other libraries, its interval against finite differences and draws."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import block_diag, sqrtm
from scipy.stats import t
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric
from torchmetrics.image.fid import _compute_fid

from ganlab import Unavailable
from ganlab.evaluation.fid import estimate, frechet, influence_variance

Array = np.ndarray[Any, Any]
Draw = Callable[[np.random.Generator], tuple[Array, Array]]


def sample_of(count: int, mean: Array, root: Array, random: np.random.Generator) -> Array:
    """Returns `count` vectors with exactly this mean and the unbiased covariance root^T root. root has fewer rows."""
    centred = np.linalg.qr(np.column_stack([np.ones(count), random.standard_normal((count, len(root)))]))[0][:, 1:]
    made: Array = mean + math.sqrt(count - 1) * centred @ root
    return made


@pytest.mark.parametrize(
    ("n", "m", "dimensions", "ranks"),
    [
        (60, 45, 20, (20, 20)),
        (60, 45, 20, (12, 20)),
        (15, 11, 40, (14, 10)),
        (40, 40, 40, (38, 30)),
        (10, 200, 40, (8, 40)),
        (200, 39, 40, (40, 38)),
    ],
)
def test_closed_form(n: int, m: int, dimensions: int, ranks: tuple[int, int]) -> None:
    """The covariances, in a random basis, are 2x2 blocks that do not commute. For each block, by Cayley and Hamilton,
    Tr (P Q)^(1/2) = (Tr P Q + 2 (det P det Q)^(1/2))^(1/2)."""
    random = np.random.default_rng(n)
    basis = np.linalg.qr(random.standard_normal((dimensions, dimensions)))[0]
    roots = [[random.standard_normal((2, 2)) for _ in range(rank // 2)] for rank in ranks]
    means = random.standard_normal((2, dimensions))
    x, y = (
        sample_of(count, mean, block_diag(*blocks) @ basis[: 2 * len(blocks)], random)
        for count, mean, blocks in zip((n, m), means, roots, strict=True)
    )
    expected = np.square(means[0] - means[1]).sum() + sum(np.square(np.stack(blocks)).sum() for blocks in roots)
    for p, q in zip(*roots, strict=False):
        product = np.trace(p.T @ p @ q.T @ q) + 2 * abs(np.linalg.det(p) * np.linalg.det(q))
        expected -= 2 * math.sqrt(product)
    assert frechet(x, y) == pytest.approx(expected, rel=1e-11)
    assert frechet(y, x) == pytest.approx(expected, rel=1e-11)
    assert estimate(x, y).value == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize(("n", "m", "dimensions"), [(300, 250, 48), (300, 40, 48), (30, 45, 48)])
def test_parity(n: int, m: int, dimensions: int) -> None:
    """torchmetrics, torch-fidelity and clean-fid's formula, on the same features."""
    random = np.random.default_rng(1)
    mixing = random.standard_normal((dimensions, dimensions)) / dimensions**0.5
    x = np.maximum(random.standard_normal((n, dimensions)) @ mixing, 0)
    y = np.maximum(random.standard_normal((m, dimensions)) @ mixing * 1.2 + 0.1, 0)
    (mu1, s1), (mu2, s2) = ((z.mean(0), np.cov(z, rowvar=False)) for z in (x, y))
    value = frechet(x, y)
    theirs = fid_statistics_to_metric({"mu": mu1, "sigma": s1}, {"mu": mu2, "sigma": s2}, verbose=False)
    assert value == pytest.approx(theirs[KEY_METRIC_FID], rel=1e-6)
    assert value == pytest.approx(_compute_fid(*map(torch.from_numpy, (mu1, s1, mu2, s2))).item(), rel=1e-6)
    cleanfids = np.square(mu1 - mu2).sum() + np.trace(s1) + np.trace(s2) - 2 * np.trace(sqrtm(s1 @ s2)).real
    assert value == pytest.approx(cleanfids, rel=1e-6)


@pytest.mark.parametrize(("n", "m"), [(50, 60), (20, 60), (60, 12)])
def test_forms_agree(n: int, m: int) -> None:
    """Constant dimensions change nothing, though there are then fewer images than dimensions."""
    random = np.random.default_rng(2)
    x, y = random.standard_normal((n, 16)), 1.5 * random.standard_normal((m, 16)) + 0.3
    short = estimate(x, y)
    long = estimate(*(np.pad(z, ((0, 0), (0, 80)), constant_values=2) for z in (x, y)))
    assert long[:3] == pytest.approx(short[:3], rel=1e-10)


def weighted(x: Array, weights: Array, y: Array) -> float:
    """Returns the distance if the images of x have weights."""
    mean, count = weights @ x, len(x)
    s1 = count / (count - 1) * (x - mean).T @ ((x - mean) * weights[:, None])
    s2 = np.cov(y, rowvar=False)
    cross = np.linalg.eigvals(s1 @ s2).real
    return float(
        np.square(mean - y.mean(0)).sum() + np.trace(s1 + s2) - 2 * np.sqrt(cross[cross > 1e-9 * cross.max()]).sum()
    )


def by_differences(x: Array, y: Array, step: float = 1e-4) -> float:
    """Returns the variance from central differences of the distance as weight moves from all images to one."""
    count, influences = len(x), []
    for image in range(count):
        ends = []
        for direction in (step, -step):
            weights = np.full(count, (1 - direction) / count)
            weights[image] += direction
            ends.append(weighted(x, weights, y))
        influences.append((ends[0] - ends[1]) / (2 * step))
    return float(np.var(influences, ddof=1)) / count


@pytest.mark.parametrize(("n", "m", "dimensions"), [(30, 22, 6), (9, 12, 25), (8, 60, 20), (60, 18, 20), (25, 40, 20)])
def test_influences(n: int, m: int, dimensions: int) -> None:
    random = np.random.default_rng(3)
    x, y = random.standard_normal((n, dimensions)) + 0.5, random.standard_normal((m, dimensions)) ** 3
    value, variance, _ = influence_variance(x, y)
    assert value == pytest.approx(frechet(x, y), rel=1e-12)
    assert variance == pytest.approx(by_differences(x, y) + by_differences(y, x), rel=1e-5)
    # if the sides are far apart, the interval is symmetric on the logarithm without a correction
    far = x + 1e3
    value, variance, freedom = influence_variance(far, y)
    found = estimate(far, y)
    factor = math.exp(t.ppf(0.975, freedom) * math.sqrt(variance) / value)
    assert found.high / found.value == pytest.approx(factor, rel=1e-6)
    assert found.value / found.low == pytest.approx(factor, rel=1e-6)


def test_degrees_of_freedom() -> None:
    """In one dimension, far apart, the influences are those of a mean. The variance of a normal sample has about n - 1
    degrees of freedom, the variance of a heavy-tailed sample fewer."""
    random = np.random.default_rng(12)
    normal, heavy, other = (random.standard_normal((4000, 1)), random.standard_t(5, (4000, 1)), np.zeros((4000, 1)))
    # the other sample hardly varies, so all of the variance is that of the first
    other[0] = 1e-6
    assert influence_variance(normal + 1e4, other)[2] == pytest.approx(4000, rel=0.15)
    kurtosis = float(np.mean((heavy - heavy.mean()) ** 4) / np.var(heavy) ** 2)
    assert influence_variance(heavy + 1e4, other)[2] == pytest.approx(2 * 4000 / (kurtosis - 1), rel=0.01)


def powers(dimensions: int) -> Array:
    """Returns standard deviations that fall by a power law, as those of networks' features do."""
    deviations: Array = np.arange(1.0, dimensions + 1) ** -0.7
    return deviations


def same(n: int, m: int, dimensions: int) -> Draw:
    s = powers(dimensions)
    return lambda random: (random.standard_normal((n, dimensions)) * s, random.standard_normal((m, dimensions)) * s)


def isotropic(n: int, m: int, dimensions: int) -> Draw:
    return lambda random: (random.standard_normal((n, dimensions)), random.standard_normal((m, dimensions)))


def shifted(n: int, m: int, dimensions: int) -> Draw:
    def draw(random: np.random.Generator) -> tuple[Array, Array]:
        x, y = same(n, m, dimensions)(random)
        return x + 0.3 * powers(dimensions), 1.3 * y

    return draw


def rectified(n: int, m: int, dimensions: int) -> Draw:
    weight = np.random.default_rng(5).standard_normal((32, dimensions)) / 4

    def draw(random: np.random.Generator) -> tuple[Array, Array]:
        x, y = random.standard_normal((n, 32)), random.standard_normal((m, 32))
        return np.maximum(x @ weight, 0), np.maximum(1.15 * y @ weight + 0.1, 0)

    return draw


def heavy_tailed(n: int, m: int, dimensions: int) -> Draw:
    """Student's t with five degrees of freedom, rectified: its fourth moment barely exists."""

    def draw(random: np.random.Generator) -> tuple[Array, Array]:
        x, y = random.standard_t(5, (n, dimensions)), random.standard_t(5, (m, dimensions))
        return np.maximum(x, 0) * powers(dimensions), np.maximum(1.2 * y + 0.2, 0) * powers(dimensions)

    return draw


LONG = pytest.mark.faults


@pytest.mark.parametrize(
    ("draw", "repeats"),
    [
        pytest.param(heavy_tailed(100, 100, 64), 500, id="heavy tails, 100 images, 64 dimensions"),
        pytest.param(rectified(60, 60, 640), 300, id="rectified, 60 images, 640 dimensions", marks=LONG),
        pytest.param(shifted(300, 300, 256), 150, id="shifted, 300 images, 256 dimensions", marks=LONG),
        pytest.param(isotropic(300, 300, 256), 150, id="the same, 300 images, 256 dimensions", marks=LONG),
        pytest.param(isotropic(60, 60, 40), 500, id="the same, 60 images, 40 dimensions"),
        pytest.param(shifted(30, 60, 8), 500, id="shifted, 30 and 60 images, 8 dimensions"),
        pytest.param(shifted(40, 25, 64), 500, id="shifted, 40 and 25 images, 64 dimensions"),
        pytest.param(rectified(100, 100, 32), 500, id="rectified, 100 images, 32 dimensions"),
        pytest.param(rectified(60, 60, 128), 500, id="rectified, 60 images, 128 dimensions"),
        pytest.param(same(50, 50, 128), 500, id="the same, 50 images, 128 dimensions"),
    ],
)
def test_coverage(draw: Draw, repeats: int) -> None:
    """The interval contains the mean of the result at these numbers of images in 90 to 99% of the draws."""
    random = np.random.default_rng(7)
    found = [estimate(*draw(random)) for _ in range(repeats)]
    mean = np.mean([each.value for each in found])
    assert 0.9 <= np.mean([each.low <= mean <= each.high for each in found]) <= 0.99


def test_the_plain_bootstrap_misses() -> None:
    """The bootstrap's interval lies above the result and above the result's mean; ours contains both."""
    random = np.random.default_rng(8)
    draw = shifted(100, 100, 64)
    x, y = draw(random)
    resampled = [frechet(x[random.integers(0, 100, 100)], y[random.integers(0, 100, 100)]) for _ in range(200)]
    found, mean = estimate(x, y), float(np.mean([frechet(*draw(random)) for _ in range(200)]))
    assert np.quantile(resampled, 0.025) > max(found.value, mean)
    assert found.low < mean < found.high


@pytest.mark.parametrize("count", [10, 60])
def test_a_set_against_itself(count: int) -> None:
    x = np.random.default_rng(9).standard_normal((count, 20)) * 1e3 + 1e4
    assert frechet(x, x[::-1]) == pytest.approx(0, abs=1e-6)
    assert estimate(x, x[::-1])[:3] == (0, 0, 0)
    constant = np.full((count, 20), 0.1)
    assert estimate(constant, constant)[:3] == (0, 0, 0)


@pytest.mark.parametrize("shift", [1e-5, 1e-3, 1.0, 1e6])
def test_intervals_are_finite(shift: float) -> None:
    x = np.random.default_rng(10).standard_normal((12, 20))
    found = estimate(x, x + shift)
    assert found.value == pytest.approx(20 * shift**2, rel=1e-4)
    assert 0 < found.low < found.value < found.high < math.inf
    one_varies = estimate(np.ones((4, 3)), x[:, :3])
    assert 0 < one_varies.low < one_varies.value < one_varies.high < math.inf
    assert estimate(np.ones((4, 3)), np.zeros((5, 3)))[:3] == (3, 3, 3)


def test_counts_and_refusals() -> None:
    x = np.random.default_rng(11).standard_normal((5, 3))
    assert estimate(x, x[:4] + 1).counts == {"outputs": 5, "real": 4}
    with pytest.raises(Unavailable, match=r"needs at least 4 images \(real\), and there is 1"):
        estimate(x, x[:1])
    with pytest.raises(Unavailable, match=r"needs at least 2 images \(outputs\), and there is 1"):
        frechet(x[:1], x)
