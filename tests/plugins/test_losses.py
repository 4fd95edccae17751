"""The shipped losses and the critic, on discriminators whose scores are known in closed form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from ganlab_cyclegan.discriminator import Patch
from ganlab_cyclegan.losses import LSGAN
from ganlab_embedding import EmbeddingDiscriminator, EmbeddingLSGAN
from ganlab_noisy_labels import NoisyLSGAN
from ganlab_wgan import Critic, GradientPenalty, Wasserstein
from torch import Tensor, nn

import ganlab
from ganlab import Translation
from ganlab.determinism import keyed
from ganlab.engine.trainer import Trainer
from helpers.one_turn import Constant, Linear, noise, number, one_turn
from helpers.systems import DIRECTIONS, SIZE, RandomImages

Make = Callable[..., Trainer]


@pytest.mark.parametrize("scores", [1, 3])
@pytest.mark.parametrize("norm", [0.0, 0.25, 1.0, 7.0])
def test_gradient_penalty_of_a_linear_critic(norm: float, scores: int) -> None:
    """The gradient of a mean of linear scores is their mean weight w, so the penalty is (|w| - 1)^2."""
    weight = noise(scores, 3, SIZE, SIZE)
    if scores > 1:
        weight -= weight.mean(dim=0, keepdim=True)
    direction = noise(3, SIZE, SIZE, seed=1)
    mean = norm * direction / direction.norm()
    weight = weight + mean if scores > 1 else mean[None]
    t = Translation("ab", one_turn(Linear(weight), "discriminator"))
    value = GradientPenalty().discriminator(t)
    assert number(value) == pytest.approx((norm - 1) ** 2, abs=1e-12)
    if norm:
        # d/dw (|mean w| - 1)^2 = 2 (|mean w| - 1) mean w / (K |mean w|)
        (gradient,) = torch.autograd.grad(value, t.discriminator().weight)
        expected = (2 * (norm - 1) * mean / norm / scores).expand_as(weight)
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)


def test_the_penalised_points_lie_between_reals_and_fakes() -> None:
    """Each image has one mixing number, drawn by its documented key."""
    seen: list[Tensor] = []

    class Watching(Linear):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.detach())
            return super().forward(x)

    t = Translation("ba", one_turn(Watching(noise(1, 3, SIZE, SIZE)), "discriminator", position=(5, 2)))
    GradientPenalty().discriminator(t)
    mix = torch.from_numpy(keyed(0, "draw", 5, 2, "ba", 0).random((4, 1, 1, 1)))
    torch.testing.assert_close(seen, [mix * t.target + (1 - mix) * t.fake], rtol=0, atol=1e-14)


def test_wasserstein_signs() -> None:
    """A higher score of reals lowers the critic's term; a higher score of fakes lowers the generator's term."""
    weight = noise(1, 3, SIZE, SIZE)
    made = one_turn(Linear(weight), "discriminator")
    t, loss = Translation("ab", made), Wasserstein()
    (gradient,) = torch.autograd.grad(loss.discriminator(t), t.discriminator().weight)
    torch.testing.assert_close(-gradient[0], t.target.mean(dim=0) - t.fake.mean(dim=0), rtol=0, atol=1e-12)
    made.begin("generator", (0, 1), with_graph=True)
    fake = t.fake
    (gradient,) = torch.autograd.grad(loss.generator(t), fake)
    torch.testing.assert_close(-gradient, (weight / len(fake)).expand_as(fake), rtol=0, atol=1e-12)


def test_lsgan_of_constant_scores() -> None:
    made = one_turn(Constant(0.25), "discriminator")
    t = Translation("ab", made)
    parts = {name: number(value) for name, value in LSGAN().discriminator(t).items()}
    assert parts == pytest.approx({"real": 0.75**2, "fake": 0.25**2})
    made.begin("generator", (0, 1), with_graph=True)
    assert number(LSGAN().generator(t)) == pytest.approx(0.75**2)


@pytest.mark.parametrize(
    ("target", "wanted"), [("other", {"ab": 1.0, "ba": 0.0}), ("as_printed", {"ab": 0.0, "ba": 0.0})]
)
def test_embedding_targets(target: Any, wanted: dict[str, float]) -> None:
    """D_emb learns to score ab 0 and ba 1. The generators' target depends on the option."""
    made, loss = one_turn(Constant(0.3, "embeddings"), "discriminator"), EmbeddingLSGAN(target)
    found = [number(loss.discriminator(Translation(direction, made))) for direction in DIRECTIONS]
    assert found == pytest.approx([0.3**2, 0.7**2])
    made.begin("generator", (0, 1), with_graph=True)
    found = [number(loss.generator(Translation(direction, made))) for direction in DIRECTIONS]
    assert found == pytest.approx([(0.3 - wanted[direction]) ** 2 for direction in DIRECTIONS])


def targets(loss: NoisyLSGAN, updates: int) -> dict[str, np.ndarray]:
    """Returns the targets of every update, for reals and fakes. With one image and the score 0, a term is the square of
    its target."""
    made = one_turn(Constant(0.0), "discriminator", batch=1)
    found: dict[str, list[float]] = {"real": [], "fake": []}
    for step in range(updates):
        made.begin("discriminator", (step, 1), with_graph=False)
        for part, value in loss.discriminator(Translation("ab", made)).items():
            found[part].append(number(value) ** 0.5)
    return {part: np.array(values) for part, values in found.items()}


