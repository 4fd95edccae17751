"""The run folder: its paths, its JSON files, its lock."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from pydantic import TypeAdapter

from ganlab import files
from ganlab.engine.step_log import Record
from ganlab.errors import Interrupted, RunError, SpecError, text_of
from ganlab.runs import checkpoint, shared
from ganlab.runs.lock import is_locked, lock_of, locking
from ganlab.runs.models import ENVIRONMENT, EVALUATED, FAILURE, OBJECT, SPEED, STOPPED, Stopped, read
from ganlab.runs.records import History, Recorder, recording, undamaged_records
from ganlab.spec.devices import moved_here
from ganlab.spec.models import Json, Spec
from ganlab.spec.resolve import resolve

PAGE = "report.html"
"""The name of the page in the folder of a run or a comparison."""


class RunFolder:
    """The folder of one run, which need not exist yet.

    - spec.json: the resolved spec
    - environment.json: versions, device, hashes of data and code (`manifest`)
    - metrics.jsonl: one record a line, each step once (`records`)
    - events.out.tfevents.*: the same for TensorBoard, with the sample grids and the results of the evaluation; written
      by a callback
    - samples/step-NNNNNN.png: grids of held-out images
    - checkpoints/step-NNNNNN/: networks, the state of the training and a manifest of both (`checkpoint`)
    - evaluation.json, speed.json: measurements of its checkpoints
    - failed.json: the reason why the training failed
    - stopped.json: the reason why a finished run has fewer steps than its schedule
    - report.html: everything above as a page
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.samples = self.path / "samples"
        self.metrics = self.path / "metrics.jsonl"
        self._lock: BinaryIO | None = None

    @property
    def exists(self) -> bool:
        """True if the folder holds a run."""
        return (self.path / "spec.json").is_file()

    @property
    def shared(self) -> bool:
        """True if the folder holds a shared model: the weights of generators, and nothing else of a training."""
        return self.exists and not self.steps and shared.is_shared(self.path)

    @property
    def foreign(self) -> bool:
        """True if the path holds anything other than a run, so that no run can begin there."""
        if self.path.is_dir():
            # a run killed before it wrote its spec has left only files whose names begin with a dot
            return not self.exists and any(not p.name.startswith(".") for p in self.path.iterdir())
        return self.path.exists()

    @property
    def untrained(self) -> bool:
        """True if no training has left anything to keep: no checkpoint, no sample and no results."""
        return not (self.steps or any(self.samples.glob("step-*.png")) or (self.path / "evaluation.json").exists())

    @property
    def steps(self) -> list[int]:
        """The steps of the complete checkpoints, oldest first."""
        return checkpoint.steps(self.checkpoints)

    @property
    def sampled(self) -> list[int]:
        """The steps of the sample grids, oldest first."""
        return sorted(step for path in self.samples.glob("step-*.png") if (step := _step(path)))

    def sample(self, step: int) -> Path:
        """Returns the path of a step's sample grid."""
        return self.samples / f"{checkpoint.name_of(step)}.png"

    def sheets(self) -> dict[int, Path]:
        """Returns {step: its sample grid}."""
        return {_step(path): path for path in self.samples.glob("step-*.png") if _step(path)}

    def spec_json(self) -> Json:
        """Reads spec.json. Raises SpecError if it can't be read."""
        return self._json("spec.json", OBJECT)

    def trained(self, here: Spec) -> Json:
        """Returns `Spec.trains` of the run's spec on this machine, with the number format that it was trained in."""
        found = here.trains()
        found["runtime"]["precision"] = self.spec_json().get("runtime", {}).get("precision")
        return found

    def environment(self) -> Json | None:
        """Reads environment.json; None if it was not written yet. Raises SpecError if it can't be read."""
        return self._json_if_there("environment.json", ENVIRONMENT)

    def evaluation(self) -> Json | None:
        """Reads evaluation.json; None if it is missing or damaged, since a run can be measured again."""
        with suppress(SpecError):
            return self._json_if_there("evaluation.json", EVALUATED)
        return None

    def speed(self) -> Json | None:
        """Reads speed.json; None if it is missing or damaged."""
        with suppress(SpecError):
            return self._json_if_there("speed.json", SPEED)
        return None

    def failure(self) -> Json | None:
        """Reads failed.json, {"why": sentence}; None if the training did not fail, or if the file is damaged."""
        with suppress(SpecError):
            return self._json_if_there("failed.json", FAILURE)
        return None

    def stopped(self) -> Stopped | None:
        """Reads stopped.json; None if it is missing, damaged, or not about the newest checkpoint."""
        with suppress(SpecError):
            found = cast(Stopped | None, self._json_if_there("stopped.json", STOPPED))
            return found if found is not None and found["step"] == max(self.steps, default=0) else None
        return None

    def forget_stop(self) -> None:
        """Removes stopped.json, because the run is trained further. Raises RunError if the disk fails."""
        with files.writing(self.path):
            (self.path / "stopped.json").unlink(missing_ok=True)

    @contextmanager
    def noting_failure(self) -> Iterator[None]:
        """Writes failed.json if the training inside fails; an interrupt is no failure. Removes an earlier one."""
        with files.writing(self.path):
            (self.path / "failed.json").unlink(missing_ok=True)
        try:
            yield
        except Interrupted:
            raise
        except Exception as error:
            # the folder may have been removed, or the disk be full
            with suppress(RunError):
                self.write_json("failed.json", {"why": text_of(error)})
            raise

    def _json_if_there(self, name: str, kind: TypeAdapter[Any]) -> Json | None:
        return self._json(name, kind) if (self.path / name).exists() else None

    def spec(self) -> Spec:
        """Returns the run's spec, resolved. Raises SpecError if its device is not available here."""
        return self._resolved(self.spec_json())

    def spec_here(self) -> Spec:
        """Returns the run's spec for reading or measuring on this machine, even if another machine trained the run."""
        return self._resolved(moved_here(self.spec_json()))

    def _resolved(self, kept: Json) -> Spec:
        try:
            return resolve(kept, str(self.path / "spec.json"))
        except SpecError as error:
            if "unknown key" not in str(error):
                raise
            raise SpecError(
                f"{error}; the run was made with another version of ganlab or of a plugin, which had this key: use that"
                " version to read it, or start over with --fresh or in another folder with --out"
            ) from error

    def records(self, warn: Callable[[str], object] = str) -> Iterator[Record]:
        """Reads metrics.jsonl line by line, without damaged lines, which it names to `warn` at the end."""
        return undamaged_records(self.metrics, warn)

    def _json(self, name: str, kind: TypeAdapter[Any]) -> Json:
        path = self.path / name
        try:
            found: Json = read(path, kind)
        except (OSError, ValueError) as error:
            raise SpecError(f"{path} can't be read: {error}") from error
        return found

    def write_json(self, name: str, content: Any) -> None:
        """Writes a JSON file, complete or not at all. Raises RunError if the disk fails."""
        self.check_lock()
        text = json.dumps(content, indent=2, ensure_ascii=False)
        # file names need not be text: a byte that UTF-8 can't hold stays a JSON escape
        write(self.path / name, text.encode(errors="backslashreplace") + b"\n")

    def write_page(self, content: bytes) -> None:
        """Writes report.html. Raises RunError if the disk fails."""
        self.check_lock()
        write(self.path / PAGE, content)

    def clear(self) -> None:
        """Removes the run and keeps every other file in the folder."""
        self.tidy()
        with files.writing(self.path):
            # the newest first: what is left by a kill is no finished run
            for step in reversed(self.steps):
                checkpoint.remove(self.checkpoints, step)
            checkpoint.remove_unfinished(self.checkpoints)
            names = ("environment.json", "evaluation.json", "speed.json", "failed.json", "stopped.json", PAGE)
            paths = [*self.samples.glob("step-*.png"), *(self.path / name for name in names), self.metrics]
            # the spec last: without it the other files would look like somebody else's
            for path in (*paths, *self.path.glob("events.out.tfevents.*"), self.path / "spec.json"):
                path.unlink(missing_ok=True)
            for folder in (self.checkpoints, self.samples):
                # not one with somebody's files, nor a link to another disk
                with suppress(OSError):
                    folder.rmdir()

    def tidy(self) -> None:
        """Removes what killed processes left unfinished."""
        for folder in (self.path, self.samples):
            files.tidy(folder)

    @property
    def busy(self) -> bool:
        """True if a process trains in the folder."""
        return is_locked(self.path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lets one process at a time train in the folder, which is made if it is missing.

        Raises SpecError if another process trains here, RunError if the disk fails.
        """
        with locking(self.path, f"{self.path}: another process is training here") as lock:
            self._lock = lock
            try:
                self.check_lock()
                self.tidy()
                with files.writing(self.path):
                    checkpoint.remove_unfinished(self.checkpoints)
                yield
            finally:
                self._lock = None

    def check_lock(self) -> None:
        """Raises RunError if this process locked the folder, and the folder or its lock has been removed since.

        Another process may then train under the same path.
        """
        if self._lock is None:
            return
        with suppress(OSError):
            if os.path.samestat(os.fstat(self._lock.fileno()), os.lstat(lock_of(self.path))):
                return
        raise RunError(f"{self.path} was removed or replaced while this run trained in it; nothing more is written")

    @contextmanager
    def recorder(self, step: int, warn: Callable[[str], None]) -> Iterator[Recorder]:
        """Drops the records and samples after `step` and yields a Recorder that appends. Raises RunError if the disk
        fails."""
        with recording(self.metrics, step, warn) as recorder:
            with files.writing(self.path):
                for path in self.samples.glob("step-*.png"):
                    if _step(path) > step:
                        path.unlink()
            yield recorder

    @property
    def history(self) -> History:
        """The records in metrics.jsonl, read at each iteration."""
        return History(self.metrics)


def _step(sample: Path) -> int:
    number = sample.stem.removeprefix("step-")
    return int(number) if number.isdecimal() else 0


def write(path: Path, content: bytes) -> None:
    """Writes a file, complete or not at all. Raises RunError if the disk fails."""
    with files.writing(path):
        files.write(path, content)
