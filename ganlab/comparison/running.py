"""Runs trials, several at a time, each at its place, and stops them at a signal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from ganlab.comparison.processes import End, tail
from ganlab.comparison.trials import Trial
from ganlab.engine.loop import stop_signals
from ganlab.errors import Interrupted

_PAUSE = 0.2
"""Seconds between two looks at the processes."""


class TrialCallback:
    """Receives the progress of a comparison. By default each method does nothing."""

    def begin(self, done: int, trials: int) -> None:
        """Called before the first process starts: `done` of the comparison's `trials` are finished already."""

    def started(self, trial: Trial) -> None:
        """Called when the process of a trial starts."""

    def running(self, said: Mapping[Trial, str]) -> None:
        """Called several times a second with the last line that each running trial has printed."""

    def ended(self, trial: Trial, outcome: str, seconds: float) -> None:
        """Called when the process of a trial has ended: "finished", "failed: REASON" or "pruned at step N"."""


class Process(Protocol):
    """A trial at its place."""

    @property
    def begun(self) -> bool:
        """True if the trial no longer waits for room."""

    def poll(self) -> End | None:
        """Returns None while the trial runs."""

    def stop(self) -> None:
        """Lets the run save its state and end."""

    def kill(self) -> None:
        """Ends the trial at once, if it still runs."""


Start = Callable[[Trial], Process]
"""Starts a trial at a place."""


class Queue(Protocol):
    """Decides which trials run."""

    def next(self) -> Trial | None:
        """Returns the trial to start now; None if there is none, or if it depends on those that run."""

    def gives_up(self, trial: Trial) -> bool:
        """Returns True, once, if a running trial is to stop because it is not worth its time."""

    def ended(self, trial: Trial, end: End) -> str:
        """Takes a trial that has ended, and returns its outcome."""


def run_trials(queue: Queue, jobs: int | None, start: Start, callback: TrialCallback) -> None:
    """Runs the trials of a queue, at most `jobs` at a time.

    SIGINT and SIGTERM stop the running trials, which save their state; then Interrupted is raised. A second signal
    kills them.
    """
    running: dict[Trial, Process] = {}
    began: dict[Trial, float] = {}
    stopping = False
    with stop_signals() as received, _killed_at_the_end(running):
        while True:
            while not received and (jobs is None or len(running) < jobs) and (trial := queue.next()) is not None:
                running[trial] = start(trial)
            if not running:
                break
            if received and not stopping:
                stopping = True
                for process in running.values():
                    process.stop()
            for trial, process in [*running.items()]:
                end = process.poll()
                if trial not in began and (process.begun or end is not None):
                    began[trial] = time.monotonic()
                    callback.started(trial)
                if end is not None:
                    process.kill()
                    del running[trial]
                    seconds = time.monotonic() - began[trial]
                    if not received:
                        callback.ended(trial, queue.ended(trial, end), seconds)
                elif not received and queue.gives_up(trial):
                    process.stop()
            callback.running({trial: _last_line(trial) for trial in running if trial in began})
            time.sleep(_PAUSE)
        if received:
            raise Interrupted("the running trials were stopped", received[0])


@contextmanager
def _killed_at_the_end(running: Mapping[Trial, Process]) -> Iterator[None]:
    """Leaves no process behind, whatever ends the loop."""
    try:
        yield
    finally:
        for process in running.values():
            process.kill()


def _last_line(trial: Trial) -> str:
    return next((line for line in reversed(tail(trial.log)) if line), "")
