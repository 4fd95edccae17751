"""Measures the generators during training, on the validation images."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ganlab.engine.step_log import Record
from ganlab.engine.trainer import Trainer
from ganlab.evaluation.best import PREFIX
from ganlab.evaluation.run_evaluator import RunEvaluator


class PeriodicEvaluation:
    """Measures at the steps at which a run does. `history` holds the records of earlier processes."""

    def __init__(
        self,
        evaluator: RunEvaluator,
        history: Iterable[Record],
        warn: Callable[[str], None],
    ) -> None:
        self._evaluator, self._warn = evaluator, warn
        self._records = [record for record in history if any(name.startswith(PREFIX) for name in record)]
        self._warned = set(evaluator.missing)

    def measure(self, trainer: Trainer, records: list[Record]) -> dict[str, float]:
        if not records or records[-1]["step"] != trainer.state.step:
            # a step without terms has no record
            records.append({"step": trainer.state.step})
        values = self._evaluator.evaluate_checkpoint(trainer.state.sampling_generators())
        records[-1].update(values)
        self._records.append(records[-1])
        for (metric, number, direction), reason in self._evaluator.left_out.items():
            if (name := number or metric) not in self._warned:
                self._warned.add(name)
                self._warn(f"{name} can't be measured in direction {direction}: {reason}")
        return {name.removeprefix(f"{PREFIX}/"): value for name, value in values.items()}

    def best_steps(self) -> set[int]:
        best = self._evaluator.best(self._records, [int(record["step"]) for record in self._records])
        return set() if best is None else {best.step}
