"""The trials of a comparison: each system with each seed, every trial a run of its own."""

from __future__ import annotations

import itertools
import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ganlab.errors import SpecError
from ganlab.experiment import is_complete, load_spec, spec_json
from ganlab.inference.run import load_run
from ganlab.runs.folder import RunFolder
from ganlab.spec.devices import devices
from ganlab.spec.models import Json, Spec, differences
from ganlab.system.build import build_schedule

OWN = {"name": "the systems' names", "seed": "--seeds", "runtime.threads": "--jobs"}
"""{key of a spec that a comparison sets: the option that chooses it}."""

Options = Mapping[str, Sequence[str | Path | int | None]]
"""{option of `ganlab compare`: its values, which may be None}."""


@dataclass(frozen=True)
class Comparison:
    """The request for a comparison: what to train, how much of it, and where."""

    specs: Sequence[str | Path]
    """The paths of spec files."""
    seeds: Sequence[int] = (0, 1, 2)
    """The random seeds; every system is trained with each."""
    steps: int | None = None
    """The number of steps of every trial. By default the specs', which then must be equal."""
    images: int | None = None
    """Instead of steps, the number of images of each domain that every trial sees at least."""
    jobs: int | None = None
    """The number of trials that run at a time, by default 1 on this machine, and on Ray as many as have room. If
    several may run at a time, the result has no timings; on this machine every trial then computes with one thread."""
    vary: Sequence[str] = ()
    """Makes variants of every spec, each "path.to.key=value,value"; several make a grid."""
    baseline: str | None = None
    """The name or the spec file of the system that the others are compared with, by default the first."""
    set: Sequence[str] = ()
    """Changes to every spec, each "path.to.key=value"."""
    out: str | Path | None = None
    """The folder of the comparison, by default runs/compare- and the names of the systems."""
    on: str | None = None
    """The place of the trials: None for this machine, "ray" or "ray://HOST:PORT" for a Ray cluster."""
    numbers: Sequence[str] = ()
    """The numbers to compare, by default all that are measured. Fewer tests find smaller differences."""

    @property
    def command(self) -> str:
        """The shell command that makes the comparison."""
        options: Options = {
            "--seeds": [",".join(map(str, self.seeds))],
            "--steps": [self.steps],
            "--images": [self.images],
            "--jobs": [self.jobs],
            "--on": [self.on],
            "--vary": self.vary,
            "--baseline": [self.baseline],
            "--set": self.set,
            "--out": [self.out],
            "--number": self.numbers,
        }
        return shell_command(self.specs, options)


def shell_command(arguments: Iterable[str | Path], options: Options) -> str:
    """Returns the shell command of a comparison. An option is repeated for each of its values that is not None."""
    words = [
        word for name, values in options.items() for value in values if value is not None for word in (name, str(value))
    ]
    return shlex.join(["ganlab", "compare", *map(str, arguments), *words])


class Trial(NamedTuple):
    """A system and a seed to train it with. It has only text and numbers, so that any machine with the same files can
    run it."""

    system: str
    """The name of the system."""
    seed: int
    spec: str
    """The path of the spec file."""
    set: tuple[str, ...]
    """The changes to the spec, each "path.to.key=value"."""
    folder: str
    """The run folder."""
    cpus: int
    """The number of CPU threads that it computes with."""
    gpus: int
    """The number of GPUs that it computes on, 0 or 1."""

    @property
    def words(self) -> list[str]:
        """The arguments of `ganlab` that run the trial."""
        return ["run", self.spec, *(word for text in self.set for word in ("--set", text)), "--out", self.folder]

    @property
    def command(self) -> str:
        """The shell command that runs the trial."""
        return shlex.join(["ganlab", *self.words])

    @property
    def log(self) -> Path:
        """The file that receives what the trial prints."""
        return Path(self.folder).parents[1] / "logs" / f"{self.system}-seed-{self.seed}.log"

    def __str__(self) -> str:
        return f"{self.system}, seed {self.seed}"


class System(NamedTuple):
    """A spec with changes: what a comparison compares."""

    name: str
    spec: Path
    set: tuple[str, ...]
    resolved: Spec
    """The spec as this machine reads it. A device that it does not have is "auto"."""
    gpus: int
    """The number of GPUs of a trial."""

    def trial(self, seed: int, folder: Path) -> Trial:
        """Returns the trial with a seed in a comparison's folder."""
        changes = (*self.set, f"seed={seed}")
        out = folder / self.name / f"seed-{seed}"
        return Trial(self.name, seed, str(self.spec), changes, str(out), int(self.resolved.runtime.threads), self.gpus)


