"""Shows the progress of a command or function on stderr."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any, Self

from rich.console import Console as Terminal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from ganlab import distributed
from ganlab.errors import plural, printable
from ganlab.interfaces.callbacks import Callback, TrainingStart

QUIET_SECONDS = 10.0
"""Seconds between two lines of progress if stderr is not a terminal."""


class Rate:
    """The images per second of a training since its start."""

    def __init__(self, start: TrainingStart) -> None:
        self._start, self._begun = start, time.monotonic()

    def images_per_second(self, step: int) -> float:
        seconds = time.monotonic() - self._begun
        return (step - self._start.step) * self._start.batch / seconds if seconds else 0.0

    def text(self, step: int) -> str:
        """Returns the rate and the time left: "41.2 images/s  2:03 left"."""
        rate = self.images_per_second(step)
        left = (self._start.steps - step) * self._start.batch / rate if rate else 0.0
        return f"{rate:.1f} images/s  {_clock(left)} left"


def terms_of(record: dict[str, float]) -> str:
    """Returns the terms of a step in short: "G cycle 0.213  D adversarial 0.201"."""
    return "  ".join(f"{name} {value:.3f}" for name, value in _short(record).items())


class _Rate(ProgressColumn):
    """The images per second of a training; the items per second of any other task."""

    def render(self, task: Task) -> Text:
        if rate := task.fields.get("rate"):
            return Text(f"{rate:.1f} images/s")
        return Text(f"{task.speed:.1f}/s" if task.speed else "")


class _Terms(ProgressColumn):
    """The terms of the last step, cut off where the terminal ends. The other columns keep their widths."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["terms"], no_wrap=True, overflow="ellipsis")


class Console(Callback):
    """Draws a progress bar in a terminal and prints lines elsewhere."""

    def __init__(self) -> None:
        self._terminal = Terminal(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False, table_column=_fixed()),
            BarColumn(bar_width=20, table_column=_fixed()),
            MofNCompleteColumn(table_column=_fixed()),
            _Rate(table_column=_fixed()),
            TimeRemainingColumn(table_column=_fixed()),
            _Terms(table_column=Column()),
            console=self._terminal,
            disable=not self._terminal.is_terminal,
        )
        self._printed = time.monotonic()
        self.trained = False
        """True once training has started."""

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def progress(self, items: Iterable[Any], what: str, total: int) -> Iterable[Any]:
        task = self._bar.add_task(printable(what), total=total, terms="")
        for done, item in enumerate(items, 1):
            yield item
            self._bar.advance(task)
            if self._bar.disable and time.monotonic() - self._printed > QUIET_SECONDS:
                self._printed = time.monotonic()
                self._line(f"{printable(what)}: {done}/{total}")
        self._bar.remove_task(task)

    def begin(self, start: TrainingStart) -> None:
        self.trained = True
        self._start, self._rate = start, Rate(start)
        how = f"resumes after step {start.step}" if start.step else "starts"
        each = f" in each of {distributed.size()} processes" if distributed.size() > 1 else ""
        self._line(
            f"{start.name} {how}: {start.steps} steps on {start.device}, {start.precision},"
            f" {plural(start.threads, 'thread')}{each}, in {printable(str(start.folder))}"
        )
        self._task = self._bar.add_task("training", total=start.steps, completed=start.step, terms="")

    def records(self, records: Sequence[dict[str, float]]) -> None:
        if not records:
            return
        start, terms = self._start, terms_of(records[-1])
        done = int(records[-1]["step"])
        self._bar.update(self._task, completed=done, terms=terms, rate=self._rate.images_per_second(done))
        if self._bar.disable and (
            time.monotonic() - self._printed > QUIET_SECONDS or done in (start.step + 1, start.steps)
        ):
            self._printed = time.monotonic()
            self._line(f"step {done}/{start.steps}  {self._rate.text(done)}  {terms}")

    def warn(self, sentence: str) -> None:
        self._line(f"warning: {printable(sentence)}")

    def _line(self, text: str) -> None:
        self._terminal.print(text, highlight=False, markup=False, soft_wrap=True)


def _fixed() -> Column:
    return Column(no_wrap=True)


def _short(record: dict[str, float]) -> dict[str, float]:
    """Returns one value for each player and loss, for example "G cycle": its parts summed, its directions averaged.

    A logged value has its name too: "G cycle/spread".
    """
    sums: dict[str, float] = {}
    directions: dict[str, set[str]] = {}
    for name, value in record.items():
        if name.startswith(("loss/", "log/")):
            kind, player, direction, *label = name.split("/")
            key = f"{'G' if player == 'generator' else 'D'} {label[0] if kind == 'loss' else '/'.join(label)}"
            sums[key] = sums.get(key, 0.0) + value
            directions.setdefault(key, set()).add(direction)
    return {key: value / len(directions[key]) for key, value in sums.items()}


def _clock(seconds: float) -> str:
    """Returns a duration as h:mm:ss, or m:ss below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
