"""The best checkpoint of a run, by the numbers that were measured during training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ganlab.engine.step_log import Record
from ganlab.errors import SpecError
from ganlab.evaluation.evaluator import Monitor
from ganlab.evaluation.metric_suite import evaluator_for
from ganlab.runs import shared
from ganlab.runs.folder import RunFolder
from ganlab.spec.models import Spec

PREFIX = "evaluation"
"""The first part of a result's name in a run's records: "evaluation/DIRECTION/NUMBER"."""


class Best(NamedTuple):
    """The checkpoint with the best monitor."""

    step: int
    value: float
    """The monitor's mean over the directions."""
    number: str
    """The name of the monitor."""


def best_of(
    monitors: Sequence[Monitor], directions: Sequence[str], records: Sequence[Record], steps: Sequence[int]
) -> Best | None:
    """Returns the checkpoint among `steps` whose monitor in `records`, averaged over the directions, is best.

    The first of `monitors` that was measured decides. Returns None if none was measured at any of the steps.
    """
    for monitor in monitors:
        if scores := scores_of(monitor, directions, records):
            sign = 1 if monitor.better == "lower" else -1
            # the latest of equally good checkpoints
            kept = [score for score in reversed(scores) if score.step in steps]
            return min(kept, key=lambda score: sign * score.value, default=None)
    return None


def scores_of(monitor: Monitor, directions: Sequence[str], records: Sequence[Record]) -> list[Best]:
    """Returns the monitor, averaged over the directions, of each record that has it."""
    each = [f"{PREFIX}/{direction}/{monitor.number}" for direction in directions]
    # some numbers are measured in one direction only, some in none
    wanted = [name for name in each if any(name in record for record in records)]
    return [
        Best(int(record["step"]), sum(record[name] for name in wanted) / len(wanted), monitor.number)
        for record in records
        if wanted and all(name in record for name in wanted)
    ]


def chosen_step(folder: RunFolder, spec: Spec, which: str | int) -> int:
    """Returns the step of a run's checkpoint: "last", "best" or a step. Raises SpecError if there is none."""
    if folder.shared:
        if which != "last":
            raise SpecError(
                f"checkpoint: {which!r} is not allowed: {folder.path} is a shared model, with one checkpoint"
            )
        return shared.step(folder.path)
    if not folder.steps:
        raise SpecError(f"{folder.path} has no checkpoint yet; train it with `ganlab run`")
    if which == "last":
        return folder.steps[-1]
    if str(which).isdecimal() and int(which) in folder.steps:
        return int(which)
    steps = ", ".join(map(str, folder.steps))
    if which != "best":
        raise SpecError(
            f"checkpoint: {which!r} is not allowed: it should be 'last', 'best' or one of the steps {steps}"
        )
    asked = spec.evaluation
    monitors = evaluator_for(asked).monitors(asked.monitor, asked.keys_during)
    if (found := best_of(monitors, spec.directions, list(folder.records()), folder.steps)) is None:
        raise SpecError(
            f"{folder.path} has no best checkpoint: nothing was measured during its training (`evaluation.every`);"
            f" choose 'last' or one of the steps {steps}"
        )
    return found.step
