"""Measures how fast a spec trains on this machine."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from ganlab.data.dataset import Dataset
from ganlab.display.choice import showing
from ganlab.engine.device_peak import measure_peak
from ganlab.engine.step_cost import block_seconds, count, parts_of_steps, take_step
from ganlab.engine.trainer import Trainer
from ganlab.errors import RunError, SpecError
from ganlab.evaluation.speed import peak_memory
from ganlab.experiment.parts import reproducibly
from ganlab.experiment.processes import build_trainer
from ganlab.experiment.specs import load_spec
from ganlab.interfaces.callbacks import Callback
from ganlab.runs.environment import describe_hardware
from ganlab.spec import devices, tuning
from ganlab.spec.models import Json, Spec
from ganlab.system.build import build_data, dtype_of
from ganlab.torch_utils import free_memory

BLOCKS = 10
"""The most blocks into which the timed steps are divided. The spread is that of the blocks."""

LEAST_SAVED = 0.05
"""The share of a step's time that a less exact precision, or compiled networks, have to save to be chosen."""

COMPILED_ON = ("cuda",)
"""The types of devices on which `tune` times compiled networks. On a CPU they took more time: docs/gpus.md."""

IMAGES = 64
"""The fewest images of each domain that are read; two batches, if these are more."""


Setting = TypeVar("Setting")


def bench(
    spec: str | Path | Mapping[str, Any] | Spec,
    steps: int,
    set: Iterable[str] = (),
    callback: Callback | None = None,
) -> Json:
    """Trains a spec for some steps and returns how fast it was. Writes nothing.

    The steps are those of a run, on batches of the first images of the spec's data. Before them, a fifth as many steps
    warm up. Afterwards a fifth as many are timed turn by turn.

    Args:
        spec: The path of a spec file, the name of a shipped experiment or a run folder; or a spec.
        steps: The number of timed steps, at least 2.
        set: Changes to the spec, each "path.to.key=value".
        callback: Shows the progress and the warnings, as for `run`.

    Returns {"spec", "size", "batch", "precision", "compile", "images_a_second", "step", "parts", "peak_memory_bytes",
    "peak", "share_of_peak", "hardware"}. "step" and "images_a_second" have the "median" over blocks of steps and their
    "quartiles"; "images" are those of each domain. "parts" are as in `PartOfStep`, the numbers in "step" as in
    `Counts`; "hardware" says what was measured. Raises SpecError if the spec can't be trained, RunError if a step
    fails.
    """
    with showing(callback) as shown:
        resolved = load_spec(spec, set)
        with reproducibly(resolved):
            datasets = _datasets(resolved, shown)
            found = _trained(build_trainer(resolved, datasets, shown.warn), steps, shown)
            device, precision = torch.device(resolved.runtime.device), resolved.runtime.precision
            # the trainer has filled it
            free_memory(device)
            peak = measure_peak(device, torch.bfloat16 if precision == "bfloat16" else dtype_of(resolved))
    step, seconds = found["step"], found["step"]["seconds"]["median"]
    return {
        **found,
        "peak": {"flops_a_second": peak.flops, "bytes_a_second": peak.bytes},
        "share_of_peak": {
            "flops": step["flops"] / seconds / peak.flops,
            "bytes": step["bytes"] / seconds / peak.bytes,
        },
        "hardware": describe_hardware(resolved.runtime),
    }


def tune(
    spec: str | Path | Mapping[str, Any] | Spec,
    steps: int,
    set: Iterable[str] = (),
    callback: Callback | None = None,
) -> Json:
    """Times a spec in each precision of its device, then in the fastest one with compiled networks where these may save
    time (`COMPILED_ON`), and keeps the fastest setting.

    From then on, "auto" in `runtime.precision` and `runtime.compile` means this setting, for all specs on devices of
    this name with this version of torch. The arguments are those of `bench`; each setting takes `steps` timed steps.

    Returns {"spec", "size", "batch", "steps", "settings", "precision", "compile", "file", "hardware"}: each of
    "settings" is {"precision", "compile", "seconds", "images_a_second"} with the spreads of `bench`, "precision" and
    "compile" are the fastest setting, and "file" is where it is kept. Raises SpecError if the device has only one
    setting, and the errors of `bench`.
    """
    changes = [*set]
    # refuses too few steps before anything is read
    _block_sizes(steps)
    with showing(callback) as shown:
        base = load_spec(spec, changes)
        device = base.runtime.device
        settings = [tuning.Tuned(each) for each in devices.precisions(device)]
        compiles = torch.device(device).type in COMPILED_ON and not base.runtime.checkpoint_activations
        if len(settings) < 2 and not compiles:
            raise SpecError(f"--tune: {device} computes with {settings[0]} alone, so there is nothing to choose")

        def spec_of(setting: tuning.Tuned) -> Spec:
            own = [f"runtime.precision={setting.precision}", f"runtime.compile={str(setting.compiled).lower()}"]
            return load_spec(spec, [*changes, *own])

        datasets = _datasets(base, shown)
        seconds, images = _timed({each: spec_of(each) for each in settings}, datasets, steps, shown)
        chosen = fastest(_medians(seconds))
        if compiles:
            pair = {each: spec_of(each) for each in (chosen, tuning.Tuned(chosen.precision, compiled=True))}
            try:
                both, _ = _timed(pair, datasets, steps, shown)
            except (SpecError, RunError) as error:
                shown.warn(f"compiled networks are not timed: {error}")
            else:
                seconds |= both
                chosen = fastest(_medians(both))
    return {
        "spec": base.name,
        "size": base.data.size,
        "batch": base.data.batch,
        "steps": steps,
        "settings": [
            {
                "precision": setting.precision,
                "compile": setting.compiled,
                "seconds": spread(times),
                "images_a_second": spread([images / time for time in times]),
            }
            for setting, times in seconds.items()
        ],
        "precision": chosen.precision,
        "compile": chosen.compiled,
        "file": str(tuning.keep(devices.device_name(device), chosen, _medians(seconds), base.name)),
        "hardware": describe_hardware(base.runtime),
    }


