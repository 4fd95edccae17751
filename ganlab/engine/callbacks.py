"""Calls the callbacks of a run. None of them can stop the training by an error, or change it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ganlab.determinism import untouched_settings
from ganlab.errors import Interrupted, SpecError, text_of
from ganlab.interfaces.callbacks import Callback, Measurement, TrainingEnd, TrainingStart


class Callbacks(Callback):
    """Passes each call on to several callbacks, {name for messages: callback}. The first one also shows progress.

    The first error of each callback gives a warning. Global random generators are restored after each call, except in
    `progress`, because that would take longer than reading an image.
    """

    def __init__(self, callbacks: Mapping[str, Callback]) -> None:
        self._callbacks = dict(callbacks)
        self._first = next(iter(callbacks.items()))
        self._failed: set[str] = set()
        self._begun: list[str] = []

    def add(self, name: str, callback: Callback) -> None:
        """Adds a callback before the training begins."""
        self._callbacks[name] = callback

    def begin(self, start: TrainingStart) -> None:
        for name, callback in list(self._callbacks.items()):
            # it may have followed another training
            callback._stop_reason = None
            if self._call(name, "begin", start):
                self._begun.append(name)
            else:
                del self._callbacks[name]

    def records(self, records: Sequence[dict[str, float]]) -> None:
        for name in list(self._callbacks):
            # copies, because a callback may change what it is given
            self._call(name, "records", [dict(record) for record in records])

    def samples(self, step: int, path: Path) -> None:
        self._each("samples", step, path)

    def evaluation(self, measurement: Measurement) -> None:
        self._each("evaluation", measurement._replace(values=MappingProxyType(measurement.values)))

    def checkpoint(self, step: int, folder: Path) -> None:
        self._each("checkpoint", step, folder)

    def end(self, end: TrainingEnd) -> None:
        # a run may be refused before all have begun
        while self._begun:
            self._call(self._begun.pop(0), "end", end)

    def progress(self, items: Iterable[Any], what: str, total: int) -> Iterator[Any]:
        name, callback = self._first
        item, ended = None, False
        shown: Iterator[Any] = iter(())

        def taken() -> Iterator[Any]:
            # a callback may take all of them at once
            for _ in range(total):
                if ended:
                    return
                yield item

        def begin() -> None:
            nonlocal shown
            shown = iter(callback.progress(taken(), what, total))

        def proceed() -> None:
            next(shown, None)

        # the callback runs beside the loop over the items, not around it: its error loses no item, and an error in the
        # items is not taken for one in the callback
        shows = self._guarded(name, "progress", begin)
        for item in items:
            shows = shows and self._guarded(name, "progress", proceed)
            yield item
        ended = True
        if shows:
            self._guarded(name, "progress", proceed)

    def warn(self, sentence: str) -> None:
        self._each("warn", sentence)

    @property
    def stop_requested(self) -> str | None:
        return next((c.stop_requested for c in self._callbacks.values() if c.stop_requested is not None), None)

    def _each(self, method: str, *arguments: Any) -> None:
        for name in list(self._callbacks):
            self._call(name, method, *arguments)

    def _call(self, name: str, method: str, *arguments: Any) -> bool:
        """Calls a callback's method. Returns False if it raises an error."""

        def call() -> None:
            with untouched_settings():
                getattr(self._callbacks[name], method)(*arguments)

        return self._guarded(name, method, call)

    def _guarded(self, name: str, method: str, call: Callable[[], object]) -> bool:
        """Calls `call`. Returns False if it raises an error, and warns if that is the callback's first one."""
        try:
            call()
        # some libraries exit
        except (Exception, SystemExit) as error:
            if method == "begin" and isinstance(error, SpecError):
                raise
            if name not in self._failed:
                self._failed.add(name)
                left = " without it" if method == "begin" else ", and its later errors give no warning"
                self.warn(f"{name} failed in `{method}`: {text_of(error)}; the run continues{left}")
            return False
        return True


@contextmanager
def ending(callbacks: Callback, step: Callable[[], int], stopped: Callable[[], str | None]) -> Iterator[None]:
    """Tells the callbacks how the training and the measurement inside end.

    `step` returns the number of steps done, and `stopped` the reason why a finished run has fewer than its schedule.
    """
    try:
        yield
    except BaseException as error:
        state = "interrupted" if isinstance(error, Interrupted | KeyboardInterrupt) else "failed"
        callbacks.end(TrainingEnd(state, step(), text_of(error)))
        raise
    callbacks.end(TrainingEnd("finished", step(), stopped()))
