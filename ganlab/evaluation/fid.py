"""The Fréchet distance of two samples (arXiv:1706.08500) and its confidence interval.

d = |mu1 - mu2|^2 + Tr S1 + Tr S2 - 2 Tr (S1 S2)^(1/2), derived in docs/derivations.md.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ganlab.determinism import keyed
from ganlab.evaluation.estimates import refuse_fewer, students
from ganlab.interfaces.metrics import Estimate

Array = np.ndarray[Any, Any]

ROUNDING = 1e-12
"""A distance below this fraction of the samples' spread is rounding, and counts as 0."""

LEAST_FREEDOM = 2.0
"""The least degrees of freedom of a variance."""

WIDEST = 1000.0
"""The largest factor between the result and an end of its interval."""


def frechet(x: Array, y: Array) -> float:
    """Returns the distance between samples (n, D) and (m, D), computed in float64 with the unbiased covariances.

    Raises Unavailable if a sample has fewer than two vectors.
    """
    refuse_fewer({"outputs": len(x), "real": len(y)}, 2)
    a, b = _Side.of(x), _Side.of(y)
    left, right = _factors(a.rows, b.rows)
    return _distance(a, b, np.linalg.svd(left @ right.T, compute_uv=False))


def estimate(x: Array, y: Array) -> Estimate:
    """Returns the distance between outputs' vectors (n, D) and real vectors (m, D) with a 95% confidence interval.

    The interval is for the mean of the distance at these n and m, which is above the limit for infinitely many images.
    It is symmetric on the scale of the logarithm.

    Raises Unavailable if a sample has fewer than four vectors.
    """
    counts = {"outputs": len(x), "real": len(y)}
    refuse_fewer(counts, 4)
    value, variance, freedom = influence_variance(x, y)
    if value == 0:
        return Estimate(0.0, 0.0, 0.0, counts)
    mixed = np.concatenate([x, y])[keyed("mixed", len(x), len(y)).permutation(len(x) + len(y))]
    share = min(1.0, frechet(mixed[: len(x)], mixed[len(x) :]) / value)
    # the third and the fourth power come from simulation (docs/derivations.md)
    deviation = math.sqrt(variance * (1 - share**4 / 3 * min(1.0, freedom / len(mixed))))
    factor = math.exp(min(students(freedom) * deviation / value, math.log(WIDEST)))
    return Estimate(value, value / factor, value * factor, counts)


def influence_variance(x: Array, y: Array) -> tuple[float, float, float]:
    """Returns the distance, its variance and the variance's degrees of freedom, for samples (n, D) and (m, D).

    The variance is the infinitesimal jackknife's (Efron, 1982), its degrees of freedom are Satterthwaite's (1946).
    Distance and variance are 0 if the samples differ only by rounding.
    """
    a, b = _Side.of(x), _Side.of(y)
    left, right = _factors(a.rows, b.rows)
    u, singular, vt = np.linalg.svd(left @ right.T, full_matrices=False)
    value = _distance(a, b, singular)
    if value <= ROUNDING * (a.spread + b.spread):
        return 0.0, 0.0, math.inf
    shift = a.mean - b.mean
    influences = (
        a.influences(shift, _moved(a.rows, left, u, right.T @ vt.T, singular)),
        b.influences(-shift, _moved(b.rows, right, vt.T, left.T @ u, singular)),
    )
    variances = [float(each.var(ddof=1)) / len(each) for each in influences]
    total = sum(variances)
    if total == 0:
        return value, 0.0, math.inf
    uncertain = sum(v**2 / _freedom(each) for v, each in zip(variances, influences, strict=True))
    return value, total, total**2 / uncertain


def _freedom(influences: Array) -> float:
    centred = np.square(influences - influences.mean())
    kurtosis = float(np.square(centred).mean() / centred.mean() ** 2) if centred.any() else 3.0
    # at most the degrees of freedom of a normal sample
    return max(LEAST_FREEDOM, 2 * len(influences) / max(kurtosis - 1, 2.0))


class _Side(NamedTuple):
    """One of the two samples."""

    mean: Array
    """(D,)"""
    rows: Array
    """(n, D): the centred sample over sqrt(n - 1), so that rows^T rows is the covariance."""
    spread: float
    """The trace of the covariance."""

    @classmethod
    def of(cls, sample: Array) -> _Side:
        mean = sample.mean(0, dtype=np.float64)
        rows = (sample - mean) / math.sqrt(len(sample) - 1)
        return cls(mean, rows, float(np.vdot(rows, rows)))

    def influences(self, shift: Array, moved: Array) -> Array:
        """Returns the derivative of the distance by each image's weight, (n,).

        `shift` is this side's mean minus the other's, (D,); `moved` is r^T T r of each row r, (n,).
        """
        count = len(self.rows)
        found: Array = 2 * math.sqrt(count - 1) * (self.rows @ shift) + count * (np.square(self.rows).sum(1) - moved)
        return found


def _factors(a: Array, b: Array) -> tuple[Array, Array]:
    """Returns a factor of each covariance: the rows, or the triangle (D, D) of their QR decomposition if it is cheaper.

    The product of the rows and its reduction to (few, few) cost about few m (few + D), the QR decomposition m D^2.
    """
    dimensions = a.shape[1]
    few = min(len(a), len(b), dimensions)
    worth = few * (few + dimensions) > dimensions**2

    def factor(rows: Array) -> Array:
        return np.asarray(np.linalg.qr(rows, mode="r")) if worth and len(rows) > dimensions else rows

    return factor(a), factor(b)


def _distance(a: _Side, b: _Side, singular: Array) -> float:
    shift = a.mean - b.mean
    return max(0.0, float(shift @ shift) + a.spread + b.spread - 2 * float(singular.sum()))


def _moved(rows: Array, factor: Array, own: Array, other: Array, singular: Array) -> Array:
    """Returns r^T T r of each row r, (n,), with T the optimal transport map to the other side.

    T = W s^-1 W^T. W is `other`, (D, k): the other side's factor, transposed, times its singular vectors. `own` are the
    singular vectors of this side, so that own = factor W / s.
    """
    if factor is rows:
        moved: Array = np.square(own) @ singular
    else:
        sure = singular > singular[0] * len(singular) * np.finfo(np.float64).eps
        moved = np.square(rows @ other[:, sure]) @ (1 / singular[sure])
    return moved