def _timed(
    specs: Mapping[tuning.Tuned, Spec], datasets: dict[str, Dataset], steps: int, callback: Callback
) -> tuple[dict[tuning.Tuned, list[float]], float]:
    """Times each setting twice, in order and then in reverse, so that a steady drift of the machine's speed cancels
    out. One trainer exists at a time.

    Returns {setting: seconds a step of each block}, and the images of each domain that a step draws.
    """
    sizes, few = _block_sizes(steps), _few(steps)
    half = len(sizes) // 2
    seconds: dict[tuning.Tuned, list[float]] = {setting: [] for setting in specs}
    visits = [
        *((setting, sizes[:half]) for setting in specs),
        *((setting, sizes[half:]) for setting in reversed([*specs])),
    ]
    images = 0.0
    for setting, blocks in callback.progress(visits, "timing steps", len(visits)):
        spec = specs[setting]
        with reproducibly(spec):
            trainer = build_trainer(spec, datasets, callback.warn)
            block_seconds(trainer, few)
            seconds[setting] += [block_seconds(trainer, size) for size in blocks]
            images = spec.data.batch * trainer.state.draws / (few + sum(blocks))
            device = trainer.system.device
            del trainer
            free_memory(device)
    return seconds, images


def _medians(seconds: Mapping[tuning.Tuned, list[float]]) -> dict[tuning.Tuned, float]:
    return {setting: statistics.median(times) for setting, times in seconds.items()}


def fastest(seconds: Mapping[Setting, float]) -> Setting:
    """Returns the setting with the shortest step, of {setting: seconds a step} with the most exact precision first.

    A later setting is chosen only if it saves at least `LEAST_SAVED` of the time.
    """
    chosen, *others = seconds
    for each in others:
        if seconds[each] <= (1 - LEAST_SAVED) * seconds[chosen]:
            chosen = each
    return chosen


def _datasets(spec: Spec, callback: Callback) -> dict[str, Dataset]:
    """Reads the first images of a spec's data."""
    return build_data(spec, callback.progress, most=max(IMAGES, 2 * spec.data.batch))


def _trained(trainer: Trainer, steps: int, callback: Callback) -> Json:
    """Trains and returns what `bench` returns of the training alone. Expects torch to be set as for a run."""
    system, spec = trainer.system, trainer.system.spec
    sizes, few = _block_sizes(steps), _few(steps)
    if system.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(system.device)
    for _ in callback.progress(range(few), "warming up", few):
        take_step(trainer)
    before = trainer.state.draws
    seconds = [block_seconds(trainer, size) for size in callback.progress(sizes, "timing steps", len(sizes))]
    images = (trainer.state.draws - before) * spec.data.batch / steps
    memory = peak_memory(system.device)
    # a captured step is one operation to the host
    trainer.capture = None
    parts = parts_of_steps(trainer, callback.progress(range(few), "timing turns", few))
    # the counters see no operator inside compiled code
    with trainer.networks.uncompiled():
        counts = count(lambda: take_step(trainer))
    return {
        "spec": spec.name,
        "size": spec.data.size,
        "batch": spec.data.batch,
        "precision": spec.runtime.precision,
        "compile": spec.runtime.compile,
        "images_a_second": spread([images / each for each in seconds]),
        "step": {
            "seconds": spread(seconds),
            "steps": steps,
            "blocks": len(sizes),
            **counts._asdict(),
        },
        "parts": [part._asdict() for part in parts],
        "peak_memory_bytes": memory,
    }


def spread(values: Sequence[float]) -> Json:
    """Returns the median of values and their quartiles."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "quartiles": [low, high]}


def _few(steps: int) -> int:
    """Returns the number of steps that warm up, and of those that are timed turn by turn."""
    return max(2, steps // 5)


def _block_sizes(steps: int) -> list[int]:
    """Returns the numbers of steps in the blocks: at most `BLOCKS` about equal ones. Raises SpecError below 2 steps."""
    if steps < 2:
        raise SpecError(f"--steps {steps} is not allowed: at least 2 steps are timed")
    blocks = min(BLOCKS, steps)
    return [steps // blocks + (block < steps % blocks) for block in range(blocks)]
