"""Measures what one GPU does, a part at a time: gpu.py PART FOLDER [--seconds N] [--peer DIR] [--tiny]. See gpu.sh.

Each part writes FOLDER/PART.json after every measurement, so that a stop loses at most one.

- captured: a run of captured steps has the bytes of a run of eager steps.
- table: images a second at 64, 128 and 256 pixels, batch 1 to 64, in each precision, eager and captured.
- compiled: the same for a few sizes in bfloat16, captured, without and with compiled networks.
- peer: our step beside that of junyanz/pytorch-CycleGAN-and-pix2pix, in turn in one process.
- long: 2,000 steps of paper/emb, extrapolated to its 55,000.
- evaluation: the time of emb's evaluation.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peer import ours, peers
from systems import RandomImages, make_trainer, sampled_noise

import ganlab
from ganlab.determinism import reproducible
from ganlab.engine.device_peak import Peak, measure_peak
from ganlab.engine.step_cost import block_seconds, count, take_step
from ganlab.engine.trainer import Trainer
from ganlab.errors import OutOfMemory
from ganlab.experiment.benching import spread
from ganlab.experiment.parts import reproducibly
from ganlab.files import write
from ganlab.interfaces.networks import Domain
from ganlab.runs.environment import describe_hardware
from ganlab.spec import devices
from ganlab.spec.files import merge
from ganlab.spec.models import Json, Runtime
from ganlab.torch_utils import free_memory, wait_for

MODES: dict[str, Json] = {
    "eager": {"capture": False, "compile": False},
    "captured": {"capture": True, "compile": False},
    "compiled": {"capture": True, "compile": True},
}
"""{mode: the keys of `runtime` that choose it}."""

FIRST = [(64, 16), (64, 64), (256, 1), (256, 32)]
"""(pixels, batch) of the cells that are measured first."""

COMPILED = [(256, 32), (64, 16), (64, 64)]
"""(pixels, batch) of the cells with compiled networks. Each takes up to a minute to compile."""

CELLS = [*FIRST, *(cell for cell in itertools.product((64, 128, 256), (1, 8, 16, 64)) if cell not in FIRST)]
WARM_UP, BLOCKS, SECONDS = 4, 5, 0.6
"""Steps before the time is taken, the number of timed blocks, and the seconds that they take together at least."""

TINY: Json = {
    "generator": {"width": 4, "blocks": 1},
    "discriminators": {"image": {"width": 4, "layers": 1}},
}
"""Networks that show on a CPU that everything runs."""


class Part:
    """What a part of the measurements is given, and the file that it fills."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.tiny: bool = asked.tiny
        self.peer: Path | None = asked.peer
        self._file, self._end = asked.folder / f"{asked.part}.json", time.monotonic() + asked.seconds
        self.device = devices.device("auto", "runtime")
        hardware = describe_hardware(Runtime(device=self.device, threads=torch.get_num_threads()))
        self._found: Json = {"tiny": asked.tiny, "hardware": hardware, "results": []}

    @property
    def seconds_left(self) -> float:
        return self._end - time.monotonic()

    def add(self, **result: Any) -> None:
        """Adds a result and writes the file."""
        print(json.dumps(result), flush=True)
        self._found["results"].append(result)
        write(self._file, json.dumps(self._found, indent=1).encode())

    def patch(self, runtime: Mapping[str, Any]) -> Json:
        patch: Json = merge(TINY if self.tiny else {}, {"runtime": dict(runtime)})
        return patch


@contextmanager
def freed(part: Part) -> Iterator[None]:
    """Frees the device's memory afterwards."""
    yield
    free_memory(torch.device(part.device))


def settled(trainer: Trainer) -> int:
    """Warms up, captures, and returns the number of steps that a timed block needs."""
    for _ in range(WARM_UP):
        take_step(trainer)
    return max(1, round(SECONDS / BLOCKS / block_seconds(trainer, 1)))


def captured(part: Part) -> None:
    steps = 4 if part.tiny else 40
    states = []
    for mode in ("eager", "captured"):
        with freed(part):
            trainer = make_trainer("emb.json", {"runtime": MODES[mode]}, sampled_noise)
            with reproducibly(trainer.system.spec):
                for _ in range(steps):
                    take_step(trainer)
            replayed = trainer.capture is not None and trainer.capture.possible
            states.append({name: module.state_dict() for name, module in trainer.state.modules().items()})
    eager, other = states
    differing = [
        f"{name}.{key}" for name, kept in eager.items() for key in kept if not torch.equal(kept[key], other[name][key])
    ]
    part.add(steps=steps, captured=replayed, equal=not differing, differing=differing)


