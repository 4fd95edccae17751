"""The metrics of the embedding space, on vectors whose separation is known and on real encoders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from ganlab_embedding.probe import EmbeddingSpace, probe, ranks
from scipy.stats import norm
from torch import Tensor

from ganlab import Images, MetricInputs, Unavailable
from ganlab.determinism import keyed
from ganlab.engine.trainer import Trainer
from ganlab.evaluation import estimates
from ganlab.evaluation.translators import Translators

Array = np.ndarray[Any, Any]


def hits(a: Array, b: Array, held_a: Array, held_b: Array) -> Array:
    weights, threshold = probe(a, b)
    return np.concatenate([held_a @ weights <= threshold, held_b @ weights > threshold])


@pytest.mark.parametrize(("dimensions", "learning"), [(10, 100), (500, 60)])
def test_a_probe_of_one_distribution_is_at_a_half(dimensions: int, learning: int) -> None:
    """The mean accuracy of 100 draws is 0.5 to four standard errors, and 90% of the intervals or more hold 0.5."""
    draws = keyed("null", dimensions)
    found = []
    for _ in range(100):
        sets = [draws.standard_normal((count, dimensions)) for count in (learning, learning, 100, 100)]
        found.append(estimates.proportion(hits(*sets)))
    assert np.mean([each.value for each in found]) == pytest.approx(0.5, abs=4 * (0.25 / 200 / 100) ** 0.5)
    assert sum(each.low <= 0.5 <= each.high for each in found) >= 90


@pytest.mark.parametrize("delta", [0.5, 1.0, 2.0, 4.0])
def test_a_probe_of_gaussians_apart_reaches_the_best_there_is(delta: float) -> None:
    """If the means are `delta` standard deviations apart, no classifier is better than Phi(delta / 2)."""
    draws = keyed("apart", str(delta))
    apart = delta * np.array([2.0, 1.0, -2.0, 0.0, 0.0]) / 3
    # another scale and place for each feature changes nothing
    scale, place = np.array([1e-3, 1.0, 1e3, 1.0, 1.0]), np.array([1.0, 0.0, 50.0, -3.0, 0.0])
    a, b, held_a, held_b = (
        (draws.standard_normal((count, 5)) + side * apart) * scale + place
        for side, count in ((0, 500), (1, 500), (0, 20000), (1, 20000))
    )
    assert hits(a, b, held_a, held_b).mean() == pytest.approx(norm.cdf(delta / 2), abs=0.01)


def test_a_probe_finds_a_faint_direction_among_loud_ones() -> None:
    """The means are four deviations apart along one of 100 faint directions. Every feature mixes the faint directions
    with 100 loud ones, so a ridge that is too strong would miss the difference."""
    draws = keyed("faint")
    loud = np.repeat([10.0, 0.1], 100)
    turn = np.linalg.qr(draws.standard_normal((200, 200)))[0]
    apart = np.where(np.arange(200) == 150, 0.4, 0.0)
    sets = [
        (draws.standard_normal((count, 200)) * loud + side * apart) @ turn
        for side, count in ((0, 400), (1, 400), (0, 1000), (1, 1000))
    ]
    assert hits(*sets).mean() > 0.93  # Phi(2) is 0.977


@pytest.mark.parametrize(("count", "dimensions"), [(30, 8), (12, 50)])
def test_the_probe_is_the_ridge_regression_that_foresees_best(count: int, dimensions: int) -> None:
    """The reference solves the normal equations in d dimensions, once for each vector that is left out."""
    draws = keyed("ridge", count)
    a, b = draws.standard_normal((count, dimensions)), draws.standard_normal((count, dimensions)) + 0.5
    x = np.concatenate([a, b])
    labels = np.array([-1.0] * count + [1.0] * count)
    z = (x - x.mean(0)) / x.std(0)

    def solved(members: Array, ridge: float) -> Array:
        within = z[members]
        return np.asarray(np.linalg.solve(within.T @ within + ridge * np.eye(dimensions), within.T @ labels[members]))

    def foreseen(ridge: float) -> float:
        everyone = np.arange(2 * count)
        return sum(float(z[i] @ solved(np.delete(everyone, i), ridge) - labels[i]) ** 2 for i in everyone)

    # standardised vectors have a squared norm of d on average
    best = min((10.0**power * dimensions for power in range(-4, 3)), key=foreseen)
    weights, threshold = probe(a, b)
    expected = z @ solved(np.arange(2 * count), best)
    np.testing.assert_allclose(x @ weights - threshold, expected, rtol=0, atol=1e-9)


def test_features_that_say_nothing() -> None:
    """Features that are constant except for rounding are ignored. Without others, all are assigned to domain a."""
    draws = keyed("constant")
    sets = [draws.standard_normal((50, 3)) + side for side in (0, 1, 0, 1)]
    constant = [0.1 + 1e-9 * draws.standard_normal((50, 2)) for _ in sets]
    wide = [np.concatenate([one, other], 1) for one, other in zip(sets, constant, strict=True)]
    np.testing.assert_array_equal(hits(*wide), hits(*sets))
    assert hits(*[np.ones((50, 3))] * 4).mean() == 0.5


def test_ranks_against_sorting() -> None:
    draws = keyed("ranks")
    vectors = draws.standard_normal((40, 6))
    queries = vectors + draws.standard_normal((40, 6))
    x, y = vectors - vectors.mean(0), queries - queries.mean(0)
    expected = []
    for i in range(40):
        cosines = [float(y[i] @ x[j] / np.linalg.norm(y[i]) / np.linalg.norm(x[j])) for j in range(40)]
        expected.append(sorted(cosines, reverse=True).index(cosines[i]) + 1)
    assert ranks(queries, vectors).tolist() == expected
    assert len(set(expected)) > 5


def test_ranks_of_known_cases() -> None:
    draws = keyed("known")
    vectors = draws.standard_normal((200, 30))
    assert ranks(3 * vectors + 7, vectors).tolist() == [1] * 200
    shuffled = ranks(vectors[draws.permutation(200)], vectors)
    # ranks of 1 to n at random have a variance of (n^2 - 1) / 12
    assert shuffled.mean() == pytest.approx(100.5, abs=4 * ((200**2 - 1) / 12 / 200) ** 0.5)
    # each vector occurs twice, so the first two ranks are shared
    twice = np.concatenate([vectors, vectors])
    assert ranks(twice, twice).tolist() == [1.5] * 400
    # all vectors are equal, so all ranks are shared
    assert ranks(np.ones((9, 30)), vectors[:9]).tolist() == [5] * 9


Make = Callable[..., Trainer]
SIZE = 16


def pictures(domain: str, count: int, *key: str) -> Images:
    """Noise of the same distribution for every key."""
    pixels = keyed("pictures", domain, *key).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
    return Images(list(pixels), domain)


def data(encode: Callable[[str, Images], Tensor], count: int = 60, learning: int = 120) -> MetricInputs:
    """Data of direction "ab", whose outputs are copies of the inputs."""
    inputs = pictures("a", count)
    return MetricInputs(
        "ab",
        Images(list(inputs.pixels), "b"),
        pictures("b", count),
        inputs,
        train={domain: pictures(domain, learning, "learning") for domain in "ab"},
        encode=encode,
    )


@pytest.mark.parametrize("shared", [True, False])
def test_the_space_of_real_encoders(make_trainer: Make, shared: bool) -> None:
    """If both directions share an encoder, domains can't be told apart, and a copy finds its original. If the encoders
    have different weights, neither holds."""
    system = make_trainer().system
    generators = {direction: system.networks.generator(direction) for direction in ("ab", "ba")}
    if shared:
        generators["ba"].load_state_dict(generators["ab"].state_dict())
    given = data(Translators(system, generators, {"a": 3, "b": 3}).encode)
    found = EmbeddingSpace().measure(given)
    assert list(found) == ["probe", "retrieval-rank"]
    aligned, rank = found.values()
    assert (aligned.chance, rank.chance) == (0.5, 30.5)
    assert (aligned.counts, rank.counts) == ({"images": 120}, {"inputs": 60})
    if shared:
        assert aligned.value == pytest.approx(0.5, abs=3 * (0.25 / 120) ** 0.5)
        assert rank.value == 1
    else:
        assert aligned.low > 0.8
        assert rank.low > 1
    assert EmbeddingSpace().measure(given) == found
    # in the other direction the embeddings are the same, so the probe is not repeated
    assert given.inputs is not None
    copies = Images(given.targets.pixels, "a")
    back = replace(given, direction="ba", inputs=given.targets, outputs=copies, targets=given.inputs)
    assert list(EmbeddingSpace().measure(back)) == ["retrieval-rank"]
    # in a reference, outputs and inputs are the same images
    assert EmbeddingSpace().measure(replace(given, outputs=given.inputs)) == {}


def brightness(direction: str, images: Images) -> Tensor:
    """Returns the pixels, (N, 3, 16, 16), brighter in direction "ba"."""
    return images.tensor() + (1 if direction == "ba" else 0)


def test_the_probe_learns_from_one_part_and_is_tested_on_the_other() -> None:
    """Trains on at most 400 images of each domain, chosen by the run's seed, and tests on held-out images alone."""
    seen: list[tuple[str, int]] = []

    def counted(direction: str, images: Images) -> Tensor:
        seen.append((direction, len(images)))
        return brightness(direction, images)

    given = data(counted, learning=450)
    given = replace(given, targets=given.targets.take(range(45)))
    found = EmbeddingSpace().measure(given)
    assert found["probe"].value == 1
    assert found["probe"].counts == {"images": 90}
    totals = {direction: sum(count for each, count in seen if each == direction) for direction in ("ab", "ba")}
    assert totals == {"ab": 60 + 400, "ba": 60 + 400 + 45}
    assert max(count for _, count in seen) <= 32


