"""Losses of unusual forms, which the trainer can train, pass `check_loss`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss

import ganlab
from ganlab import Domain, Translation, testing
from ganlab.engine.trainer import Trainer
from ganlab.testing.simple import SimpleDiscriminator, SimpleLoss


class Paired(ganlab.Loss):
    """Has a critic of its own, on pairs of inputs and outputs."""

    trains = "discriminator"

    def __init__(self) -> None:
        super().__init__()
        self.critic = nn.Conv2d(6, 1, 3)

    def generator(self, t: Translation) -> Tensor:
        return self.discriminate(t.source, t.fake).mean()

    def discriminator(self, t: Translation) -> Tensor:
        return -self.discriminate(t.source, t.fake).mean()

    def discriminate(self, real: Tensor, fake: Tensor) -> Tensor:
        scores: Tensor = self.critic(torch.cat([real, fake], dim=1))
        return scores


def test_a_critic_of_pairs_shows_what_no_pool_has_and_helpers_are_no_misspellings() -> None:
    testing.check_loss(Paired)


class Relative(ganlab.Loss):
    """Multiplies scores by a mean of earlier scores, which changes in the discriminators' turn."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.ones(()))

    def generator(self, t: Translation) -> Tensor:
        return -t.score(t.fake).mean() * self.mean

    def discriminator(self, t: Translation) -> Tensor:
        real = t.score(t.target).mean()
        self.mean.lerp_(real.detach(), 0.1)
        return t.score(t.fake_for_discriminator).mean() - real


def train(trainer: Trainer, loss: ganlab.Loss) -> None:
    trainer.system.losses["adversarial"] = loss.to(trainer.system.dtype)
    for _ in range(2):
        trainer.step()


def test_a_loss_may_move_its_state_in_the_discriminators_turn(make_trainer: Callable[..., Trainer]) -> None:
    train(make_trainer(), Relative())
    testing.check_loss(Relative)


class MovesTooSoon(Relative):
    """Changes its state before the gradients of the other direction's term are taken."""

    def generator(self, t: Translation) -> Tensor:
        self.mean.lerp_(t.fake.detach().mean(), 0.1)
        return super().generator(t)


def test_but_not_between_the_directions_of_a_turn(make_trainer: Callable[..., Trainer]) -> None:
    with pytest.raises(ganlab.RunError, match="modified by an inplace operation"):
        train(make_trainer(), MovesTooSoon())
    with pytest.raises(AssertionError, match=r"gradients that reach.* modified by an inplace operation"):
        testing.check_loss(MovesTooSoon)


class TwoScales(ganlab.Loss):
    """Least squares on the scores of two discriminators."""

    def generator(self, t: Translation) -> dict[str, Tensor]:
        return {name: (t.score(t.fake, name) - 1).square().mean() for name in ("global", "local")}

    def discriminator(self, t: Translation) -> dict[str, Tensor]:
        fakes, reals = t.fake_for_discriminator, t.target
        return {
            name: (t.score(reals, name) - 1).square().mean() + t.score(fakes, name).square().mean()
            for name in ("global", "local")
        }


def test_the_discriminators_of_a_system_are_given_by_name() -> None:
    named = {"global": SimpleDiscriminator, "local": (SimpleDiscriminator, {"scores": 2})}
    testing.check_loss(TwoScales, discriminators=named)
    with pytest.raises(AssertionError, match="named 'global'"):
        testing.check_loss(TwoScales)


class LogsConstant(SimpleLoss):
    def generator(self, t: Translation) -> Any:
        return {"adversarial": super().generator(t), "score of reals": t.score(t.target).detach().mean()}


def test_a_part_may_be_there_to_be_logged() -> None:
    testing.check_loss(LogsConstant)


class Sometimes(ganlab.Loss):
    """R1 (arXiv:1801.04406) in every 16th step alone, beginning with `first`, and a term that sets in later."""

    def __init__(self, first: int = 0, warmup: int = 0) -> None:
        super().__init__()
        self.first, self.warmup = first, warmup

    def generator(self, t: Translation) -> Tensor:
        if t.step < self.warmup:
            return torch.zeros(())
        return -t.score(t.fake).mean()

    def discriminator(self, t: Translation) -> Tensor | None:
        if t.step % 16 != self.first:
            return None
        x = t.target
        (gradient,) = torch.autograd.grad(t.score(x).mean(), x, create_graph=True)
        return 16 * gradient.square().sum()


class SometimesBroken(Sometimes):
    def discriminator(self, t: Translation) -> Tensor | None:
        return None if (term := super().discriminator(t)) is None else term / 0


@pytest.mark.parametrize(("first", "warmup"), [(0, 0), (15, 0), (3, 1000)])
def test_a_loss_may_have_terms_in_some_steps_alone(first: int, warmup: int) -> None:
    testing.check_loss(Sometimes, first=first, warmup=warmup)
    with pytest.raises(AssertionError, match=r"gives finite scalars.* discriminator/ab = inf"):
        testing.check_loss(SometimesBroken, first=first, warmup=warmup)


class LearnsLate(SimpleLoss):
    """Has a parameter of its own, which a later step's term reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def generator(self, t: Translation) -> Tensor:
        return super().generator(t) * (self.scale if t.step >= 20 else 1)


def test_an_own_parameter_may_be_reached_in_a_later_step() -> None:
    testing.check_loss(LearnsLate)


class FeatureMatching(ganlab.Loss):
    """The mean distance of the activations of fakes and reals (arXiv:1711.11585, eq. 4)."""

    def generator(self, t: Translation) -> Tensor:
        reals, fakes = t.activations(t.target)[:-1], t.activations(t.fake)[:-1]
        t.log("number of activations", len(reals))
        return torch.stack([l1_loss(f, r.detach()) for f, r in zip(fakes, reals, strict=True)]).mean()


class Attentive(ganlab.Discriminator):
    """Gives class activation logits before the scores, as U-GAT-IT's discriminator (arXiv:1907.10830)."""

    def __init__(self, shape: Domain) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(shape.channels, 4, 4, 2, 1)
        self.cam, self.head = nn.Linear(4, 1, bias=False), nn.Conv2d(4, 1, 3, 1, 1)

    def features(self, x: Tensor) -> list[Tensor]:
        hidden = self.encoder(x).relu()
        return [hidden, self.cam(hidden.mean((2, 3))), self.head(hidden * self.cam.weight[0, :, None, None])]


class CAM(ganlab.Loss):
    """Least squares on the class activation logits."""

    def generator(self, t: Translation) -> Tensor:
        return (t.activations(t.fake)[-2] - 1).square().mean()

    def discriminator(self, t: Translation) -> Tensor:
        real, fake = t.activations(t.target)[-2], t.activations(t.fake_for_discriminator)[-2]
        return (real - 1).square().mean() + fake.square().mean()


def test_losses_may_read_inside_a_discriminator() -> None:
    testing.check_loss(FeatureMatching)
    testing.check_loss(CAM, discriminators={"image": Attentive})
