"""The metric "embedding_space": compares the embeddings of both generators, and of images and their translations."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

import ganlab
from ganlab import Estimate, Images, MetricInfo, MetricInputs, Unavailable
from ganlab.determinism import keyed
from ganlab.evaluation import estimates

Vectors = np.ndarray[Any, np.dtype[np.float64]]

MOST = 400
"""The largest number of training images of each domain from which a probe learns."""

SIDE = 8
"""The largest side of an embedding. Larger ones are averaged to 8x8 positions, so that the probe takes little time."""

RIDGES = 10.0 ** np.arange(2, -5, -1)
"""The candidates for a probe's ridge, in units of the mean squared norm of its training vectors."""

_BATCH = 32
"""The number of images of one call to the encoder: full-size embeddings of all images would not fit in memory."""

_TIE = 1e-9
"""Cosines that differ by less count as equal."""


class EmbeddingSpace(ganlab.Metric):
    """Measures how alike the embeddings of both generators are. Needs no discriminator on embeddings."""

    fewest = 2
    numbers = {  # noqa: RUF012  (an interface's attribute)
        "probe": MetricInfo(
            "how often a linear classifier, trained on embeddings of the training images, recognises the domain of a"
            " held-out image from its embedding: 0.5 if both domains' embeddings are alike, 1 if they are separate"
        ),
        "retrieval-rank": MetricInfo(
            "the rank of an output's own input among all inputs, ordered by the cosine of their embeddings with the"
            " output's: 1 is first, (n + 1) / 2 is chance"
        ),
    }

    def measure(self, data: MetricInputs) -> dict[str, Estimate]:
        """Returns the rank and, in direction "ab", the probe, which would be the same in "ba".

        Returns no numbers if outputs and inputs are the same images, as in a reference. Raises Unavailable if there is
        no run or no reverse direction, or if the directions' embeddings differ in shape.
        """
        inputs, outputs, direction = data.inputs, data.outputs, data.direction
        if inputs is outputs:
            return {}
        reverse = direction[::-1]
        translated = _embedded(data, reverse, outputs)
        if inputs is None:
            raise Unavailable("needs the input of each output, and there are none")
        own = _embedded(data, direction, inputs)
        if own.shape[1:] != translated.shape[1:]:
            shapes = " and ".join("x".join(map(str, each.shape[1:])) for each in (own, translated))
            raise Unavailable(f"needs embeddings of one shape, and those of {direction} and {reverse} are {shapes}")
        found = {}
        if direction == "ab":
            train = [_embedded(data, each, _some(data, each[0])) for each in (direction, reverse)]
            weights, threshold = probe(*_as_many(*train))
            of_a, of_b = _as_many(own, _embedded(data, reverse, data.targets))
            hits = np.concatenate([of_a @ weights <= threshold, of_b @ weights > threshold])
            found["probe"] = estimates.proportion(hits, "images", chance=0.5)
        chance = (len(own) + 1) / 2
        found["retrieval-rank"] = estimates.mean(ranks(_flat(translated), _flat(own)), "inputs", chance)
        return found


def probe(a: Vectors, b: Vectors) -> tuple[Vectors, float]:
    """Trains a linear classifier on two sets of vectors, both (n, d). Returns (w, t): x @ w > t assigns x to `b`.

    It is ridge regression of standardised vectors on the labels -1 and 1, in the dual form that suits d > n:
    w = X^T (X X^T + r I)^-1 y. The ridge r is the one of `RIDGES` with the smallest squared leave-one-out error,
    (G y)_i / G_ii with G = (X X^T + r I)^-1 (Allen's PRESS).
    """
    x = np.concatenate([a, b])
    labels = np.repeat([-1.0, 1.0], len(a))
    mean, deviation = x.mean(0), x.std(0)
    # removes features that are constant except for rounding
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
    """Returns (n,): the rank of vector i among all vectors by their cosine with query i. Both sets are (n, d).

    The mean of each set is subtracted first. Rank 1 has the largest cosine; ties share the mean of their ranks.
    """
    cosines = _directions(queries) @ _directions(vectors).T
    gaps = cosines - np.diag(cosines)[:, None]
    better, equal = gaps > _TIE, np.abs(gaps) <= _TIE
    # `equal` counts the vector itself
    found: Vectors = better.sum(1) + (equal.sum(1) + 1) / 2
    return found


def _directions(vectors: Vectors) -> Vectors:
    centred = vectors - vectors.mean(0)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    scaled: Vectors = centred / np.where(norms > 0, norms, 1.0)
    return scaled


def _embedded(data: MetricInputs, direction: str, images: Images) -> Tensor:
    """Returns embeddings (N, E, h, w), averaged to at most SIDE x SIDE positions."""
    parts = []
    for start in range(0, len(images), _BATCH):
        part = data.encode(direction, images.take(range(start, min(start + _BATCH, len(images)))))
        height, width = (min(side, SIDE) for side in part.shape[2:])
        parts.append(adaptive_avg_pool2d(part, (height, width)))
    return torch.cat(parts)


def _flat(embeddings: Tensor) -> Vectors:
    vectors: Vectors = embeddings.flatten(1).double().numpy()
    return vectors


def _as_many(a: Tensor, b: Tensor) -> tuple[Vectors, Vectors]:
    """Shortens the larger set to the size of the other, so that a guess is right half the time."""
    fewest = min(len(a), len(b))
    return _flat(a[:fewest]), _flat(b[:fewest])


def _some(data: MetricInputs, domain: str) -> Images:
    images = data.train[domain]
    chosen = keyed("probe", data.seed, domain).permutation(len(images))[:MOST]
    return images.take(sorted(int(i) for i in chosen))
