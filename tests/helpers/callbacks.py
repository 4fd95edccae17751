"""A callback for tests."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
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


def interrupt() -> None:
    """Ctrl-C, received by this thread at once."""
    signal.raise_signal(signal.SIGINT)


def stop() -> None:
    """Ends the call of ganlab at this point."""
    raise KeyboardInterrupt
