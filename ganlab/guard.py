"""What stops a run, or warns: nothing poisoned is ever saved, and a discriminator that has won is named."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ganlab import checkpoint
from ganlab.blame import Parts
from ganlab.engine import Engine, Record
from ganlab.errors import RunError
from ganlab.folder import Recorder, RunFolder

WON_BELOW, WON_STEPS = 0.01, 200
"""A discriminator whose loss stays below the first for so many steps has won: next to nothing is left to learn."""


def refuse_unfit(records: list[Record], recorder: Recorder, folder: RunFolder, parts: Parts) -> None:
    """Raises RunError where a term or a gradient is not finite; what came before it is recorded."""
    if (unfit := first_unfit(records)) is not None:
        step, name, value = unfit
        recorder([record for record in records if record["step"] < step])
        whose = parts.of(f"losses.{name.split('/')[3]}").what if name.startswith("loss/") else ""
        raise RunError(f"{name} became {value} at step {step}{whose and f' ({whose})'}; {_last_good(folder)}")


def first_unfit(records: Sequence[Record]) -> tuple[int, str, float] | None:
    """(step, name, value) of the first term or gradient that is not finite."""
    for record in records:
        for name, value in record.items():
            if not math.isfinite(value):
                return int(record["step"]), name, value
    return None


def refuse_poisoned(engine: Engine, folder: RunFolder) -> None:
    """Raises RunError where anything that a checkpoint would hold is not finite."""
    state = engine.state()
    kept: dict[str, Any] = {f"weights of {name}": module.state_dict() for name, module in engine.modules().items()}
    for part in ("optimizers", "losses", "pools"):
        kept |= {f"values in {part}/{name}": values for name, values in state[part].items()}
    for what, values in kept.items():
        finite = [torch.isfinite(t).all().to(engine.system.device) for t in _tensors(values)]
        if finite and not torch.stack(finite).all():
            raise RunError(f"{what} are not finite after step {engine.done}; {_last_good(folder)}")


def _tensors(state: Any) -> Iterator[Tensor]:
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, Mapping):
        for value in state.values():
            yield from _tensors(value)


def _last_good(folder: RunFolder) -> str:
    if not folder.steps:
        return "there is no checkpoint before it"
    return f"the last good checkpoint is {checkpoint.path_of(folder.checkpoints, folder.steps[-1])}"


class Won:
    """Warns once of each discriminator that has won; `before` is what an earlier process saw.

    Whether the generators still learn from it, its loss doesn't say: where the discriminator is sure, the slope of some
    losses fades, that of others doesn't.
    """

    def __init__(self, warn: Callable[[str], None], before: Iterable[Record] = ()) -> None:
        self._warn = warn
        self._steps: dict[str, int] = {}
        self._told: set[str] = set()
        self._unbounded: set[str] = set()
        for record in before:
            self._winners(record)

    def __call__(self, records: list[Record]) -> None:
        for record in records:
            for term, value in self._winners(record).items():
                self._warn(
                    f"loss/discriminator/{term} has been below {WON_BELOW} for {WON_STEPS} steps and is {value:.2g} at"
                    f" step {int(record['step'])}: the discriminator has next to nothing left to learn from it; if the"
                    " generators learn little either, weaken the discriminator, or give its targets noise"
                )

    def _winners(self, record: Record) -> dict[str, float]:
        """The terms that are found to be won with this record."""
        losses: dict[str, float] = {}
        contested = set()
        for name, value in record.items():
            if not name.startswith("loss/"):
                continue
            _, player, way, label = name.split("/")[:4]
            term = f"{way}/{label}"
            if player == "discriminator":
                losses[term] = losses.get(term, 0.0) + value
            else:
                contested.add(term)
        # a term once below zero is a critic's and has no least value; one that generators don't have is a penalty
        self._unbounded |= {term for term, value in losses.items() if value < 0}
        won = {}
        for term, value in losses.items():
            low = term in contested and term not in self._unbounded and value < WON_BELOW
            self._steps[term] = self._steps.get(term, 0) + 1 if low else 0
            if self._steps[term] == WON_STEPS and term not in self._told:
                self._told.add(term)
                won[term] = value
        return won
