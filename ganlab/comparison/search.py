"""Searches for the best values of a spec: Optuna proposes trials, judged on validation images; the best is reported on
test images."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from ganlab import files
from ganlab.comparison import search_tables
from ganlab.comparison.places import check_place, place
from ganlab.comparison.processes import End
from ganlab.comparison.ranges import Range, ranges_of
from ganlab.comparison.running import TrialCallback, run_trials
from ganlab.comparison.runs import read_run
from ganlab.comparison.trials import Machines, System, Trial, check_alike, check_no_run, check_steps, make_system
from ganlab.determinism import keyed
from ganlab.errors import Interrupted, RunError, SpecError
from ganlab.evaluation.best import scores_of
from ganlab.evaluation.evaluator import Monitor
from ganlab.evaluation.metric_suite import evaluator_for
from ganlab.experiment import spec_json
from ganlab.runs.folder import RunFolder, write
from ganlab.runs.lock import locking
from ganlab.spec.models import Json, leaf_differences
from ganlab.system.build import build_schedule

_PAUSE = 2.0
"""Seconds between two readings of a running trial's records."""


@dataclass(frozen=True)
class Search:
    """The request for a search: what to vary, how many trials to train, and where."""

    spec: str | Path
    """The path of a spec file."""
    ranges: Sequence[str]
    """The values to try, each "path.to.key=log(0.1,10)", or with uniform, int or choice."""
    trials: int
    """The number of trials. More may be asked for later."""
    number: str | None = None
    """The number to optimise: its mean over the directions, on the validation images, after the last step. By default
    the spec's `evaluation.monitor`, otherwise the first number that training measures."""
    seed: int = 0
    """The random seed of every trial, and of the search itself."""
    steps: int | None = None
    """The number of steps of every trial, by default the spec's."""
    jobs: int | None = None
    """The number of trials that run at a time, by default 1 on this machine. A trial is proposed from the results of
    those before it, without the `jobs - 1` newest."""
    set: Sequence[str] = ()
    """Changes to the spec, each "path.to.key=value"."""
    out: str | Path | None = None
    """The folder of the search, by default runs/search- and the spec's name."""
    on: str | None = None
    """The place of the trials: None for this machine, "ray" or "ray://HOST:PORT" for a Ray cluster."""


def search(asked: Search, callback: TrialCallback | None = None) -> Json:
    """Searches for the values of a spec with the best number on the validation images.

    Each trial is a process of its own, `ganlab run`. Optuna's sampler TPE proposes its values, and the trial is stopped
    if it is worse than the median of earlier trials at the same step. The same search continues an interrupted one with
    the same trials. `callback` receives the progress.

    Returns the content of search.json and "folder", and writes search.json, search.md and best.json, the spec of the
    best trial. Raises SpecError, before anything is trained, if the search can't be made, or if another search runs in
    the folder. With everything saved, raises RunError if a trial was killed, Interrupted after SIGINT or SIGTERM.
    """
    optuna = _optuna()
    check_place(asked.on)
    if asked.on is not None and asked.jobs is None:
        raise SpecError("--search: on Ray needs --jobs N, because a trial is chosen from the results of earlier ones")
    ranges = ranges_of(asked.ranges)
    space = _Space(asked, ranges)
    folder = Path(asked.out or Path("runs") / f"search-{space.base.name.replace('/', '_')}")
    check_no_run(folder)
    with locking(folder, f"{folder}: another search is running here"):
        files.tidy(folder)
        return _run(_Queue(optuna, space, folder), space, folder, callback or TrialCallback())


def _run(queue: _Queue, space: _Space, folder: Path, callback: TrialCallback) -> Json:
    asked = space.asked
    callback.begin(len(queue.kept), asked.trials)
    try:
        if len(queue.kept) < asked.trials:
            with place(asked.on) as start:
                run_trials(queue, space.jobs, start, callback)
    except Interrupted as stopped:
        _keep(queue, space, folder)
        stopped.args = (f"{len(queue.kept)} of {asked.trials} trials have ended, the others are saved",)
        raise
    found = _keep(queue, space, folder)
    if queue.lost:
        raise RunError(f"{queue.lost[0]}; the same command tries it again")
    return found


