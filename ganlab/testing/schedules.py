"""The check for schedules."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from ganlab.determinism import keyed
from ganlab.interfaces.networks import Domain
from ganlab.interfaces.schedules import PLAYERS, SEEN_IN_TURN, Schedule, Turn
from ganlab.system.plain_state import moved_by
from ganlab.testing.building import build, check_class
from ganlab.testing.requirement import keeps_random_state, max_difference, requirement, shape_text
from ganlab.testing.simple import DIRECTIONS, IMAGES, noise
from ganlab.torch_utils import shown

__tracebackhide__ = True

STEPS = 20
"""The number of first steps that are checked; the last step is checked too."""


@keeps_random_state
def check_schedule(cls: type[Schedule], /, *, images: Domain = IMAGES, **options: Any) -> None:
    """Checks a schedule: its first 20 steps and its last, its optimizers, and its pool of fakes of shape `images`."""
    check_class(cls, "schedule", options)

    def make(directions: tuple[str, ...] = DIRECTIONS) -> Schedule:
        schedule: Schedule = build(cls, options)
        schedule.directions = directions
        return schedule

    with requirement(cls, "has steps, an integer of at least 1") as check:
        count = getattr(make(), "steps", None)
        check(type(count) is int and count >= 1, f"steps is {shown(count)}")
    steps = make().steps
    checked = sorted({*range(min(steps, STEPS)), steps - 1})
    with requirement(cls, "gives turns of known players, in directions that the core has set") as check:
        for directions in (DIRECTIONS, DIRECTIONS[:1]):
            schedule = make(directions)
            for step in checked:
                for turn in schedule.turns(step):
                    check(_fits(turn, directions), f"with the directions {directions} step {step} has {turn}")
    with requirement(cls, "gives values that depend on the step alone, so that a resumed run stays the same") as check:
        walked = make()
        one = {step: _plan(walked, step) for step in checked}
        for step in checked:
            other = _plan(make(), step)
            check(one[step] == other, f"step {step} is {one[step]} after earlier steps, {other} in a new schedule")
        moved = moved_by(lambda: [_plan(walked, step) for step in checked], walked)
        check(not moved, f"each use changes {', '.join(moved)}, which checkpoints do not keep: use the step instead")
    with requirement(cls, "gives factors that are finite and at least 0") as check:
        factors = [factor for _, *factors in one.values() for factor in factors]
        check(all(np.isfinite(factor) and factor >= 0 for factor in factors), f"they are {sorted(set(factors))}")
    for player in PLAYERS:
        with requirement(cls, "gives each player one optimizer over all its parameters") as check:
            parameters = _parameters()
            optimizer = make().optimizer(player, _named(player, parameters))
            check(isinstance(optimizer, torch.optim.Optimizer), f"the {player}'s is {shown(optimizer)}")
            held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
            count = f"the {player}'s holds {len(held)} of {len(parameters)} parameters"
            check(sorted(held) == sorted(map(id, parameters)), count)
        with requirement(cls, "has optimizers that continue equally after their state is saved and loaded") as check:
            moved = _moved_by_step(make(), player)
            kept = "which checkpoints do not keep: use the optimizer's state or its param_groups"
            check(not moved, f"each step of the {player}'s changes {', '.join(moved)}, {kept}")
            for _ in range(2):
                _descend(optimizer, parameters)
            copies = [nn.Parameter(parameter.detach().clone()) for parameter in parameters]
            loaded = make().optimizer(player, _named(player, copies))
            loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            # an optimizer may do something only every fifth or tenth step
            for each, values in [(optimizer, parameters), (loaded, copies)] * STEPS:
                _descend(each, values)
            ours, theirs = (torch.cat([p.detach().flatten() for p in values]) for values in (parameters, copies))
            check(bool(ours.isfinite().all()), f"the {player}'s parameters become {ours.tolist()}")
            difference = f"{max_difference(ours, theirs):.3g}"
            check(torch.equal(ours, theirs), f"the {player}'s parameters differ by up to {difference}")
    _check_pool(cls, lambda: make().pool(images), images)


def _check_pool(cls: type, make: Callable[[], nn.Module | None], images: Domain) -> None:
    with requirement(cls, "has no pool, or one that gives as many images as it is given") as check:
        pool = make()
        if pool is None:
            return
        fakes = [noise(images, "pool", step).float() for step in range(4)]
        draws = [torch.from_numpy(keyed("draws", step).random((len(x), 2))).float() for step, x in enumerate(fakes)]
        for x, rolls in zip(fakes[:3], draws[:3], strict=True):
            before = x.clone()
            shown = pool(x, rolls)
            fits = shown.shape == x.shape and bool(shown.isfinite().all())
            check(fits, f"for {shape_text(x)} it gives {shape_text(shown)}, or values that are not finite")
            check(torch.equal(x, before), "it changes the fakes in place")
    with requirement(cls, "has a pool with its state in buffers: a copy that loads them continues equally") as check:
        loaded = make()
        assert loaded is not None
        loaded.load_state_dict(pool.state_dict())
        moved = moved_by(lambda: pool(fakes[2], draws[2]), pool)
        check(not moved, f"each use changes {', '.join(moved)}, which checkpoints do not keep: use register_buffer")
        pool.load_state_dict(loaded.state_dict())
        one, other = pool(fakes[3], draws[3]), loaded(fakes[3], draws[3])
        check(torch.equal(one, other), f"the images differ by up to {max_difference(one, other):.3g}")


def _fits(turn: Turn, directions: tuple[str, ...]) -> bool:
    named = (turn.directions, turn.moves or ())
    return (
        turn.player in PLAYERS
        and turn.sees in (None, *SEEN_IN_TURN)
        and not any(isinstance(each, str) or not set(each) <= set(directions) for each in named)
    )


def _plan(schedule: Schedule, step: int) -> tuple[Any, ...]:
    """Returns the turns of a step, then its learning rates and weights."""
    rates = [schedule.learning_rate(player, step) for player in PLAYERS]
    weights = [schedule.weight("adversarial", player, step) for player in PLAYERS]
    return [tuple(turn) for turn in schedule.turns(step)], *rates, *weights


def _parameters() -> list[nn.Parameter]:
    return [nn.Parameter(torch.linspace(-1, 1, count)) for count in (2, 3)]


def _named(player: str, parameters: list[nn.Parameter]) -> list[tuple[str, nn.Parameter]]:
    """Returns the parameters with names such as the core gives them."""
    return [(f"{player}/{index}.weight", parameter) for index, parameter in enumerate(parameters)]


def _descend(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = parameter.detach() + 0.5
    optimizer.step()


def _moved_by_step(schedule: Schedule, player: str) -> list[str]:
    """Returns the plain attributes of a player's optimizer that change with each step from the same state."""
    parameters = _parameters()
    optimizer = schedule.optimizer(player, _named(player, parameters))
    initial = [parameter.detach().clone() for parameter in parameters]
    state = copy.deepcopy(optimizer.state_dict())

    def step() -> None:
        optimizer.load_state_dict(copy.deepcopy(state))
        for parameter, value in zip(parameters, initial, strict=True):
            parameter.data.copy_(value)
        _descend(optimizer, parameters)

    return moved_by(step, optimizer)
