"""The page of a comparison, and `ganlab report`, which writes the pages of runs and comparisons again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from jinja2 import TemplateError

from ganlab.comparison import tables
from ganlab.errors import GanlabError, SpecError, text_of
from ganlab.report.curves import Curves, band_charts
from ganlab.report.faces import COLUMNS, Faces, side_by_side
from ganlab.report.page import RELOAD_SECONDS, drawn, render
from ganlab.report.results import fixed
from ganlab.report.run_page import write_run_page
from ganlab.runs.folder import PAGE, RunFolder, write
from ganlab.spec.models import Json

KEYS = 4
"""The most numbers in the table on the first screen."""

PICTURES = 8_000_000
"""The most bytes of all pictures of a page."""

_FACES, _STEPS = COLUMNS, 10
"""The most images of a direction, and the most steps at which they are shown."""


def write_report(folder: str | Path) -> Path:
    """Writes the page of a run or of a comparison again, from what its folder holds. Returns the page's path.

    Raises SpecError if the folder holds neither, or if it can't be read here; RunError if the page can't be written.
    """
    folder = Path(folder)
    kept = folder / "comparison.json"
    if not kept.exists():
        if not RunFolder(folder).exists:
            raise SpecError(f"{folder} is neither a run nor a comparison: it has no spec.json and no comparison.json")
        return write_run_page(RunFolder(folder))
    try:
        found = json.loads(kept.read_bytes())
        return ComparisonPage(folder).write(found)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, TemplateError) as error:
        raise SpecError(f"{kept} can't be read: {text_of(error)}") from error


class ComparisonPage:
    """Writes the page of a comparison. Reads the records and the samples of a finished run once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._means: dict[tuple[Path, int, int], dict[str, dict[int, float]]] = {}
        self._faces: dict[Path, Faces | None] = {}

    def write(self, found: Json) -> Path:
        """Writes the page, given the content of comparison.json, and returns its path. Raises RunError."""
        runs = [_run(self.folder, trial) for trial in found["trials"]]
        names = [system["name"] for system in found["systems"]]
        charts = drawn(band_charts(self._curves(names, runs)))
        content = _context(self.folder, found, runs, charts, self._side_by_side(names, runs))
        write(self.folder / PAGE, render("comparison.html", content))
        return self.folder / PAGE

    def _curves(self, names: Sequence[str], runs: Sequence[_Run]) -> dict[str, list[dict[str, dict[int, float]]]]:
        """Returns {system: the curves of its runs}, with fewer points the more systems there are."""
        points = max(60, min(500, 2000 // max(1, len(names))))
        longest = max((run.steps for run in runs), default=1)
        found: dict[str, list[dict[str, dict[int, float]]]] = {name: [] for name in names}
        for run in runs:
            key = run.path, longest, points
            if (means := self._means.get(key)) is None:
                means = _means(*key)
                if run.finished:
                    self._means[key] = means
            if means:
                found[run.system].append(means)
        return found

    def _side_by_side(self, names: Sequence[str], runs: Sequence[_Run]) -> Json:
        """Returns the same images under every system: {"columns", "systems", "directions", "seeds"}.

        "directions" is {direction: its number of images}, and "seeds" has a `side_by_side` for each seed.
        """
        by_seed: dict[int, dict[str, Faces]] = {}
        for run in runs:
            if run.path in self._faces:
                faces = self._faces[run.path]
            else:
                faces = _read_faces(run, PICTURES // len(runs))
                if run.finished:
                    self._faces[run.path] = faces
            if faces is not None:
                by_seed.setdefault(run.seed, {})[run.system] = faces
        seeds = [side_by_side(seed, [own.get(name) for name in names]) for seed, own in sorted(by_seed.items())]
        # a seed may lack a system, and with it a direction
        directions = {each["name"]: each["count"] for seed in reversed(seeds) for each in seed["directions"]}
        return {
            "columns": COLUMNS,
            "systems": list(names),
            "directions": dict(sorted(directions.items())),
            "seeds": seeds,
        }


class _Run(NamedTuple):
    system: str
    seed: int
    path: Path
    steps: int
    """The number of steps of the whole run; 1 if it is not known."""
    finished: bool
    """True if its folder does not change any more."""


def _run(folder: Path, trial: Json) -> _Run:
    path = folder / trial["path"]
    # a trial may have begun since the comparison was written
    steps = trial["steps"] or _steps(path)
    return _Run(trial["system"], trial["seed"], path, steps, trial["state"] == "finished")


def _context(folder: Path, found: Json, runs: Sequence[_Run], charts: Sequence[Json], faces: Json) -> Json:
    """Returns what the page shows."""
    names = [system["name"] for system in found["systems"]]
    states = [trial["state"] for trial in found["trials"]]
    state = next((state for state in ("unfinished", "failed") if state in states), "finished")
    # a comparison of existing runs has no commands
    trained = any("command" in trial for trial in found["trials"])
    numbers = found["numbers"]
    keys = [*dict.fromkeys(number["number"] for number in numbers)][:KEYS]
    page: Json = {
        "title": tables.title(found),
        "state": state,
        "ended": _ended(states, found["seeds"]),
        "reload": RELOAD_SECONDS if state == "unfinished" and trained else 0,
        "baseline": found["baseline"],
        "findings": [tables.findings(found, name) for name in names[1:]] if found["tests"]["count"] else [],
        "keys": _overview(found, [n for key in keys for n in numbers if n["number"] == key]),
        "all_keys": len({number["number"] for number in numbers}) == len(keys),
        "rows": list(_rows(found)),
        "cautions": list(tables.cautions(found)),
        "explanations": list(tables.explanations(found)),
        "halves": [half for number in numbers if (half := _half(number))],
        "costs": list(tables.cost_rows(found)),
        "faces": faces,
        "charts": charts,
        "systems": found["systems"],
        "trials": [
            {**trial, "page": _link(folder, run.path)} for trial, run in zip(found["trials"], runs, strict=True)
        ],
        "command": found["command"],
    }
    shown = [
        ("numbers", "Every number", numbers),
        ("curves", "Curves", charts),
        ("systems", "Systems", names),
        ("trials", "Trials", found["trials"]),
        ("again", "Make it again", True),
    ]
    return {**page, "sections": [(id, name) for id, name, content in shown if content]}


def _ended(states: Sequence[str], seeds: Sequence[int]) -> str:
    failed = f", {states.count('failed')} failed" if "failed" in states else ""
    named = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    return f"{states.count('finished')} of {len(states)} trials finished{failed}; {named}."


def _link(folder: Path, run: Path) -> str | None:
    if not (run / PAGE).exists():
        return None
    return Path(os.path.relpath(run / PAGE, folder)).as_posix()


def _means(path: Path, steps: int, points: int) -> dict[str, dict[int, float]]:
    """Returns the curves of a run, each with at most `points` points over `steps` steps."""
    curves = Curves(steps, points)
    curves.read(RunFolder(path).metrics)
    return curves.means()


def _steps(path: Path) -> int:
    try:
        return int(RunFolder(path).spec_json()["schedule"]["steps"])
    # a schedule may have no such option
    except (GanlabError, LookupError, TypeError, ValueError):
        return 1


def _read_faces(run: _Run, most: int) -> Faces | None:
    folder = RunFolder(run.path)
    try:
        spec, data = folder.spec_json(), (folder.environment() or {})["data"]
        pairs = {d: min(spec["samples"]["count"], data[d[0]]["held_out"]) for d in spec["directions"]}
        size = spec["data"]["size"]
    except (GanlabError, LookupError, TypeError):
        return None
    sheets = folder.sheets()
    if not sheets or not all(pairs.values()):
        return None
    steps = min(_STEPS, len(sheets))
    # a callback may have ended the run before the last step
    end = max(sheets) if run.finished else run.steps
    faces = Faces(size, pairs, steps, most // (steps + 1), _FACES, end)
    faces.read(sheets)
    return faces if faces.outputs else None


def _overview(found: Json, numbers: Sequence[Json]) -> Json:
    """Returns the table of systems and numbers: {"columns", "rows"}."""
    columns = [
        {
            "number": number["number"],
            "direction": f"{number['direction'][0]} → {number['direction'][1]}",
            "better": number["better"],
            "references": [f"{name} {_minus(f'{value:.3g}')}" for name, value in number["references"].items()],
        }
        for number in numbers
    ]
    rows = [
        {
            "name": name,
            "baseline": name == found["baseline"],
            "cells": [_cell(found, number, name) for number in numbers],
        }
        for name in (system["name"] for system in found["systems"])
    ]
    return {"columns": columns, "rows": rows}


def _cell(found: Json, number: Json, name: str) -> Json:
    summary = number["systems"].get(name)
    if summary is None:
        return {"value": "", "mean": "", "spread": "", "verdict": "", "seeds": ""}
    mean, _, spread = tables.plus_minus(summary["mean"], summary["interval"]).partition(" ± ")
    verdict = number["differences"].get(name, {}).get("verdict", "")
    seeds = tables.some_seeds(found, summary)
    return {"value": summary["mean"], "mean": _minus(mean), "spread": spread, "verdict": verdict, "seeds": seeds}


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}", 1) if text.startswith("-") else text


def _rows(found: Json) -> Iterator[Json]:
    """Yields the rows of the table of every number, direction and system."""
    for number in found["numbers"]:
        for name, summary in number["systems"].items():
            difference = number["differences"].get(name)
            p = difference and difference.get("p_holm")
            yield {
                "number": number["number"],
                "better": number["better"],
                "direction": f"{number['direction'][0]} → {number['direction'][1]}",
                "system": name,
                "seeds": tables.some_seeds(found, summary),
                "mean": summary["mean"],
                "mean_text": _minus(tables.plus_minus(summary["mean"], summary["interval"])),
                "difference": difference["mean"] if difference else "",
                "difference_text": _minus(tables.plus_minus(difference["mean"], difference["interval"]))
                if difference
                else ("baseline" if name == found["baseline"] else ""),
                "p": "" if p is None else p,
                "p_text": "" if p is None else "<0.001" if p < 0.001 else fixed(p, 3),
                "verdict": difference["verdict"] if difference else "",
            }


def _half(number: Json) -> str:
    half = tables.half(number)
    return f"{number['number']} {number['direction']}: {half}" if half else ""
