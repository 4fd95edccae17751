"""Reads the runs of a comparison: their results, their costs, and whether they were measured alike."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

from ganlab.errors import GanlabError, SpecError, shortened
from ganlab.inference.run import load_run
from ganlab.runs import checkpoint
from ganlab.runs.folder import RunFolder
from ganlab.spec.models import Json, leaf_differences

_ALIKE = ("images", "split", "translated", "seed", "metrics", "features", "weights")
"""The parts of a protocol that do not contradict each other in the runs of a comparison."""

_NOTED = ("python", "packages", "device", "precision", "threads", "code")
"""The parts of a protocol that may differ, with a note."""


@dataclass(frozen=True)
class MeasuredRun:
    """A run of a comparison, read from its folder."""

    system: str
    seed: int
    folder: str
    step: int = 0
    """The step of the newest checkpoint."""
    steps: int = 0
    """The number of steps of the whole run."""
    why: str = ""
    """The reason why the run has no results; "" if it has."""
    stopped: str = ""
    """The reason why a callback ended the run before its last step; "" if none did."""
    spec: Json = field(default_factory=dict)
    """The part of the resolved spec that affects training, without the seed and the threads."""
    results: Sequence[Json] = ()
    """The results of the last checkpoint, as evaluation.json has them."""
    left_out: Sequence[Json] = ()
    """The numbers that could not be measured, with the reasons."""
    protocol: Json = field(default_factory=dict)
    cost: Json = field(default_factory=dict)
    """{"seconds", "images", "images_a_second", "peak_memory_bytes", "parameters"}; each may be missing."""


def read_run(folder: str | Path, system: str = "", seed: int = 0) -> MeasuredRun:
    """Reads a run, which may be unfinished, damaged or missing.

    `system` is by default the spec's name; `seed` is that of a run without a readable spec.
    """
    where = RunFolder(folder)
    if not where.exists:
        return MeasuredRun(system, seed, str(folder), why="it has not begun")
    try:
        run = load_run(folder)
        records = deque(where.records(), maxlen=1)
    except GanlabError as error:
        return MeasuredRun(system, seed, str(folder), why=str(error))
    spec = run.spec.trains()
    # the last digits alone depend on it
    spec["runtime"].pop("threads")
    found = MeasuredRun(
        system or run.spec.name,
        spec.pop("seed"),
        str(folder),
        run.step,
        run.steps,
        stopped=run.stopped or "",
        spec=spec,
    )
    if not run.finished:
        at, failure = f"after step {run.step} of {run.steps}", where.failure()
        return replace(found, why=f"stopped {at}" if failure is None else f"failed {at}: {failure['why']}")
    if run.evaluation is None:
        return replace(found, why="it is not measured")
    # an evaluation may belong to an earlier checkpoint, if the run was trained again
    if checkpoint.name_of(run.step) not in run.evaluation["protocol"]["checkpoints"]:
        return replace(found, why="its last checkpoint is not measured")
    return replace(
        found,
        results=[result for result in run.evaluation["results"] if result["step"] == run.step],
        left_out=run.evaluation["left_out"],
        protocol=run.evaluation["protocol"],
        cost=_cost(where, dict(records[0]) if records else {}),
    )


def _cost(folder: RunFolder, last: Json) -> Json:
    found: Json = {name: last[name] for name in ("seconds", "images") if name in last}
    if found.get("seconds"):
        found["images_a_second"] = round(found["images"] / found["seconds"], 3)
    speed = folder.speed() or {}
    if (peak := speed.get("peak_memory_bytes")) is not None:
        found["peak_memory_bytes"] = peak
    if directions := speed.get("directions"):
        found["parameters"] = max(costs["parameters"] for costs in directions.values())
    return found


def check_alike(runs: Sequence[MeasuredRun]) -> None:
    """Raises SpecError if two of the measured runs can't be compared: they had other images, options or features."""
    measured = [run for run in runs if not run.why]
    for index, run in enumerate(measured):
        for other in measured[:index]:
            for path, (a, b) in different_parts(other, run).items():
                raise SpecError(
                    f"{other.folder} and {run.folder} were not measured alike: {path} is {shortened(a, 100)} /"
                    f" {shortened(b, 100)}"
                )


def different_parts(one: MeasuredRun, other: MeasuredRun) -> dict[str, tuple[str, str]]:
    """Returns {path in the protocol: (value of one, value of the other)} for the parts that make results incomparable.

    The values are JSON, or "absent". A metric, a feature network or a weight file that only one of the runs used makes
    no difference.
    """
    a, b = (dict(_parts(run.protocol)) for run in (one, other))
    return leaf_differences(*({path: part[path] for path in a if path in b} for part in (a, b)))


def _parts(protocol: Json) -> Iterator[tuple[str, object]]:
    for part in _ALIKE:
        value = protocol.get(part)
        if isinstance(value, dict):
            yield from ((f"{part}.{name}", inner) for name, inner in value.items())
        elif value is not None:
            yield part, value


def notes(runs: Sequence[MeasuredRun]) -> list[str]:
    """Returns a sentence for each difference between the measured runs that may affect their results."""
    measured = [run for run in runs if not run.why]
    found = []
    budgets: dict[str, Callable[[MeasuredRun], float | None]] = {
        "steps": lambda run: run.step,
        "images": lambda run: run.cost.get("images"),
    }
    for what, of in budgets.items():
        by_system: dict[str, list[float]] = {}
        for run in measured:
            if (count := of(run)) is not None:
                by_system.setdefault(run.system, []).append(count)
        if len({count for counts in by_system.values() for count in counts}) > 1:
            named = _grouped({name: _range(counts) for name, counts in by_system.items()})
            found.append(f"the runs were not trained with the same number of {what}: {named}")
    if stopped := [run for run in measured if run.stopped]:
        each = (
            f"{run.system}, seed {run.seed}, after step {run.step} of {run.steps}: {run.stopped}" for run in stopped
        )
        found.append(f"a callback ended {len(stopped)} of {len(measured)} runs before the last step: {'; '.join(each)}")
    for part in _NOTED:
        pairs = combinations([run.protocol.get(part) for run in measured], 2)
        if names := dict.fromkeys(name for a, b in pairs for name in _contradictions(a, b, "")):
            named = f" ({', '.join(names)})" if "" not in names else ""
            found.append(f"the runs were not measured with the same {part}{named}")
    return found


def _contradictions(one: object, other: object, name: str) -> Iterator[str]:
    """Yields the names of the values that differ and that both parts of protocols have.

    A value that only one part has is no contradiction: each system may have metrics of its own, with their code and
    packages.
    """
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one:
            if key in other:
                yield from _contradictions(one[key], other[key], key)
    elif one != other:
        yield name


def _grouped(counts: Mapping[str, str]) -> str:
    """Returns {system: count} in words, the most frequent count last: "a 209, the others 1,250"."""
    usual, times = Counter(counts.values()).most_common(1)[0]
    if times in (1, len(counts)):
        return ", ".join(f"{name} {count}" for name, count in counts.items())
    named = (f"{name} {count}" for name, count in counts.items() if count != usual)
    return ", ".join([*named, f"the others {usual}"])


def _range(counts: Sequence[float]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"
