"""How far both generators' embeddings lie in one space, and whether a translation keeps its place in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

import ganlab
from ganlab import Estimate, Evidence, Images, Number, Unavailable
from ganlab.draws import keyed
from ganlab.evaluation import estimates

Vectors = np.ndarray[Any, np.dtype[np.float64]]

MOST = 400
"""Training images of each domain from which a probe learns."""

SIDE = 16
"""Larger embeddings are averaged to 16x16 positions, so that those of large images fit in memory."""

RIDGES = 10.0 ** np.arange(2, -5, -1)
"""What a probe's ridge is chosen from, in units of the mean squared norm of its training vectors."""

_BATCH = 32
"""Images a call to the encoder: full-size embeddings of all would not fit."""

_TIE = 1e-9
"""Cosines that differ by less are equal but for rounding."""


class EmbeddingSpace(ganlab.Metric):
    """What a discriminator on the embeddings is there for, measured without one."""

    numbers = {  # noqa: RUF012  (an interface's attribute)
        "probe": Number(
            "how often a linear classifier, trained on the training images, tells from a held-out image's embedding"
            " which domain it is of: 0.5 where both domains' embeddings are alike, 1 where they lie apart"
        ),
        "retrieval-rank": Number(
            "where an output's embedding finds its own input's among those of all inputs, ordered by their cosine: 1 is"
            " first, (n + 1) / 2 is chance"
        ),
    }

    def measure(self, evidence: Evidence) -> dict[str, Estimate]:
        """The rank; and on way "ab" the probe, which is the same on the other. Nothing where outputs are the inputs.

        Raises Unavailable where there is no run or no way back, or where the ways' embeddings differ in shape.
        """
        inputs, outputs, way = evidence.inputs, evidence.outputs, evidence.way
        if inputs is outputs:
            return {}
        back = way[::-1]
        translated = _embedded(evidence, back, outputs)
        if inputs is None:
            raise Unavailable("needs the input of each output, and there are none")
        own = _embedded(evidence, way, inputs)
        if own.shape[1:] != translated.shape[1:]:
            shapes = " and ".join("x".join(map(str, each.shape[1:])) for each in (own, translated))
            raise Unavailable(f"needs embeddings of one shape, and those of {way} and {back} are {shapes}")
        found = {}
        if way == "ab":
            learning = [_embedded(evidence, each, _some(evidence, each[0])) for each in (way, back)]
            weights, threshold = probe(*_as_many(*learning))
            of_a, of_b = _as_many(own, _embedded(evidence, back, evidence.targets))
            hits = np.concatenate([of_a @ weights <= threshold, of_b @ weights > threshold])
            found["probe"] = estimates.proportion(hits, "images", chance=0.5)
        chance = (len(own) + 1) / 2
        found["retrieval-rank"] = estimates.mean(ranks(_flat(translated), _flat(own)), "inputs", chance)
        return found


def probe(a: Vectors, b: Vectors) -> tuple[Vectors, float]:
    """Two sets of vectors, (n, d) both -> (w, t) so that x @ w > t where x is rather one of `b`.

    Least squares on labels -1 and 1 with a ridge, of standardised vectors, in the dual form that suits d > n:
    w = X^T (X X^T + r I)^-1 y. Of `RIDGES` it is the one with the least squared error when each vector is left out in
    turn, (G y)_i / G_ii with G = (X X^T + r I)^-1 (Allen's PRESS).
    """
    x = np.concatenate([a, b])
    labels = np.repeat([-1.0, 1.0], len(a))
    mean, deviation = x.mean(0), x.std(0)
    # a feature that is constant but for rounding says nothing
    scale = np.where(deviation > 1e-6 * np.abs(mean), deviation, np.inf)
    x = (x - mean) / scale
    products = x @ x.T
    # all features constant: any ridge gives w = 0
    unit = products.trace() / len(x) or 1.0
    values, directions = np.linalg.eigh(products)
    least, dual = np.inf, labels
    for ridge in RIDGES * unit:
        inverse = 1 / (values + ridge)
        fit = directions @ (inverse * (directions.T @ labels))
        error = float(np.square(fit / (directions**2 @ inverse)).mean())
        if error < least:
            least, dual = error, fit
    weights: Vectors = x.T @ dual / scale
    return weights, float(mean @ weights)


def ranks(queries: Vectors, vectors: Vectors) -> Vectors:
    """(n, d) both -> (n,): the rank of vector i among all vectors by their cosine with query i, less the mean of each
    set. 1 is the largest; equal ones share the mean of their ranks."""
    cosines = _directions(queries) @ _directions(vectors).T
    gaps = cosines - np.diag(cosines)[:, None]
    better, equal = gaps > _TIE, np.abs(gaps) <= _TIE
    # equal to itself, too
    found: Vectors = better.sum(1) + (equal.sum(1) + 1) / 2
    return found


def _directions(vectors: Vectors) -> Vectors:
    centred = vectors - vectors.mean(0)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    scaled: Vectors = centred / np.where(norms > 0, norms, 1.0)
    return scaled


def _embedded(evidence: Evidence, way: str, images: Images) -> Tensor:
    """(N, E, h, w), each batch averaged to at most SIDE x SIDE positions."""
    parts = []
    for start in range(0, len(images), _BATCH):
        part = evidence.encode(way, images.take(range(start, min(start + _BATCH, len(images)))))
        height, width = (min(side, SIDE) for side in part.shape[2:])
        parts.append(adaptive_avg_pool2d(part, (height, width)))
    return torch.cat(parts)


def _flat(embeddings: Tensor) -> Vectors:
    vectors: Vectors = embeddings.flatten(1).double().numpy()
    return vectors


def _as_many(a: Tensor, b: Tensor) -> tuple[Vectors, Vectors]:
    """As many of each, so that a guess is right half the time."""
    fewest = min(len(a), len(b))
    return _flat(a[:fewest]), _flat(b[:fewest])


def _some(evidence: Evidence, domain: str) -> Images:
    images = evidence.learning[domain]
    chosen = keyed("probe", evidence.seed, domain).permutation(len(images))[:MOST]
    return images.take(sorted(int(i) for i in chosen))
