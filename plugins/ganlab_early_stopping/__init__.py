"""Early stopping (Prechelt, "Early Stopping - But When?", 1998): ends a run when its validation number stalls."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Annotated

from pydantic import Field

import ganlab

PREFIX = "evaluation/"
"""The beginning of a validation number's name in a record; its direction and its own name follow."""


class EarlyStopping(ganlab.Callback):
    """Ends the run when a validation number has had no new best value in `patience` measurements in a row.

    The value is the mean of the number over the directions. A measurement without the number in a direction that had it
    before sets no new best value. The run is then finished and measured as every run. The count comes from the run's
    records, so a run that is interrupted and resumed ends at the same step. Needs `evaluation.every`.

    Args:
        number: the number, for example "kid-lite0"; by default the one that picks the best checkpoint.
        patience: the measurements in a row without a new best value.
        least: a value is a new best one if it is better than the best by more than this.
    """

    def __init__(
        self,
        number: str | None = None,
        patience: Annotated[int, Field(ge=1, le=10**6)] = 5,
        least: Annotated[float, Field(ge=0)] = 0.0,
    ) -> None:
        self.number, self.patience, self.least = number, patience, least

    def begin(self, start: ganlab.TrainingStart) -> None:
        if not start.better:
            raise ganlab.SpecError("early stopping: nothing is measured during training; set evaluation.every")
        if self.number is not None and self.number not in start.better:
            known = ", ".join(start.better)
            raise ganlab.SpecError(f"early stopping: {self.number!r} is not measured during training; known: {known}")
        self._better = {self.number: start.better[self.number]} if self.number else start.better
        self._watched = ""
        self._directions: set[str] = set()
        self._best, self._at, self._since = math.inf, 0, 0
        self._count(start.history)

    def records(self, records: Sequence[dict[str, float]]) -> None:
        self._count(records)

    def _count(self, records: Iterable[dict[str, float]]) -> None:
        for record in records:
            numbers: dict[str, dict[str, float]] = defaultdict(dict)
            for name, value in record.items():
                if name.startswith(PREFIX):
                    direction, _, number = name.removeprefix(PREFIX).partition("/")
                    numbers[number][direction] = value
            # the first number that is measured picks the best checkpoint, too
            self._watched = self._watched or next((number for number in self._better if number in numbers), "")
            if self._watched and numbers:
                self._judge(int(record["step"]), self._mean(numbers[self._watched]))

    def _mean(self, values: dict[str, float]) -> float:
        """Returns the mean of {direction: value}, or NaN if a direction that had a value before has none."""
        if not values.keys() <= self._directions:
            # the best value until now is a mean over fewer directions
            self._directions |= values.keys()
            self._best, self._at, self._since = math.inf, 0, 0
        return sum(values.values()) / len(values) if values.keys() == self._directions else math.nan

    def _judge(self, step: int, value: float) -> None:
        cost = value if self._better[self._watched] == "lower" else -value
        if cost < self._best - self.least:
            self._best, self._at, self._since = cost, step, 0
        else:
            self._since += 1
        if self._since == self.patience:
            value = self._best if self._better[self._watched] == "lower" else -self._best
            best = f"better than {value:.4g}, that of step {self._at}," if self._at else "at all"
            self.request_stop(f"{self._watched} had no value {best} in {self.patience} measurements, up to step {step}")


@ganlab.hookimpl
def ganlab_callbacks() -> dict[str, type[ganlab.Callback]]:
    return {"early_stopping": EarlyStopping}
