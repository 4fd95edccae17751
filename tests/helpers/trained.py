"""Compares what two trainers have trained, to the byte."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ganlab.engine.step_log import Record
from ganlab.engine.trainer import Trainer


def tensors(value: Any, at: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield at, value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from tensors(inner, f"{at}/{name}")


def records(trainer: Trainer) -> list[Record]:
    return [record | {"seconds": 0} for record in trainer.log.read(trainer.state)]


def assert_same(one: Trainer, *others: Trainer) -> None:
    """Asserts that other trainers have the same bytes as one, and the same records of the steps that they took."""
    by_step = {record["step"]: record for record in records(one)}
    for other in others:
        for theirs in records(other):
            ours = by_step[theirs["step"]]
            assert [(name, ours[name], theirs.get(name)) for name in ours if ours[name] != theirs.get(name)] == []
        state, its_state = state_of(one), state_of(other)
        assert state.keys() == its_state.keys()
        assert [name for name, tensor in state.items() if not torch.equal(tensor, its_state[name])] == []
        assert (one.state.step, one.state.draws) == (other.state.step, other.state.draws)
        assert one.state.rates == other.state.rates


def state_of(trainer: Trainer) -> dict[str, Tensor]:
    """Returns every tensor on which the next step depends, by name."""
    networks = {name: module.state_dict() for name, module in trainer.state.modules().items()}
    return dict(tensors({"state": trainer.state.state_dict(), **networks}))
