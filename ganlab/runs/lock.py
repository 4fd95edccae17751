"""The lock of a run folder: one process at a time trains in it. Imports no torch."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from filelock import lock_descriptor

from ganlab import files

FLAGS = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0)
"""The flags with which the lock is opened."""


def lock_of(folder: Path) -> Path:
    """Returns the file that is locked while a process trains in a run folder."""
    return folder / ".lock"


def lock_file(lock: BinaryIO) -> bool:
    """Locks an open file until it is closed. Returns False, at once, if another process has locked it."""
    return lock_descriptor(lock.fileno(), blocking=False)


def is_locked(folder: Path) -> bool:
    """Returns True if a process trains in a run folder, which need not exist."""
    with suppress(OSError), files.opened(lock_of(folder), FLAGS) as lock:
        return not lock_file(lock)
    return False
