"""Values that are not finite are found, and discriminators that have nothing left to learn."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor

import ganlab
from ganlab.engine.monitors import SATURATED_STEPS, SaturatedDiscriminator, non_finite_state
from ganlab.engine.trainer import Trainer

PARTS: dict[str, tuple[str, Callable[[Trainer], Tensor]]] = {
    "a generator": (
        "weights of generator/ba",
        lambda trainer: next(trainer.system.networks.modules["generator/ba"].parameters()),
    ),
    "an average": ("weights of ema/ab", lambda trainer: next(trainer.state.modules()["ema/ab"].parameters())),
    "a norm": (
        "weights of discriminator/image/b",
        lambda trainer: dict(trainer.state.modules()["discriminator/image/b"].named_buffers())["net.3.running_var"],
    ),
    "a loss": ("values in losses/scale", lambda trainer: trainer.system.losses["scale"].scale),
    "a moment": (
        "values in optimizers/generator",
        lambda trainer: next(iter(trainer.state.optimizers["generator"].state.values()))["exp_avg_sq"],
    ),
    "a pool": ("values in pools/ab", lambda trainer: trainer.state.pools["ab"].images),
}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("what", PARTS)
def test_nothing_that_is_not_finite_is_overlooked_before_a_checkpoint(
    make_trainer: Callable[..., Trainer], what: str, value: float
) -> None:
    trainer = make_trainer(
        {"ema_halflife_images": 8, "schedule": {"pool": 2}, "discriminators": {"image": {"norm": "batch"}}}
    )
    trainer.step()
    scale = ganlab.Loss()
    scale.scale = torch.nn.Parameter(torch.ones(3))
    trainer.system.losses["scale"] = scale
    assert non_finite_state(trainer) is None
    name, find = PARTS[what]
    with torch.no_grad():
        find(trainer).view(-1)[-1] = value
    assert non_finite_state(trainer) == name


def warnings(values: Iterable[float], generator: str = "ab/x", parts: tuple[str, ...] = ("",)) -> list[str]:
    """Returns the warnings about a discriminator's loss with these values, divided equally among its parts."""
    warned: list[str] = []
    saturated = SaturatedDiscriminator(warned.append)
    for step, value in enumerate(values, 1):
        record = {"step": step, "seconds": 1.0, "images": step, f"loss/generator/{generator}": 0.5}
        saturated([record | {f"loss/discriminator/ab/x{part}": value / len(parts) for part in parts}])
    return warned


def test_the_value_is_the_sum_of_the_parts_at_the_step_that_makes_it_enough() -> None:
    (sentence,) = warnings([0.0097] * SATURATED_STEPS + [0.5], parts=("/real", "/fake"))
    # the sentence claims nothing about the generators, because their gradients are not known
    assert sentence == (
        "loss/discriminator/ab/x has been below 0.01 for 200 steps and is 0.0097 at step 200: the discriminator has"
        " next to nothing left to learn from it; if the generators learn little either, weaken the discriminator, or"
        " give its targets noise"
    )
    assert warnings([0.0101] * 300, parts=("/real", "/fake")) == []


@pytest.mark.parametrize(
    ("values", "times"),
    [
        ([0.001] * (SATURATED_STEPS - 1) + [0.5] + [0.001] * (SATURATED_STEPS - 1), 0),
        ([0.001] * SATURATED_STEPS, 1),
        ([0.0] * SATURATED_STEPS, 1),
        ([0.001] * SATURATED_STEPS + [0.5] + [0.001] * SATURATED_STEPS, 1),
        ([0.01] * 300, 0),
        ([0.2] * 300, 0),
    ],
    ids=["199 steps twice", "200 steps", "zero", "twice", "at the bound", "contested"],
)
def test_it_is_told_after_two_hundred_low_steps_in_a_row_and_only_once(values: list[float], times: int) -> None:
    assert len(warnings(values)) == times


@pytest.mark.parametrize("values", [[-0.5] * 300, [-1e-5, *[1e-5] * 300]])
def test_a_critics_loss_has_no_least_value(values: list[float]) -> None:
    assert warnings(values) == []


@pytest.mark.parametrize("generator", ["ab/other", "ba/x", "ab/xy", "ab/x2/part"])
def test_a_penalty_that_generators_do_not_have_may_be_small(generator: str) -> None:
    assert warnings([0.001] * 300, generator=generator) == []
