"""Runs the command line as the child of another process: python -m ganlab.cli.attached WORD...

Its stdin is a pipe of the parent. When the parent ends, in whatever way, the pipe closes, and this process ends too.
"""

from __future__ import annotations

import os
import threading

from ganlab.cli.commands import main


def _end_with(parent: int) -> None:
    """Waits until the parent's end of a pipe is closed, then ends this process. A run can be killed at any moment."""
    while os.read(parent, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    parent = os.dup(0)
    # a plugin that reads stdin gets nothing
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    main()
