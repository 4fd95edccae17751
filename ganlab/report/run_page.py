"""The page of one run: report.html in its folder."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ganlab.engine.step_log import Record
from ganlab.errors import RunError, SpecError, plural, text_of
from ganlab.interfaces.callbacks import Callback, TrainingEnd
from ganlab.report.curves import Curves, charts
from ganlab.report.faces import COLUMNS, Faces, side_by_side
from ganlab.report.page import RELOAD_SECONDS, as_text, drawn, render
from ganlab.report.results import key_results, rows
from ganlab.runs.folder import PAGE, RunFolder
from ganlab.runs.overview import ending
from ganlab.spec.models import Json, Spec
from ganlab.system.build import build_schedule

MOST_OF_TIME = 0.02
"""The largest share of a training's time in which its page is written, besides the first time."""


class RunPage(Callback):
    """Writes the page of a run, whenever samples are drawn and at the end. Reads every record and every sample once."""

    def __init__(self, folder: RunFolder, spec: Spec, steps: int, warn: Callable[[str], object]) -> None:
        self._folder, self._spec, self._warn = folder, spec, warn
        self._steps, self._curves = steps, Curves(steps)
        self._faces: Faces | None = None
        self._warned = False
        self._rests_until = 0.0

    def samples(self, step: int, path: Path) -> None:
        if step < self._steps:
            self.write_now_and_then("training")
        else:
            self.write("measuring")

    def end(self, end: TrainingEnd) -> None:
        self.write()

    def write_now_and_then(self, state: str) -> None:
        """Writes report.html, unless that would take more than a small share of the training's time."""
        started = time.monotonic()
        if started >= self._rests_until:
            self.write(state)
            ended = time.monotonic()
            self._rests_until = ended + (ended - started) * (1 / MOST_OF_TIME - 1)

    def write(self, state: str | None = None) -> None:
        """Writes report.html. A failure is one warning for all calls: no run fails for its page.

        `state` is that of the run, such as "training"; None finds it out in the folder.
        """
        try:
            self._folder.write_page(render("run.html", self._context(state)))
        # a page may fail in any way
        except Exception as error:
            if not self._warned:
                self._warn(f"{self._folder.path / PAGE} is not written: {text_of(error)}")
            self._warned = True

    def _context(self, state: str | None) -> Json:
        folder, spec = self._folder, self._spec
        step, ended, why = ending(folder, self._steps)
        state = state or ended
        environment = folder.environment() or {}
        evaluation = folder.evaluation() or {"protocol": {}, "results": [], "left_out": []}
        self._curves.read(folder.metrics)
        means = self._curves.means()
        found = drawn(charts(means))
        origin = environment.get("spec_origin", {})
        results = list(_results(evaluation))
        measured_at = max((result["step"] for result in evaluation["results"]), default=0)
        last = [result for result in evaluation["results"] if result["step"] == measured_at]
        best_by = evaluation["protocol"].get("best_by")
        faces = self._read_faces(environment)
        page = {
            "title": spec.name,
            "about": spec.about,
            "folder": str(folder.path),
            "state": state,
            "why": why if state == "failed" else None,
            "ended": _ended(state, step, self._steps, self._curves.last, environment),
            "reload": RELOAD_SECONDS if state in ("training", "measuring") else 0,
            "facts": list(_facts(spec, folder)),
            "keys": list(rows(key_results(last, best_by and best_by["number"]))),
            "measured_at": measured_at,
            "results": results,
            "left_out": [_left_out(left) for left in evaluation["left_out"]],
            "faces": {"columns": COLUMNS, "seeds": [side_by_side(spec.seed, [faces])] if faces else []},
            "charts": found,
            "width": self._curves.width,
            "started": _started(origin),
            "again": shlex.join(["ganlab", "run", str(folder.path / "spec.json"), "--out", f"{folder.path}-again"]),
            **_spec(spec, origin),
            "data": list(_data(spec, environment)),
            "environment": list(_environment(environment)),
            "code": [
                (name, f"{entry['version']}, {(entry['sha256'] or 'not hashed')[:12]}")
                for name, entry in environment.get("code", {}).items()
            ],
            "continued": [
                f"Trained from step {entry['step']} on with other {', '.join(key for key in entry if key != 'step')}."
                for entry in environment.get("continued", [])
            ],
        }
        measured = [("results", "Results")] if results else []
        curves = [("curves", "Curves")] if found else []
        always = [("again", "Make it again"), ("spec", "Spec"), ("data", "Data"), ("environment", "Environment")]
        return {**page, "sections": [*measured, *curves, *always]}

    def _read_faces(self, environment: Json) -> Faces | None:
        if self._faces is None:
            counts = {domain: kept.get("held_out", 0) for domain, kept in environment.get("data", {}).items()}
            pairs: dict[str, int] = {
                d: min(self._spec.samples.count, counts.get(d[0], 0)) for d in self._spec.directions
            }
            if not all(pairs.values()):
                return None
            self._faces = Faces(self._spec.data.size, pairs)
        self._faces.read(self._folder.sheets())
        return self._faces if self._faces.outputs else None


def write_run_page(folder: RunFolder) -> Path:
    """Writes the page of a run from what its folder holds, and returns its path.

    Raises SpecError if the folder holds no run that can be read here, RunError if the page can't be written.
    """
    if not folder.exists:
        raise SpecError(f"{folder.path} is not a run: it has no spec.json")
    if folder.busy:
        raise SpecError(f"{folder.path} is training, and its page is written whenever samples are drawn")
    failures: list[str] = []
    spec = folder.spec_here()
    RunPage(folder, spec, build_schedule(spec).steps, failures.append).write()
    if failures:
        raise RunError(failures[0])
    return folder.path / PAGE


