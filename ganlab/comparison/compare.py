"""Compares systems over seeds: trains what is missing, tests the differences, writes the tables."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ganlab.comparison import tables
from ganlab.comparison.numbers import Values, compare_values, half_of_the_largest
from ganlab.comparison.page import write_comparison_page
from ganlab.comparison.places import check_place, most_at_a_time, place
from ganlab.comparison.running import FixedQueue, TrialCallback, run_trials
from ganlab.comparison.runs import MeasuredRun, check_alike, notes, read_run
from ganlab.comparison.trials import Comparison, Plan, Trial, folder_name, plan
from ganlab.components.options import nearest
from ganlab.errors import Interrupted, SpecError, text_of
from ganlab.evaluation.metric_suite import evaluator_for
from ganlab.runs.folder import PAGE, RunFolder, write
from ganlab.spec.models import Json, leaf_differences


def compare(asked: Comparison, callback: TrialCallback | None = None) -> Json:
    """Trains specs with several seeds on the same data and budget, and compares them with statistics.

    Each trial is a process of its own, `ganlab run`. Finished trials are not trained again, and unfinished ones resume.
    If a trial fails, its reason is kept, and the other trials continue. `callback` receives the progress.

    Returns the content of comparison.json and "folder", and writes comparison.json, comparison.md, comparison.csv
    and report.html.
    Raises SpecError, before anything is trained, if the specs can't be compared; Interrupted after SIGINT or SIGTERM,
    with everything saved.
    """
    check_place(asked.on)
    planned, numbers = plan(asked), asked.numbers
    evaluations = [system.resolved.evaluation for system in planned.systems.values()]
    _check_measured(numbers, {number for evaluation in evaluations for number in evaluator_for(evaluation).numbers})
    callback = callback or TrialCallback()
    unfinished = planned.unfinished()
    callback.begin(len(planned.trials) - len(unfinished), len(planned.trials))
    jobs = most_at_a_time(asked.jobs, asked.on)
    # what ran beside a trial of an earlier call affected its timings too, and a cluster may have other work
    most = max(jobs or len(planned.trials), 1 if asked.on is None else 2, _earlier_jobs(planned.folder))
    queue = FixedQueue(unfinished)
    try:
        if unfinished:
            _keep(planned, most, numbers, {})
            with place(asked.on) as start:
                run_trials(queue, jobs, start, callback)
    except Interrupted as stopped:
        found = _keep(planned, most, numbers, queue.failures)
        finished = sum(trial["state"] == "finished" for trial in found["trials"])
        stopped.args = (f"{finished} of {len(planned.trials)} trials are finished, the others are saved",)
        raise
    return _keep(planned, most, numbers, queue.failures)


def compare_runs(
    runs: Sequence[str | Path],
    baseline: str | None = None,
    out: str | Path | None = None,
    numbers: Sequence[str] = (),
) -> Json:
    """Compares existing runs. Runs belong to one system if their specs differ in the seed and the threads only.

    `baseline` is the name of a system or the folder of one of its runs; `out` and `numbers` are those of `Comparison`.

    Returns and writes the same as `compare`. Raises SpecError if a folder is not a run, or if the runs can't be
    compared.
    """
    if missing := [str(folder) for folder in runs if not RunFolder(folder).exists]:
        raise SpecError(f"{missing[0]} is not a run: it has no spec.json")
    read = _named([read_run(folder) for folder in runs])
    systems = [*dict.fromkeys(run.system for run in read)]
    if not systems:
        raise SpecError("compare --from: names no run")
    if baseline is not None:
        wanted = {run.system for run in read if baseline in (run.system, run.folder)}
        if not wanted:
            raise SpecError(f"--baseline: there is no system {baseline!r}{nearest(baseline, systems)}")
        systems.sort(key=lambda name: name not in wanted)
    _check_measured(numbers, {result["number"] for run in read for result in run.results})
    folder = Path(out or Path("runs") / folder_name(systems))
    trials = [_trial(run, "") for run in read]
    return _write(folder, _comparison(systems, read, numbers, trials, jobs=None))


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


def _keep(planned: Plan, jobs: int, numbers: Sequence[str], failures: Mapping[Trial, str]) -> Json:
    """Reads the runs of the trials, and writes the comparison as far as it has come."""
    read = [read_run(trial.folder, trial.system, trial.seed) for trial in planned.trials]
    trials = [
        {**_trial(run, failures.get(trial, "")), "command": trial.command, "log": str(trial.log)}
        for run, trial in zip(read, planned.trials, strict=True)
    ]
    found = _comparison([*planned.systems], read, numbers, trials, jobs)
    for system in found["systems"]:
        made = planned.systems[system["name"]]
        system |= {"spec": str(made.spec), "set": list(made.set), "about": made.resolved.about}
    return _write(planned.folder, found)


def _trial(run: MeasuredRun, failure: str) -> Json:
    state = "failed" if failure else "unfinished" if run.why else "finished"
    return {
        "system": run.system,
        "seed": run.seed,
        "folder": run.folder,
        "state": state,
        "why": failure or run.why,
        "step": run.step,
        "steps": run.steps,
        "left_out": list(run.left_out),
        "cost": run.cost,
    }


def _earlier_jobs(folder: Path) -> int:
    """Returns the largest number of jobs of earlier calls in a comparison's folder, 1 if it is not known."""
    try:
        found = json.loads((folder / "comparison.json").read_bytes())["jobs"]
        return found if isinstance(found, int) else 1
    except (OSError, ValueError, LookupError, TypeError):
        return 1


