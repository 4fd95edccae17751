"""A callback for tests."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ganlab.interfaces.callbacks import Callback, TrainingStart


class Recording(Callback):
    """Records the warnings and the first step of each start, and calls `do` once, after step `at` or a later one."""

    def __init__(self, at: int | None = None, do: Callable[[], Any] = int) -> None:
        self.warned: list[str] = []
        self.begun: list[int] = []
        self.at, self.do = at, do

    def begin(self, start: TrainingStart) -> None:
        self.begun.append(start.step)

    def records(self, records: Sequence[dict[str, float]]) -> None:
        if self.at is not None and records and records[-1]["step"] >= self.at:
            self.at = None
            self.do()

    def warn(self, sentence: str) -> None:
        self.warned.append(sentence)


def start_of(folder: Path, step: int = 0, **others: Any) -> TrainingStart:
    """Returns the start of a training of 100 steps; `others` are further fields."""
    facts = {"run_id": "0123456789abcdef", "spec": {}, "better": {}, "history": (), **others}
    return TrainingStart("name", folder, step, 100, 4, "cpu", "float32", 1, **facts)


def interrupt() -> None:
    """Ctrl-C, received by this thread at once."""
    signal.raise_signal(signal.SIGINT)


def stop() -> None:
    """Ends the call of ganlab at this point."""
    raise KeyboardInterrupt