def _optuna() -> Any:
    try:
        optuna = import_module("optuna")
    except ImportError as error:
        raise SpecError("--search: needs the package optuna; pip install 'ganlab[search]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


class _Space:
    """The systems that a search may train. Raises SpecError if they can't be compared with one another."""

    def __init__(self, asked: Search, ranges: Sequence[Range]) -> None:
        self.asked, self.ranges, self.jobs = asked, ranges, asked.jobs or 1
        self._always = [*asked.set, *([] if asked.steps is None else [f"schedule.steps={asked.steps}"])]
        self.base = self._system([], "")
        self.steps = build_schedule(self.base.resolved).steps
        if self.base.resolved.evaluation.every is None:
            # the last step is always measured
            self._always.append(f"evaluation.every={self.steps}")
        if asked.number is not None:
            self._always.append(f"evaluation.monitor={asked.number}")
        self.base = self._system([], "")
        evaluation = self.base.resolved.evaluation
        monitors = evaluator_for(evaluation).monitors(evaluation.monitor, evaluation.keys_during)
        if not monitors:
            raise SpecError(f"{asked.spec}: evaluation: training measures no number of which lower or higher is better")
        self.monitor: Monitor = monitors[0]
        for each in ranges:
            for value in each.values:
                end = self._system([f"{each.path}={value}"], "other")
                check_alike(self.base, end)
                check_steps(self.base, end)

    def _system(self, changes: Iterable[str], suffix: str) -> System:
        machines = Machines(self.asked.on is not None, self.jobs > 1)
        return make_system(Path(self.asked.spec), [*self._always, *changes], suffix, machines)

    def trial(self, number: int, parameters: Mapping[str, Any], folder: Path) -> Trial:
        """Returns the trial of a number with the values of some keys. Raises SpecError."""
        changes = [f"{path}={value}" for path, value in parameters.items()]
        return self._system(changes, str(number)).trial(self.asked.seed, folder)

    def scores(self, trial: Trial) -> list[tuple[int, float]]:
        """Returns (step, number on the validation images) for each measurement in a trial's records so far."""
        records = list(RunFolder(trial.folder).records())
        return [(score.step, score.value) for score in scores_of(self.monitor, self.base.resolved.directions, records)]

    def described(self) -> Json:
        """Returns everything that decides which trials a search makes."""
        return {
            "spec": self.base.resolved.trains(),
            "ranges": {each.path: str(each) for each in self.ranges},
            "number": self.monitor.number,
            "seed": self.asked.seed,
            "jobs": self.jobs,
        }


@dataclass
class _Candidate:
    """A trial that runs, as Optuna sees it."""

    number: int
    study: Any
    """A study of the earlier trials."""
    proposed: Any
    """The trial in the study."""
    pruned: bool = False
    looked: float = 0.0
    """The time of the last look at its records."""
    reported: dict[int, float] = field(default_factory=dict)
    """{step: value}."""


class _Queue:
    """Lets Optuna propose the trials, and keeps their results in the order of their numbers.

    What is proposed, and what is pruned, depends only on the trial's number, on the search's seed and on the results of
    the trials up to `number - jobs`: so neither the speed of the trials nor an interrupt changes it.
    """

    def __init__(self, optuna: Any, space: _Space, folder: Path) -> None:
        self._optuna, self._space, self._folder = optuna, space, folder
        self._direction = "minimize" if space.monitor.better == "lower" else "maximize"
        self._distributions = {each.path: each.distribution(optuna) for each in space.ranges}
        journal = folder / "optuna.journal"
        with files.writing(journal):
            folder.mkdir(parents=True, exist_ok=True)
            storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
            self._kept = optuna.create_study(
                storage=storage, study_name="ganlab", direction=self._direction, load_if_exists=True
            )
        described = json.loads(json.dumps(space.described()))
        earlier = self._kept.user_attrs.get("search", described)
        if differing := leaf_differences(earlier, described):
            named = "; ".join(f"{key}: {there} / {here}" for key, (there, here) in differing.items())
            raise SpecError(f"{folder} holds another search (there / asked): {named}; choose another folder with --out")
        self._kept.set_user_attr("search", described)
        self.kept: list[Any] = self._kept.trials
        """The results of the trials that have ended."""
        self._candidates: dict[Trial, _Candidate] = {}
        self._ended: dict[int, Any] = {}
        self.lost: list[str] = []
        """A sentence for each trial that was killed or lost its machine."""
        self._next = len(self.kept)

    def next(self) -> Trial | None:
        while self._next < self._space.asked.trials and self._next - self._space.jobs < len(self.kept):
            candidate = self._propose(self._next)
            self._next += 1
            try:
                trial = self._space.trial(candidate.number, candidate.proposed.params, self._folder)
            except SpecError as error:
                # values that are allowed one by one may not go together
                self._end(candidate, str(error))
                continue
            candidate.proposed.set_user_attr("folder", trial.folder)
            candidate.proposed.set_user_attr("command", trial.command)
            self._candidates[trial] = candidate
            return trial
        return None

    def gives_up(self, trial: Trial) -> bool:
        candidate = self._candidates[trial]
        if candidate.pruned or time.monotonic() - candidate.looked < _PAUSE:
            return False
        candidate.looked = time.monotonic()
        self._report(candidate, trial)
        return candidate.pruned

    def ended(self, trial: Trial, end: End) -> str:
        candidate = self._candidates.pop(trial)
        self._report(candidate, trial)
        failure = end.why
        if end.lost and not candidate.pruned:
            # its place in the order stays free, so that no further trial can be proposed without it
            self.lost.append(f"{trial}: {failure}")
            return f"failed: {failure}"
        if not failure and not candidate.pruned and self._space.steps not in candidate.reported:
            failure = f"{self._space.monitor.number} was not measured on the validation images"
        self._end(candidate, failure)
        if candidate.pruned:
            return f"pruned at step {max(candidate.reported)}"
        return f"failed: {failure}" if failure else "finished"

    def _propose(self, number: int) -> _Candidate:
        """Returns the trial that Optuna proposes after the results that it may know."""
        seed = int(keyed(self._space.asked.seed, "search", number).integers(2**32))
        study = self._optuna.create_study(
            direction=self._direction,
            sampler=self._optuna.samplers.TPESampler(seed=seed),
            pruner=self._optuna.pruners.MedianPruner(),
        )
        study.add_trials(self.kept[: max(0, number - self._space.jobs + 1)])
        return _Candidate(number, study, study.ask(self._distributions))

    def _report(self, candidate: _Candidate, trial: Trial) -> None:
        """Hands what was measured since the last report to Optuna, until it prunes the trial."""
        for step, value in self._space.scores(trial):
            if candidate.pruned or step in candidate.reported:
                continue
            candidate.reported[step] = value
            candidate.proposed.report(value, step)
            # at the last step nothing is left to save
            candidate.pruned = step < self._space.steps and candidate.proposed.should_prune()

    def _end(self, candidate: _Candidate, failure: str) -> None:
        states = self._optuna.trial.TrialState
        if candidate.pruned:
            ended = candidate.study.tell(candidate.proposed, state=states.PRUNED)
        elif failure:
            candidate.proposed.set_user_attr("why", failure)
            ended = candidate.study.tell(candidate.proposed, state=states.FAIL)
        else:
            ended = candidate.study.tell(candidate.proposed, candidate.reported[self._space.steps])
        self._ended[candidate.number] = ended
        while (first := self._ended.pop(len(self.kept), None)) is not None:
            self._kept.add_trial(first)
            self.kept.append(self._kept.trials[-1])


_STATES = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}
"""{Optuna's state of a trial: the state in search.json}."""