def check_uniform(drawn: np.ndarray, low: float, high: float) -> None:
    """The values lie in the interval, have its mean and variance to five standard errors, and never repeat."""
    assert low <= drawn.min()
    assert drawn.max() <= high
    width, error = high - low, 5 / len(drawn) ** 0.5
    assert abs(drawn.mean() - (low + high) / 2) < error * width * (1 / 12) ** 0.5
    assert abs(drawn.var() - width**2 / 12) < error * width**2 * (1 / 180) ** 0.5
    assert len(set(drawn)) == len(drawn)


def test_noisy_targets_of_eq_2() -> None:
    """The targets of fakes are drawn from U(0, 0.2); that of reals is 1."""
    drawn = targets(NoisyLSGAN(), 2000)
    check_uniform(drawn["fake"], 0.0, 0.2)
    assert set(drawn["real"]) == {1.0}


def test_noisy_targets_of_both() -> None:
    drawn = targets(NoisyLSGAN(fake=(0.1, 0.3), real=(0.7, 1.2)), 2000)
    check_uniform(drawn["fake"], 0.1, 0.3)
    check_uniform(drawn["real"], 0.7, 1.2)
    assert abs(np.corrcoef(drawn["fake"], drawn["real"])[0, 1]) < 5 / 2000**0.5


@pytest.mark.parametrize("flip", [0.0, 0.3, 1.0])
def test_flipped_targets(flip: float) -> None:
    """A target is drawn from the other interval with probability `flip`."""
    drawn = targets(NoisyLSGAN(fake=(0.0, 0.2), real=(0.8, 1.0), flip=flip), 2000)
    error = 5 * (flip * (1 - flip) / 2000) ** 0.5
    flipped = {"fake": drawn["fake"] > 0.5, "real": drawn["real"] < 0.5}
    for part, interval in {"fake": (0.0, 0.2), "real": (0.8, 1.0)}.items():
        assert abs(flipped[part].mean() - flip) <= error
        other = (0.8, 1.0) if part == "fake" else (0.0, 0.2)
        if flip < 1:
            check_uniform(drawn[part][~flipped[part]], *interval)
        if flip > 0:
            check_uniform(drawn[part][flipped[part]], *other)


def test_a_target_is_one_number_an_image() -> None:
    """Each image has one target for all of its scores, and the targets of images differ."""
    patch = Patch(RandomImages().domains["b"], 2, 1).double()
    t = Translation("ab", one_turn(patch, "discriminator", position=(3, 1)))
    u = torch.from_numpy(keyed(0, "draw", 3, 1, "ab", 1).random((4, 1, 1, 1))) * 0.2
    assert len(set(u.flatten().tolist())) == 4
    scores = patch(t.fake_for_discriminator)
    assert scores.shape[2:] != (1, 1)
    expected = torch.stack([((scores[i] - u[i].item()) ** 2).mean() for i in range(4)]).mean()
    torch.testing.assert_close(NoisyLSGAN().discriminator(t)["fake"], expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("option", ["fake", "real"])
def test_an_interval_upside_down_is_an_error(option: str) -> None:
    with pytest.raises(ValueError, match=rf"{option} is \[0\.5, 0\.1\]; the lower end"):
        NoisyLSGAN(**{option: (0.5, 0.1)})


def largest(module: nn.Module) -> float:
    return max(p.detach().abs().max().item() for p in module.parameters())


@pytest.mark.parametrize("clamp", [0.01, 0.003])
def test_the_critics_weights_stay_clamped(make_trainer: Make, clamp: float) -> None:
    """The weights are clamped after construction and after each update, also inside a step."""
    of = {"type": "patch", "width": 4, "layers": 1}
    patch = {
        "discriminators": {"image": {"type": "critic", "of": of, "clamp": clamp}},
        "losses": {"adversarial": {"type": "wasserstein"}},
        "schedule": {"type": "wgan", "lr": 0.01},
    }
    trainer = make_trainer(patch)
    critics = [trainer.system.networks.discriminator(f"discriminator/image/{d}") for d in "ab"]
    # networks are made in float32
    assert [largest(c) for c in critics] == pytest.approx([clamp] * 2, rel=1e-7)
    seen: list[float] = []
    for critic in critics:
        first = next(part for part in critic.modules() if isinstance(part, torch.nn.Conv2d))
        first.register_forward_pre_hook(lambda *_, critic=critic: seen.append(largest(critic)))
    loose: list[float] = []
    trainer.state.optimizers["discriminator"].register_step_post_hook(lambda *_: loose.extend(map(largest, critics)))
    trainer.step()
    # without the clamp an update of this learning rate leaves the interval
    assert min(loose) > clamp
    assert seen
    assert max(seen) <= clamp * (1 + 1e-7)
    assert [largest(c) for c in critics] == [clamp] * 2


def test_a_critic_without_a_clamp_is_what_it_wraps() -> None:
    of = Patch(RandomImages().domains["a"], 4, 1)
    before = [p.clone() for p in of.parameters()]
    critic = Critic(of, clamp=0)
    critic.after_update()
    for p, q in zip(critic.parameters(), before, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=0)
    x = torch.rand(2, 3, SIZE, SIZE)
    torch.testing.assert_close(critic(x), of(x), rtol=0, atol=0)


def test_a_critic_sees_what_it_wraps_sees_and_passes_updates_on() -> None:
    assert Critic(EmbeddingDiscriminator(ganlab.Domain("embedding", 4, 4, 4), 2, 1)).sees == "embeddings"
    outer = Critic(Critic(Patch(RandomImages().domains["a"], 4, 1), clamp=0.001), clamp=0.1)
    with torch.no_grad():
        for p in outer.parameters():
            p.fill_(1.0)
    outer.after_update()
    assert largest(outer) == pytest.approx(0.001)
