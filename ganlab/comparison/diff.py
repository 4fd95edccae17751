"""Lists what differs between two runs: their specs, environments, data, code and results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from ganlab.comparison.runs import MeasuredRun, different_parts, read_run
from ganlab.errors import SpecError, shortened
from ganlab.runs.folder import RunFolder
from ganlab.spec.models import Json, leaf_differences

_APART = ("run_id", "spec_origin", "credits", "code", "data", "weights", "plugins", "components", "broken_plugins")
"""The parts of environment.json that are no part of the environment's own table, or follow from other parts."""


def diff(one: str | Path, other: str | Path) -> Json:
    """Returns what differs between two runs.

    Returns {"runs", "steps", "why", "spec", "environment", "data", "code", "measured", "results"}. The first three list
    the folders of both runs, their steps, and the reasons why they have no results ("" if they have). "spec",
    "environment", "data", "code" and "measured" (how they were evaluated) are {path: [value in one, value in other]}
    for what differs, with JSON as values. "results" lists every number of the last checkpoints that both runs have:
    {"number", "direction", "better", "values", "intervals", "difference"}, with the 95% intervals of both evaluations.

    Raises SpecError if a folder is not a run.
    """
    folders = [RunFolder(one), RunFolder(other)]
    for folder in folders:
        if not folder.exists:
            raise SpecError(f"{folder.path} is not a run: it has no spec.json")
    specs = [{key: value for key, value in folder.spec_json().items() if key != "about"} for folder in folders]
    environments = [folder.environment() or {} for folder in folders]
    runs = [read_run(folder.path) for folder in folders]

    def compared(part: Callable[[Json], Json]) -> Json:
        a, b = map(part, environments)
        return _as_lists(leaf_differences(a, b))

    return {
        "runs": [str(folder.path) for folder in folders],
        "steps": [run.step for run in runs],
        "why": [run.why for run in runs],
        "spec": _as_lists(leaf_differences(*specs)),
        "environment": compared(lambda e: {name: value for name, value in e.items() if name not in _APART}),
        "data": compared(lambda e: {"data": e.get("data", {}), "weights": e.get("weights", {})}),
        "code": compared(_code),
        "measured": {name: [shortened(str(v), 100) for v in pair] for name, pair in different_parts(*runs).items()},
        "results": list(_results(*runs)),
    }


def _as_lists(found: dict[str, tuple[str, str]]) -> Json:
    return {path: list(pair) for path, pair in found.items()}


def _code(environment: Json) -> Json:
    """Returns {module: its version and the beginning of the hash of its code}."""
    return {
        module: f"{entry['version']} {(entry['sha256'] or 'unknown')[:12]}"
        for module, entry in environment.get("code", {}).items()
    }


def _results(one: MeasuredRun, other: MeasuredRun) -> Iterator[Json]:
    there = {(result["number"], result["direction"]): result for result in other.results}
    for a in one.results:
        if (b := there.get((a["number"], a["direction"]))) is not None:
            yield {
                "number": a["number"],
                "direction": a["direction"],
                "better": a["better"],
                "values": [a["value"], b["value"]],
                "intervals": [a["interval"], b["interval"]],
                "difference": b["value"] - a["value"],
            }