class Plan(NamedTuple):
    """Everything that a comparison trains."""

    systems: dict[str, System]
    """{name: system}, the baseline first."""
    trials: list[Trial]
    """Every trial: the first seed of each system, then the second, and so on."""
    folder: Path
    """The folder of the comparison."""

    def unfinished(self) -> list[Trial]:
        """Returns the trials with something left to train or to measure. Raises SpecError if a trial can't be run in
        its folder."""
        return [trial for trial in self.trials if not _is_complete(trial)]


def plan(asked: Comparison) -> Plan:
    """Returns the plan of a comparison.

    Raises SpecError if a spec is wrong, or if the systems do not have the same images, metrics or budget.
    """
    specs = [Path(spec) for spec in asked.specs]
    seeds, images, baseline = asked.seeds, asked.images, asked.baseline
    if not specs:
        raise SpecError("compare: names no spec")
    if runs := [spec for spec in specs if RunFolder(spec).exists]:
        raise SpecError(
            f"compare: {runs[0]} is a run; --from compares existing runs, and {runs[0] / 'spec.json'} is its spec"
        )
    if repeated := [seed for index, seed in enumerate(seeds) if seed in seeds[:index]]:
        raise SpecError(f"--seeds: {repeated[0]} is named twice")
    if asked.steps is not None and images is not None:
        raise SpecError("--steps and --images: only one of them sets the budget")
    always = (*asked.set, *([f"schedule.steps={asked.steps}"] if asked.steps is not None else []))
    place = Machines(asked.on is not None, (asked.jobs or 1) > 1)
    grid = list(_grid(asked.vary))
    systems = [make_system(spec, (*always, *changes), name, place, images) for spec in specs for changes, name in grid]
    known = {system.name: system for system in systems}
    if baseline is not None and baseline not in known and Path(baseline) not in specs:
        systems.insert(0, make_system(Path(baseline), always, "", place, images))
    for index, system in enumerate(systems):
        for other in systems[:index]:
            if other.name == system.name:
                raise SpecError(
                    f"compare: {other.spec} and {system.spec} are both named {system.name!r}; give one of them another"
                    " `name`"
                )
    first = _baseline(systems, baseline)
    systems.sort(key=lambda system: system is not first)
    for system in systems[1:]:
        check_alike(first, system)
        if images is None:
            check_steps(first, system)
    folder = Path(asked.out or Path("runs") / folder_name([system.name for system in systems]))
    check_no_run(folder)
    trials = [system.trial(seed, folder) for seed in seeds for system in systems]
    return Plan({system.name: system for system in systems}, trials, folder)


def check_no_run(folder: Path) -> None:
    """Raises SpecError if a run lies in the folder of a comparison."""
    if RunFolder(folder).exists:
        raise SpecError(f"{folder} is a run; choose another folder for the comparison with --out")


def _baseline(systems: Sequence[System], asked: str | None) -> System:
    if asked is None:
        return systems[0]
    # a name is more exact than a file, which may have several variants
    named = [system for system in systems if system.name == asked]
    return (named or [system for system in systems if system.spec == Path(asked)])[0]


class Machines(NamedTuple):
    """The facts about the machines that compute the trials."""

    several: bool
    """True if they are several, of any kind."""
    shared: bool
    """True if several trials may run at a time on this machine."""


def make_system(
    spec: Path, changes: Sequence[str], suffix: str, machines: Machines, images: int | None = None
) -> System:
    """Returns a spec with changes as a system; `suffix` is added to its name, and `images` sets its budget.

    Raises SpecError.
    """
    read = load_spec(spec, changes, elsewhere=machines.several)
    if suffix:
        changes = (*changes, f"name={read.name}-{suffix}")
    if images is not None:
        changes = (*changes, f"schedule.steps={_steps_for(images, read)}")
    device = read.runtime.device
    if machines.several:
        asked = spec_json(spec, changes).get("runtime", {})
        if asked.get("device", "auto") != "auto":
            device = asked["device"]
        changes = (*changes, *_without_auto(asked, read, device))
    elif machines.shared:
        changes = (*changes, "runtime.threads=1")
    read = load_spec(spec, changes, elsewhere=machines.several)
    if not read.evaluation.metrics:
        raise SpecError(f"{spec}: evaluation.metrics: a comparison needs at least one metric")
    return System(read.name, spec, tuple(changes), read, int(device.startswith("cuda")))


def _without_auto(asked: Json, here: Spec, device: str) -> Iterator[str]:
    """Yields the changes that give each "auto" of `runtime` one meaning on all machines: this one's, and one thread.

    `here` is the spec as this machine reads it. On a device that this machine does not have, the precision stays "auto"
    and networks are not compiled.
    """
    chosen: dict[str, object] = {"device": device, "threads": 1, "compile": "false"}
    if device in devices():
        chosen |= {"precision": here.runtime.precision, "compile": str(here.runtime.compile).lower()}
    yield from (f"runtime.{name}={value}" for name, value in chosen.items() if asked.get(name, "auto") == "auto")


