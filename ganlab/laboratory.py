"""What the command line does, as functions: the stages joined."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ganlab import checkpoint, environment
from ganlab.build import System, build, build_data, build_schedule, build_sources
from ganlab.data.sampler import Sampler, to_device
from ganlab.data.store import Store
from ganlab.engine import Engine, Record
from ganlab.errors import Interrupted, RunError, SpecError
from ganlab.folder import RunFolder, write
from ganlab.guard import Won, refuse_poisoned, refuse_unfit
from ganlab.networks import evaluating
from ganlab.options import signature
from ganlab.registry import registry
from ganlab.rehearsal import describe_networks, untouched_randomness
from ganlab.report.grid import png, sample_grid
from ganlab.spec import Json, Options, Spec, assignment, differences, merge, read, resolve


class Watcher(Protocol):
    """Who is told what happens."""

    def progress(self, items: Iterable[Any], what: str, total: int) -> Iterable[Any]:
        """Wraps something long."""

    def begins(self, folder: RunFolder, spec: Spec, done: int, steps: int) -> None: ...

    def steps(self, records: list[Record]) -> None: ...

    def warns(self, sentence: str) -> None: ...


class Nobody:
    """Watches nothing."""

    def progress(self, items: Iterable[Any], what: str, total: int) -> Iterable[Any]:
        return items

    def begins(self, folder: RunFolder, spec: Spec, done: int, steps: int) -> None: ...

    def steps(self, records: list[Record]) -> None: ...

    def warns(self, sentence: str) -> None: ...


class Run(NamedTuple):
    """A run, read from its folder."""

    folder: Path
    spec: Spec
    step: int
    """The newest checkpoint's."""
    steps: int
    """How many there are to be."""
    records: list[Record]

    @property
    def finished(self) -> bool:
        return self.step >= self.steps


def load_spec(spec: str | Path | Mapping[str, Any], set: Iterable[str] = ()) -> Spec:
    """A spec file, or the same as a mapping, with `set`'s "path.to.key=value" merged in: checked and resolved.

    Raises SpecError.
    """
    return _load_spec(spec, set, None)


def _load_spec(spec: str | Path | Mapping[str, Any], set: Iterable[str], like: Spec | None) -> Spec:
    where = "spec" if isinstance(spec, Mapping) else str(spec)
    asked: Json = dict(spec) if isinstance(spec, Mapping) else read(spec)
    for text in set:
        asked = merge(asked, assignment(text))
    return resolve(registry(), asked, where, like)


def load_run(folder: str | Path) -> Run:
    """Read a run folder. Raises SpecError where there is no run."""
    where = RunFolder(folder)
    if not where.exists:
        raise SpecError(f"{folder} is not a run: it has no spec.json")
    spec = where.spec(registry())
    steps = build_schedule(registry(), spec).steps
    return Run(where.path, spec, (where.steps or [0])[-1], steps, where.records())


def run(
    spec: str | Path | Mapping[str, Any] | Spec,
    set: Iterable[str] = (),
    out: str | Path | None = None,
    fresh: bool = False,
    watcher: Watcher | None = None,
) -> Run:
    """Train a spec in `out`, by default runs/NAME; an unfinished run there goes on where it was.

    `fresh` begins anew. Raises SpecError, before anything is written, where the spec, its data or the folder are
    unfit; RunError where training fails; Interrupted after SIGINT or SIGTERM, with everything saved.
    """
    watcher = watcher or Nobody()
    asked = spec.as_json() if isinstance(spec, Spec) else spec
    resolved = load_spec(asked, set)
    folder = RunFolder(out or Path("runs") / resolved.name)
    if folder.foreign:
        raise SpecError(f"{folder.path} exists and is not a run; choose another folder with --out")
    if folder.exists and not fresh:
        resolved = _load_spec(asked, set, folder.spec(registry()))
        _refuse_another(folder, resolved)
        if (found := load_run(folder.path)).finished:
            return found
    with _reproducible(resolved):
        stores = build_data(registry(), resolved, watcher.progress)
        for domain, store in stores.items():
            if store.skipped:
                watcher.warns(_left_out(domain, store))
        system = build(registry(), resolved, {name: store.domain for name, store in stores.items()})
        data = resolved.data
        engine = Engine(system, Sampler(stores, data.batch, data.flip, resolved.seed, system.device, system.dtype))
        with folder.locked():
            if fresh:
                folder.clear()
            elif folder.exists:
                # another process may have begun here meanwhile
                _refuse_another(folder, resolved)
            _train(engine, stores, folder, watcher)
    return load_run(folder.path)


