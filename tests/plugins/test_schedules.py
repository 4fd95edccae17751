"""The shipped schedules: turns, learning rates, optimizers."""

from __future__ import annotations

import pytest
import torch
from ganlab_cyclegan import Alternating, Simultaneous
from ganlab_wgan import Wgan
from torch import nn

import ganlab
from ganlab import Turn
from ganlab.interfaces.networks import Domain

GENERATORS, DISCRIMINATORS = ("generator", ("ab", "ba")), ("discriminator", ("ab", "ba"))


@pytest.mark.parametrize("make", [Simultaneous, Alternating])
@pytest.mark.parametrize(("steps", "decay_from"), [(200, 0.5), (200, 0.0), (7, 0.4), (1, 0.5), (5, 1.0)])
def test_the_learning_rate_falls_in_a_line(
    make: type[Simultaneous | Alternating], steps: int, decay_from: float
) -> None:
    schedule = make(steps=steps, decay_from=decay_from)
    start = decay_from * steps
    for step in range(steps):
        # the line through (start, 1) and (steps, 0), no higher than 1
        line = 1 - (step - start) / (steps - start) if steps > start else 1.0
        for player in ("generator", "discriminator"):
            assert schedule.learning_rate(player, step) == pytest.approx(min(1.0, line), abs=1e-12)


def test_the_papers_decay() -> None:
    """Known values of a rate that is constant for 100 epochs and then falls linearly to 0 in 100 epochs."""
    schedule = Simultaneous(steps=200, decay_from=0.5)
    factors = [schedule.learning_rate("generator", step) for step in (0, 99, 100, 101, 150, 199)]
    assert factors == pytest.approx([1, 1, 1, 0.99, 0.5, 0.01])


def test_without_a_decay_the_rate_is_constant() -> None:
    schedules: list[ganlab.Schedule] = [Simultaneous(steps=10), Alternating(steps=10), Wgan(steps=10)]
    assert {
        s.learning_rate(p, step) for s in schedules for p in ("generator", "discriminator") for step in range(10)
    } == {1.0}


@pytest.mark.parametrize("make", [Simultaneous, Alternating, Wgan])
def test_a_weight_fades_out_in_a_line(make: type[Simultaneous | Alternating | Wgan]) -> None:
    schedule = make(steps=9, fade_out={"identity": 4, "cycle": 1})
    for player in ("generator", "discriminator"):
        factors = {
            loss: [schedule.weight(loss, player, step) for step in range(6)] for loss in ("identity", "cycle", "x")
        }
        assert factors == {"identity": [1, 0.75, 0.5, 0.25, 0, 0], "cycle": [1, 0, 0, 0, 0, 0], "x": [1] * 6}


def test_turns_of_cyclegan() -> None:
    assert list(Simultaneous().turns(3)) == [Turn(*GENERATORS), Turn(*DISCRIMINATORS)]


@pytest.mark.parametrize(("moves", "moved"), [("own", (None, None)), ("both", (("ab", "ba"),) * 2)])
def test_turns_of_the_seed(moves: str, moved: tuple[tuple[str, ...] | None, ...]) -> None:
    """A step updates D_emb, then D_b and G_ab, then D_a and G_ba."""
    assert list(Alternating(moves=moves).turns(3)) == [  # type: ignore[arg-type]
        Turn("discriminator", ("ab", "ba"), sees="embeddings"),
        Turn("discriminator", ("ab",), sees="images"),
        Turn("generator", ("ab",), moves=moved[0]),
        Turn("discriminator", ("ba",), sees="images"),
        Turn("generator", ("ba",), moves=moved[1]),
    ]


def test_turns_of_one_direction_alone() -> None:
    schedule = Alternating()
    schedule.directions = ("ba",)
    assert {direction for turn in schedule.turns(0) for direction in turn.directions} == {"ba"}
    assert len(list(schedule.turns(0))) == 3


def critic_updates(schedule: Wgan, step: int) -> int:
    *critic, last = schedule.turns(step)
    assert set(critic) == {Turn(*DISCRIMINATORS, new_batch=True)}
    assert last == Turn(*GENERATORS, new_batch=True)
    return len(critic)


def test_critic_updates_of_wgan() -> None:
    assert {critic_updates(Wgan(), step) for step in (0, 1, 24, 25, 500, 501)} == {5}
    assert {critic_updates(Wgan(critic_updates=2), step) for step in (0, 500)} == {2}


def test_long_start_of_wgan() -> None:
    """The authors' code: 100 critic updates before each of the first 25 generator updates and every 500th."""
    schedule = Wgan(long_start=True)
    counts = {step: critic_updates(schedule, step) for step in [*range(30), 499, 500, 501, 999, 1000, 1001]}
    long = {step for step, count in counts.items() if count == 100}
    assert long == {*range(25), 500, 1000}
    assert {count for step, count in counts.items() if step not in long} == {5}
    assert critic_updates(Wgan(long_start=True, long_updates=7), 24) == 7


@pytest.mark.parametrize("player", ["generator", "discriminator"])
def test_the_papers_optimizers(player: str) -> None:
    parameters = [nn.Parameter(torch.zeros(2))]
    for schedule in (Simultaneous(), Alternating()):
        adam = schedule.optimizer(player, parameters)
        assert isinstance(adam, torch.optim.Adam)
        (group,) = adam.param_groups
        assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (2e-4, (0.5, 0.999), 1e-8, 0)
    rmsprop = Wgan().optimizer(player, parameters)
    assert isinstance(rmsprop, torch.optim.RMSprop)
    (group,) = rmsprop.param_groups
    assert (group["lr"], group["alpha"], group["momentum"], group["centered"]) == (5e-5, 0.99, 0, False)


def test_a_pool_is_of_its_domains_images() -> None:
    target = Domain("b", 1, 8, 4)
    assert Simultaneous().pool(target) is None
    assert Wgan().pool(target) is None
    for schedule in (Simultaneous(pool=5), Alternating(pool=5)):
        pool = schedule.pool(target)
        assert pool is not None
        fakes = torch.rand(2, 1, 8, 4)
        torch.testing.assert_close(pool(fakes, torch.rand(2, 2)), fakes, rtol=0, atol=0)
        assert pool.state_dict()["images"].shape == (5, 1, 8, 4)
