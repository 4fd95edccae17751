"""The run folder: its paths, its JSON files, its lock."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ganlab import files
from ganlab.engine.step_log import Record
from ganlab.errors import SpecError
from ganlab.runs import checkpoint
from ganlab.runs.records import Recorder, event_files, read_records, recording
from ganlab.spec.devices import moved_here
from ganlab.spec.models import Json, Spec
from ganlab.spec.resolve import resolve


class RunFolder:
    """The folder of one run, which need not exist yet.

    - spec.json: the resolved spec
    - environment.json: versions, device, hashes of data and code (`manifest`)
    - metrics.jsonl: one record a line, each step once; events.out.tfevents.*: the same for TensorBoard (`records`)
    - samples/step-NNNNNN.png: grids of held-out images
    - checkpoints/step-NNNNNN/: networks and the state of the training (`checkpoint`)
    - evaluation.json, speed.json: measurements of its checkpoints
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.samples = self.path / "samples"
        self.metrics = self.path / "metrics.jsonl"

    @property
    def exists(self) -> bool:
        """True if the folder holds a run."""
        return (self.path / "spec.json").is_file()

    @property
    def foreign(self) -> bool:
        """True if the path holds anything other than a run, so that no run can begin there."""
        if self.path.is_dir():
            # a run killed before it wrote its spec has left only files whose names begin with a dot
            return not self.exists and any(not p.name.startswith(".") for p in self.path.iterdir())
        return self.path.exists()

    @property
    def steps(self) -> list[int]:
        """The steps of the complete checkpoints, oldest first."""
        return checkpoint.steps(self.checkpoints)

    def sample(self, step: int) -> Path:
        """Returns the path of a step's sample grid."""
        return self.samples / f"{checkpoint.name_of(step)}.png"

    def spec_json(self) -> Json:
        """Reads spec.json. Raises SpecError if it can't be read."""
        return self._json(self.path / "spec.json")

    def environment(self) -> Json | None:
        """Reads environment.json; None if it was not written yet. Raises SpecError if it can't be read."""
        return self._json_if_there("environment.json")

    def evaluation(self) -> Json | None:
        """Reads evaluation.json; None if it is missing or damaged, since a run can be measured again."""
        try:
            found = self._json_if_there("evaluation.json")
        except SpecError:
            return None
        whole = found is not None and {"protocol", "results", "left_out"} <= set(found)
        return found if whole else None

    def _json_if_there(self, name: str) -> Json | None:
        path = self.path / name
        return self._json(path) if path.exists() else None

    def spec(self) -> Spec:
        """Returns the run's spec, resolved. Raises SpecError if its device is not available here."""
        return resolve(self.spec_json(), str(self.path / "spec.json"))

    def spec_here(self) -> Spec:
        """Returns the run's spec for reading or measuring on this machine, even if another machine trained the run."""
        return resolve(moved_here(self.spec_json()), str(self.path / "spec.json"))

    def records(self) -> list[Record]:
        """Reads metrics.jsonl, without a last line that a kill cut off."""
        return read_records(self.metrics)

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
        """Writes a JSON file, complete or not at all. Raises RunError if the disk fails."""
        text = json.dumps(content, indent=2, ensure_ascii=False)
        # file names need not be text: a byte that UTF-8 can't hold stays a JSON escape
        write(self.path / name, text.encode(errors="backslashreplace") + b"\n")

    def clear(self) -> None:
        """Removes the run and keeps every other file in the folder."""
        for folder in (self.checkpoints, self.samples):
            if folder.exists():
                # renamed first: a half removed checkpoint would look complete
                folder.rename(_removed(folder))
        self.tidy()
        names = ("environment.json", "evaluation.json", "speed.json")
        paths = [*(self.path / name for name in names), self.metrics, *event_files(self.path)]
        # the spec last: a folder without it is not recognised as a run
        for path in (*paths, self.path / "spec.json"):
            path.unlink(missing_ok=True)

    def tidy(self) -> None:
        """Removes what killed processes left unfinished."""
        for folder in (self.checkpoints, self.samples):
            shutil.rmtree(_removed(folder), ignore_errors=True)
        for folder in (self.path, self.samples):
            files.tidy(folder)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lets one process at a time train in the folder, which is made if it is missing.

        Raises SpecError if another process trains here, RunError if the disk fails.
        """
        with files.writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("w")
        with lock as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise SpecError(f"{self.path}: another process is training here") from error
            self.tidy()
            yield

    @contextmanager
    def recorder(self, step: int) -> Iterator[Recorder]:
        """Drops the records and samples after `step` and yields a Recorder that appends.

        Raises RunError if the disk fails.
        """
        with recording(self.metrics, step) as recorder:
            with files.writing(self.path):
                for later in [path for path in self.samples.glob("step-*.png") if _step(path) > step]:
                    later.unlink()
            yield recorder


def _removed(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.removed")


def _step(sample: Path) -> int:
    number = sample.stem.removeprefix("step-")
    return int(number) if number.isdecimal() else 0


def write(path: Path, content: bytes) -> None:
    """Writes a file, complete or not at all. Raises RunError if the disk fails."""
    with files.writing(path):
        files.write(path, content)
