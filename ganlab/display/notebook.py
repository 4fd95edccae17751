"""Shows the progress of a function below the cell of a notebook that calls it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from ganlab.display.html import data_url, render
from ganlab.display.terminal import Rate, terms_of
from ganlab.errors import plural
from ganlab.interfaces.callbacks import Callback, TrainingEnd, TrainingStart

SECONDS = 0.3
"""The least number of seconds between two changes of the display."""


def in_notebook() -> bool:
    """True in a kernel of Jupyter, which shows HTML below the cell that runs."""
    # a kernel has imported it
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


@dataclass
class _Bar:
    what: str
    total: int
    done: int = 0
    beside: str = ""


class _Place:
    """A place below a cell, which shows one thing at a time. `display` is the module IPython.display."""

    def __init__(self, display: Any) -> None:
        self._display, self._handle, self._shown = display, display.DisplayHandle(), False

    def show(self, html: str) -> None:
        content = self._display.HTML(html)
        self._handle.update(content) if self._shown else self._handle.display(content)
        self._shown = True


class Notebook(Callback):
    """Draws progress bars, the warnings and the newest sample grid."""

    def __init__(self) -> None:
        # a kernel has it
        display = import_module("IPython.display")
        self._bars_shown, self._grid_shown = _Place(display), _Place(display)
        self._drawn = 0.0
        self._title = self._where = ""
        self._bars: list[_Bar] = []
        self._warnings: list[str] = []

    def progress(self, items: Iterable[Any], what: str, total: int) -> Iterable[Any]:
        bar = _Bar(what, total)
        self._bars.append(bar)
        for item in items:
            yield item
            bar.done += 1
            self._draw()
        self._bars.remove(bar)
        self._draw()

    def begin(self, start: TrainingStart) -> None:
        self._title = f"{start.name} {f'resumes after step {start.step}' if start.step else 'starts'}"
        self._where = f"{start.device}, {start.precision}, {plural(start.threads, 'thread')}, in {start.folder}"
        self._rate = Rate(start)
        self._training = _Bar("training", start.steps, start.step)
        self._bars.insert(0, self._training)
        self._draw(now=True)

    def records(self, records: Sequence[dict[str, float]]) -> None:
        if records:
            self._training.done = int(records[-1]["step"])
            self._training.beside = f"{self._rate.text(self._training.done)}  {terms_of(records[-1])}"
            self._draw()

    def samples(self, step: int, path: Path) -> None:
        # in a place of its own: a notebook stops what shows a picture with each change of a bar
        self._grid_shown.show(render("grid", grid=data_url(path.read_bytes()), step=step))

    def end(self, end: TrainingEnd) -> None:
        self._title = f"{self._title.split()[0]} {end.state}{f': {end.why}' if end.why else ''}"
        self._draw(now=True)

    def warn(self, sentence: str) -> None:
        self._warnings.append(sentence)
        self._draw(now=True)

    def _draw(self, now: bool = False) -> None:
        if not now and time.monotonic() - self._drawn < SECONDS:
            return
        self._drawn = time.monotonic()
        values = {"bars": self._bars, "warnings": self._warnings}
        self._bars_shown.show(render("progress", title=self._title, where=self._where, **values))