def _comparison(
    systems: Sequence[str],
    runs: Sequence[MeasuredRun],
    only: Sequence[str],
    trials: Sequence[Json],
    jobs: int | None,
) -> Json:
    """Returns the content of comparison.json. The first of the systems is the baseline."""
    check_alike(runs)
    values, described = _values(runs)
    chosen = {place: each for place, each in values.items() if not only or place[0] in only}
    better = {place: str(described[place]["better"] or "") for place in chosen}
    numbers, tests = compare_values(chosen, better, systems)
    for entry in numbers:
        references = described[entry["number"], entry["direction"]]["references"]
        entry["references"] = {name: reference["value"] for name, reference in references.items()}
        entry["half_of_the_largest"] = (
            half_of_the_largest(entry["differences"], tests["count"]) if entry["better"] else None
        )
    specs = {run.system: run.spec for run in reversed(runs) if run.spec}
    base = specs.get(systems[0], {})
    seeds = sorted({run.seed for run in runs})
    return {
        "baseline": systems[0],
        "seeds": seeds,
        "jobs": jobs,
        "checkpoint": "last",
        "only": list(only),
        "systems": [
            {
                "name": name,
                "finished": sum(run.system == name and not run.why for run in runs),
                "differences": [f"{k}: {a} / {b}" for k, (a, b) in leaf_differences(base, specs[name]).items()]
                if name in specs and base
                else [],
                "cost": _mean_cost([run.cost for run in runs if run.system == name and not run.why], jobs),
                "trained": specs.get(name),
            }
            for name in systems
        ],
        "trials": list(trials),
        "tests": tests,
        "numbers": numbers,
        "notes": notes(runs),
    }


def _values(runs: Sequence[MeasuredRun]) -> tuple[Values, dict[tuple[str, str], Json]]:
    """Returns the values of all runs, and the first result of each number and direction."""
    values: Values = {}
    first: dict[tuple[str, str], Json] = {}
    for run in runs:
        for result in run.results:
            place = result["number"], result["direction"]
            first.setdefault(place, result)
            values.setdefault(place, {}).setdefault(run.system, {})[run.seed] = result["value"]
    return values, first


def _mean_cost(costs: Sequence[Json], jobs: int | None) -> Json:
    """Returns the means of the costs over seeds. Timings are kept only of trials that ran alone."""
    names = ["images", "peak_memory_bytes", "parameters", *(["seconds", "images_a_second"] if jobs == 1 else [])]
    found = {name: [cost[name] for cost in costs if name in cost] for name in names}
    return {name: sum(each) / len(each) for name, each in found.items() if each}


def _write(folder: Path, found: Json) -> Json:
    text = json.dumps(found, indent=2, ensure_ascii=False)
    write(folder / "comparison.md", tables.markdown(found).encode(errors="backslashreplace"))
    write(folder / "comparison.csv", tables.csv(found).encode(errors="backslashreplace"))
    # last: it says that the tables belong to it
    write(folder / "comparison.json", text.encode(errors="backslashreplace") + b"\n")
    try:
        write_comparison_page(folder, found)
    # a page may fail in any way, and nothing is lost with it
    except Exception as error:
        found = {**found, "notes": [*found["notes"], f"{folder / PAGE} is not written: {text_of(error)}"]}
    return {"folder": str(folder), **found}
