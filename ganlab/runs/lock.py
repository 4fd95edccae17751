"""The lock of a folder: one process at a time trains in a run, or writes a comparison or a search. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from filelock import lock_descriptor

from ganlab import files
from ganlab.errors import SpecError

FLAGS = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0)
"""The flags with which the lock is opened."""


def lock_of(folder: Path) -> Path:
    """Returns the file that is locked while a process writes a folder."""
    return folder / ".lock"


@contextmanager
def locking(folder: Path, taken: str) -> Iterator[BinaryIO]:
    """Locks a folder, creates it if it is missing, and yields the open lock file.

    Raises SpecError with the sentence `taken` if another process has locked it, RunError if the disk fails.
    """
    with files.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    path = lock_of(folder)
    if path.is_symlink():
        raise SpecError(f"{path} is a symbolic link; remove it to write in {folder}")
    # truncates nothing: the file may be somebody's
    with files.writing(path):
        lock = files.opened(path, FLAGS | os.O_CREAT)
    with lock:
        with files.writing(path):
            if not lock_file(lock):
                raise SpecError(taken)
        yield lock


def lock_file(lock: BinaryIO) -> bool:
    """Locks an open file until it is closed. Returns False, at once, if another process has locked it."""
    return lock_descriptor(lock.fileno(), blocking=False)


def is_locked(folder: Path) -> bool:
    """Returns True if a process trains in a run folder, which need not exist."""
    with suppress(OSError), files.opened(lock_of(folder), FLAGS) as lock:
        return not lock_file(lock)
    return False
