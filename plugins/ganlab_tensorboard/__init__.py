"""TensorBoard (https://www.tensorflow.org/tensorboard) shows the curves, sample grids and results of a run."""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

import ganlab
from ganlab import files
from ganlab.runs.folder import RunFolder

_NOT_DRAWN = ("step", "seconds", "images")


class TensorBoard(ganlab.Callback):
    """Writes an event file into the run folder: records, sample grids and results. It is on by default.

    `tensorboard --logdir runs` shows it. A run that resumes writes the file again from what its folder holds, so that
    each step comes once.
    """

    # not TensorBoard's own writer: no code can catch an error in its thread

    on_by_default = True

    _file: io.FileIO | None = None

    def begin(self, start: ganlab.TrainingStart) -> None:
        for path in _event_files(start.folder):
            path.unlink()
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        # unbuffered, so that closing has nothing left to write and can't fail
        self._file = (start.folder / name).open("ab", 0)
        _append(self._file, [Event(wall_time=time.time(), file_version="brain.Event:2")])
        records = iter(start.history)
        while piece := list(islice(records, 100)):
            self.records(piece)
        for path in sorted((start.folder / "samples").glob("step-*.png")):
            number = path.stem.removeprefix("step-")
            if number.isdecimal() and path.is_file():
                self.samples(int(number), path)
        for result in (RunFolder(start.folder).evaluation() or {}).get("results", []):
            if result["step"] <= start.step:
                self._scalars(result["step"], {f"results/{result['direction']}/{result['number']}": result["value"]})

    def records(self, records: Sequence[dict[str, float]]) -> None:
        for record in records:
            self._scalars(int(record["step"]), {k: v for k, v in record.items() if k not in _NOT_DRAWN})

    def samples(self, step: int, path: Path) -> None:
        png = path.read_bytes()
        # a PNG's header has its size at these bytes
        width, height = (int.from_bytes(png[at : at + 4]) % 2**31 for at in (16, 20))
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
        self._write([_event(step, [Summary.Value(tag="samples", image=image)])])

    def evaluation(self, measurement: ganlab.Measurement) -> None:
        if measurement.images == "validation":
            # the records have these numbers
            return
        values = {f"results/{name}": value for name, value in measurement.values.items()}
        if self._file is not None:
            self._scalars(measurement.step, values)
        elif paths := _event_files(measurement.folder):
            # `ganlab eval`
            with open(max(paths), "ab", 0, opener=files.regular) as self._file:
                self._scalars(measurement.step, values)
            self._file = None

    def end(self, end: ganlab.TrainingEnd) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _scalars(self, step: int, values: dict[str, float]) -> None:
        self._write([_event(step, [Summary.Value(tag=name, simple_value=value) for name, value in values.items()])])

    def _write(self, events: Iterable[Event]) -> None:
        if self._file is not None:
            _append(self._file, events)


def _event_files(folder: Path) -> list[Path]:
    return list(folder.glob("events.out.tfevents.*"))


def _event(step: int, values: list[Summary.Value]) -> Event:
    return Event(wall_time=time.time(), step=step, summary=Summary(value=values))


def _append(file: io.FileIO, events: Iterable[Event]) -> None:
    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    for event in events:
        writer.write(event.SerializeToString())
    content = buffer.getvalue()
    # a disk that is nearly full takes a part, and refuses the rest
    while content:
        content = content[file.write(content) :]


@ganlab.hookimpl
def ganlab_callbacks() -> dict[str, type[ganlab.Callback]]:
    return {"tensorboard": TensorBoard}
