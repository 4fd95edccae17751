"""Runs trials as processes of their own, several at a time, and stops them when a signal asks for it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from ganlab import files
from ganlab.comparison.trials import Trial
from ganlab.engine.loop import stop_signals
from ganlab.errors import Interrupted

_PAUSE = 0.2
"""Seconds between two looks at the processes."""

Running = dict[Trial, tuple[subprocess.Popen[bytes], float]]
"""{trial: (its process, the time of its start)}."""


class TrialCallback:
    """Receives the progress of a comparison. By default each method does nothing."""

    def begin(self, done: int, trials: int) -> None:
        """Called before the first process starts: `done` of the comparison's `trials` are finished already."""

    def started(self, trial: Trial) -> None:
        """Called when the process of a trial starts."""

    def running(self, said: Mapping[Trial, str]) -> None:
        """Called several times a second with the last line that each running trial has printed."""

    def ended(self, trial: Trial, failure: str, seconds: float) -> None:
        """Called when the process of a trial has ended; `failure` is the reason of a failure, otherwise ""."""


def run_trials(trials: Sequence[Trial], jobs: int, callback: TrialCallback, failures: dict[Trial, str]) -> None:
    """Runs each trial in a process of its own, at most `jobs` at a time. Adds {failed trial: reason} to `failures`.

    SIGINT and SIGTERM stop the running trials, which save their state; then Interrupted is raised. A second signal
    kills them.
    """
    waiting = deque(trials)
    running: Running = {}
    stopping = False
    with stop_signals() as received, _killed_at_the_end(running):
        while running or (waiting and not received):
            while waiting and len(running) < jobs and not received:
                trial = waiting.popleft()
                running[trial] = _start(trial), time.monotonic()
                callback.started(trial)
            if received and not stopping:
                stopping = True
                for process, _ in running.values():
                    process.send_signal(signal.SIGTERM)
            for trial, (process, started) in [*running.items()]:
                if process.poll() is not None:
                    del running[trial]
                    if not received:
                        if failure := _failure(trial, process.returncode):
                            failures[trial] = failure
                        callback.ended(trial, failure, time.monotonic() - started)
            callback.running({trial: _last_line(trial) for trial in running})
            time.sleep(_PAUSE)
        if received:
            raise Interrupted("the running trials were stopped", received[0])


@contextmanager
def _killed_at_the_end(running: Running) -> Iterator[None]:
    """Leaves no process behind, whatever ends the loop."""
    try:
        yield
    finally:
        for process, _ in running.values():
            process.kill()
            process.wait()


def _start(trial: Trial) -> subprocess.Popen[bytes]:
    with files.writing(trial.log):
        trial.log.parent.mkdir(parents=True, exist_ok=True)
        log = trial.log.open("wb")
    with log:
        # in a session of its own: Ctrl-C in a terminal reaches only this process, which passes one signal on
        return subprocess.Popen(
            [sys.executable, "-m", "ganlab", *trial.words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _failure(trial: Trial, code: int) -> str:
    if code == 0:
        return ""
    said = [line for line in _tail(trial) if line.startswith("ganlab: ")]
    if said:
        return said[-1].removeprefix("ganlab: ")
    how = f"signal {-code} ended its process" if code < 0 else f"its process ended with exit code {code}"
    return f"{how}; see {trial.log}"


def _last_line(trial: Trial) -> str:
    return next((line for line in reversed(_tail(trial)) if line), "")


def _tail(trial: Trial) -> list[str]:
    """Returns the last lines that a trial has printed."""
    with trial.log.open("rb") as log:
        log.seek(0, 2)
        log.seek(max(0, log.tell() - 20_000))
        return [line.strip() for line in log.read().decode(errors="replace").splitlines()]