def table(part: Part) -> None:
    cells = [(16, 1), (16, 2)] if part.tiny else CELLS
    fill(part, cells, devices.precisions(part.device), ("eager", "captured"), 5)


def compiled(part: Part) -> None:
    cells, precision = ([(16, 2)], "float32") if part.tiny else (COMPILED, "bfloat16")
    fill(part, cells, [precision], ("captured", "compiled"), 5 if part.tiny else 25)


def fill(
    part: Part, cells: Iterable[tuple[int, int]], precisions: Sequence[str], modes: Sequence[str], needed: float
) -> None:
    """Measures each cell in each precision and mode, as long as `needed` seconds are left."""
    peaks: dict[str, Peak] = {}
    for (size, batch), precision, mode in itertools.product(cells, precisions, modes):
        cell = {"size": size, "batch": batch, "precision": precision, "mode": mode}
        if part.seconds_left < needed:
            part.add(**cell, skipped="no time was left")
            continue
        with freed(part):
            if precision not in peaks:
                # before a trainer fills the memory
                peaks[precision] = peak_of(part, precision)
                free_memory(torch.device(part.device))
            try:
                runtime = {"precision": precision, **MODES[mode]}
                part.add(**cell, **measured(part, size, batch, runtime, peaks[precision]))
            except (OutOfMemory, torch.OutOfMemoryError) as error:
                part.add(**cell, skipped=f"out of memory: {str(error).splitlines()[0]}")


def peak_of(part: Part, precision: str) -> Peak:
    device = torch.device(part.device)
    with reproducible(device, precision, torch.get_num_threads()):
        return measure_peak(device, torch.bfloat16 if precision == "bfloat16" else torch.float32)


def measured(part: Part, size: int, batch: int, runtime: Json, peak: Peak) -> Json:
    """Returns the speed and the memory of a cell."""
    trainer = ours(batch, size, part.patch(runtime), sampled_noise)
    device = trainer.system.device
    with reproducibly(trainer.system.spec):
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        started = time.perf_counter()
        steps = settled(trainer)
        settling = time.perf_counter() - started
        seconds = [block_seconds(trainer, steps) for _ in range(BLOCKS)]
        memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
        flops = count(ours(batch, size, part.patch({**runtime, **MODES["eager"]}), sampled_noise).step).flops
    return {
        "captured": trainer.capture is not None and trainer.capture.possible,
        "images_a_second": spread([batch / each for each in seconds]),
        "steps": steps * BLOCKS,
        "seconds_to_settle": settling,
        "flops_a_step": flops,
        "peak_flops_a_second": peak.flops,
        "share_of_peak": flops / statistics.median(seconds) / peak.flops,
        "peak_memory_bytes": memory,
    }


def peer(part: Part) -> None:
    """Blocks of our steps and of the peer's, in turn. The peer computes as torch does by default: in float32, but cuDNN
    may use TF32."""
    if part.peer is None:
        part.add(skipped="needs --peer DIR, a checkout of junyanz/pytorch-CycleGAN-and-pix2pix")
        return
    device = torch.device(part.device)
    cells = [(32, 1)] if part.tiny else FIRST
    modes = [("auto", "captured"), ("bfloat16", "captured")]
    rows = [*itertools.product(cells, modes), *((cell, ("bfloat16", "compiled")) for cell in COMPILED if not part.tiny)]
    for (size, batch), (precision, mode) in rows:
        cell = {"size": size, "batch": batch, "precision": precision, "mode": mode}
        if part.seconds_left < 8:
            part.add(**cell, skipped="no time was left")
            continue
        with freed(part), tempfile.TemporaryDirectory() as work:
            try:
                # the same batches again: the host must not be what the peer waits for
                noise = RandomImages(batch, {name: Domain(name, 3, size, size) for name in "ab"}, "cpu")
                drawn = itertools.cycle([noise(draw).images for draw in range(4)])
                theirs = peers(part.peer, functools.partial(next, drawn), Path(work), 4 if part.tiny else 64)
                runtime = {"precision": precision, **MODES[mode]}
                own = ours(batch, size, part.patch(runtime), sampled_noise)
                part.add(**cell, **beside(own, theirs, device, 1 if part.tiny else WARM_UP))
            except (OutOfMemory, torch.OutOfMemoryError) as error:
                part.add(**cell, skipped=f"out of memory: {str(error).splitlines()[0]}")


