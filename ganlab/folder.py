"""The run folder: what is in it and how it is read."""

from __future__ import annotations

import fcntl
import io
import json
import os
import shutil
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from ganlab import checkpoint, files
from ganlab.engine import Record
from ganlab.errors import RunError, SpecError
from ganlab.registry import Registry
from ganlab.spec import Json, Spec, moved_here, resolve


class RunFolder:
    """One training of one spec, on disk.

    spec.json, environment.json: what was asked, and on what it ran; metrics.jsonl: a record a line, each step once;
    events.out.tfevents.*: the same for TensorBoard; samples/step-NNNNNN.png; checkpoints/step-NNNNNN/;
    evaluation.json, speed.json: what was measured of its checkpoints.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.samples = self.path / "samples"
        self.metrics = self.path / "metrics.jsonl"

    @property
    def exists(self) -> bool:
        """Whether it holds a run."""
        return (self.path / "spec.json").is_file()

    @property
    def foreign(self) -> bool:
        """Whether it is something else than a run or a place for one."""
        if self.path.is_dir():
            # a run killed while it was made has left nothing but unfinished (dotted) files
            return not self.exists and any(not p.name.startswith(".") for p in self.path.iterdir())
        return self.path.exists()

    @property
    def steps(self) -> list[int]:
        """The steps that have a checkpoint, oldest first."""
        return checkpoint.steps(self.checkpoints)

    def sample(self, step: int) -> Path:
        """Where the sample grid of a step is."""
        return self.samples / f"{checkpoint.name_of(step)}.png"

    def spec_json(self) -> Json:
        """The resolved spec as it was kept."""
        return self._json(self.path / "spec.json")

    def environment(self) -> Json | None:
        """On what the run began; None where a kill came before that was written."""
        return self._json_if_there("environment.json")

    def evaluation(self) -> Json | None:
        """What was measured of it; None where nothing was yet, or where that is damaged: it can be made again."""
        try:
            found = self._json_if_there("evaluation.json")
        except SpecError:
            return None
        whole = found is not None and {"protocol", "figures", "left_out"} <= set(found)
        return found if whole else None

    def _json_if_there(self, name: str) -> Json | None:
        path = self.path / name
        return self._json(path) if path.exists() else None

    def spec(self, registry: Registry) -> Spec:
        """The spec that it is a run of. Raises SpecError where that needs a device that isn't here."""
        return resolve(registry, self.spec_json(), str(self.path / "spec.json"))

    def spec_here(self, registry: Registry) -> Spec:
        """The same to be read or measured on this machine, whatever it was trained on."""
        return resolve(registry, moved_here(self.spec_json()), str(self.path / "spec.json"))

    def records(self) -> list[Record]:
        """What metrics.jsonl holds; a last line that a kill cut off is left out."""
        if not self.metrics.exists():
            return []
        records = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                records.append(json.loads(line))
            except ValueError:
                break
        return records

    @staticmethod
    def _json(path: Path) -> Json:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SpecError(f"{path} can't be read: {error}") from error
        if not isinstance(found, dict):
            raise SpecError(f"{path} can't be read: it holds no JSON object")
        return found

    def write_json(self, name: str, content: Any) -> None:
        text = json.dumps(content, indent=2, ensure_ascii=False)
        # file names need not be text: what no UTF-8 can say stays a JSON escape
        write(self.path / name, text.encode(errors="backslashreplace") + b"\n")

    def clear(self) -> None:
        """Remove the run, and nothing else that lies beside it."""
        for folder in (self.checkpoints, self.samples):
            if folder.exists():
                # half removed, a checkpoint would pass for complete
                folder.rename(_removed(folder))
        self.tidy()
        # the spec last: without it, what is still there would pass for somebody else's
        named = ("environment.json", "evaluation.json", "speed.json")
        for path in (*(self.path / name for name in named), self.metrics, *self._events(), self.path / "spec.json"):
            path.unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove what processes that were killed have left unfinished."""
        for folder in (self.checkpoints, self.samples):
            shutil.rmtree(_removed(folder), ignore_errors=True)
        for folder in (self.path, self.samples):
            files.tidy(folder)

    def _events(self) -> list[Path]:
        return list(self.path.glob("events.out.tfevents.*"))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Only one process trains in a folder. Raises SpecError where another does, RunError where the disk won't."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("w")
        except OSError as error:
            raise RunError(f"{self.path} can't be written: {error.strerror or error}") from error
        with lock as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise SpecError(f"{self.path}: another process is training here") from error
            self.tidy()
            yield

    @contextmanager
    def recorder(self, step: int) -> Iterator[Recorder]:
        """Record what follows `step`: what an earlier process recorded and drew beyond it is dropped. Raises RunError
        where the disk won't."""
        kept = [r for r in self.records() if r["step"] <= step]
        write(self.metrics, "".join(json.dumps(r) + "\n" for r in kept).encode())
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        with ExitStack() as opened:
            with _on_disk(self.path):
                beyond = [path for path in self.samples.glob("step-*.png") if _step(path) > step]
                for path in (*self._events(), *beyond):
                    path.unlink()
                # unbuffered: closing then has nothing left to fail with
                events = opened.enter_context((self.path / name).open("wb", 0))
                lines = opened.enter_context(self.metrics.open("ab", 0))
            recorder = Recorder(lines, events, self.path)
            recorder.to_tensorboard(kept)
            yield recorder


class Recorder:
    """Appends records to metrics.jsonl and to the TensorBoard events."""

    def __init__(self, lines: io.FileIO, events: io.FileIO, folder: Path) -> None:
        # not TensorBoard's own writer: its thread fails where nobody catches it
        self._lines, self._events, self._folder = lines, events, folder
        self._write_events([Event(wall_time=time.time(), file_version="brain.Event:2")])

    def __call__(self, records: Sequence[Record]) -> None:
        self._append(self._lines, "".join(json.dumps(record) + "\n" for record in records).encode())
        self.to_tensorboard(records)

    def to_tensorboard(self, records: Sequence[Record]) -> None:
        self._write_events(
            Event(
                wall_time=time.time(),
                step=int(record["step"]),
                summary=Summary(
                    value=[
                        Summary.Value(tag=name, simple_value=value)
                        for name, value in record.items()
                        if name not in ("step", "seconds", "images")
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
        with _on_disk(self._folder):
            # a disk that is nearly full takes a part, and refuses the rest
            while content:
                content = content[file.write(content) :]


def _removed(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.removed")


def _step(sample: Path) -> int:
    number = sample.stem.removeprefix("step-")
    return int(number) if number.isdecimal() else 0


@contextmanager
def _on_disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"{path} can't be written: {error.strerror or error}") from error


def write(path: Path, content: bytes) -> None:
    """The whole file or none of it. Raises RunError where the disk won't."""
    with _on_disk(path):
        files.write(path, content)
