"""The terms, logged values and gradient norms of each step, kept on the device until they are read."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from ganlab import distributed
from ganlab.engine.state import TrainingState
from ganlab.engine.turns import PlannedTurn
from ganlab.system.forward_cache import Logged

Record = dict[str, float]
"""One step: "step", "seconds", "images", and every term, logged value, gradient norm and learning rate by name."""

Terms = dict[tuple[str, str, str], tuple[Tensor, Tensor]]
"""{(direction, label of the loss, part): (weight, scalar)}."""


class Row(NamedTuple):
    """The terms, logged values and gradient norms of one step."""

    names: tuple[str, ...]
    values: Tensor
    """One value for each name, on the device."""


class StepLog:
    """The terms, gradient norms and learning rates of the steps since the last reading."""

    def __init__(self) -> None:
        self._rows: list[tuple[Record, Row]] = []
        self._values: dict[str, list[Tensor]] = {}
        self.row: Row | None = None
        """The values of the step that `step` times, None if it has none."""

    @contextmanager
    def step(self, state: TrainingState, batch: int) -> Iterator[None]:
        """Times a step and keeps its `row`."""
        started = time.perf_counter()
        self.row = None
        yield
        state.seconds += time.perf_counter() - started
        if self.row is not None:
            head = {"step": state.step, "seconds": round(state.seconds, 3), "images": state.draws * batch}
            updated = {name.split("/")[1] for name in self.row.names if name.startswith("gradient/")}
            self._rows.append((head | state.learning_rates(updated), self.row))

    def begin(self) -> None:
        """Forgets the values added before."""
        self._values = {}

    def collected(self) -> Row | None:
        """Returns the values added since `begin`: the mean of each term that several turns or batches have."""
        if not self._values:
            return None
        means = [torch.stack(values).mean() for values in self._values.values()]
        return Row(tuple(self._values), torch.stack(means))

    def add(self, turn: PlannedTurn, terms: Terms) -> None:
        """Adds a turn's terms of one part of a batch."""
        for (direction, label, part), (_, value) in terms.items():
            name = f"loss/{turn.player}/{direction}/{label}{f'/{part}' if part else ''}"
            self._values.setdefault(name, []).append(value.detach())

    def add_norm(self, turn: PlannedTurn, norm: Tensor | None) -> None:
        """Adds the norm of a turn's gradient, if the turn updated anything."""
        if norm is not None:
            self._values.setdefault(f"gradient/{turn.player}/{turn.name}", []).append(norm)

    def add_logged(self, player: str, label: str, logged: Iterable[Logged]) -> None:
        """Adds the values that a loss logged."""
        for direction, name, value in logged:
            self._values.setdefault(f"log/{player}/{direction}/{label}/{name}", []).append(value)

    def read(self, state: TrainingState) -> list[Record]:
        """Returns the records since the last reading, with the means over the processes. Waits for the device."""
        if not self._rows:
            return []
        started = time.perf_counter()
        values = iter(torch.cat([row.values for _, row in self._rows]).tolist())
        # includes the time that the device needs to finish the steps
        state.seconds += time.perf_counter() - started
        own = [{name: next(values) for name in row.names} for _, row in self._rows]
        records = [head | mean for (head, _), mean in zip(self._rows, distributed.means(own), strict=True)]
        self._rows.clear()
        return records
