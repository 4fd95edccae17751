"""Reads and writes the records of a run, metrics.jsonl."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ganlab import files
from ganlab.engine.step_log import Record
from ganlab.errors import RunError, SpecError
from ganlab.runs import models


class History:
    """The undamaged records in metrics.jsonl, read at each iteration."""

    def __init__(self, metrics: Path) -> None:
        self._metrics = metrics

    def __iter__(self) -> Iterator[Record]:
        return undamaged_records(self._metrics)


def undamaged_records(metrics: Path, warn: Callable[[str], object] = str) -> Iterator[Record]:
    """Yields the records in metrics.jsonl without damaged lines, which it names to `warn` at the end.

    A last line that a kill cut off is no damage. Raises SpecError if the file can't be read.
    """
    if not metrics.exists():
        return
    damaged: list[int] = []
    try:
        with files.opened(metrics) as file:
            for number, line in enumerate(file, 1):
                try:
                    yield models.record(line)
                except ValueError:
                    if line.endswith(b"\n"):
                        damaged.append(number)
    except OSError as error:
        raise SpecError(f"{metrics} can't be read: {error.strerror or error}") from error
    if damaged:
        named = ", ".join(map(str, damaged[:3])) + (", ..." if len(damaged) > 3 else "")
        warn(f"{metrics}: damaged lines are left out ({len(damaged)}): {named}")


@contextmanager
def recording(metrics: Path, step: int, warn: Callable[[str], None]) -> Iterator[Recorder]:
    """Drops the records after `step` and damaged lines, and yields a Recorder that appends.

    Raises RunError if the disk fails.
    """
    last = 0

    def kept() -> Iterator[bytes]:
        nonlocal last
        for record in undamaged_records(metrics, warn):
            if record["step"] <= step:
                last = int(record["step"])
                yield _line(record)

    with files.writing(metrics):
        files.write(metrics, kept)
        # unbuffered, so that closing has nothing left to write and can't fail
        file = metrics.open("ab", 0)
    with file:
        yield Recorder(file, last)


class Recorder:
    """Appends records to metrics.jsonl."""

    def __init__(self, file: io.FileIO, last: int) -> None:
        self._file = file
        self.last = last
        """The step of the last record."""

    def __call__(self, records: Sequence[Record]) -> None:
        """Appends the records. Raises RunError if the disk fails or metrics.jsonl was removed."""
        if os.fstat(self._file.fileno()).st_nlink == 0:
            raise RunError(f"{self._file.name} was removed while this run trained; nothing more is written")
        content = b"".join(map(_line, records))
        with files.writing(Path(self._file.name).parent):
            # a disk that is nearly full takes a part, and refuses the rest
            while content:
                content = content[self._file.write(content) :]
        self.last = int(records[-1]["step"]) if records else self.last


def _line(record: Record) -> bytes:
    return json.dumps(record).encode() + b"\n"