def _results(evaluation: Json) -> Iterator[tuple[str, list[Json]]]:
    """Yields (checkpoint, its rows) of an evaluation."""
    names = dict.fromkeys((result["step"], result["checkpoint"]) for result in evaluation["results"])
    for step, name in names:
        own = [r for r in evaluation["results"] if (r["step"], r["checkpoint"]) == (step, name)]
        yield f"step {step:,} ({name})", list(rows(own))


def _left_out(left: Json) -> str:
    place = f"{left.get('number', left['metric'])} {left['direction']}".strip()
    return f"{place}: {left['why']}"


def _ended(state: str, step: int, steps: int, last: Record, environment: Json) -> str:
    """Returns a sentence about how far the run has come. `step` is that of the newest checkpoint."""
    step = max(step, int(last["step"]))
    words = f"{step:,} steps" if step >= steps else f"step {step:,} of {steps:,}"
    parts = [words]
    if "images" in last:
        parts.append(f"{int(last['images']):,} images of each domain")
    if last.get("seconds"):
        parts.append(f"{duration(last['seconds'])} of training")
    if "device" in environment:
        parts.append(f"on {environment['device']} ({environment.get('device_name', 'unknown')})")
    return f"{state.capitalize()}: {', '.join(parts)}."


def duration(seconds: float) -> str:
    """Returns a duration in words: "45 s", "8 min 46 s", "3 h 5 min"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _facts(spec: Spec, folder: RunFolder) -> Iterator[tuple[str, str]]:
    yield "domains", "; ".join(f"{domain}: {_brief(getattr(spec.data, domain))}" for domain in "ab")
    yield "images", f"{spec.data.size} x {spec.data.size} pixels, batch {spec.data.batch}"
    parameters = {costs["parameters"] for costs in (folder.speed() or {}).get("directions", {}).values()}
    counted = f", {max(parameters):,} parameters" if parameters else ""
    yield "generator", f"{_nested(spec.generator)}{counted}"
    yield "discriminators", "; ".join(f"{name}: {_nested(options)}" for name, options in spec.discriminators.items())
    yield "losses", "; ".join(f"{name}: {_nested(options)}" for name, options in spec.losses.items())
    yield "schedule", f"{_nested(spec.schedule)}, {spec.schedule.get('steps', '')} steps, seed {spec.seed}"
    runtime = spec.runtime
    yield (
        "computed",
        f"on {runtime.device}, {runtime.precision}, {plural(int(runtime.threads), 'thread')}",
    )


def _brief(options: Json) -> str:
    """Returns the type of a source and its first option that is text, of a path the last part."""
    texts = [Path(value).name for key, value in options.items() if key != "type" and isinstance(value, str)]
    return " ".join([options["type"], *texts[:1]])


def _nested(options: Json) -> str:
    """Returns the types of a component and of those inside it: "WRAPPER of INNER"."""
    inner = [value for value in options.values() if isinstance(value, dict) and "type" in value]
    return " of ".join([options["type"], *map(_nested, inner)])


def _options(options: Json) -> str:
    rest = [f"{key} {as_text(value)}" for key, value in options.items() if key != "type" and value is not None]
    return f"{options['type']}{': ' if rest else ''}{', '.join(rest)}"


def _started(origin: Json) -> str | None:
    """Returns the command that started a run; None if Python code started it."""
    if not origin.get("spec"):
        return None
    words = ["ganlab", "run", origin["spec"], *(word for text in origin["set"] for word in ("--set", text))]
    return shlex.join([*words, *(["--out", origin["out"]] if origin.get("out") else [])])


def _spec(spec: Spec, origin: Json) -> Json:
    """Returns the rows of the resolved spec, with the values of the parent where they differ."""
    was: dict[str, list[str]] = origin.get("differences", {})
    shown = list(_leaves(spec.as_json()))
    paths = {row["path"] for row in shown}
    table = []
    for row in shown:
        kept = was.get(row["path"])
        # a table of keys inside a key that the parent lacks
        table.append({**row, "was": None if kept is None else kept[0].strip('"')})
    return {
        "spec": table,
        "parent": origin.get("parent"),
        "changed": sum(row["was"] is not None for row in table),
        "removed": [(path, values[0].strip('"')) for path, values in was.items() if path not in paths],
    }


def _leaves(value: Mapping[str, Any], path: str = "", depth: int = 0) -> Iterator[Json]:
    for key, inner in value.items():
        here = f"{path}.{key}" if path else key
        nested = isinstance(inner, dict) and inner
        yield {"path": here, "key": key, "depth": min(depth, 5), "value": "" if nested else as_text(inner)}
        if nested:
            yield from _leaves(inner, here, depth + 1)


def _data(spec: Spec, environment: Json) -> Iterator[Json]:
    for domain in "ab":
        kept = environment.get("data", {}).get(domain, {})
        facts = [("source", _options(getattr(spec.data, domain)))]
        if kept:
            facts += [
                ("images", f"{kept['images']:,}, {kept.get('held_out', 0):,} of them held out"),
                ("SHA-256", kept["sha256"]),
            ]
        if skipped := kept.get("skipped"):
            facts.append(("left out", f"{len(skipped)} that can't be read"))
        yield {
            "name": domain,
            "facts": facts,
            "credits": environment.get("credits", {}).get(domain, ""),
        }


def _environment(environment: Json) -> Iterator[tuple[str, str]]:
    for name in ("device", "device_name", "cpu_capability", "cuda", "threads", "platform", "python", "commit"):
        if environment.get(name) is not None:
            yield name.replace("_", " "), as_text(environment[name])
    for package, number in environment.get("packages", {}).items():
        yield package, number or "not installed"
