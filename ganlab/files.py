"""Files that are whole or absent, and downloads of published ones."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

SECONDS = 10.0
"""How long a server may say nothing."""


def write(path: Path, content: bytes) -> None:
    """The whole file or none of it, whatever happens meanwhile. Raises OSError."""
    # more than one process may be writing it
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        with suppress(OSError):
            unfinished.unlink()


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
