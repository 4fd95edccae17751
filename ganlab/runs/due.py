"""Decides what is due after a step, alike in every process of a run. Rank 0 does it, and the others compute for it."""

from __future__ import annotations

from ganlab import workers
from ganlab.engine.trainer import Trainer


class StepsDue:
    """Knows what is due after a step."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer, self._first = trainer, trainer.state.step + 1

    def _measured(self, step: int) -> bool:
        every = self._trainer.system.spec.evaluation.every
        return every is not None and (step == self._trainer.schedule.steps or step % every == 0)

    def _drawn(self, step: int) -> bool:
        return step == self._trainer.schedule.steps or step % self._trainer.system.spec.samples.every == 0

    def _saved(self, step: int, last: bool) -> bool:
        return last or self._measured(step) or step % self._trainer.system.spec.checkpoints.every == 0

    def _read(self, step: int, last: bool) -> bool:
        # the first one, so that nobody waits long to see what a step takes
        every = self._trainer.system.spec.runtime.log_every
        return self._saved(step, last) or self._drawn(step) or step % every == 0 or step == self._first


class Follower(StepsDue):
    """Writes nothing: rank 0 writes the steps of all. Computes pieces for rank 0, with `tools`, until it has measured,
    drawn and saved."""

    stop_requested = None

    def __init__(self, trainer: Trainer, tools: workers.Tools) -> None:
        super().__init__(trainer)
        self._tools = tools

    def after_step(self, last: bool) -> None:
        if self._read(self._trainer.state.step, last):
            self.stop_early()

    def stop_early(self) -> None:
        self._trainer.log.read(self._trainer.state)
        self.finish_last_step()

    def finish_last_step(self) -> None:
        workers.serve(self._tools)
