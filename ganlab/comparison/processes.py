"""Runs a trial as a process on this machine: `ganlab run`, which ends with the process that started it.

Imports no torch, because the processes of a cluster import it too.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ganlab import files

if TYPE_CHECKING:
    from ganlab.comparison.trials import Trial


class End(NamedTuple):
    """The end of a trial."""

    why: str = ""
    """The reason of its failure; "" if it has not failed."""
    lost: bool = False
    """True if a signal or its machine ended it, so that it may succeed when it is tried again."""


class LocalProcess:
    """The process of a trial on this machine."""

    begun = True

    def __init__(self, words: Sequence[str], log: Path, folder: Path, threads: int | None = None) -> None:
        """Starts `ganlab` with some words in a working folder. What it prints is appended to `log`.

        `threads` is the number of threads of torch's and of NumPy's linear algebra, by default as in this process.
        """
        self._log = log
        with files.writing(log):
            output = log.open("ab")
        with output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ganlab.cli.attached", *words],
                cwd=folder,
                # NumPy's matrix products take a thread for each core otherwise, whatever torch's number is: two trials
                # would share the cores with twice as many threads, and measure several times as long
                env={**os.environ, **({} if threads is None else {"OMP_NUM_THREADS": str(threads)})},
                # never written to: it closes when this process ends
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                # Ctrl-C in a terminal reaches only this process, which passes one signal on
                start_new_session=True,
            )

    def poll(self) -> End | None:
        """Returns None while the process runs."""
        code = self._process.poll()
        return code if code is None else _end(code, self._log)

    def stop(self) -> None:
        """Lets the run save its state and end."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends the process at once, if it still runs."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


def start(trial: Trial) -> LocalProcess:
    """Starts a trial in this machine's working folder."""
    with files.writing(trial.log):
        trial.log.parent.mkdir(parents=True, exist_ok=True)
        trial.log.write_bytes(b"")
    return LocalProcess(trial.words, trial.log, Path(), trial.cpus)


def _end(code: int, log: Path) -> End:
    """Returns the end of a process with an exit code, or minus a signal's number, that printed to `log`."""
    if code == 0:
        return End()
    said = [line for line in tail(log) if line.startswith("ganlab: ")]
    how = f"signal {-code} ended its process" if code < 0 else f"its process ended with exit code {code}"
    # above 128: it saved its state after a signal
    return End(said[-1].removeprefix("ganlab: ") if said else f"{how}; see {log}", code < 0 or code > 128)


def tail(log: Path) -> list[str]:
    """Returns the last lines of a log; [] if it can't be read."""
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 20_000))
            return [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    except OSError:
        return []
