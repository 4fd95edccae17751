"""Reads and writes the records of a run: metrics.jsonl and TensorBoard's events."""

from __future__ import annotations

import io
import json
import os
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from ganlab import files
from ganlab.engine.step_log import Record

_NOT_DRAWN = ("step", "seconds", "images")


def read_records(metrics: Path) -> list[Record]:
    """Returns the records in metrics.jsonl, without a last line that a kill cut off."""
    if not metrics.exists():
        return []
    records = []
    for line in metrics.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records


def event_files(folder: Path) -> list[Path]:
    """Returns TensorBoard's event files in a run folder."""
    return list(folder.glob("events.out.tfevents.*"))


@contextmanager
def recording(metrics: Path, step: int) -> Iterator[Recorder]:
    """Drops the records after `step` and yields a Recorder that appends. Raises RunError if the disk fails."""
    folder = metrics.parent
    kept = [record for record in read_records(metrics) if record["step"] <= step]
    with files.writing(metrics):
        files.write(metrics, _lines(kept))
    name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
    with ExitStack() as opened:
        with files.writing(folder):
            for path in event_files(folder):
                path.unlink()
            # unbuffered, so that closing has nothing left to write and can't fail
            events_file = opened.enter_context((folder / name).open("wb", 0))
            metrics_file = opened.enter_context(metrics.open("ab", 0))
        recorder = Recorder(metrics_file, events_file, folder)
        recorder.to_tensorboard(kept)
        yield recorder


class Recorder:
    """Appends records to metrics.jsonl and to TensorBoard's events."""

    def __init__(self, metrics: io.FileIO, events: io.FileIO, folder: Path) -> None:
        # not TensorBoard's own writer: no code can catch an error in its thread
        self._metrics, self._events, self._folder = metrics, events, folder
        self._write_events([Event(wall_time=time.time(), file_version="brain.Event:2")])

    def __call__(self, records: Sequence[Record]) -> None:
        """Appends the records to both files. Raises RunError if the disk fails."""
        self._append(self._metrics, _lines(records))
        self.to_tensorboard(records)

    def to_tensorboard(self, records: Sequence[Record]) -> None:
        """Appends the records to TensorBoard's events alone. Raises RunError if the disk fails."""
        self._write_events(
            Event(
                wall_time=time.time(),
                step=int(record["step"]),
                summary=Summary(
                    value=[
                        Summary.Value(tag=name, simple_value=value)
                        for name, value in record.items()
                        if name not in _NOT_DRAWN
                    ]
                ),
            )
            for record in records
        )

    def _write_events(self, events: Iterable[Event]) -> None:
        buffer = io.BytesIO()
        writer = RecordWriter(buffer)
        for event in events:
            writer.write(event.SerializeToString())
        self._append(self._events, buffer.getvalue())

    def _append(self, file: io.FileIO, content: bytes) -> None:
        with files.writing(self._folder):
            # a disk that is nearly full takes a part, and refuses the rest
            while content:
                content = content[file.write(content) :]


def _lines(records: Iterable[Record]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()
