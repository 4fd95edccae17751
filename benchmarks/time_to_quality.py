"""Trains specs side by side and records held-out quality over training seconds: a table, a plot, the time to marks.

    python benchmarks/time_to_quality.py SPEC... [--seeds 0,1,2] [--jobs N] [--seconds S] [--out DIR]

A SPEC is a file, with changes after a colon: `experiments/zhu2017.json:data.batch=1,ema_halflife_images=null`. Every
seed of every spec is a run of its own, in a process and on a thread of its own; `--jobs` of them run at a time. A
second call resumes what is unfinished and repeats nothing.

Seconds are those of training steps; measuring, samples and checkpoints are not counted. Quality is measured on held-out
validation images, averaged over both directions: KID by each feature network of `--features`, and the content numbers
of the spec. A feature network with which a spec trains must not judge it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import re
import signal
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import ganlab

PREFIX = "evaluation/"
POINTS = 12
"""The number of measurements of a whole run, unless the spec's changes set `evaluation.every`."""


class Asked(NamedTuple):
    """A spec file and changes to it, each "path.to.key=value"."""

    path: str
    changes: tuple[str, ...]

    @property
    def label(self) -> str:
        """The file's name and the changes, as a folder's name too."""
        return re.sub(r"[^\w.=+-]+", "_", ",".join((Path(self.path).stem, *self.changes))).replace("..", "_")[:100]


class Curve(NamedTuple):
    """The quality of one run over time."""

    seconds: list[float]
    """Training seconds at each measurement."""
    steps: list[int]
    values: dict[str, list[float]]
    """{number: its mean over the directions at each measurement}."""


class Job(NamedTuple):
    """One run."""

    asked: Asked
    seed: int
    metrics: tuple[Any, ...]
    seconds: float | None
    folder: str


def parse(text: str) -> Asked:
    """Reads "FILE" or "FILE:path=value,path=value"; a comma begins a change only if a path and "=" follow."""
    path, _, changes = text.partition(".json:")
    if not changes:
        return Asked(text.removesuffix(":"), ())
    return Asked(f"{path}.json", tuple(re.split(r",(?=[\w.]+=)", changes)))


def curve(records: Iterable[Mapping[str, float]]) -> Curve:
    """Returns the measurements in a run's records, each number averaged over the directions that have it."""
    found = Curve([], [], {})
    measured = [record for record in records if any(name.startswith(PREFIX) for name in record)]
    for record in measured:
        each: dict[str, list[float]] = {}
        for name, value in record.items():
            if name.startswith(PREFIX):
                each.setdefault(name.split("/", 2)[2], []).append(value)
        found.seconds.append(record["seconds"])
        found.steps.append(int(record["step"]))
        for number, values in each.items():
            found.values.setdefault(number, []).append(statistics.fmean(values))
    # a number that an earlier call did not measure has no curve
    complete = {number: values for number, values in found.values.items() if len(values) == len(measured)}
    return found._replace(values=complete)


def lower_is_better(number: str) -> bool:
    """True if a lower value is better, as for KID; False for content numbers, which are shares of kept attributes."""
    return number.startswith("kid-")


def time_to(mark: float, number: str, curve: Curve) -> float | None:
    """Returns the training seconds at which a curve first reaches the mark, linear between measurements.

    Returns None if it never does. A curve that has reached it at its first measurement gives that measurement's time.
    """
    values = curve.values.get(number, [])
    sign = 1 if lower_is_better(number) else -1
    for place, value in enumerate(values):
        if sign * (value - mark) <= 0:
            if place == 0:
                return curve.seconds[0]
            before = values[place - 1]
            share = (before - mark) / (before - value)
            return curve.seconds[place - 1] + share * (curve.seconds[place] - curve.seconds[place - 1])
    return None


def band(curves: Sequence[Curve], number: str) -> tuple[Any, Any, Any, Any]:
    """Returns (seconds, least, median, greatest) over the seeds, at the times that all of them cover."""
    known = [each for each in curves if number in each.values]
    first, last = max(each.seconds[0] for each in known), min(each.seconds[-1] for each in known)
    times = np.unique([second for each in known for second in each.seconds if first <= second <= last])
    values = np.stack([np.interp(times, each.seconds, each.values[number]) for each in known])
    return times, values.min(0), np.median(values, 0), values.max(0)


