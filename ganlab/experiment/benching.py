"""Measures how fast a spec trains on this machine."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ganlab.data.dataset import Dataset
from ganlab.display.choice import showing
from ganlab.engine.device_peak import Peak, measure_peak
from ganlab.engine.step_cost import Counts, block_seconds, count, parts_of_steps, take_step
from ganlab.engine.trainer import Trainer
from ganlab.errors import SpecError
from ganlab.evaluation.speed import peak_memory
from ganlab.experiment.parts import reproducibly
from ganlab.experiment.processes import build_trainer
from ganlab.experiment.specs import load_spec
from ganlab.interfaces.callbacks import Callback
from ganlab.runs.environment import describe_hardware
from ganlab.spec import devices, tuning
from ganlab.spec.models import Json, Spec
from ganlab.system.build import build_data

BLOCKS = 10
"""The most blocks into which the timed steps are divided. The spread is that of the blocks."""

LEAST_SAVED = 0.05
"""The share of a step's time that a less exact precision has to save to be chosen."""

IMAGES = 64
"""The fewest images of each domain that are read; two batches, if these are more."""


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

    Returns {"spec", "size", "batch", "precision", "images_a_second", "step", "parts", "peak_memory_bytes", "peak",
    "share_of_peak", "hardware"}. "step" and "images_a_second" have the "median" over blocks of steps and their
    "quartiles"; "images" are those of each domain. "parts" are as in `PartOfStep`, the numbers in "step" as in
    `Counts`; "hardware" says what was measured. Raises SpecError if the spec can't be trained, RunError if a step
    fails.
    """
    with showing(callback) as shown:
        resolved = load_spec(spec, set)
        with reproducibly(resolved):
            return measure(build_trainer(resolved, _datasets(resolved, shown), shown.warn), steps, shown)


def tune(
    spec: str | Path | Mapping[str, Any] | Spec,
    steps: int,
    set: Iterable[str] = (),
    callback: Callback | None = None,
) -> Json:
    """Trains a spec in each precision of its device, a few steps of each in turn, and keeps the fastest.

    `runtime.precision` "auto" means that precision from then on, for all specs on devices of this name with this
    version of torch. The arguments are those of `bench`.

    Returns {"spec", "size", "batch", "steps", "precisions", "precision", "file", "hardware"}: "precisions" are
    {"precision", "seconds", "images_a_second"} with the spreads of `bench`, "precision" is the fastest, and "file" is
    where it is kept. Raises SpecError if the device has one precision alone, and the errors of `bench`.
    """
    changes, sizes, few = [*set], _block_sizes(steps), _few(steps)
    with showing(callback) as shown:
        base = load_spec(spec, changes)
        device = base.runtime.device
        if len(formats := devices.precisions(device)) < 2:
            raise SpecError(f"--tune: {device} computes with {formats[0]} alone, so there is nothing to choose")
        datasets = _datasets(base, shown)
        specs = {each: load_spec(spec, [*changes, f"runtime.precision={each}"]) for each in formats}
        trainers: dict[str, Trainer] = {}
        for each in formats:
            with reproducibly(specs[each]):
                trainers[each] = build_trainer(specs[each], datasets, shown.warn)
                block_seconds(trainers[each], few)
        seconds: dict[str, list[float]] = {each: [] for each in formats}
        for size in shown.progress(sizes, "timing steps", len(sizes)):
            for each in formats:
                with reproducibly(specs[each]):
                    seconds[each].append(block_seconds(trainers[each], size))
    medians = {each: statistics.median(seconds[each]) for each in formats}
    chosen = fastest(medians)
    # of each domain, in a step
    images = base.data.batch * trainers[chosen].state.draws / (few + steps)
    return {
        "spec": base.name,
        "size": base.data.size,
        "batch": base.data.batch,
        "steps": steps,
        "precisions": [
            {"precision": each, "seconds": spread(times), "images_a_second": spread([images / time for time in times])}
            for each, times in seconds.items()
        ],
        "precision": chosen,
        "file": str(tuning.keep(devices.device_name(device), chosen, medians, base.name)),
        "hardware": describe_hardware(base.runtime),
    }


def fastest(seconds: Mapping[str, float]) -> str:
    """Returns the precision with the shortest step, of {precision: seconds a step} with the most exact first.

    A less exact one is chosen only if it saves at least `LEAST_SAVED` of the time.
    """
    chosen, *others = seconds
    for each in others:
        if seconds[each] <= (1 - LEAST_SAVED) * seconds[chosen]:
            chosen = each
    return chosen


def _datasets(spec: Spec, callback: Callback) -> dict[str, Dataset]:
    """Reads the first images of a spec's data."""
    return build_data(spec, callback.progress, most=max(IMAGES, 2 * spec.data.batch))


def measure(trainer: Trainer, steps: int, callback: Callback) -> Json:
    """Trains and returns what `bench` returns. Expects torch to be set as for a run."""
    system, spec = trainer.system, trainer.system.spec
    sizes, few = _block_sizes(steps), _few(steps)
    if system.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(system.device)
    for _ in callback.progress(range(few), "warming up", few):
        take_step(trainer)
    # before matrices for the peak take memory
    memory = peak_memory(system.device)
    peak = measure_peak(system.device, torch.bfloat16 if spec.runtime.precision == "bfloat16" else system.dtype)
    before = trainer.state.draws
    seconds = [block_seconds(trainer, size) for size in callback.progress(sizes, "timing steps", len(sizes))]
    images = (trainer.state.draws - before) * spec.data.batch / steps
    # a captured step is one operation to the host
    trainer.capture = None
    parts = parts_of_steps(trainer, callback.progress(range(few), "timing turns", few))
    return {
        "spec": spec.name,
        "size": spec.data.size,
        "batch": spec.data.batch,
        "precision": spec.runtime.precision,
        "images_a_second": spread([images / each for each in seconds]),
        "step": {
            "seconds": spread(seconds),
            "steps": steps,
            "blocks": len(sizes),
            **(counts := count(lambda: take_step(trainer)))._asdict(),
        },
        "parts": [part._asdict() for part in parts],
        "peak_memory_bytes": memory,
        "peak": {"flops_a_second": peak.flops, "bytes_a_second": peak.bytes},
        "share_of_peak": _shares(counts, statistics.median(seconds), peak),
        "hardware": describe_hardware(spec.runtime),
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


def _shares(counts: Counts, seconds: float, peak: Peak) -> Json:
    """Returns the shares of the device's peak that a step of `seconds` reaches."""
    return {"flops": counts.flops / seconds / peak.flops, "bytes": counts.bytes / seconds / peak.bytes}
