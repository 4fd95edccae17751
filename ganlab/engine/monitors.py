"""Finds values that are not finite, and discriminators that have nothing left to learn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ganlab.engine.step_log import Record
from ganlab.engine.trainer import Trainer

SATURATED_BELOW, SATURATED_STEPS = 0.01, 200
"""A discriminator is saturated when its loss has been below `SATURATED_BELOW` for `SATURATED_STEPS` steps."""


class NonFinite(NamedTuple):
    """The first value of a record that is not finite."""

    step: int
    name: str
    value: float


def first_non_finite(records: Sequence[Record]) -> NonFinite | None:
    """Returns the first term, logged value or gradient norm that is not finite, or None."""
    for record in records:
        for name, value in record.items():
            if not math.isfinite(value):
                return NonFinite(int(record["step"]), name, value)
    return None


def non_finite_state(trainer: Trainer) -> str | None:
    """Returns the first part of the training state that is not finite, such as "weights of generator/ab", or None."""
    state = trainer.state.state_dict()
    kept: dict[str, Any] = {f"weights of {name}": m.state_dict() for name, m in trainer.state.modules().items()}
    for part in ("optimizers", "losses", "pools"):
        kept |= {f"values in {part}/{name}": values for name, values in state[part].items()}
    for what, values in kept.items():
        finite = [torch.isfinite(tensor).all().to(trainer.system.device) for tensor in _tensors(values)]
        if finite and not torch.stack(finite).all():
            return what
    return None


def _tensors(state: Any) -> Iterator[Tensor]:
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, Mapping):
        for value in state.values():
            yield from _tensors(value)


class SaturatedDiscriminator:
    """Warns once about each discriminator with a loss near zero. `before` holds the records of earlier processes.

    The generators may still learn: with some losses their gradients vanish when the discriminator recognises every
    fake, with others they do not.
    """

    def __init__(self, warn: Callable[[str], None], before: Iterable[Record] = ()) -> None:
        self._warn = warn
        self._steps: dict[str, int] = {}
        self._warned: set[str] = set()
        self._unbounded: set[str] = set()
        for record in before:
            self._newly_saturated(record)

    def __call__(self, records: Sequence[Record]) -> None:
        for record in records:
            for term, value in self._newly_saturated(record).items():
                self._warn(
                    f"loss/discriminator/{term} has been below {SATURATED_BELOW} for {SATURATED_STEPS} steps and is"
                    f" {value:.2g} at step {int(record['step'])}: the discriminator has next to nothing left to learn"
                    " from it; if the generators learn little either, weaken the discriminator, or give its targets"
                    " noise"
                )

    def _newly_saturated(self, record: Record) -> dict[str, float]:
        """Returns {term: value} of the terms that become saturated with this record."""
        losses: dict[str, float] = {}
        contested = set()
        for name, value in record.items():
            if not name.startswith("loss/"):
                continue
            _, player, direction, label = name.split("/")[:4]
            term = f"{direction}/{label}"
            if player == "discriminator":
                losses[term] = losses.get(term, 0.0) + value
            else:
                contested.add(term)
        # a term that was ever below zero is a critic's and unbounded; a term that generators lack is a penalty
        self._unbounded |= {term for term, value in losses.items() if value < 0}
        found = {}
        for term, value in losses.items():
            low = term in contested and term not in self._unbounded and value < SATURATED_BELOW
            self._steps[term] = self._steps.get(term, 0) + 1 if low else 0
            if self._steps[term] == SATURATED_STEPS and term not in self._warned:
                self._warned.add(term)
                found[term] = value
        return found
