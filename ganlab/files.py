"""Files that are complete or absent, hashes of files, and downloads of published ones."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO
from urllib.request import urlopen

import platformdirs

from ganlab.errors import RunError, SpecError

_UNFINISHED = ".unfinished"

SECONDS = 10.0
"""Seconds without an answer after which a download fails."""


def home_expanded(path: str | Path) -> Path:
    """Returns the path with the home folder in place of "~" or "~user". Raises ValueError if that is not known."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{str(path)!r}: the home folder that its '~' stands for is not known") from error


def user_folder(kind: Callable[[str], Path]) -> Path | None:
    """Returns ganlab's folder of a kind, such as `platformdirs.user_cache_path`; None for a user without a home."""
    with suppress(RuntimeError):
        return kind("ganlab")
    return None


def cache_folder(inside: str) -> Path | None:
    """Returns the folder `inside` $GANLAB_CACHE or the user's cache folder, which may be deleted at any time.

    Returns None for a user without a home folder.
    """
    own = os.environ.get("GANLAB_CACHE")
    folder = Path(own) if own else user_folder(platformdirs.user_cache_path)
    return folder and folder / inside


def data_folder(source: str, path: Path | None, inside: str = "") -> Path:
    """Returns the absolute folder of a data set: `path`, or by default `inside` the folder of all data sets.

    That folder is $GANLAB_DATA, or else ganlab/data in the user's data folder. Raises SpecError, which names the
    `source`, for a user without a home, and ValueError as `home_expanded` does.
    """
    if path is not None:
        return home_expanded(path).absolute()
    if own := os.environ.get("GANLAB_DATA"):
        return home_expanded(own).absolute() / inside
    if (users := user_folder(platformdirs.user_data_path)) is None:
        raise SpecError(f"the source {source!r} needs the option `path`: the user has no home folder")
    return users / "data" / inside


def opened(path: Path, flags: int = 0) -> BufferedReader:
    """Opens a regular file to read bytes; `flags` are further ones of `os.open`. Raises OSError."""
    return open(path, "rb", opener=lambda name, wanted: regular(name, wanted | flags))


def regular(name: str, flags: int) -> int:
    """Opens a file as `os.open` does, for `open(..., opener=regular)`.

    Raises OSError if it is no regular file: an open pipe would wait for its other end.
    """
    handle = os.open(name, flags | getattr(os, "O_NONBLOCK", 0), 0o666)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is not a regular file", name)
    return handle


def write(path: Path, content: bytes | Callable[[], Iterable[bytes]]) -> None:
    """Writes the file and its missing folders. After a crash the file has its old content or all of the new.

    A content that is too large for the memory is a function that returns its pieces. Raises OSError.
    """
    # cut off, because the file's own name may already be as long as the system allows, 255 bytes;
    # with the process's number, because more than one process may be writing it
    unfinished = path.with_name(f".{path.name[:50]}.{os.getpid()}{_UNFINISHED}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        _fill(unfinished, content)
        try:
            unfinished.replace(path)
        except FileNotFoundError:
            # another process has called `tidy` in between
            _fill(unfinished, content)
            unfinished.replace(path)
    finally:
        with suppress(OSError):
            unfinished.unlink()


def tidy(folder: Path) -> None:
    """Removes the unfinished files of killed processes. If a process is writing now, its `write` starts over."""
    for left in folder.glob(f".*{_UNFINISHED}"):
        with suppress(OSError):
            left.unlink()


def _fill(path: Path, content: bytes | Callable[[], Iterable[bytes]]) -> None:
    with path.open("wb") as file:
        file.writelines([content] if isinstance(content, bytes) else content())
        _sync(file)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises RunError, with a sentence that names `path`, instead of OSError."""
    try:
        yield
    except OSError as error:
        raise RunError(f"{path} can't be written: {error.strerror or error}") from error


def download(url: str, path: Path, sha256: str) -> None:
    """Downloads a file. `sha256` is its SHA-256, or the first digits of it. Raises OSError; then writes nothing."""
    try:
        with urlopen(url, timeout=SECONDS) as answer:
            content = answer.read()
    except HTTPException as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
    if not hashlib.sha256(content).hexdigest().startswith(sha256):
        raise OSError("the server sent another file, or only a part of it")
    write(path, content)


def digest(path: Path) -> str:
    """Returns the file's SHA-256. Raises OSError."""
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashes(files: Iterable[Path]) -> dict[str, str]:
    """Returns {file name: SHA-256}. A file is read again only if its size or time of change differs.

    If two files have the same name, enough parent folders are added to tell them apart. Raises OSError.
    """
    found: dict[str, str] = {}
    for file in dict.fromkeys(path.absolute() for path in files):
        state = file.stat()
        depth = next(n for n in range(1, len(file.parts) + 1) if "/".join(file.parts[-n:]) not in found)
        found["/".join(file.parts[-depth:])] = _digest_once(file, state.st_size, state.st_mtime_ns)
    return found


@functools.cache
def _digest_once(path: Path, size: int, changed: int) -> str:
    return digest(path)
