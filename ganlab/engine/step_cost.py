"""Measures what a training step costs: seconds, operators, floating-point operations and memory traffic."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from ganlab.engine.memory import explaining_memory
from ganlab.engine.state import TrainingState
from ganlab.engine.step_log import StepLog
from ganlab.engine.trainer import Trainer
from ganlab.engine.turns import PlannedTurn
from ganlab.torch_utils import wait_for


class Counts(NamedTuple):
    """What one step does, whatever the device."""

    operators: int
    """The operators that torch dispatches, in forwards, backwards and optimizers."""
    flops: int
    """Floating-point operations of convolutions and matrix products; a multiplication and an addition are two."""
    bytes: int
    """The sizes of the tensors that the operators read and write, if each is read and written once. Views move no
    bytes."""


class PartOfStep(NamedTuple):
    """A part of a step: the turns of one name, or the average of the generators."""

    part: str
    """For a turn its player and networks, such as "generator ab+ba"."""
    times: float
    """The number of these turns in a step."""
    seconds: float
    """Their time in one step. The first turn on a batch includes drawing it."""


def take_step(trainer: Trainer) -> None:
    """Takes a step; after the last one of the schedule, its first one again."""
    if trainer.state.step >= trainer.schedule.steps:
        trainer.state.step = 0
    with explaining_memory(trainer):
        trainer.step()


def block_seconds(trainer: Trainer, steps: int) -> float:
    """Takes `steps` steps and returns the seconds of one. The device is waited for at the end alone, and the losses are
    read once, as in a run."""
    wait_for(trainer.system.device)
    started = time.perf_counter()
    for _ in range(steps):
        take_step(trainer)
    trainer.log.read(trainer.state)
    wait_for(trainer.system.device)
    return (time.perf_counter() - started) / steps


def parts_of_steps(trainer: Trainer, steps: Iterable[object]) -> list[PartOfStep]:
    """Takes a step for each element of `steps`, waits for the device after each turn, and returns the mean times."""
    kept, log = trainer.log, _TimedLog(trainer.system.device)
    trainer.log = log
    taken = 0
    try:
        for _ in steps:
            take_step(trainer)
            taken += 1
    finally:
        trainer.log = kept
    return [PartOfStep(part, len(times) / taken, sum(times) / taken) for part, times in log.seconds.items()]


def count(step: Callable[[], object]) -> Counts:
    """Takes one step and counts what it does."""
    with _Operators() as operators:
        step()
    return Counts(operators.dispatched, operators.flops, operators.bytes)


class _TimedLog(StepLog):
    """A log that notes when each turn ends."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device, self._last = device, 0.0
        self.seconds: dict[str, list[float]] = {}
        """{part of the step: the time of each}."""

    @contextmanager
    def step(self, state: TrainingState, batch: int) -> Iterator[None]:
        wait_for(self._device)
        self._last = time.perf_counter()
        with super().step(state, batch):
            yield
            self._end("average")

    def add_norm(self, turn: PlannedTurn, norm: Tensor | None) -> None:
        super().add_norm(turn, norm)
        self._end(f"{turn.player} {turn.name}")

    def _end(self, part: str) -> None:
        wait_for(self._device)
        now = time.perf_counter()
        self.seconds.setdefault(part, []).append(now - self._last)
        self._last = now


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operators, their floating-point operations and the bytes of their tensors."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dispatched = self.flops = self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.dispatched += 1
        # not FlopCounterMode, because gradient penalties fail at the hooks with which it tells modules apart
        if (flops := flop_registry.get(func.overloadpacket)) is not None:
            self.flops += int(flops(*args, **(kwargs or {}), out_val=made))
        # `empty` and operators like it write nothing
        if not func.is_view and "empty" not in func.name():
            tensors = (x for x in tree_leaves((args, kwargs, made)) if isinstance(x, Tensor))
            self.bytes += sum(x.nbytes for x in tensors)
        return made
