"""Files that are whole or absent, and downloads of published ones."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO
from urllib.request import urlopen

_UNFINISHED = ".unfinished"

SECONDS = 10.0
"""How long a server may say nothing."""


def write(path: Path, content: bytes) -> None:
    """The whole file or none of it, whatever happens meanwhile. Raises OSError."""
    # more than one process may be writing it
    unfinished = path.with_name(f".{path.name}.{os.getpid()}{_UNFINISHED}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        _fill(unfinished, content)
        try:
            unfinished.replace(path)
        except FileNotFoundError:
            # another process has tidied up meanwhile
            _fill(unfinished, content)
            unfinished.replace(path)
    finally:
        with suppress(OSError):
            unfinished.unlink()


def tidy(folder: Path) -> None:
    """Remove what processes that were killed in `write` have left there; one that is writing begins once more."""
    for left in folder.glob(f".*{_UNFINISHED}"):
        with suppress(OSError):
            left.unlink()


def _fill(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        _sync(file)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def download(url: str, path: Path, sha256: str) -> None:
    """A published file whose SHA-256 begins so. Raises OSError; nothing is then written."""
    try:
        with urlopen(url, timeout=SECONDS) as answer:
            content = answer.read()
    except HTTPException as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
    if not hashlib.sha256(content).hexdigest().startswith(sha256):
        raise OSError("what came is another file, or not the whole of it")
    write(path, content)


def digest(path: Path) -> str:
    """The file's SHA-256. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