def _keep(queue: _Queue, space: _Space, folder: Path) -> Json:
    """Writes the search as far as it has come."""
    monitor = space.monitor
    trials = [
        {
            "trial": number,
            "parameters": trial.params,
            "state": _STATES[trial.state.name],
            "value": trial.value,
            "step": max(trial.intermediate_values, default=0),
            "measured": {str(step): value for step, value in trial.intermediate_values.items()},
            "why": trial.user_attrs.get("why", ""),
            "folder": trial.user_attrs.get("folder", ""),
            "command": trial.user_attrs.get("command", ""),
        }
        for number, trial in enumerate(queue.kept)
    ]
    sign = 1 if monitor.better == "lower" else -1
    finished = [trial for trial in trials if trial["state"] == "finished"]
    best = min(finished, key=lambda trial: sign * trial["value"], default=None)
    found: Json = {
        "spec": str(space.asked.spec),
        "name": space.base.name,
        "ranges": [str(each) for each in space.ranges],
        "number": monitor.number,
        "better": monitor.better,
        "seed": space.asked.seed,
        "steps": space.steps,
        "jobs": space.jobs,
        "asked": space.asked.trials,
        "trials": trials,
        "best": None,
    }
    if best is not None:
        found["best"] = {**best, "spec": str(folder / "best.json"), "results": read_run(best["folder"]).results}
        trial = space.trial(best["trial"], best["parameters"], folder)
        spec = {**spec_json(trial.spec, trial.set), "name": f"{space.base.name}-best"}
        del spec["seed"]
        _write(folder / "best.json", spec)
    write(folder / "search.md", search_tables.markdown(found).encode(errors="backslashreplace"))
    _write(folder / "search.json", found)
    return {"folder": str(folder), **found}


def _write(path: Path, content: Json) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False)
    write(path, text.encode(errors="backslashreplace") + b"\n")