def _steps_for(images: int, spec: Spec) -> int:
    """Returns the number of steps in which a system sees at least so many images of each domain."""
    schedule = build_schedule(spec)
    steps = seen = 0
    while seen < images:
        # the first turn of a step always has a new batch
        batches = 1 + sum(turn.new_batch for turn in list(schedule.turns(steps))[1:])
        seen += batches * spec.data.batch
        steps += 1
    return steps


def _grid(vary: Iterable[str]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yields the changes of each point of the grid, with the suffix of the system's name."""
    axes = [_axis(text) for text in vary]
    paths = [path for path, _ in axes]
    if repeated := [path for index, path in enumerate(paths) if path in paths[:index]]:
        raise SpecError(f"--vary {repeated[0]}: is varied twice")
    ends = {path: ".".join(path.split(".")[-2:]) for path in paths}
    for values in itertools.product(*(values for _, values in axes)):
        changes = tuple(f"{path}={value}" for path, value in zip(paths, values, strict=True))
        words = []
        for path, value in zip(paths, values, strict=True):
            end = ends[path] if [*ends.values()].count(ends[path]) == 1 else path
            words.append(f"{end}-{value}")
        # the name is also a folder's
        yield changes, re.sub(r"[^A-Za-z0-9.-]+|\.{2,}", "_", "-".join(words))


def _axis(text: str) -> tuple[str, list[str]]:
    path, equals, rest = text.partition("=")
    path = path.strip()
    if path in OWN:
        raise SpecError(f"--vary {path}: is not allowed: a comparison sets it; see {OWN[path]}")
    values = listed(rest)
    if not path or not equals or not values or not all(values):
        raise SpecError(f"--vary {text}: is not of the form path.to.key=value,value")
    if repeated := [value for index, value in enumerate(values) if value in values[:index]]:
        raise SpecError(f"--vary {text}: {repeated[0]} is named twice")
    return path, values


def listed(text: str) -> list[str]:
    """Returns the values of a list with commas, each as JSON or text. A value may hold commas: [0,1],[0,2]."""
    try:
        return [value if isinstance(value, str) else json.dumps(value) for value in json.loads(f"[{text}]")]
    except (ValueError, RecursionError):
        return text.split(",")


def folder_name(names: Sequence[str]) -> str:
    """Returns the name of the folder of a comparison of systems."""
    names = [name.replace("/", "_") for name in names]
    whole = f"compare-{'-'.join(names)}"
    return whole if len(whole) <= 60 else f"compare-{names[0]}-and-{len(names) - 1}-others"


def check_alike(one: System, other: System) -> None:
    """Raises SpecError if two systems would not be trained and measured on the same images and in the same way."""
    a, b = one.resolved, other.resolved
    names = f"compare: {one.name} and {other.name}"
    own = ("data.batch:", "data.flip:", "data.resize:", "data.crop:")
    data = [text for text in differences(a, b) if text.startswith("data.") and not text.startswith(own)]
    if data:
        raise SpecError(f"{names} do not have the same data: {'; '.join(data)}")
    features = [spec.evaluation.features for spec in (a, b) if spec.evaluation.features is not None]
    if len(features) == 2 and features[0] != features[1]:
        raise SpecError(f"{names} do not have the same evaluation.features: {features[0]} / {features[1]}")
    metrics = {metric.key: metric.as_json() for metric in a.evaluation.metric_components}
    for metric in b.evaluation.metric_components:
        name = metric.key
        if metrics.get(name, metric.as_json()) != metric.as_json():
            raise SpecError(
                f"{names} do not have the same options of the metric {name!r}: {metrics[name]} / {metric.as_json()}"
            )


def check_steps(one: System, other: System) -> None:
    """Raises SpecError if two systems do not train the same number of steps."""
    here, there = (build_schedule(system.resolved).steps for system in (one, other))
    if here != there:
        raise SpecError(
            f"compare: {one.name} trains {here} steps and {other.name} {there}; give both one budget with --steps or"
            " --images"
        )


def _is_complete(trial: Trial) -> bool:
    # another machine may have trained it, on a device that this one does not have
    folder = RunFolder(trial.folder)
    if folder.foreign:
        raise SpecError(f"{folder.path} exists and is not a run; choose another folder with --out")
    kept = folder.spec_here() if folder.exists else None
    asked = load_spec(trial.spec, trial.set, like=kept, elsewhere=True)
    if kept is None:
        return False
    if differing := differences(kept, asked):
        raise SpecError(
            f"{folder.path} holds another spec (there / asked): {'; '.join(differing)}; choose another folder with"
            " --out"
        )
    return is_complete(load_run(folder.path), asked)
