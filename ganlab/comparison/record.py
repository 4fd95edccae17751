"""Writes the files of a comparison: comparison.json, and the tables and the page made from it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from ganlab.comparison import tables
from ganlab.comparison.numbers import Values, compare_values, half_of_the_largest
from ganlab.comparison.page import ComparisonPage
from ganlab.comparison.runs import MeasuredRun, check_alike, notes
from ganlab.errors import text_of
from ganlab.runs.folder import PAGE, write
from ganlab.spec.models import Json, leaf_differences


def described(run: MeasuredRun, failure: str = "") -> Json:
    """Returns the entry of a run in "trials" of comparison.json; `failure` is the reason why it failed, if it did."""
    return {
        "system": run.system,
        "seed": run.seed,
        "folder": run.folder,
        "state": "failed" if failure else "unfinished" if run.why else "finished",
        "why": failure or run.why,
        "step": run.step,
        "steps": run.steps,
        "left_out": list(run.left_out),
        "cost": run.cost,
    }


def comparison(
    systems: Sequence[str],
    runs: Sequence[MeasuredRun],
    only: Sequence[str],
    trials: Sequence[Json],
    command: str,
    jobs: int | None,
) -> Json:
    """Returns the content of comparison.json.

    Args:
        systems: the names of the systems, the baseline first.
        runs: the runs of the systems.
        only: the numbers to compare; if it is empty, all numbers are compared.
        trials: the entries of "trials", which `described` returns.
        command: the shell command that makes the comparison.
        jobs: the largest number of trials that ran at the same time; None if it is not known.

    Raises SpecError if two of the runs were not measured alike.
    """
    check_alike(runs)
    values, first = _values(runs)
    chosen = {place: each for place, each in values.items() if not only or place[0] in only}
    better = {place: str(first[place]["better"] or "") for place in chosen}
    numbers, tests = compare_values(chosen, better, systems)
    for entry in numbers:
        references = first[entry["number"], entry["direction"]]["references"]
        entry["references"] = {name: reference["value"] for name, reference in references.items()}
        entry["half_of_the_largest"] = (
            half_of_the_largest(entry["differences"], tests["count"]) if entry["better"] else None
        )
    specs = {run.system: run.spec for run in reversed(runs) if run.spec}
    base = specs.get(systems[0], {})
    seeds = sorted({run.seed for run in runs})
    return {
        "command": command,
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
    """Returns the means of the costs over seeds. Timings are kept only if each trial ran alone."""
    names = ["images", "peak_memory_bytes", "parameters", *(["seconds", "images_a_second"] if jobs == 1 else [])]
    found = {name: [cost[name] for cost in costs if name in cost] for name in names}
    return {name: sum(each) / len(each) for name, each in found.items() if each}


def write_comparison(page: ComparisonPage, found: Json) -> Json:
    """Writes the files of a comparison, given the content of comparison.json, and returns the content with "folder".

    Raises RunError if the disk fails.
    """
    folder = page.folder
    # relative, because a comparison may be moved with its runs, and its page written from another working folder
    trials = [
        {**trial, "path": os.path.relpath(Path(trial["folder"]).resolve(), folder.resolve())}
        for trial in found["trials"]
    ]
    found = {**found, "trials": trials}
    text = json.dumps(found, indent=2, ensure_ascii=False)
    write(folder / "comparison.md", tables.markdown(found).encode(errors="backslashreplace"))
    write(folder / "comparison.csv", tables.csv(found).encode(errors="backslashreplace"))
    # last, so that the tables are never older than comparison.json
    write(folder / "comparison.json", text.encode(errors="backslashreplace") + b"\n")
    try:
        page.write(found)
    # a page may fail with any error, and no result is lost with it
    except Exception as error:
        found = {**found, "notes": [*found["notes"], f"{folder / PAGE} is not written: {text_of(error)}"]}
    return {"folder": str(folder), **found}