def beside(own: Trainer, theirs: Callable[[], None], device: torch.device, warm_up: int) -> Json:
    with reproducibly(own.system.spec):
        steps = settled(own)
    for _ in range(warm_up):
        theirs()
    pairs = []
    for _ in range(BLOCKS):
        with reproducibly(own.system.spec):
            mine = block_seconds(own, steps)
        wait_for(device)
        started = time.perf_counter()
        for _ in range(max(1, steps // 4)):
            theirs()
        wait_for(device)
        pairs.append((mine, (time.perf_counter() - started) / max(1, steps // 4)))
    ratios = spread([other / mine for mine, other in pairs])
    seconds, others = zip(*pairs, strict=True)
    return {"seconds": spread([*seconds]), "peers_seconds": spread([*others]), "peers_seconds_to_ours": ratios}


def long(part: Part) -> None:
    """A step reads its losses every `runtime.log_every` steps, as in a run. Samples, checkpoints and evaluations are
    left out."""
    steps, whole = 4 if part.tiny else 2000, 55_000
    folder = {"type": "folder", "path": "."}
    patch = merge(part.patch(MODES["captured"]), {"data": {"a": folder, "b": folder}})
    if part.tiny:
        patch = merge(patch, {"data": {"size": 32, "batch": 1}})
    trainer = make_trainer("paper/emb.json", patch, sampled_noise)
    spec = trainer.system.spec
    with reproducibly(spec):
        settled(trainer)
        taken, spent = 0, 0.0
        while taken < steps and part.seconds_left > 3:
            spent += spec.runtime.log_every * block_seconds(trainer, spec.runtime.log_every)
            taken += spec.runtime.log_every
    part.add(
        spec="paper/emb",
        size=spec.data.size,
        batch=spec.data.batch,
        precision=spec.runtime.precision,
        mode="captured",
        measured_steps=taken,
        seconds=spent,
        steps=whole,
        extrapolated_seconds=whole * spent / taken,
        note=f"extrapolated from {taken} steps on noise, without samples, checkpoints and evaluations",
    )


class Clock(ganlab.Callback):
    """Takes the time of what a run does."""

    def __init__(self) -> None:
        self.times: dict[str, float] = {}

    def begin(self, start: ganlab.TrainingStart) -> None:
        self.times["begun"] = time.perf_counter()

    def checkpoint(self, step: int, folder: Path) -> None:
        self.times["trained"] = time.perf_counter()

    def evaluation(self, measurement: ganlab.Measurement) -> None:
        self.times["evaluated"] = time.perf_counter()


def evaluation(part: Part) -> None:
    changes = ["schedule.steps=4", "schedule.decay_from=1", 'schedule.fade_out={"identity":4}', "runtime.log_every=1"]
    if part.tiny:
        few = ["data.a.count=40", "data.b.count=40", "data.size=32", "data.batch=2"]
        changes += [*few, 'evaluation.metrics=["embedding_space"]', "evaluation.during=null"]
    clock, started = Clock(), time.perf_counter()
    with tempfile.TemporaryDirectory() as work:
        run = ganlab.run("emb", changes, Path(work) / "run", callbacks=[clock])
    assert run.evaluation is not None
    times = clock.times
    part.add(
        spec="emb",
        seconds_to_begin=times["begun"] - started,
        seconds_of_evaluation=times["evaluated"] - times["trained"],
        results=len(run.evaluation["results"]),
    )


PARTS = {each.__name__: each for each in (captured, table, compiled, peer, long, evaluation)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=3600, help="stop measuring in time for this limit")
    parser.add_argument("--peer", type=Path, help="a checkout of junyanz/pytorch-CycleGAN-and-pix2pix")
    parser.add_argument("--tiny", action="store_true", help="show that everything runs, on any device")
    asked = parser.parse_args()
    PARTS[asked.part](Part(asked))


if __name__ == "__main__":
    main()
