"""The kernel distance of two samples (KID, arXiv:1801.01401): the unbiased squared maximum mean discrepancy.

MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y), k(x, y) = (x.y / D + 1)^3
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ganlab.evaluation.estimates import groups, jackknifed, refuse_fewer
from ganlab.interfaces.metrics import Estimate

Array = np.ndarray[Any, Any]


def estimate(x: Array, y: Array, seed: int) -> Estimate:
    """Returns the KID of outputs' vectors (n, D) and real vectors (m, D), in float64, with a 95% interval.

    It is the mean over all pairs of different images, to which the usual means over random subsets converge. It may be
    negative. Papers often print it multiplied by a thousand.

    The interval comes from a jackknife that leaves out each of twenty random groups of each sample. It is about 1.4
    times too wide if both samples have the same distribution (docs/derivations.md).

    No matrix of kernels has more rows than a group has vectors. Raises Unavailable if a sample has fewer than four
    vectors.
    """
    counts = {"outputs": len(x), "real": len(y)}
    refuse_fewer(counts, 4)
    xs, ys = _parts(x, groups(len(x), seed, 0)), _parts(y, groups(len(y), seed, 1))
    xx, yy, xy = _sums_within(xs), _sums_within(ys), _sums(xs, ys)

    def mmd(within_x: Array, n: Array, within_y: Array, m: Array, between: Array) -> Array:
        found: Array = within_x / (n * (n - 1)) + within_y / (m * (m - 1)) - 2 * between / (n * m)
        return found

    n, m = np.array(len(x)), np.array(len(y))
    fewer_n, fewer_m = n - [len(part) for part in xs], m - [len(part) for part in ys]
    left_out = [
        mmd(_without_each(xx), fewer_n, yy.sum(), m, xy.sum() - xy.sum(1)),
        mmd(xx.sum(), n, _without_each(yy), fewer_m, xy.sum() - xy.sum(0)),
    ]
    return jackknifed(float(mmd(xx.sum(), n, yy.sum(), m, xy.sum())), left_out, counts)


def _parts(sample: Array, dealt: Array) -> list[Array]:
    """Returns the vectors of each group over sqrt(D), so that their products are x.y / D."""
    scaled = np.asarray(sample, np.float64) / math.sqrt(sample.shape[1])
    return [scaled[dealt == group] for group in range(dealt.max() + 1)]


def _joined(parts: Sequence[Array]) -> tuple[Array, Array]:
    """Returns the vectors of all groups, and the place of each group's first one, (G,)."""
    return np.concatenate(parts), np.cumsum([0, *map(len, parts[:-1])])


def _kernel(x: Array, y: Array, starts: Array) -> Array:
    """Returns the sums of the kernel over all pairs of a vector in `x` and a vector in each group of `y`, (G,)."""
    k = x @ y.T
    k += 1
    sums: Array = np.add.reduceat(np.einsum("ij,ij,ij->j", k, k, k), starts)
    return sums


def _sums(xs: Sequence[Array], ys: Sequence[Array]) -> Array:
    """Returns the sums of the kernel over all pairs between the groups of two samples, (G, H)."""
    y, starts = _joined(ys)
    return np.array([_kernel(x, y, starts) for x in xs])


def _sums_within(parts: Sequence[Array]) -> Array:
    """Returns the sums of the kernel over all pairs between the groups of one sample, (G, G).

    Pairs of an image with itself are left out.
    """
    joined, starts = _joined(parts)
    sums = np.zeros((len(parts), len(parts)))
    for i, part in enumerate(parts):
        # the kernel is symmetric
        before = _kernel(part, joined[: starts[i] + len(part)], starts[: i + 1])
        sums[i, : i + 1] = sums[: i + 1, i] = before
        sums[i, i] -= ((np.square(part).sum(1) + 1) ** 3).sum()
    return sums


def _without_each(sums: Array) -> Array:
    """Returns, for each group, the sum over all pairs without that group, (G,)."""
    kept: Array = sums.sum() - 2 * sums.sum(1) + sums.diagonal()
    return kept
