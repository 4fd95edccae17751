"""The run folder: what is in it and how it is read."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from ganlab import checkpoint
from ganlab.engine import Record
from ganlab.errors import RunError, SpecError
from ganlab.registry import Registry
from ganlab.spec import Json, Spec, resolve


class RunFolder:
    """One training of one spec, on disk.

    spec.json, environment.json: what was asked, and on what it ran; metrics.jsonl: a record a line, each step once;
    events.out.tfevents.*: the same for TensorBoard; samples/step-NNNNNN.png; checkpoints/step-NNNNNN/.
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

    def spec_json(self) -> Json:
        """The resolved spec as it was kept."""
        path = self.path / "spec.json"
        try:
            found: Json = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SpecError(f"{path} can't be read: {error}") from error
        return found

    def environment(self) -> Json | None:
        """On what the run began; None where a kill came before that was written."""
        path = self.path / "environment.json"
        if not path.exists():
            return None
        found: Json = json.loads(path.read_text(encoding="utf-8"))
        return found

    def spec(self, registry: Registry) -> Spec:
        return resolve(registry, self.spec_json(), str(self.path / "spec.json"))

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

    def write_json(self, name: str, content: Any) -> None:
        write(self.path / name, json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n")

    def clear(self) -> None:
        """Remove the run, and nothing else that lies beside it."""
        (self.path / "spec.json").unlink(missing_ok=True)
        for folder in (self.checkpoints, self.samples):
            shutil.rmtree(folder, ignore_errors=True)
        for path in (self.path / "environment.json", self.metrics, *self._events()):
            path.unlink(missing_ok=True)

    def _events(self) -> list[Path]:
        return list(self.path.glob("events.out.tfevents.*"))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Only one process trains in a folder. Raises SpecError where another does."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise SpecError(f"{self.path}: another process is training here") from error
            yield

    @contextmanager
    def recorder(self, step: int) -> Iterator[Recorder]:
        """Record what follows `step`: what an earlier process recorded beyond it is dropped."""
        kept = [r for r in self.records() if r["step"] <= step]
        write(self.metrics, "".join(json.dumps(r) + "\n" for r in kept).encode())
        for path in self._events():
            path.unlink()
        with SummaryWriter(str(self.path)) as events, self.metrics.open("a", encoding="utf-8") as lines:
            recorder = Recorder(lines, events)
            recorder.to_tensorboard(kept)
            yield recorder


class Recorder:
    """Appends records to metrics.jsonl and to the TensorBoard events."""

    def __init__(self, lines: Any, events: SummaryWriter) -> None:
        self._lines, self._events = lines, events

    def __call__(self, records: Iterable[Record]) -> None:
        for record in records:
            self._lines.write(json.dumps(record) + "\n")
        self._lines.flush()
        self.to_tensorboard(records)

    def to_tensorboard(self, records: Iterable[Record]) -> None:
        for record in records:
            for name, value in record.items():
                if name not in ("step", "seconds", "images"):
                    self._events.add_scalar(name, value, int(record["step"]))
        self._events.flush()


def write(path: Path, content: bytes) -> None:
    """The whole file or none of it. Raises RunError where the disk won't."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        raise RunError(f"{path} can't be written: {error.strerror or error}") from error
