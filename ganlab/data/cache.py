"""Lists, verifies and removes prepared images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from ganlab import files
from ganlab.data import store


class Prepared(NamedTuple):
    """The prepared images of one set."""

    path: Path
    """Their folder."""
    state: str
    """"prepared"; "unfinished": the next start that needs them continues; "in preparation" by a process; "damaged"."""
    images: int | None
    """The number of images; None if it is not known yet."""
    size: int | None
    """Their height and width in pixels."""
    source: dict[str, Any] | None
    """The image source, as a spec has it."""
    bytes: int
    """What they take on the disk."""
    used: str
    """The time of the last use, in ISO 8601."""

    def as_json(self) -> dict[str, Any]:
        return {**self._asdict(), "path": str(self.path)}


def prepared(verify: bool = False) -> list[Prepared]:
    """Returns all prepared sets. With `verify`, reads their pixels; if these have changed, the set is "damaged"."""
    found = []
    for path in _folders():
        # another process may rename or remove it meanwhile
        with suppress(FileNotFoundError):
            found.append(_prepared(path, verify))
    return found


def remove(found: Prepared) -> bool:
    """Removes prepared images. Runs that map them keep them until they end. Returns False, with nothing removed, if a
    process prepares them."""
    whole = store.whole_of(found.path)
    with files.writing(found.path), store.locked(whole, wait=False) as free:
        if free:
            # first, so that no process maps a part
            (found.path / store.RECORD).unlink(missing_ok=True)
            # it may be gone meanwhile
            with suppress(FileNotFoundError):
                shutil.rmtree(found.path)
        return free


def _folders() -> Iterator[Path]:
    where = store.folder()
    if where is not None and where.is_dir():
        yield from sorted(path for path in where.iterdir() if path.is_dir())


def _prepared(path: Path, verify: bool) -> Prepared:
    record, state = store.read_record(path), "prepared"
    if path != store.whole_of(path):
        record = None
        with store.locked(store.whole_of(path), wait=False) as free:
            state = "unfinished" if free else "in preparation"
    elif record is None or (verify and not store.is_sound(path, record)):
        state = "damaged"
    inside = [file.stat() for file in path.iterdir()]
    used = max((file.st_mtime for file in inside), default=path.stat().st_mtime)
    return Prepared(
        path,
        state,
        record and record.shape[0],
        record and record.shape[-1],
        record and json.loads(record.source),
        sum(file.st_size for file in inside),
        datetime.fromtimestamp(used, UTC).isoformat(timespec="seconds"),
    )
