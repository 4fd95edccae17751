"""Compares systems over seeds: trains the unfinished trials, and compares the runs."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ganlab import files
from ganlab.comparison.page import ComparisonPage
from ganlab.comparison.places import check_place, most_at_a_time, place
from ganlab.comparison.processes import End
from ganlab.comparison.record import comparison, described, write_comparison
from ganlab.comparison.running import TrialCallback, run_trials
from ganlab.comparison.runs import MeasuredRun, read_run
from ganlab.comparison.trials import Comparison, Plan, Trial, check_no_run, folder_name, plan, shell_command
from ganlab.components.options import nearest
from ganlab.errors import GanlabError, Interrupted, SpecError
from ganlab.evaluation.metric_suite import evaluator_for
from ganlab.runs.folder import RunFolder
from ganlab.runs.lock import locking
from ganlab.spec.models import Json


def compare(asked: Comparison, callback: TrialCallback | None = None) -> Json:
    """Trains specs with several seeds on the same data and budget, and compares them with statistics.

    Each trial is a process of its own, `ganlab run`. Finished trials are not trained again, and unfinished ones resume.
    If a trial fails, its reason is kept, and the other trials continue. `callback` receives the progress.

    Writes comparison.json, comparison.md, comparison.csv and report.html, and writes them again whenever a trial has
    ended. Returns the content of comparison.json and "folder".
    Raises SpecError, before anything is trained, if the specs can't be compared, or if another comparison runs in the
    folder; Interrupted after SIGINT or SIGTERM, with everything saved.
    """
    check_place(asked.on)
    planned = plan(asked)
    evaluations = [system.resolved.evaluation for system in planned.systems.values()]
    measured = {number for evaluation in evaluations for number in evaluator_for(evaluation).numbers}
    _check_measured(asked.numbers, measured)
    callback = callback or TrialCallback()
    with locking(planned.folder, f"{planned.folder}: another comparison is running here"):
        files.tidy(planned.folder)
        # now, because another comparison may have trained them until a moment ago
        unfinished = planned.unfinished()
        callback.begin(len(planned.trials) - len(unfinished), len(planned.trials))
        return _run(planned, unfinished, asked, callback)


def _run(planned: Plan, unfinished: Sequence[Trial], asked: Comparison, callback: TrialCallback) -> Json:
    jobs = most_at_a_time(asked.jobs, asked.on)
    # other work may run on a cluster
    now = max(jobs or len(planned.trials), 1 if asked.on is None else 2) if unfinished else 1
    kept = _kept(planned.folder)
    before = _jobs_before(planned, unfinished, kept)
    queue = _Queue(planned, unfinished, asked, None if before is None else max(now, before))
    found = queue.keep()
    if not unfinished:
        return found
    try:
        with place(asked.on) as start:
            run_trials(queue, jobs, start, callback)
    except Interrupted as stopped:
        queue.remember(kept.failures)
        found = queue.keep()
        finished = sum(trial["state"] == "finished" for trial in found["trials"])
        stopped.args = (f"{finished} of {len(planned.trials)} trials are finished, the others are saved",)
        raise
    return queue.keep()


class _Queue:
    """Runs the unfinished trials of a comparison, and writes its files. A finished run is read once."""

    def __init__(self, planned: Plan, unfinished: Sequence[Trial], asked: Comparison, jobs: int | None) -> None:
        """`jobs` is that of `record.comparison`."""
        self._planned, self._asked, self._jobs = planned, asked, jobs
        self._waiting = deque(unfinished)
        self._failures: dict[Trial, str] = {}
        self._finished: dict[Trial, MeasuredRun] = {}
        self._page = ComparisonPage(planned.folder)

    def next(self) -> Trial | None:
        return self._waiting.popleft() if self._waiting else None

    def gives_up(self, trial: Trial) -> bool:
        return False

    def ended(self, trial: Trial, end: End) -> str:
        self._finished.pop(trial, None)
        # a run may end without its results, if the disk is full
        missing = self._read(trial).why
        why = end.why or (missing and f"{missing}; see {trial.log}")
        if why:
            self._failures[trial] = why
        # an error in writing the tables must not end the other trials; the last call of `keep` raises it
        with suppress(GanlabError):
            self.keep()
        return f"failed: {why}" if why else "finished"

    def remember(self, failures: Mapping[tuple[str, int], str]) -> None:
        """Keeps the reasons of earlier failures, {(system, seed): reason}, of trials that this call has not started."""
        for trial in self._waiting:
            if (why := failures.get((trial.system, trial.seed))) is not None:
                self._failures[trial] = why

    def keep(self) -> Json:
        """Writes the comparison as far as it has come, and returns it."""
        planned = self._planned
        runs = [self._read(trial) for trial in planned.trials]
        trials = [
            {**described(run, self._failures.get(trial, "")), "command": trial.command, "log": str(trial.log)}
            for run, trial in zip(runs, planned.trials, strict=True)
        ]
        found = comparison([*planned.systems], runs, self._asked.numbers, trials, self._asked.command, self._jobs)
        for system in found["systems"]:
            made = planned.systems[system["name"]]
            system |= {"spec": str(made.spec), "set": list(made.set), "about": made.resolved.about}
        return write_comparison(self._page, found)

    def _read(self, trial: Trial) -> MeasuredRun:
        if (run := self._finished.get(trial)) is None:
            run = read_run(trial.folder, trial.system, trial.seed)
            if not run.why:
                self._finished[trial] = run
        return run


def compare_runs(
    runs: Sequence[str | Path],
    baseline: str | None = None,
    out: str | Path | None = None,
    numbers: Sequence[str] = (),
) -> Json:
    """Compares existing runs. Runs belong to one system if their specs differ in the seed and the threads only.

    `baseline` is the name of a system or the folder of one of its runs; `out` and `numbers` are those of `Comparison`.

    Returns and writes the same as `compare`. Raises SpecError if a folder is not a run, if the runs can't be compared,
    or if another comparison runs in the folder.
    """
    if missing := [str(folder) for folder in runs if not RunFolder(folder).exists]:
        raise SpecError(f"{missing[0]} is not a run: it has no spec.json")
    read = _named([read_run(folder) for folder in runs])
    systems = [*dict.fromkeys(run.system for run in read)]
    if not systems:
        raise SpecError("compare --from: names no run")
    if baseline is not None:
        wanted = {run.system for run in read if baseline == run.system or Path(baseline) == Path(run.folder)}
        if not wanted:
            raise SpecError(f"--baseline: there is no system {baseline!r}{nearest(baseline, systems)}")
        systems.sort(key=lambda name: name not in wanted)
    _check_measured(numbers, {result["number"] for run in read for result in run.results})
    folder = Path(out or Path("runs") / folder_name(systems))
    check_no_run(folder)
    command = shell_command(["--from", *runs], {"--baseline": [systems[0]], "--out": [folder], "--number": numbers})
    found = comparison(systems, read, numbers, [*map(described, read)], command, jobs=None)
    with locking(folder, f"{folder}: another comparison is running here"):
        return write_comparison(ComparisonPage(folder), found)


def _check_measured(asked: Iterable[str], measured: Collection[str]) -> None:
    for name in asked:
        if name not in measured:
            raise SpecError(f"--number: {name!r} is not measured{nearest(name, measured)}")


def _named(runs: Sequence[MeasuredRun]) -> list[MeasuredRun]:
    """Returns the runs with one name for each system: the spec's, or the first run's folder if that name is taken."""
    specs: dict[str, Json] = {}
    named: list[MeasuredRun] = []
    for run in runs:
        if not run.spec:
            raise SpecError(f"{run.folder}: {run.why}")
        known = [name for name, spec in specs.items() if spec == run.spec]
        name = known[0] if known else run.system if run.system not in specs else Path(run.folder).name
        if not known and name in specs:
            name = run.folder
        specs.setdefault(name, run.spec)
        named.append(replace(run, system=name))
    for index, run in enumerate(named):
        for other in named[:index]:
            if (run.system, run.seed) == (other.system, other.seed):
                raise SpecError(f"{other.folder} and {run.folder} are the same system with the same seed, {run.seed}")
    return named


class _Kept(NamedTuple):
    """The content of an earlier comparison.json."""

    jobs: int | None
    """The largest number of trials that ran at the same time; None if it is not known."""
    states: dict[tuple[str, int], str]
    """{(system, seed): state} of its trials."""
    failures: dict[tuple[str, int], str]
    """{(system, seed): reason} of its failed trials."""


def _kept(folder: Path) -> _Kept:
    """Reads the comparison.json in a folder. If it is missing or can't be read, no trial is known."""
    try:
        found = json.loads((folder / "comparison.json").read_bytes())
        jobs, trials = found["jobs"], {(trial["system"], trial["seed"]): trial for trial in found["trials"]}
        states = {key: str(trial["state"]) for key, trial in trials.items()}
        failures = {key: str(trials[key]["why"]) for key, state in states.items() if state == "failed"}
    except (OSError, ValueError, LookupError, TypeError):
        return _Kept(1, {}, {})
    return _Kept(jobs if isinstance(jobs, int) else None, states, failures)


def _jobs_before(planned: Plan, unfinished: Sequence[Trial], kept: _Kept) -> int | None:
    """Returns the largest number of trials that ran at the same time in earlier calls.

    Returns None if the number is not known, or if a trial ran outside this comparison.
    """
    for trial in planned.trials:
        state = kept.states.get((trial.system, trial.seed))
        if state != "finished" and (trial not in unfinished or (state is None and RunFolder(trial.folder).exists)):
            return None
    return kept.jobs