def train(job: Job) -> str:
    """Trains or resumes a run up to its last step or `seconds`. Runs in a process of its own."""

    class Stop(ganlab.Callback):
        """Ends the training at the first record at or beyond `seconds`; the run saves itself and can be resumed."""

        stopped = False

        def records(self, records: Sequence[dict[str, float]]) -> None:
            if not self.stopped and job.seconds is not None and records and records[-1]["seconds"] >= job.seconds:
                self.stopped = True
                signal.raise_signal(signal.SIGTERM)

    folder = Path(job.folder)
    if job.seconds is not None and (folder / "spec.json").exists():
        records = ganlab.load_run(folder).records
        if records and records[-1]["seconds"] >= job.seconds:
            return f"{folder}: was trained for {records[-1]['seconds']:.0f} s before"
    own = ganlab.load_spec(job.asked.path, job.asked.changes)
    content = [metric for metric in own.evaluation.metrics if metric["type"] == "content"]
    names_every = any(change.startswith("evaluation.every=") for change in job.asked.changes)
    every = own.evaluation.every if names_every else max(1, steps_of(own.schedule) // POINTS)
    evaluation = {"metrics": [*job.metrics, *content], "features": None, "every": every, "during": None}
    changes = [
        *job.asked.changes,
        f"seed={job.seed}",
        "runtime.threads=1",
        *(f"evaluation.{key}={json.dumps(value)}" for key, value in evaluation.items()),
        "evaluation.monitor=null",
    ]
    try:
        done = ganlab.run(job.asked.path, changes, out=folder, callback=Stop())
    except ganlab.Interrupted:
        return f"{folder}: stopped after {ganlab.load_run(folder).records[-1]['seconds']:.0f} s"
    return f"{folder}: all {done.step} steps"


def steps_of(schedule: Mapping[str, Any]) -> int:
    """Returns the steps of a schedule, or of the schedule that it wraps."""
    if "steps" in schedule:
        return int(schedule["steps"])
    return next(steps_of(inner) for inner in schedule.values() if isinstance(inner, Mapping))


def report(curves: Mapping[str, Mapping[int, Curve]], marks: Mapping[str, float], described: Any) -> dict[str, Any]:
    """Returns the content of time_to_quality.json. Times are in seconds, None if a mark is not reached."""
    specs: dict[str, Any] = {}
    for label, seeds in curves.items():
        times = {
            number: {seed: time_to(mark, number, each) for seed, each in seeds.items()}
            for number, mark in marks.items()
        }
        specs[label] = {
            "curves": {seed: each._asdict() for seed, each in seeds.items()},
            "time_to_mark": times,
            # seeds that never reach a mark count as slower than all that do
            "median_time_to_mark": {number: median_time(each.values()) for number, each in times.items()},
        }
    return {"marks": dict(marks), "specs": specs, **described}


def median_time(times: Iterable[float | None]) -> float | None:
    ordered = sorted(float("inf") if time is None else time for time in times)
    middle = statistics.median(ordered)
    return None if middle == float("inf") else middle


def last_values(curves: Iterable[Curve]) -> dict[str, float]:
    """Returns {number: median over the seeds of its last value}."""
    known = list(curves)
    numbers = [number for number in known[0].values if all(number in each.values for each in known)]
    return {number: statistics.median(each.values[number][-1] for each in known) for number in numbers}


def markdown(found: Mapping[str, Any]) -> str:
    """Returns a table: for each spec its last values, and the median time to each mark with the range of the seeds."""
    marks = found["marks"]
    first = next(iter(found["specs"].values()))["median_time_to_mark"]
    titles = ["spec", "seeds", "seconds", *(f"last {number}" for number in marks)]
    titles += [
        f"seconds to {number} {'<=' if lower_is_better(number) else '>='} {mark:.4g}" for number, mark in marks.items()
    ]
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for label, spec in found["specs"].items():
        curves = [Curve(**each) for each in spec["curves"].values()]
        last = last_values(curves)
        cells = [label, str(len(curves)), f"{statistics.median(each.seconds[-1] for each in curves):.0f}"]
        cells += [f"{last[number]:.4g}" if number in last else "" for number in marks]
        for number in marks:
            median, each = spec["median_time_to_mark"][number], spec["time_to_mark"][number].values()
            known = [time for time in each if time is not None]
            if median is None:
                cells.append(f"not reached ({len(known)} of {len(each)} seeds)")
                continue
            faster = f", {first[number] / median:.1f}x" if first[number] is not None and median else ""
            missed = f", {len(each) - len(known)} never" if len(known) < len(each) else ""
            cells.append(f"{median:.0f} ({min(known):.0f} to {max(known):.0f}{missed}){faster}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(curves: Mapping[str, Mapping[int, Curve]], marks: Mapping[str, float], path: Path) -> None:
    """Draws a panel for each number: the median over the seeds, a band from the least to the greatest, the mark."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(marks), figsize=(4.5 * len(marks), 4), squeeze=False)
    for panel, (number, mark) in zip(panels[0], marks.items(), strict=True):
        for label, seeds in curves.items():
            if any(number in each.values for each in seeds.values()):
                times, least, median, greatest = band(list(seeds.values()), number)
                (line,) = panel.plot(times, median, label=label, marker=".")
                panel.fill_between(times, least, greatest, alpha=0.2, color=line.get_color())
        panel.axhline(mark, color="grey", linestyle=":")
        panel.set(
            xlabel="training seconds", title=f"{number} ({'lower' if lower_is_better(number) else 'higher'} is better)"
        )
    panels[0][0].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("specs", nargs="+", metavar="SPEC", help="a spec file, or FILE:path=value,path=value")
    parser.add_argument("--seeds", default="0,1,2", help="the random seeds (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time (default: the cores)")
    parser.add_argument("--seconds", type=float, help="training seconds after which a run is stopped")
    parser.add_argument("--out", type=Path, default=Path("runs/time_to_quality"), help="folder (default: %(default)s)")
    parser.add_argument(
        "--features",
        action="append",
        metavar="NETWORK",
        help="a feature network for KID, a type or JSON with options; may be given several times (default: stlpips-alex"
        " and lite0)",
    )
    parser.add_argument(
        "--mark",
        action="append",
        default=[],
        metavar="NUMBER=VALUE",
        help="a mark, for example kid-stlpips-alex=0.1 (default: the last values of the first spec)",
    )
    asked = parser.parse_args(words)
    networks = asked.features or ["stlpips-alex", "lite0"]
    metrics = tuple(
        {"type": "kid", "features": json.loads(network) if network.startswith("{") else network} for network in networks
    )
    specs = [parse(text) for text in asked.specs]
    if len({spec.label for spec in specs}) < len(specs):
        parser.error(f"a spec is named twice: {', '.join(spec.label for spec in specs)}")
    seeds = [int(seed) for seed in asked.seeds.split(",")]
    folders = {(spec.label, seed): asked.out / spec.label / f"seed-{seed}" for seed in seeds for spec in specs}
    jobs = [Job(spec, seed, metrics, asked.seconds, str(folders[spec.label, seed])) for seed in seeds for spec in specs]
    # read by the processes when they import their libraries
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    failed = 0
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(asked.jobs, context, max_tasks_per_child=1) as pool:
        for future in as_completed([pool.submit(train, job) for job in jobs]):
            try:
                print(future.result(), flush=True)
            except ganlab.GanlabError as error:
                failed += 1
                print(f"failed: {error}", file=sys.stderr, flush=True)
    curves: dict[str, dict[int, Curve]] = {}
    for (label, seed), folder in folders.items():
        if (folder / "spec.json").exists() and (found := curve(ganlab.load_run(folder).records)).seconds:
            curves.setdefault(label, {})[seed] = found
    first = specs[0].label
    if first not in curves:
        print(f"nothing was measured of {first}, which sets the marks", file=sys.stderr)
        return 1
    marks = last_values(curves[first].values())
    marks |= {name: float(value) for name, _, value in (mark.partition("=") for mark in asked.mark)}
    described = {
        "asked": {spec.label: {"path": spec.path, "set": list(spec.changes)} for spec in specs},
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "jobs": asked.jobs,
        "seconds": "training seconds, without measuring, one thread a run",
    }
    found = report(
        {label: curves[label] for label in (spec.label for spec in specs) if label in curves}, marks, described
    )
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "time_to_quality.json").write_text(json.dumps(found, indent=1) + "\n")
    (asked.out / "time_to_quality.md").write_text(markdown(found))
    plot(curves, marks, asked.out / "time_to_quality.png")
    print(markdown(found), end="")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
