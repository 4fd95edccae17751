"""The Fréchet distance between the Gaussians fitted to two samples (arXiv:1706.08500), with its interval.

d = |mu1 - mu2|^2 + Tr S1 + Tr S2 - 2 Tr (S1 S2)^(1/2)

With S1 = A^T A and S2 = B^T B the last trace is the sum of the singular values of A B^T, whatever the factors. They are
the centred samples themselves, over sqrt(n - 1): with fewer images than dimensions A B^T is then small. A longer sample
gives way to the triangle of its QR decomposition (D, D). No covariance is formed: squared singular values would lose
half of their digits.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import t

from ganlab.evaluation.estimates import LEVEL, refuse_fewer
from ganlab.interfaces import Estimate

Array = np.ndarray[Any, Any]

ROUNDING = 1e-12
"""A distance below so much of the samples' spread is none."""

WIDEST = 1000.0
"""By no more than this factor do an interval's ends lie from the figure: far beyond what the method can tell."""


def frechet(x: Array, y: Array) -> float:
    """The distance between samples (n, D) and (m, D), with the unbiased covariances, in float64.

    Raises Unavailable where a sample has fewer than two.
    """
    refuse_fewer({"outputs": len(x), "real": len(y)}, 2)
    a, b = _Side.of(x), _Side.of(y)
    left, right = _factors(a.rows, b.rows)
    return _distance(a, b, np.linalg.svd(left @ right.T, compute_uv=False))


def estimate(x: Array, y: Array) -> Estimate:
    """The distance between outputs' vectors (n, D) and real ones (m, D), with a 95% interval for its mean at these n
    and m: not for its limit, from which it is biased upwards.

    The variance is the infinitesimal jackknife's (Efron, 1982): that of each image's influence, the derivative of the
    distance by the image's weight. For x_i it is, with the optimal transport map T from S1 to S2,

    2 (mu1 - mu2).(x_i - mu1) + |x_i - mu1|^2 - (x_i - mu1)^T T (x_i - mu1)

    The interval is symmetric on the scale of the logarithm. Where the two distributions are nearly the same it is about
    1.4 times too wide: the variance is then that of pairs of images, which a jackknife counts twice. With very heavy
    tails it is too narrow. The plain bootstrap does not hold at all: resamples repeat images, which adds to their
    distance as fewer images would, and its interval can miss the figure itself.

    Raises Unavailable where a sample has fewer than four.
    """
    counts = {"outputs": len(x), "real": len(y)}
    refuse_fewer(counts, 4)
    a, b = _Side.of(x), _Side.of(y)
    left, right = _factors(a.rows, b.rows)
    u, singular, vt = np.linalg.svd(left @ right.T, full_matrices=False)
    value = _distance(a, b, singular)
    if value <= ROUNDING * (a.spread + b.spread):
        return Estimate(0.0, 0.0, 0.0, counts)
    shift = a.mean - b.mean
    influences = (
        a.influences(shift, _moved(a.rows, left, u, right.T @ vt.T, singular)),
        b.influences(-shift, _moved(b.rows, right, vt.T, left.T @ u, singular)),
    )
    deviation = math.sqrt(sum(float(each.var(ddof=1)) / len(each) for each in influences))
    quantile = float(t.ppf((1 + LEVEL) / 2, min(counts.values()) - 1))
    factor = math.exp(min(quantile * deviation / value, math.log(WIDEST)))
    return Estimate(value, value / factor, value * factor, counts)


class _Side(NamedTuple):
    mean: Array
    rows: Array
    """Centred, over sqrt(n - 1): rows^T rows is the covariance."""
    spread: float
    """The covariance's trace."""

    @classmethod
    def of(cls, sample: Array) -> _Side:
        mean = sample.mean(0, dtype=np.float64)
        rows = (sample - mean) / math.sqrt(len(sample) - 1)
        return cls(mean, rows, float(np.vdot(rows, rows)))

    def influences(self, shift: Array, moved: Array) -> Array:
        """(n,): the derivatives by each image's weight, from `shift`, this mean less the other, and rows^T T rows."""
        count = len(self.rows)
        found: Array = 2 * math.sqrt(count - 1) * (self.rows @ shift) + count * (np.square(self.rows).sum(1) - moved)
        return found


def _factors(a: Array, b: Array) -> tuple[Array, Array]:
    """The rows, or what stands for them where that makes the singular values cheaper: the product and its reduction to
    (few, few) cost about few m (few + D), the QR decomposition m D^2."""
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
    """(n,): r^T T r of each row r. `own` are the factor's singular vectors, `other` the other side's on its factor.

    T = W s^-1 W^T with W = `other`, and W = T factor^T own, so that own = factor W / s.
    """
    if factor is rows:
        moved: Array = np.square(own) @ singular
    else:
        sure = singular > singular[0] * len(singular) * np.finfo(np.float64).eps
        moved = np.square(rows @ other[:, sure]) @ (1 / singular[sure])
    return moved
