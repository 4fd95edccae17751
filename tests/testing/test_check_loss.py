"""`check_loss` and each requirement that a loss can fail."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

import pytest
import torch
from pydantic import AfterValidator
from torch import Tensor, nn

import ganlab
from ganlab import Domain, Translation, testing
from ganlab.engine.trainer import Trainer
from ganlab.testing import building, losses
from ganlab.testing.simple import SimpleDiscriminator, SimpleLoss
from helpers.broken import Broken, names_of, verify_every_condition_fails, verify_sentence

LABELLED = Domain("labelled", 3, 16, 16, classes=3)


class Untyped(SimpleLoss):
    def __init__(self, margin=1.0):  # type: ignore[no-untyped-def]
        super().__init__()


class Required(SimpleLoss):
    def __init__(self, margin: float) -> None:
        super().__init__()


class Doubles(SimpleLoss):
    def __init__(self, margin: Annotated[float, AfterValidator(lambda margin: 2 * margin)]) -> None:
        super().__init__()


class OneWay(SimpleLoss):
    def prepare(self, t: Translation) -> None:
        self.weight = {"ab": 1.0}[t.direction]


class Vector(SimpleLoss):
    def generator(self, t: Translation) -> Tensor:
        return (t.score(t.fake) - 1).square().mean((1, 2, 3))


class Infinite(SimpleLoss):
    def generator(self, t: Translation) -> Tensor:
        return t.score(t.fake).mean() / 0


class KeepsCritic(SimpleLoss):
    def prepare(self, t: Translation) -> None:
        setattr(self, f"critic_{t.direction}", t.discriminator())


class FewerDimensions(SimpleLoss):
    def generator(self, t: Translation) -> Tensor:
        return t.score(t.fake.mean(1)).mean()


class Silent(ganlab.Loss):
    """No terms."""


class Writes(SimpleLoss):
    def discriminator(self, t: Translation) -> Tensor:
        t.target.detach().clamp_(-0.5, 0.5)
        return super().discriminator(t)


class Bypasses(SimpleLoss):
    def discriminator(self, t: Translation) -> Tensor:
        return t.score(t.fake.detach()).mean() - t.score(t.target).mean()


class Misspelt(SimpleLoss):
    def prepair(self, t: Translation) -> None:
        """Never called."""


class Detached(SimpleLoss):
    def generator(self, t: Translation) -> Tensor:
        return t.score(t.fake.detach()).detach().mean()


class WrongPlayer(SimpleLoss):
    def generator(self, t: Translation) -> Tensor:
        return t.score(t.target).mean()


class RootAtZero(SimpleLoss):
    def generator(self, t: Translation) -> Tensor:
        return (t.fake - t.fake.detach()).square().sum().sqrt()


class KeepsGraph(SimpleLoss):
    def generator(self, t: Translation) -> Tensor:
        self.kept = t.fake
        return super().generator(t)

    def discriminator(self, t: Translation) -> Tensor:
        return t.score(self.kept).mean()


class NeverLearns(SimpleLoss):
    trains = "discriminator"

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def generator(self, t: Translation) -> Tensor:
        return self.scale * super().generator(t)


class Remembers(SimpleLoss):
    """Keeps a value of the first direction that it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("first", torch.zeros(()))

    def generator(self, t: Translation) -> Tensor:
        if not self.first:
            self.first = t.fake.detach().mean()
        return super().generator(t) * self.first


class Rolls(SimpleLoss):
    def discriminator(self, t: Translation) -> Tensor:
        return super().discriminator(t) * torch.rand(())


class Counts(SimpleLoss):
    count = 0

    def discriminator(self, t: Translation) -> Tensor:
        self.count += t.direction == "ba"
        return super().discriminator(t) * (1 + self.count // 2)


class OnlyDouble(SimpleLoss):
    def generator(self, t: Translation) -> Tensor:
        return (t.score(t.fake) @ torch.eye(8, dtype=torch.float64)).mean()


class Cancels(SimpleLoss):
    def generator(self, t: Translation) -> Tensor:
        return super().generator(t) + 1e12 - 1e12


BROKEN: list[Broken] = [
    (testing.check_loss, Untyped, "round trip through JSON.* gives its option 'margin' no type"),
    (testing.check_loss, Required, "round trip through JSON.* margin: .* Field required"),
    (partial(testing.check_loss, margin=1.0), Doubles, "round trip.*margin=2.0.* comes back as .*margin=4.0"),
    (testing.check_loss, Misspelt, "spells.* it has 'prepair'; did you mean 'prepare'"),
    (testing.check_loss, OneWay, "prepared for each direction.* KeyError: 'ba'"),
    (testing.check_loss, SimpleDiscriminator, "is a Loss .*it is <class"),
    (
        testing.check_loss,
        KeepsCritic,
        "submodule.* it keeps discriminator/image/a, discriminator/image/b, which the gen",
    ),
    (
        testing.check_loss,
        FewerDimensions,
        "finite scalars.* RuntimeError: Given groups=1, .* to have 3 channels, but got 2",
    ),
    (testing.check_loss, Vector, r"finite scalars.* shape \(2,\)"),
    (testing.check_loss, Infinite, "finite scalars.* generator/ab = -?inf"),
    (testing.check_loss, Silent, "at least.* gives no player a term"),
    (testing.check_loss, Writes, "in place.* the discriminators' term in direction ab changes t.target in place"),
    (testing.check_loss, Detached, "gradients that reach.* the generators' term in direction ab is .* has no gradient"),
    (testing.check_loss, WrongPlayer, "in direction ab reaches no generator, only discriminator/image/b"),
    (testing.check_loss, RootAtZero, "the generators' term in direction ab has gradients that are not finite"),
    (
        testing.check_loss,
        KeepsGraph,
        "in direction ab reaches generator/.*, which a discriminators' turn does not update",
    ),
    (
        testing.check_loss,
        Bypasses,
        "schedule's pool.* term in direction ab and ba reads t.fake, which bypasses the pool",
    ),
    (testing.check_loss, NeverLearns, "gradients that reach.* no discriminators' term reaches the loss's own scale"),
    (testing.check_loss, Remembers, "whichever direction comes first.* ab first .*ba first"),
    (testing.check_loss, Rolls, "t.uniform.* seed 0 discriminator/ab = .* seed 1"),
    (testing.check_loss, Counts, "state.* continues with discriminator/ab = "),
    (testing.check_loss, OnlyDouble, "float32.* RuntimeError"),
    (testing.check_loss, Cancels, "float32.* float64 .*, float32 "),
]


@pytest.mark.parametrize(("check", "cls", "sentence"), BROKEN, ids=names_of)
def test_a_failed_requirement_is_named(check: Callable[..., None], cls: type, sentence: str) -> None:
    verify_sentence(check, cls, sentence)


def test_every_requirement_and_condition_fails_for_one_of_them() -> None:
    verify_every_condition_fails([losses, building], BROKEN)


def test_a_discriminators_term_may_read_fakes_where_images_have_classes() -> None:
    """A pool does not keep the classes of its fakes, so a loss with classes may read `t.fake`."""
    testing.check_loss(Bypasses, images=LABELLED)


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


def test_the_loss_that_they_derive_from_passes() -> None:
    before = torch.manual_seed(99).get_state()
    testing.check_loss(SimpleLoss)
    # the check leaves torch's global generator as it was
    assert torch.equal(torch.get_rng_state(), before)
