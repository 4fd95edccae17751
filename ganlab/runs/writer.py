"""Writes what each step computed into the run folder, and tells the callbacks: records, measurements, samples,
checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Protocol

from pydantic import ValidationError

from ganlab import workers
from ganlab.engine.monitors import SaturatedDiscriminator, first_non_finite, non_finite_state
from ganlab.engine.step_log import Record
from ganlab.engine.trainer import Trainer
from ganlab.errors import RunError, text_of
from ganlab.interfaces.callbacks import Callback, Measurement
from ganlab.runs import checkpoint
from ganlab.runs.due import StepsDue
from ganlab.runs.folder import RunFolder, write
from ganlab.runs.models import Origin, described
from ganlab.runs.models import records as checked_records
from ganlab.runs.records import Recorder
from ganlab.system.error_attribution import Position

_UNRECORDED = "unrecorded"
"""The key, in a checkpoint's state, of records that wait for an evaluation that failed."""


class StepMeasurements(Protocol):
    """Measures the generators during training. `ganlab.evaluation.periodic.PeriodicEvaluation` implements it."""

    def measure(self, trainer: Trainer, records: list[Record]) -> dict[str, float]:
        """Measures the generators, adds the values to the last record and returns {"DIRECTION/NUMBER": value}."""

    def best_steps(self) -> set[int]:
        """Returns the steps of the best checkpoints, which are kept."""


class RunWriter(StepsDue):
    """Keeps a run's folder complete: after a kill at any moment the run resumes from its newest checkpoint.

    `origin` goes into the manifests of checkpoints. `draw` returns the PNG of the sample grid. `history` holds the
    records of earlier processes. `stopped` is the reason why an earlier process ended the run before its last step, if
    that still holds.
    """

    def __init__(
        self,
        trainer: Trainer,
        folder: RunFolder,
        origin: Origin,
        recorder: Recorder,
        callback: Callback,
        draw: Callable[[], bytes],
        measurements: StepMeasurements | None,
        history: Iterable[Record],
        unrecorded: Sequence[Record],
        stopped: str | None,
    ) -> None:
        super().__init__(trainer)
        self._folder, self._recorder, self._callback = folder, recorder, callback
        self._origin = origin
        self._draw, self._measurements = draw, measurements
        self._saturated = SaturatedDiscriminator(callback.warn, history)
        self._unrecorded = [record for record in unrecorded if record["step"] > recorder.last]
        self._stopped = stopped

    def after_step(self, last: bool) -> None:
        """Writes a step's records, then its measurements and samples, then its checkpoint.

        The checkpoint is written last, because a run that resumes from it does not repeat the step.
        """
        step = self._trainer.state.step
        if self._read(step, last):
            records = self._trainer.log.read(self._trainer.state)
            measure = self._measured(step)
            with workers.served(self._callback.warn):
                self._folder.check_lock()
                self._check_records(records)
                if not measure:
                    self._record(records)
                self._complete(records if measure else None, self._drawn(step), self._saved(step, last))

    @property
    def stop_requested(self) -> str | None:
        return self._stopped or self._callback.stop_requested

    def stop_early(self) -> None:
        step = self._trainer.state.step
        records = self._trainer.log.read(self._trainer.state)
        with workers.served(self._callback.warn):
            self._folder.check_lock()
            self._check_records(records)
            self._record(records)
            self._complete(None, not self._folder.sample(step).exists(), step not in self._folder.steps)
            self._folder.write_json("stopped.json", {"step": step, "why": self.stop_requested})

    def finish_last_step(self) -> None:
        step = self._trainer.state.step
        with workers.served(self._callback.warn):
            self._show(self._unrecorded or None, self._drawn(step) and not self._folder.sample(step).exists())

    def _complete(self, records: list[Record] | None, draw: bool, save: bool) -> None:
        """Shows and saves a step. The step is saved even if a measurement or a sample fails."""
        if save or draw:
            self._check_state()
        try:
            self._show(records, draw)
        except Exception:
            with suppress(Exception):
                self._save(records or ())
            raise
        if save:
            self._save()

    def _check_records(self, records: list[Record]) -> None:
        if (found := first_non_finite(records)) is not None:
            self._recorder([record for record in records if record["step"] < found.step])
            label = found.name.split("/")[3] if found.name.startswith(("loss/", "log/")) else ""
            owner = self._trainer.system.components.at(f"losses.{label}").name
            raise RunError(
                f"{found.name} became {found.value} at step {found.step}{owner and f' ({owner})'};"
                f" {self._last_checkpoint()}"
            )

    def _check_state(self) -> None:
        if (part := non_finite_state(self._trainer)) is not None:
            raise RunError(f"{part} are not finite after step {self._trainer.state.step}; {self._last_checkpoint()}")

    def _last_checkpoint(self) -> str:
        if not self._folder.steps:
            return "there is no checkpoint before it"
        return f"the last good checkpoint is {checkpoint.path_of(self._folder.checkpoints, self._folder.steps[-1])}"

    def _show(self, records: list[Record] | None, draw: bool) -> None:
        """Measures the generators if `records` wait for the values, and draws the samples if `draw`."""
        step, components = self._trainer.state.step, self._trainer.system.components
        if records is not None:
            values = {}
            if self._measurements is not None and self._measured(step):
                with components.attributing(Position("", "the evaluation", step)):
                    values = self._measurements.measure(self._trainer, records)
            self._record(records)
            if values:
                self._callback.evaluation(Measurement(self._folder.path, step, "validation", values))
        if draw:
            with components.attributing(Position("", "the samples", step)):
                picture = self._draw()
            write(path := self._folder.sample(step), picture)
            self._callback.samples(step, path)

    def _record(self, records: list[Record]) -> None:
        self._recorder(records)
        self._saturated(records)
        self._callback.records(records)

    def _save(self, unrecorded: Sequence[Record] = ()) -> None:
        # a measurement takes its time
        self._folder.check_lock()
        state, spec = self._trainer.state, self._trainer.system.spec
        spared = self._measurements.best_steps() if self._measurements is not None else set()
        checkpoint.save(
            self._folder.checkpoints,
            state.step,
            state.modules(),
            {**state.state_dict(), _UNRECORDED: list(unrecorded)},
            self._origin,
            spec.checkpoints.keep,
            spared,
        )
        self._callback.checkpoint(state.step, checkpoint.path_of(self._folder.checkpoints, state.step))


def restore(trainer: Trainer, folder: RunFolder) -> list[Record]:
    """Loads the newest checkpoint, if there is one. Returns the records that were not yet written when it was saved.

    Raises RunError if it holds anything else than the state of this system.
    """
    if not folder.steps:
        return []
    newest = checkpoint.path_of(folder.checkpoints, folder.steps[-1])
    state = checkpoint.load_state(newest)
    try:
        trainer.state.load_state_dict(state)
        if trainer.state.step != folder.steps[-1]:
            raise ValueError(f"it is the state of step {trainer.state.step}")
        unrecorded = checked_records(state.get(_UNRECORDED))
    # nothing that a file holds may end in a traceback
    except Exception as error:
        why = described(error) if isinstance(error, ValidationError) else text_of(error)
        raise RunError(f"{newest / checkpoint.STATE} holds the state of another system: {why}") from error
    checkpoint.load_networks(newest, trainer.state.modules())
    return unrecorded
