"""The runs below a folder: the state, results and size of each, and what can be deleted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ganlab import files
from ganlab.errors import GanlabError, SpecError
from ganlab.runs import checkpoint, shared
from ganlab.runs.folder import RunFolder
from ganlab.spec.models import Json
from ganlab.system.build import build_schedule


class Status(NamedTuple):
    """The state of one run."""

    folder: Path
    """The run folder."""
    state: str
    """"running", "finished", "failed", "interrupted", "shared" for a shared model, or "unreadable" if its spec can't be
    read here."""
    why: str | None
    """The reason for "failed" and "unreadable", and for a finished run that has fewer steps than its schedule."""
    step: int
    """The step of the newest checkpoint; 0 if there is none."""
    steps: int | None
    """The number of steps of the whole run; None if it is unreadable."""
    number: str | None
    """The name of the run's first result, or of the one that picked the best checkpoint; None if it is not measured."""
    values: dict[str, float]
    """{direction: the value of `number` at the newest checkpoint that was measured}."""
    size: int
    """The bytes of all files in the folder."""

    def as_json(self) -> Json:
        """Returns {field: value}."""
        return {**self._asdict(), "folder": str(self.folder)}


class Leftover(NamedTuple):
    """Something in a run folder that no command needs."""

    path: Path
    size: int
    """Its bytes."""
    why: str
    """The reason why it is not needed."""

    def as_json(self) -> Json:
        """Returns {field: value}."""
        return {**self._asdict(), "path": str(self.path)}


def list_runs(where: str | Path = "runs") -> list[Status]:
    """Returns the state of every run below a folder, sorted by path. The folder may be a run itself.

    Raises SpecError if the folder does not exist.
    """
    return [_status(folder) for folder in _runs(Path(where))]


def leftovers(where: str | Path = "runs") -> list[Leftover]:
    """Returns what can be deleted from the runs below a folder that are not running.

    - Of a finished run, the checkpoints that are neither the last nor the best.
    - Of an unfinished run without a checkpoint, everything: it can't be resumed.

    Raises SpecError if the folder does not exist.
    """
    return [leftover for folder in _runs(Path(where)) for leftover in _leftovers(folder, _status(folder))]


def delete(leftover: Leftover) -> None:
    """Deletes a leftover, if it still is one. Files that are not the run's are kept.

    Raises SpecError if a process trains in the run, RunError if the disk fails.
    """
    whole = RunFolder(leftover.path).exists
    folder = RunFolder(leftover.path if whole else leftover.path.parents[1])
    with folder.locked():
        # this process holds the lock now
        if leftover.path not in [found.path for found in _leftovers(folder, _status(folder, running=False))]:
            return
        if whole:
            folder.clear()
            # not one with somebody's files
            with suppress(OSError):
                (folder.path / ".lock").unlink()
                folder.path.rmdir()
        else:
            with files.writing(leftover.path):
                checkpoint.remove(folder.checkpoints, int(leftover.path.name.removeprefix("step-")))


def _runs(where: Path) -> Iterator[RunFolder]:
    if not where.is_dir():
        raise SpecError(f"{where} {'is not a folder' if where.exists() else 'does not exist'}")
    for inside, folders, names in os.walk(where):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if "spec.json" in names:
            folders.clear()
            yield RunFolder(inside)


def _status(folder: RunFolder, running: bool | None = None) -> Status:
    """Returns the state of a run. `running` says whether a process trains in it; None finds out."""
    steps, step, state, why = _progress(folder)
    if folder.busy if running is None else running:
        state, why = "running", None
    number, values = _key_results(folder.evaluation())
    return Status(folder.path, state, why, step, steps, number, values, _size(folder.path))


def _step(folder: RunFolder) -> int:
    if folder.shared:
        with suppress(GanlabError):
            return shared.step(folder.path)
    return (folder.steps or [0])[-1]


def _progress(folder: RunFolder) -> tuple[int | None, int, str, str | None]:
    """Returns (number of steps, newest step, state, reason) of a run in which no process trains."""
    try:
        steps = build_schedule(folder.spec_here()).steps
    except GanlabError as error:
        return None, _step(folder), "unreadable", str(error)
    if folder.shared:
        return steps, _step(folder), "shared", None
    return steps, *ending(folder, steps)


def ending(folder: RunFolder, steps: int) -> tuple[int, str, str | None]:
    """Returns (newest step, state, reason) of a run of `steps` steps in which no process trains; see `Status`."""
    step = (folder.steps or [0])[-1]
    if step >= steps:
        return step, "finished", None
    if (stopped := folder.stopped()) is not None:
        return step, "finished", stopped["why"]
    failure = folder.failure()
    return (step, "failed", failure["why"]) if failure else (step, "interrupted", None)


def _key_results(evaluation: Json | None) -> tuple[str | None, dict[str, float]]:
    results: list[dict[str, Any]] = (evaluation or {}).get("results", [])
    if not results:
        return None, {}
    best_by = (evaluation or {})["protocol"].get("best_by")
    number = best_by["number"] if best_by else results[0]["number"]
    newest = max(result["step"] for result in results)
    return number, {r["direction"]: r["value"] for r in results if r["number"] == number and r["step"] == newest}


def _leftovers(folder: RunFolder, status: Status) -> Iterator[Leftover]:
    if status.state in ("failed", "interrupted") and not status.step:
        yield Leftover(folder.path, status.size, f"{status.state} before its first checkpoint")
    if status.state != "finished":
        return
    evaluation = folder.evaluation()
    if evaluation is None and folder.spec_here().evaluation.metrics:
        # which checkpoint is the best is not known yet
        return
    measured = (evaluation or {}).get("protocol", {}).get("checkpoints", {})
    for step in folder.steps[:-1]:
        path = checkpoint.path_of(folder.checkpoints, step)
        if path.name not in measured:
            yield Leftover(path, _size(path), "neither the last nor the best checkpoint")


def _size(folder: Path) -> int:
    """Returns the bytes of all files below a folder. Links are not followed."""
    total = 0
    for inside, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(inside, name)).st_size
            except OSError:
                # a process that trains has removed it
                continue
    return total
