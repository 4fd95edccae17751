"""Reads and writes the records of a run: metrics.jsonl and TensorBoard's events."""

from __future__ import annotations

import io
import json
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from ganlab import files
from ganlab.engine.step_log import Record
from ganlab.errors import RunError, SpecError
from ganlab.runs import models
from ganlab.spec.models import Json

_NOT_DRAWN = ("step", "seconds", "images")


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


def event_files(folder: Path) -> list[Path]:
    """Returns TensorBoard's event files in a run folder."""
    return list(folder.glob("events.out.tfevents.*"))


@contextmanager
def recording(metrics: Path, step: int, warn: Callable[[str], None]) -> Iterator[Recorder]:
    """Drops the records after `step` and damaged lines, and yields a Recorder that appends.

    Raises RunError if the disk fails.
    """
    folder = metrics.parent
    with files.writing(metrics):
        files.write(
            metrics, lambda: (_line(record) for record in undamaged_records(metrics, warn) if record["step"] <= step)
        )
    name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
    with ExitStack() as opened:
        with files.writing(folder):
            for path in event_files(folder):
                path.unlink()
            # unbuffered, so that closing has nothing left to write and can't fail
            events_file = opened.enter_context((folder / name).open("ab", 0))
            metrics_file = opened.enter_context(metrics.open("ab", 0))
        recorder = Recorder(metrics_file, events_file, folder)
        records = undamaged_records(metrics)
        while piece := list(islice(records, 100)):
            recorder.to_tensorboard(piece)
            recorder.last = int(piece[-1]["step"])
        yield recorder


class Recorder:
    """Appends records to metrics.jsonl and to TensorBoard's events, which also get the sample grids."""

    def __init__(self, metrics: io.FileIO, events: io.FileIO, folder: Path) -> None:
        # not TensorBoard's own writer: no code can catch an error in its thread
        self._metrics, self._events, self._folder = metrics, events, folder
        self.last = 0
        """The step of the last record."""
        self._write_events([Event(wall_time=time.time(), file_version="brain.Event:2")])

    def __call__(self, records: Sequence[Record]) -> None:
        """Appends the records to both files. Raises RunError if the disk fails or metrics.jsonl was removed."""
        if os.fstat(self._metrics.fileno()).st_nlink == 0:
            raise RunError(f"{self._metrics.name} was removed while this run trained; nothing more is written")
        _append(self._metrics, b"".join(map(_line, records)), self._folder)
        self.last = int(records[-1]["step"]) if records else self.last
        self.to_tensorboard(records)

    def to_tensorboard(self, records: Sequence[Record]) -> None:
        """Appends the records to TensorBoard's events alone. Raises RunError if the disk fails."""
        self._write_events(_scalars(records))

    def sample(self, step: int, png: bytes) -> None:
        """Appends a sample grid to TensorBoard's events. Raises RunError if the disk fails."""
        # a PNG's header has its size at these bytes
        width, height = (int.from_bytes(png[at : at + 4]) % 2**31 for at in (16, 20))
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
        self._write_events([_event(step, [Summary.Value(tag="samples", image=image)])])

    def _write_events(self, events: Iterable[Event]) -> None:
        _append(self._events, _serialised(events), self._folder)


def result_records(results: Iterable[Json]) -> list[Record]:
    """Returns the results of an evaluation.json as records: {"step", "results/DIRECTION/NUMBER": value}."""
    return [{"step": r["step"], f"results/{r['direction']}/{r['number']}": r["value"]} for r in results]


def append_to_tensorboard(folder: Path, records: Iterable[Record]) -> None:
    """Appends records to the newest event file of a run folder, if it has one. Raises RunError if the disk fails."""
    if paths := event_files(folder):
        with files.writing(folder), open(max(paths), "ab", 0, opener=files.regular) as file:
            _append(file, _serialised(_scalars(records)), folder)


def _scalars(records: Iterable[Record]) -> Iterator[Event]:
    for record in records:
        named = [(name, value) for name, value in record.items() if name not in _NOT_DRAWN]
        yield _event(int(record["step"]), [Summary.Value(tag=name, simple_value=value) for name, value in named])


def _event(step: int, values: list[Summary.Value]) -> Event:
    return Event(wall_time=time.time(), step=step, summary=Summary(value=values))


def _serialised(events: Iterable[Event]) -> bytes:
    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    for event in events:
        writer.write(event.SerializeToString())
    return buffer.getvalue()


def _append(file: io.FileIO, content: bytes, folder: Path) -> None:
    with files.writing(folder):
        # a disk that is nearly full takes a part, and refuses the rest
        while content:
            content = content[file.write(content) :]


def _line(record: Record) -> bytes:
    return json.dumps(record).encode() + b"\n"
