"""Prepared images: large sets are read once, and their pixels are kept in a file that later starts map into memory."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np
import PIL
import torch
from filelock import lock_descriptor
from torch import Tensor

from ganlab import files
from ganlab.data.blocks import Block, Pixels, cores, in_processes, read_block
from ganlab.data.content import Content, Facts, begun_digest, layers_of
from ganlab.data.pixel_file import PixelFile
from ganlab.data.reading import Progress, noting_warnings, read
from ganlab.errors import RunError, SpecError
from ganlab.interfaces.sources import Extra, Source

if TYPE_CHECKING:
    from hashlib import _Hash

KEPT_FROM = 256 * 2**20
"""A set is prepared if its pixels or its files have at least this many bytes. Fewer are read in seconds, and fit into
any memory."""

PIXELS, RECORD = "pixels.npy", "record.json"
_JOURNAL, _UNFINISHED = "journal.jsonl", ".unfinished"

FORMAT = 2
"""The version of the files. It is a part of the key."""

HEADER = 4096
"""The bytes before the pixels, which so begin at a page of memory."""

_BLOCK = 4 * 2**20
"""The most bytes of a block; a larger image is a block by itself. A killed process loses its unfinished blocks."""

_PROBED = 8
"""The number of images that are read at every start. Their pixels are a part of the key, so that images are prepared
again if the code that reads them has changed."""


def folder() -> Path | None:
    """Returns the folder of all prepared sets, which may be deleted at any time. None for a user without a home
    folder."""
    return files.cache_folder("images")


def whole_of(path: Path) -> Path:
    """Returns the folder of the prepared images that an unfinished folder becomes; any other path as it is."""
    return path.with_name(path.name[1:].removesuffix(_UNFINISHED)) if path.name.endswith(_UNFINISHED) else path


class Record(NamedTuple):
    """What is kept of a prepared set besides its pixels, as JSON."""

    source: str
    """The JSON of the image source in a spec."""
    shape: list[int]
    """(n, L, H, W)."""
    extras: dict[str, Extra]
    keys: list[str]
    skipped: list[str]
    notes: dict[str, list[str]]
    labels: list[int] | None
    brightest: int
    constant: bool
    sha256: str


class Store:
    """The prepared images of one set.

    Args:
        path: its folder, with the pixels and the record; it is complete or absent.
        where: the set in messages, "data.a".
        identity: the JSON of the image source in a spec.
        source: the image source.
        one: returns the layers (L, H, W) of a key: an image and its extras.
        labels: returns the labels of keys.
        keys: the keys of all images.
        size: the height and width of the images in pixels.
    """

    def __init__(
        self,
        path: Path,
        where: str,
        identity: str,
        source: Source,
        one: Callable[[str], Pixels],
        labels: Callable[[Sequence[str]], Tensor | None],
        keys: Sequence[str],
        size: int,
    ) -> None:
        self.path, self._where, self._identity, self._source = path, where, identity, source
        self._one, self._labels, self._keys = one, labels, keys
        self._shape = (layers_of(source), size, size)
        self._unfinished = path.with_name(f".{path.name}{_UNFINISHED}")

    def content(self, progress: Progress) -> Content:
        """Maps the images, which are prepared first if they are not yet.

        A killed preparation is continued. If another process prepares the images, waits for it. Raises SpecError if the
        disk has too little room, RunError if it can't be written.
        """
        found = opened(self.path)
        if found is None:
            with files.writing(self.path), locked(self.path):
                # another process may have prepared them meanwhile
                found = opened(self.path)
                if found is None:
                    self._prepare(progress)
                    found = opened(self.path)
        if found is None:
            raise RunError(f"{self.path} was removed while it was prepared; start again")
        with suppress(OSError):
            # the time of the last use
            os.utime(self.path / RECORD)
        return found

    def _prepare(self, progress: Progress) -> None:
        try:
            self._unfinished.mkdir(parents=True, exist_ok=True)
            with (
                _kept(self._unfinished / PIXELS) as pixels,
                _uncached(self._unfinished / PIXELS) as direct,
                _kept(self._unfinished / _JOURNAL) as journal,
            ):
                unfinished = _Unfinished(pixels, direct, journal, self._keys, self._shape, self._source.extras)
                left = self._keys[unfinished.read :]
                self._check_room(len(left))
                name = f"images of {self._where.removeprefix('data.')}"
                with noting_warnings(), closing(self._write(unfinished, left)) as written:
                    for _ in progress(written, name, len(left)):
                        pass
                record = unfinished.finished(self._identity, self._labels(unfinished.kept))
            files.write(self._unfinished / RECORD, json.dumps(record._asdict()).encode())
            (self._unfinished / _JOURNAL).unlink()
            # damaged images may be there
            shutil.rmtree(self.path, ignore_errors=True)
            self._unfinished.rename(self.path)
        except OSError:
            shutil.rmtree(self._unfinished, ignore_errors=True)
            raise

    def _write(self, unfinished: _Unfinished, keys: Sequence[str]) -> Generator[str]:
        """Writes the images of `keys` and yields each key once its block is written."""
        rows = max(1, min(64, _BLOCK // math.prod(self._shape)))
        starts = range(0, len(keys), rows)

        def work(place: int, room: Pixels) -> Block:
            some = keys[starts[place] : starts[place] + rows]
            return read_block(self._one, some, room, self._source.channels)

        with closing(in_processes(work, len(starts), (rows, *self._shape), cores())) as blocks:
            for start, (block, room) in zip(starts, blocks, strict=True):
                unfinished.add(block, room[: len(block.kept)])
                yield from keys[start : start + rows]

    def _check_room(self, count: int) -> None:
        need, free = count * math.prod(self._shape), shutil.disk_usage(self._unfinished).free
        if need > free:
            shutil.rmtree(self._unfinished, ignore_errors=True)
            raise SpecError(
                f"{self._where}: {count} prepared images need {need / 2**30:.2f} GiB in {self.path.parent}, and"
                f" {free / 2**30:.2f} GiB are free; free some with `ganlab data cache --prune`, or set"
                " $GANLAB_CACHE to a folder on another disk"
            )


def find(
    source: Source,
    where: str,
    keys: Sequence[str],
    size: int,
    one: Callable[[str], Pixels],
    labels: Callable[[Sequence[str]], Tensor | None],
    identity: str | None,
) -> Store | None:
    """Returns the place of a set's prepared images, which may not exist yet.

    Returns None if the set is small, if its source does not name the files of the images, if `identity` is None, or for
    a user without a home folder. `identity` is the JSON of the source in a spec. `size` is the height and width of the
    images in pixels. The other arguments are those of `Store`.
    """
    everywhere, shape = folder(), (layers_of(source), size, size)
    if everywhere is None or identity is None or (states := _states(source, keys)) is None:
        return None
    if not _is_large(len(keys) * math.prod(shape), states):
        return None
    extras = [[*source.extras], [*source.extras.values()]]
    depends = [FORMAT, identity, shape, extras, source.classes, PIL.__version__, keys, states]
    digest = hashlib.sha256(json.dumps(depends).encode())
    with noting_warnings():
        for place in range(_PROBED):
            image, _ = read(one, keys[place * len(keys) // _PROBED])
            digest.update(str(image).encode() if isinstance(image, Exception) else np.ascontiguousarray(image).data)
    return Store(everywhere / digest.hexdigest()[:32], where, identity, source, one, labels, keys, size)


def is_kept(source: Source, keys: Sequence[str], size: int) -> bool:
    """Returns True if a run maps these images from a file instead of holding them in memory."""
    states = _states(source, keys)
    return folder() is not None and states is not None and _is_large(len(keys) * layers_of(source) * size**2, states)


def _is_large(pixels: int, states: Sequence[Sequence[_State]]) -> bool:
    distinct = {state for each in states for state in each}
    return max(pixels, sum(size for _, size, _ in distinct)) >= KEPT_FROM


_State = tuple[str, int, int]
"""The path of a file, its size in bytes and its modification time in nanoseconds; -1 and 0 if the file is missing."""


def _states(source: Source, keys: Sequence[str]) -> list[list[_State]] | None:
    """Returns the states of each image's files; None if the source does not name them."""
    if not keys or not source.files(keys[0]):
        return None
    state = functools.cache(_state)
    return [[state(os.path.abspath(path)) for path in source.files(key)] for key in keys]