def _refuse_another(folder: RunFolder, asked: Spec) -> None:
    there = folder.spec(registry())
    if there.fingerprint() != asked.fingerprint():
        raise SpecError(
            f"{folder.path} holds another spec (there / asked): {'; '.join(differences(there, asked))};"
            " begin anew with --fresh, or choose another folder with --out"
        )


def check(spec: str | Path | Mapping[str, Any] | Spec, set: Iterable[str] = ()) -> Json:
    """What a spec would build, found by building it and rehearsing its losses on two images. Raises SpecError.

    {"name", "about", "networks", "terms", "turns", "memory"}; memory in bytes, estimated: weights, gradients and the
    optimisers' state, what autograd keeps for the larger player's turn, the images of the data set.
    """
    resolved = load_spec(spec.as_json() if isinstance(spec, Spec) else spec, set)
    with _reproducible(resolved):
        sources = build_sources(registry(), resolved)
        stores = build_data(registry(), resolved, most=4)
        system = build(registry(), resolved, {name: store.domain for name, store in stores.items()})
        sampler = Sampler(stores, 2, False, resolved.seed, system.device, system.dtype)
        engine = Engine(system, sampler)
        images = sum(len(sources[d].keys(d)) * store.images[0].numel() for d, store in stores.items())
        states = engine.state_bytes()
    activations = max(engine.rehearsal.saved_bytes.values()) * resolved.data.batch
    return {
        "name": resolved.name,
        "about": resolved.about,
        "networks": [
            {"name": name, "type": _type_of(resolved, name), **facts}
            for name, facts in describe_networks(system, {d: store.domain for d, store in stores.items()}).items()
        ]
        + [
            {
                "name": f"loss/{label}",
                "type": resolved.losses[label]["type"],
                "parameters": count,
                "input": "",
                "output": "",
            }
            for label, loss in system.losses.items()
            if (count := sum(p.numel() for p in loss.parameters()))
        ],
        "terms": [
            {"player": player, "way": way, "term": f"{label}{f'/{part}' if part else ''}", "weight": weight}
            for (player, way, label), asked in engine.rehearsal.asked.items()
            for part in asked.parts
            if (weight := resolved.weight(label)[player])
        ],
        "turns": [
            {"player": turn.player, "ways": list(turn.ways), "moves": engine.moved_by(turn)}
            for turn in engine.turns(0)
            if engine.moved_by(turn)
        ],
        "memory": {
            "states": states,
            "activations": activations,
            "images": images,
            "total": states + activations + images,
        },
    }


def _type_of(spec: Spec, network: str) -> str:
    player, label = network.split("/")[:2]
    options = spec.generator if player == "generator" else spec.discriminators[label]
    return _with_nested(player, options)


def _with_nested(kind: str, options: Options) -> str:
    nested = signature(registry().find(kind, options["type"], kind).cls).nested
    inner = ", ".join(_with_nested(inner_kind, options[option]) for option, inner_kind in nested.items())
    return f"{options['type']}({inner})" if inner else str(options["type"])


