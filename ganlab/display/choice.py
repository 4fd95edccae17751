"""Chooses the display where no callback is given."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ganlab.display.notebook import Notebook, in_notebook
from ganlab.display.terminal import Console
from ganlab.interfaces.callbacks import Callback


@contextmanager
def showing(callback: Callback | None) -> Iterator[Callback]:
    """Yields the callback. If it is None, yields one that shows progress where a person sees it: in a notebook, or if
    stderr is a terminal."""
    if callback is not None:
        yield callback
    elif in_notebook():
        yield Notebook()
    elif sys.stderr is not None and sys.stderr.isatty():
        with Console() as console:
            yield console
    else:
        yield Callback()
