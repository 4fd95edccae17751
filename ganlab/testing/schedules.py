"""What the engine relies on in a schedule."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from ganlab.draws import keyed
from ganlab.interfaces import (
    PLAYERS,
    SEES,
    Domain,
    Schedule,
    Turn,
)
from ganlab.testing.making import check_class, made_of
from ganlab.testing.promise import apart, promise, sides_of, unseen
from ganlab.testing.simple import (
    IMAGES,
    WAYS,
    noise,
)

__tracebackhide__ = True

STEPS = 20
"""So many of a schedule's steps are looked at, and the last."""


@unseen
def check_schedule(cls: type[Schedule], /, *, images: Domain = IMAGES, **options: Any) -> None:
    """A schedule's promises: its first steps, its last, and its optimisers."""
    check_class(cls, "schedule", options)

    def make(ways: tuple[str, ...] = WAYS) -> Schedule:
        schedule: Schedule = made_of(cls, options)
        schedule.ways = ways
        return schedule

    with promise(cls, "has steps, a number from 1 up") as so:
        steps = getattr(make(), "steps", None)
        so(type(steps) is int and steps >= 1, f"steps is {steps!r}")
    assert isinstance(steps, int)
    asked = sorted({*range(min(steps, STEPS)), steps - 1})
    with promise(cls, "names players, and of the ways only those that the core has set") as so:
        for ways in (WAYS, WAYS[:1]):
            schedule = make(ways)
            for step in asked:
                for turn in schedule.turns(step):
                    so(_fits(turn, ways), f"with the ways {ways} step {step} has {turn}")
    with promise(cls, "is a function of the step alone, so that a resumed run goes on the same") as so:
        walked = make()
        one = {step: _plan(walked, step) for step in asked}
        for step in asked:
            other = _plan(make(), step)
            so(one[step] == other, f"step {step} is {one[step]} after those before it, {other} when asked first")
    with promise(cls, "gives finite factors, from 0 up") as so:
        factors = [factor for _, *factors in one.values() for factor in factors]
        so(all(np.isfinite(factor) and factor >= 0 for factor in factors), f"they are {sorted(set(factors))}")
    for player in PLAYERS:
        with promise(cls, "gives each player one optimiser, of all its parameters") as so:
            parameters = _parameters()
            optimizer = make().optimizer(player, parameters)
            so(isinstance(optimizer, torch.optim.Optimizer), f"the {player}'s is {optimizer!r}")
            held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
            count = f"the {player}'s holds {len(held)} of {len(parameters)} parameters"
            so(sorted(held) == sorted(map(id, parameters)), count)
        with promise(cls, "has optimisers whose state, saved and loaded, goes on the same") as so:
            for _ in range(2):
                _descend(optimizer, parameters)
            copies = [nn.Parameter(parameter.detach().clone()) for parameter in parameters]
            loaded = make().optimizer(player, copies)
            loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            for each, values in ((optimizer, parameters), (loaded, copies)):
                _descend(each, values)
            ours, theirs = (torch.cat([p.detach().flatten() for p in values]) for values in (parameters, copies))
            so(bool(ours.isfinite().all()), f"the {player}'s parameters become {ours.tolist()}")
            so(torch.equal(ours, theirs), f"the {player}'s differ by up to {apart(ours, theirs):.3g}")
    _check_pool(cls, lambda: make().pool(images), images)


def _check_pool(cls: type, make: Callable[[], nn.Module | None], images: Domain) -> None:
    with promise(cls, "has a pool, or None, that gives as many images as it is given") as so:
        pool = make()
        if pool is None:
            return
        fakes = [noise(images, "pool", step).float() for step in range(4)]
        draws = [torch.from_numpy(keyed("draws", step).random((len(x), 2))).float() for step, x in enumerate(fakes)]
        for x, rolls in zip(fakes[:3], draws[:3], strict=True):
            before = x.clone()
            shown = pool(x, rolls)
            so(shown.shape == x.shape and bool(shown.isfinite().all()), f"of {sides_of(x)} it makes {sides_of(shown)}")
            so(torch.equal(x, before), "it changes in place those that it is given")
    with promise(cls, "has a pool whose state is in buffers: loaded into another one, it goes on the same") as so:
        loaded = make()
        assert loaded is not None
        loaded.load_state_dict(pool.state_dict())
        one, other = pool(fakes[3], draws[3]), loaded(fakes[3], draws[3])
        so(torch.equal(one, other), f"what they show differs by up to {apart(one, other):.3g}")


def _fits(turn: Turn, ways: tuple[str, ...]) -> bool:
    named = (turn.ways, turn.moves or ())
    return (
        turn.player in PLAYERS
        and turn.sees in (None, *SEES)
        and not any(isinstance(each, str) or not set(each) <= set(ways) for each in named)
    )


def _plan(schedule: Schedule, step: int) -> tuple[Any, ...]:
    """All that a schedule says of a step."""
    rates = [schedule.learning_rate(player, step) for player in PLAYERS]
    weights = [schedule.weight("adversarial", player, step) for player in PLAYERS]
    return [tuple(turn) for turn in schedule.turns(step)], *rates, *weights


def _parameters() -> list[nn.Parameter]:
    return [nn.Parameter(torch.linspace(-1, 1, count)) for count in (2, 3)]


def _descend(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = parameter.detach() + 0.5
    optimizer.step()