def _train(engine: Engine, stores: dict[str, Store], folder: RunFolder, watcher: Watcher) -> None:
    spec, total = engine.system.spec, engine.system.schedule.steps
    _keep_facts(folder, spec, stores, watcher)
    if folder.steps:
        newest = checkpoint.path_of(folder.checkpoints, folder.steps[-1])
        checkpoint.load_networks(newest, engine.modules())
        _restore(engine, newest)
    watcher.begins(folder, spec, engine.done, total)
    won = Won(watcher.warns, [r for r in folder.records() if r["step"] <= engine.done])
    with folder.recorder(engine.done) as recorder, _stopped_by_signals() as stopped:
        while engine.done < total:
            engine.step()
            # read once: a signal that comes later is for the next step
            halt = stopped[0] if stopped else None
            last = halt is not None or engine.done == total
            save = last or engine.done % spec.checkpoints.every == 0
            draw = engine.done == total or engine.done % spec.samples.every == 0
            if save or draw or engine.done % spec.runtime.log_every == 0:
                records = engine.read()
                refuse_unfit(records, recorder, folder)
                recorder(records)
                won(records)
                watcher.steps(records)
            if save or draw:
                refuse_poisoned(engine, folder)
            if draw:
                images = sample(engine.translators(), stores, engine.system, spec.samples.count)
                write(folder.samples / f"step-{engine.done:06d}.png", png(sample_grid(images)))
            if save:
                # last: a run goes on after its newest checkpoint and must lack nothing that came before
                checkpoint.save(
                    folder.checkpoints, engine.done, engine.modules(), engine.state(), spec.checkpoints.keep
                )
            if halt is not None and engine.done < total:
                raise Interrupted(f"stopped after step {engine.done} of {total}; everything is saved", halt)


def sample(
    translators: Mapping[str, nn.Module], stores: Mapping[str, Store], system: System, count: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """{way: (inputs, outputs)} for the first `count` held-out images, (N, C, H, W) in [-1, 1] on the CPU."""
    found = {}
    with torch.no_grad(), untouched_randomness(system.device):
        for way, translator in translators.items():
            store = stores[way[0]]
            inputs = store.pixels(store.held[:count])
            with evaluating(translator), system.networks.computing():
                outputs = [
                    translator(to_device(piece, system.device).to(system.dtype)).float().cpu()
                    for piece in torch.split(inputs, system.spec.data.batch)
                ]
            found[way] = inputs, torch.cat(outputs)
    return found


def _left_out(domain: str, store: Store) -> str:
    some = "; ".join(store.skipped[:3]) + ("; ..." if len(store.skipped) > 3 else "")
    total = len(store.skipped) + len(store.keys)
    return f"data.{domain}: {len(store.skipped)} of {total} files are no readable images and are left out: {some}"


def _keep_facts(folder: RunFolder, spec: Spec, stores: dict[str, Store], watcher: Watcher) -> None:
    """Write spec.json and environment.json, or see whether a run that goes on finds what it began with."""
    if not folder.exists:
        folder.write_json("spec.json", spec.as_json())
    data = {name: store.facts() for name, store in stores.items()}
    facts = environment.describe(registry(), spec) | {"data": data}
    before = folder.environment()
    if before is None:
        folder.write_json("environment.json", facts)
        return
    for domain, now in data.items():
        then = before.get("data", {}).get(domain, {})
        if then.get("sha256") != now["sha256"]:
            raise SpecError(
                f"data.{domain}: these are not the images that {folder.path} began with:"
                f" {now['images']} now, {then.get('images')} then, or their content has changed"
            )
    if changed := [k for k in ("python", "packages", "device_name", "cpu_capability") if before.get(k) != facts[k]]:
        watcher.warns(f"{folder.path} began with another {', '.join(changed)}: the last digits may differ")


def _restore(engine: Engine, newest: Path) -> None:
    state = checkpoint.load_state(newest)
    try:
        engine.load_state(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RunError(f"{newest / 'state.pt'} holds the state of another system: {error!r}") from error


@contextmanager
def _stopped_by_signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM; the second of them acts at once."""
    got: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if got:
            raise KeyboardInterrupt
        got.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield got
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield got
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _reproducible(spec: Spec) -> Iterator[None]:
    """Threads, precision and determinism as the spec says; afterwards everything is as it was."""
    threads = torch.get_num_threads()
    device = torch.device(spec.runtime.device)
    tf32 = spec.runtime.precision == "tf32"
    matmul = torch.get_float32_matmul_precision()
    # cuBLAS reads it when it is first used
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(int(spec.runtime.threads))
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        with (
            untouched_randomness(device),
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=tf32),
        ):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(matmul)
