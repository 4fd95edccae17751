"""Training a run to another number of steps, which is exact if the steps that are done would have been the same."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from ganlab.errors import text_of
from ganlab.interfaces.networks import Domain
from ganlab.interfaces.schedules import PLAYERS, Schedule
from ganlab.spec.models import Json
from ganlab.spec.resolve import resolve_component
from ganlab.system.build import make_schedule


def in_steps_alone(differences: Iterable[str]) -> bool:
    """True if the number of steps is all that differs: each line is "schedule.steps: one / other"."""
    return all(re.match(r"schedule\.(\w+\.)*steps: ", line) for line in differences)


def obstacle(one: Json, other: Json, done: int) -> str | None:
    """Returns what the schedules of two `Spec.trains` do differently in the first `done` steps; None if nothing.

    For example "the learning rate of the generator in step 12: 1.0 / 0.9".
    """
    try:
        schedules = _schedule(one), _schedule(other)
        for what, values in _behaviour(*schedules, tuple(one["losses"]), done):
            if values[0] != values[1]:
                return f"{what}: {values[0]} / {values[1]}"
    # a schedule may fail in any way
    except Exception as error:
        return f"the schedules can't be compared: {text_of(error)}"
    return None


def _schedule(trains: Json) -> Schedule:
    return make_schedule(resolve_component("schedule", trains["schedule"], "schedule"), tuple(trains["directions"]))


def _behaviour(
    one: Schedule, other: Schedule, losses: Iterable[str], done: int
) -> Iterator[tuple[str, tuple[object, object]]]:
    """Yields (name, (the first schedule's value, the other's)) of everything on which the steps depend."""
    both = (one, other)
    for player in PLAYERS:
        yield f"the optimizer of the {player}", _pair(_settings(schedule, player) for schedule in both)
    for direction in one.directions:
        yield f"the pool of {direction}", _pair(_pool(schedule, direction) for schedule in both)
    for step in range(done):
        at = f"in step {step + 1}"
        yield f"the turns {at}", _pair([tuple(turn) for turn in schedule.turns(step)] for schedule in both)
        for player in PLAYERS:
            rates = _pair(schedule.learning_rate(player, step) for schedule in both)
            yield f"the learning rate of the {player} {at}", rates
            for loss in losses:
                weights = _pair(schedule.weight(loss, player, step) for schedule in both)
                yield f"the weight of {loss} for the {player} {at}", weights


def _pair(values: Iterable[object]) -> tuple[object, object]:
    one, other = values
    return one, other


def _pool(schedule: Schedule, direction: str) -> str | None:
    """Returns the class and the shapes of the buffers of a direction's pool."""
    # any size will do, as long as both schedules get the same
    if (pool := schedule.pool(Domain(direction[1], 3, 64, 64))) is None:
        return None
    shapes = [f"{name} {tuple(buffer.shape)}" for name, buffer in pool.state_dict().items()]
    return f"{type(pool).__name__} ({', '.join(shapes)})"


def _settings(schedule: Schedule, player: str) -> list[dict[str, Any]]:
    """Returns the settings of an optimizer's parameter groups."""
    groups = schedule.optimizer(player, [("weight", nn.Parameter(torch.zeros(1)))]).param_groups
    return [{name: value for name, value in group.items() if name != "params"} for group in groups]