def test_large_embeddings_are_averaged_and_others_are_not() -> None:
    """An embedding with 2 x 2 averages equal to 8 x 8 pixels gives the same numbers as the pixels."""

    def pixels(direction: str, images: Images) -> Tensor:
        return images.tensor()[:, :, ::2, ::2]

    def large(direction: str, images: Images) -> Tensor:
        small = pixels(direction, images).contiguous()
        loud = 50 * torch.rand(small.shape, generator=torch.Generator().manual_seed(len(images)))
        return torch.kron(small, torch.ones(2, 2)) + torch.kron(loud, torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))

    def vectors(images: Images) -> Array:
        return np.stack([image[::2, ::2].astype(float).ravel() for image in images.pixels])

    given = data(pixels, 40, 60)
    faint = [
        (0.04 * x + 0.96 * y).astype(np.uint8) for x, y in zip(given.outputs.pixels, given.targets.pixels, strict=True)
    ]
    given = replace(given, outputs=Images(faint, "b"))
    found, averaged = (EmbeddingSpace().measure(replace(given, encode=encode)) for encode in (pixels, large))
    assert given.inputs is not None
    assert found["retrieval-rank"].value == ranks(vectors(given.outputs), vectors(given.inputs)).mean() > 1
    for name, estimate in found.items():
        assert averaged[name].value == pytest.approx(estimate.value, abs=0.03)


def test_embeddings_of_two_shapes_are_named() -> None:
    def encode(direction: str, images: Images) -> Tensor:
        return torch.zeros(len(images), 8 if direction == "ab" else 12, 4, 5)

    with pytest.raises(Unavailable, match="one shape, and those of ab and ba are 8x4x5 and 12x4x5"):
        EmbeddingSpace().measure(data(encode))


def test_without_a_run_or_the_reverse_direction_there_is_nothing_to_measure(make_trainer: Make) -> None:
    folders = MetricInputs("", pictures("", 4), pictures("", 4))
    with pytest.raises(Unavailable, match="needs a run"):
        EmbeddingSpace().measure(folders)
    system = make_trainer({"directions": ["ab"], "losses": {"cycle": None}}).system
    encode = Translators(system, {"ab": system.networks.generator("ab")}, {"a": 3, "b": 3}).encode
    with pytest.raises(Unavailable, match="needs the direction ba"):
        EmbeddingSpace().measure(data(encode))