def _state(path: str) -> _State:
    try:
        found = os.stat(path)
    except OSError:
        return path, -1, 0
    return path, found.st_size, found.st_mtime_ns


def opened(path: Path) -> Content | None:
    """Maps the prepared images in a folder; None if they are missing or incomplete."""
    found = read_record(path)
    if found is None:
        return None
    try:
        file = PixelFile(path / PIXELS, HEADER, found.shape)
    except FileNotFoundError:
        # removed at this moment
        return None
    labels = None if found.labels is None else torch.tensor(found.labels)
    facts = Facts(found.brightest, found.constant, found.sha256)
    return Content(tuple(found.keys), file.mapped, labels, tuple(found.skipped), found.notes, facts, file)


def read_record(path: Path) -> Record | None:
    """Returns the record of the prepared images in a folder; None if they are missing, or incomplete."""
    try:
        with files.opened(path / RECORD) as file:
            record = Record(**json.load(file))
        whole = (path / PIXELS).stat().st_size == HEADER + math.prod(record.shape)
    except (OSError, ValueError, TypeError):
        return None
    return record if whole and len(record.keys) == record.shape[0] else None


def is_sound(path: Path, record: Record) -> bool:
    """Returns True if the pixels have the hash that was recorded when they were prepared."""
    digest = begun_digest(record.keys, record.shape, record.extras)
    try:
        with files.opened(path / PIXELS) as file:
            file.seek(HEADER)
            _hash_rest(digest, file)
    except OSError:
        return False
    if record.labels is not None:
        digest.update(torch.tensor(record.labels).numpy().tobytes())
    return digest.hexdigest() == record.sha256


