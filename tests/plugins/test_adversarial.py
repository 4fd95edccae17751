"""The adversarial losses, on scores that are known, by their formulas in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ganlab_adversarial import Hinge, Minimax, NonSaturating, Relativistic
from torch.nn.functional import hinge_embedding_loss

import ganlab
from ganlab import Translation
from ganlab.components.registry import registry
from helpers.one_turn import Linear, noise, number, one_turn
from helpers.systems import SIZE

Scores = np.ndarray[tuple[int], np.dtype[np.float64]]

WEIGHT = 0.6 * noise(1, 3, SIZE, SIZE)


def sigmoid(s: Scores) -> Scores:
    found: Scores = 1 / (1 + np.exp(-s))
    return found


def scores(images: torch.Tensor) -> Scores:
    """Returns the scores of `Linear`, computed without it."""
    found: Scores = images.detach().numpy().reshape(len(images), -1) @ WEIGHT.numpy().reshape(-1)
    # the scores must differ, so that a wrong mean or pairing gives another number
    assert np.ptp(found) > 0.5
    return found


@pytest.mark.parametrize("loss", [Minimax(), NonSaturating()])
@pytest.mark.parametrize("direction", ["ab", "ba"])
def test_the_discriminator_of_goodfellow(loss: ganlab.Loss, direction: str) -> None:
    """It maximises E log D(x) + E log(1 - D(G(z))), D being the scores' sigmoid."""
    t = Translation(direction, one_turn(Linear(WEIGHT), "discriminator"))
    parts = loss.discriminator(t)
    assert isinstance(parts, dict)
    expected = {
        "real": -np.log(sigmoid(scores(t.target))).mean(),
        "fake": -np.log(1 - sigmoid(scores(t.fake_for_discriminator))).mean(),
    }
    assert {part: number(value) for part, value in parts.items()} == pytest.approx(expected, rel=1e-10)


def test_the_generators_of_goodfellow() -> None:
    """E log(1 - D(G(z))), and -E log D(G(z)): values, and slopes -D and -(1 - D) in the fake's score."""
    t = Translation("ab", one_turn(Linear(WEIGHT), "generator"))
    d = sigmoid(scores(t.fake))
    cases = [(Minimax(), np.log(1 - d), -d), (NonSaturating(), -np.log(d), -(1 - d))]
    for loss, value, slope in cases:
        term = loss.generator(t)
        assert number(term) == pytest.approx(value.mean(), rel=1e-10)
        (gradient,) = torch.autograd.grad(term, t.fake, retain_graph=True)
        expected = torch.from_numpy(slope / len(d))[:, None, None, None] * WEIGHT
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("direction", ["ab", "ba"])
def test_relativistic_pairing(direction: str) -> None:
    """-E log sigmoid(real score - fake score) for the discriminator; the opposite difference for the generator."""
    made = one_turn(Linear(WEIGHT), "discriminator")
    t, loss = Translation(direction, made), Relativistic()
    real, fake = scores(t.target), scores(t.fake_for_discriminator)
    expected = -np.log(sigmoid(real - fake))
    # another pairing gives another number
    assert abs(expected.mean() + np.log(sigmoid(real - fake[::-1])).mean()) > 1e-4
    assert number(loss.discriminator(t)) == pytest.approx(expected.mean(), rel=1e-10)
    made.begin("generator", (0, 1), with_graph=True)
    term = loss.generator(t)
    assert number(term) == pytest.approx(-np.log(sigmoid(fake - real)).mean(), rel=1e-10)
    (gradient,) = torch.autograd.grad(term, t.fake)
    slope = torch.from_numpy(-sigmoid(real - fake) / len(fake))[:, None, None, None] * WEIGHT
    torch.testing.assert_close(gradient, slope, rtol=0, atol=1e-14)


@pytest.mark.parametrize("margin", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("direction", ["ab", "ba"])
def test_hinge(direction: str, margin: float) -> None:
    """D's term is E max(0, margin - D(x)) + E max(0, margin + D(G(z))), also by torch, with slopes -1 and 1 within the
    margin and 0 beyond. G's term is -E D(G(z)), with slope -1 everywhere."""
    made = one_turn(Linear(WEIGHT), "discriminator", batch=8)
    t, loss = Translation(direction, made), Hinge(margin)
    real, fake = scores(t.target), scores(t.fake_for_discriminator)
    parts = loss.discriminator(t)
    expected = {"real": np.maximum(0, margin - real).mean(), "fake": np.maximum(0, margin + fake).mean()}
    assert {part: number(value) for part, value in parts.items()} == pytest.approx(expected, rel=1e-10)
    for part, said in (("real", real), ("fake", -fake)):
        torchs = hinge_embedding_loss(torch.from_numpy(said), -torch.ones(len(said)), margin)
        assert number(parts[part]) == pytest.approx(number(torchs), rel=1e-10)
    cases = [("real", t.target, -1.0 * (real < margin)), ("fake", t.fake_for_discriminator, 1.0 * (fake > -margin))]
    # there are scores on both sides of the margin
    assert {slope for _, _, slopes in cases for slope in np.abs(slopes)} == {0, 1}
    for part, images, slope in cases:
        (gradient,) = torch.autograd.grad(parts[part], images)
        weighted = torch.from_numpy(slope / len(slope))[:, None, None, None] * WEIGHT
        torch.testing.assert_close(gradient, weighted, rtol=0, atol=1e-14)
    made.begin("generator", (0, 1), with_graph=True)
    term = loss.generator(t)
    assert number(term) == pytest.approx(-fake.mean(), rel=1e-10)
    (gradient,) = torch.autograd.grad(term, t.fake)
    torch.testing.assert_close(gradient, (-WEIGHT / len(fake)).expand_as(gradient), rtol=0, atol=1e-14)


def test_the_name_of_the_readmes_plugin_is_free() -> None:
    assert registry().find("loss", "hinge_gan", "").cls is Hinge
    assert "hinge" not in registry().names("loss")


def test_scores_that_are_large_stay_finite() -> None:
    """The sigmoid of 1000 is 1, and log(1 - 1) does not exist; softplus(1000) is 1000."""
    weight = torch.ones_like(WEIGHT)
    for loss in (Minimax(), NonSaturating(), Relativistic(), Hinge()):
        made = one_turn(Linear(1e4 * weight), "discriminator")
        t = Translation("ab", made)
        given = loss.discriminator(t)
        terms = list(given.values()) if isinstance(given, dict) else [given]
        made.begin("generator", (0, 1), with_graph=True)
        assert torch.stack([*terms, loss.generator(t)]).isfinite().all()