def _kept(path: Path) -> IO[bytes]:
    """Opens a file to read and write, and keeps what it holds; creates it if it is missing."""
    path.touch()
    return open(path, "r+b")


@contextmanager
def _uncached(path: Path) -> Iterator[int | None]:
    """Opens a file to write whole pages of the memory to the disk at once. None where the system or disk can't do it.

    Filling the system's cache of the disk takes up to a tenth of the time in which the processor decodes the images.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_DIRECT)
    # the first outside Linux
    except (AttributeError, OSError):
        yield None
        return
    try:
        yield handle
    finally:
        os.close(handle)


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Locks the prepared images in a folder against other processes.

    Yields True once they are locked. Without `wait`, yields False at once if another process has locked them.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.with_name(f".{path.name}.lock")
    while True:
        with open(name, "ab") as lock:
            if not lock_descriptor(lock.fileno(), blocking=wait):
                yield False
                return
            # the process that had it has removed the file
            if not name.exists() or not os.path.samestat(name.stat(), os.fstat(lock.fileno())):
                continue
            try:
                yield True
            finally:
                with suppress(OSError):
                    name.unlink()
            return


class _Unfinished:
    """The files of a set that is being prepared: the pixels, and a journal with a line for each block of them.

    The constructor keeps what a killed process has written, up to the first block whose hash is not that of its line.
    """

    def __init__(
        self,
        pixels: IO[bytes],
        direct: int | None,
        journal: IO[bytes],
        keys: Sequence[str],
        shape: tuple[int, int, int],
        extras: Mapping[str, Extra],
    ) -> None:
        self._pixels, self._direct, self._journal = pixels, direct, journal
        self._shape, self._extras = shape, extras
        self.kept: list[str] = []
        """The keys of the images that are written."""
        self._skipped: list[str] = []
        self._notes: dict[str, list[str]] = {}
        self._brightest, self._constant, self._lines = 0, True, 0
        # the shape is right if all images can be read, as in most sets
        self._digest = begun_digest(keys, (len(keys), *shape), extras)
        self._pixels.seek(HEADER)
        for line in self._journal:
            if not self._repeat(line):
                break
        self._end = HEADER + len(self.kept) * math.prod(shape)
        self._pixels.truncate(self._end)
        self._journal.seek(self._lines)
        self._journal.truncate()

    @property
    def read(self) -> int:
        """The number of keys that are done, whether their images could be read or not."""
        return len(self.kept) + len(self._skipped)

    def add(self, block: Block, rows: Pixels) -> None:
        """Writes the layers (k, L, H, W) of a block, then its line."""
        self._digest.update(rows.data)
        self._append(rows)
        self._journal.write(json.dumps([self._digest.hexdigest(), *block]).encode() + b"\n")
        self._journal.flush()
        self._count(block)

    def _append(self, rows: Pixels) -> None:
        start, done = self._end, 0
        if self._direct is not None and rows.nbytes and rows.nbytes % HEADER == 0:
            # what it can't write is left to the system's cache, or to its error
            with suppress(OSError):
                done = os.pwrite(self._direct, rows.data, start)
        self._end += rows.nbytes
        self._pixels.seek(start + done)
        self._pixels.write(rows.reshape(-1)[done:].data)
        self._pixels.flush()

    def finished(self, source: str, labels: Tensor | None) -> Record:
        """Completes the file of the pixels, and returns the record."""
        shape = [len(self.kept), *self._shape]
        if self._skipped:
            self._digest = begun_digest(self.kept, shape, self._extras)
            self._pixels.seek(HEADER)
            _hash_rest(self._digest, self._pixels)
        if labels is not None:
            self._digest.update(labels.numpy().tobytes())
        self._pixels.seek(0)
        self._pixels.write(header(shape))
        self._pixels.flush()
        os.fsync(self._pixels.fileno())
        facts = Facts(self._brightest, self._constant, self._digest.hexdigest())
        kept = None if labels is None else labels.tolist()
        return Record(source, shape, dict(self._extras), self.kept, self._skipped, self._notes, kept, *facts)

    def _repeat(self, line: bytes) -> bool:
        """Reads a block that a killed process has written. Returns False if it, or its line, is incomplete."""
        try:
            sha256, *values = json.loads(line)
            block = Block(*values)
        except (ValueError, TypeError):
            return False
        digest = self._digest.copy()
        digest.update(self._pixels.read(len(block.kept) * math.prod(self._shape)))
        if digest.hexdigest() != sha256:
            return False
        self._digest = digest
        self._lines += len(line)
        self._count(block)
        return True

    def _count(self, block: Block) -> None:
        self.kept += block.kept
        self._skipped += block.skipped
        for note, keys in block.notes.items():
            self._notes.setdefault(note, []).extend(keys)
        self._brightest = max(self._brightest, block.brightest)
        self._constant = self._constant and block.constant


def header(shape: Sequence[int]) -> bytes:
    """Returns the header of a .npy file, version 1.0, with `HEADER` bytes."""
    text = str({"descr": "|u1", "fortran_order": False, "shape": (*shape,)})
    return b"\x93NUMPY\x01\x00" + (HEADER - 10).to_bytes(2, "little") + text.ljust(HEADER - 11).encode() + b"\n"


def _hash_rest(digest: _Hash, file: IO[bytes]) -> None:
    while piece := file.read(_BLOCK):
        digest.update(piece)
