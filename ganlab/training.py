"""Training into a run folder: the engine's loop with its records, samples, measurements and checkpoints."""

from __future__ import annotations

import functools
import operator
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ganlab import checkpoint, environment
from ganlab.build import System
from ganlab.data.sampler import to_device
from ganlab.data.store import Store
from ganlab.engine import Engine, Record
from ganlab.errors import Interrupted, RunError, SpecError
from ganlab.evaluation.features import hashes
from ganlab.evaluation.run import PREFIX, RunExaminer
from ganlab.folder import RunFolder, write
from ganlab.guard import Won, refuse_poisoned, refuse_unfit
from ganlab.modules import evaluating, feature_networks
from ganlab.networks import full
from ganlab.registry import registry
from ganlab.rehearsal import untouched_randomness
from ganlab.report.grid import png, sample_grid
from ganlab.spec import Json, Spec

_UNRECORDED = "unrecorded"
"""Where a checkpoint's state keeps the records that the evaluation failed to complete."""


class Watcher(Protocol):
    """Who is told what happens."""

    def progress(self, items: Iterable[Any], what: str, total: int) -> Iterable[Any]:
        """Wraps something long."""

    def begins(self, folder: RunFolder, spec: Spec, done: int, steps: int) -> None:
        """Training begins, or goes on after `done` of its `steps`."""

    def steps(self, records: list[Record]) -> None:
        """Some steps were trained: a record each."""

    def warns(self, sentence: str) -> None:
        """Something is to be known that stops nothing."""


class Nobody:
    """Watches nothing."""

    def progress(self, items: Iterable[Any], what: str, total: int) -> Iterable[Any]:
        return items

    def begins(self, folder: RunFolder, spec: Spec, done: int, steps: int) -> None: ...

    def steps(self, records: list[Record]) -> None: ...

    def warns(self, sentence: str) -> None: ...


def train(
    engine: Engine, stores: dict[str, Store], folder: RunFolder, watcher: Watcher, examiner: RunExaminer | None
) -> None:
    """Train to the end, from the newest checkpoint if there is one; `examiner` measures on the way.

    Raises SpecError where the data are not those that the run began with, RunError where a term stops being finite,
    Interrupted after SIGINT or SIGTERM, with everything saved.
    """
    spec, parts, total = engine.system.spec, engine.system.parts, engine.system.schedule.steps
    _keep_facts(folder, engine.system, stores, watcher)
    unrecorded: list[Record] = []
    if folder.steps:
        newest = checkpoint.path_of(folder.checkpoints, folder.steps[-1])
        checkpoint.load_networks(newest, engine.modules())
        unrecorded = _restore(engine, newest)
    watcher.begins(folder, spec, engine.done, total)
    history = [r for r in folder.records() if r["step"] <= engine.done]
    won = Won(watcher.warns, history)
    assessed = _Assessed(examiner, history, watcher)
    with folder.recorder(engine.done) as recorder, _stopped_by_signals() as stopped:

        def record(records: list[Record]) -> None:
            recorder(records)
            won(records)
            watcher.steps(records)

        def show(records: list[Record] | None, draw: bool) -> None:
            """Measure, for records that wait for it, and draw."""
            if records is not None:
                with parts.blamed("", "the evaluation", engine.done):
                    assessed(engine, records)
                record(records)
            if draw:
                with parts.blamed("", "the samples", engine.done):
                    images = sample(engine.translators(), stores, engine.system, spec.samples.count)
                write(folder.sample(engine.done), png(sample_grid(images)))

        def save(unrecorded: Sequence[Record] = ()) -> None:
            keep, spared, state = spec.checkpoints.keep, assessed.best(), {**engine.state(), _UNRECORDED: unrecorded}
            checkpoint.save(folder.checkpoints, engine.done, engine.modules(), state, keep, spared)

        def drawn() -> bool:
            return engine.done == total or engine.done % spec.samples.every == 0

        if engine.done:
            # what failed after the step that is saved
            waiting = [r for r in unrecorded if not history or r["step"] > history[-1]["step"]]
            show(waiting or None, drawn() and not folder.sample(engine.done).exists())
        while engine.done < total:
            engine.step()
            # read once: a signal that comes later is for the next step
            halt = stopped[0] if stopped else None
            measure, draw = assessed.due(engine), drawn()
            keep = halt is not None or engine.done == total or measure or engine.done % spec.checkpoints.every == 0
            if keep or draw or engine.done % spec.runtime.log_every == 0:
                records = engine.read()
                refuse_unfit(records, recorder, folder, parts)
                if not measure:
                    record(records)
                if keep or draw:
                    refuse_poisoned(engine, folder)
                try:
                    show(records if measure else None, draw)
                except Exception:
                    # no step is lost by what only looks at it
                    with suppress(Exception):
                        save(records if measure else ())
                    raise
            if keep:
                # last: a run goes on after its newest checkpoint and must lack nothing that came before
                save()
            if halt is not None and engine.done < total:
                raise Interrupted(f"stopped after step {engine.done} of {total}; everything is saved", halt)


class _Assessed:
    """What was measured during training, and when it is due."""

    def __init__(self, examiner: RunExaminer | None, history: list[Record], watcher: Watcher) -> None:
        self._examiner, self._watcher = examiner, watcher
        self._records = [record for record in history if any(name.startswith(PREFIX) for name in record)]
        self._told: set[str] = set()

    def due(self, engine: Engine) -> bool:
        every = engine.system.spec.evaluation.every
        if self._examiner is None or every is None:
            return False
        return engine.done == engine.system.schedule.steps or engine.done % every == 0

    def __call__(self, engine: Engine, records: list[Record]) -> None:
        """Add what is measured now to the step's record, if it is due."""
        if self._examiner is None or not self.due(engine):
            return
        if not records or records[-1]["step"] != engine.done:
            # a step without terms has none
            records.append({"step": engine.done})
        records[-1].update(self._examiner.assess(engine.translators()))
        self._records.append(records[-1])
        for (metric, number, way), why in self._examiner.left_out.items():
            if (what := number or metric) not in self._told:
                self._told.add(what)
                self._watcher.warns(f"{what} can't be measured on way {way}: {why}")

    def best(self) -> set[int]:
        """The step whose checkpoint is kept because no other was better."""
        if self._examiner is None:
            return set()
        best = self._examiner.best(self._records, [int(record["step"]) for record in self._records])
        return set() if best is None else {best.step}


def sample(
    translators: Mapping[str, nn.Module], stores: Mapping[str, Store], system: System, count: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """{way: (inputs, outputs)} for `count` held-out images, (N, C, H, W) in [-1, 1] on the CPU. They are as far apart
    as can be, since a source may have its images in the order of their classes."""
    found = {}
    with torch.no_grad(), untouched_randomness(system.device):
        for way, translator in translators.items():
            store = stores[way[0]]
            shown = min(count, len(store.held))
            inputs = store.pixels(store.held[torch.arange(shown) * len(store.held) // shown])
            with evaluating(translator), system.networks.computing():
                outputs = [
                    full(translator, translator(to_device(piece, system.device).to(system.dtype))).float().cpu()
                    for piece in torch.split(inputs, system.spec.data.batch)
                ]
            found[way] = inputs, torch.cat(outputs)
    return found


def _keep_facts(folder: RunFolder, system: System, stores: dict[str, Store], watcher: Watcher) -> None:
    """Write spec.json and environment.json, or see whether a run that goes on finds what it began with, and write down
    what it goes on with instead."""
    if not folder.exists:
        folder.write_json("spec.json", system.spec.as_json())
    data = {name: store.facts() for name, store in stores.items()}
    trained = [*system.networks.modules.values(), *system.losses.values()]
    weights = hashes(file for module in trained for part in feature_networks(module).values() for file in part.files())
    facts = environment.describe(registry(), system.spec) | {"data": data, "weights": weights, "continued": []}
    kept = folder.environment()
    if kept is None or not folder.steps:
        # of an earlier process nothing is left
        folder.write_json("environment.json", facts)
        return
    refuse_other_data(folder, stores)
    if (then := kept.get("weights", {})) != weights:
        read = f"{', '.join(weights) or 'none'} now, {', '.join(then) or 'none'} then, or their content has changed"
        raise SpecError(f"these are not the weight files that {folder.path} began with: {read}")
    other = [part for part in environment.BYTES_DEPEND_ON if kept.get(part) != facts[part]]
    if named := [part for part in other if part != "code"]:
        watcher.warns(f"{folder.path} began with another {', '.join(named)}: the last digits may differ")
    if (done := folder.steps[-1]) < system.schedule.steps:
        kept = _gone_on(kept, facts, done)
        folder.write_json("environment.json", kept)
    for sentence in environment.of_other_code(folder.path, kept, facts["code"]):
        watcher.warns(sentence)


def _gone_on(kept: Json, facts: Json, done: int) -> Json:
    """environment.json of a run that goes on after `done` steps: what is other than it was is added, with the step."""
    # what came of those after it is dropped
    before = [went_on for went_on in kept.get("continued", []) if went_on["step"] < done]
    latest = functools.reduce(operator.or_, before, kept)
    other = {part: facts[part] for part in environment.BYTES_DEPEND_ON if latest.get(part) != facts[part]}
    return {**kept, "continued": [*before, *([{"step": done, **other}] if other else [])]}


def refuse_other_data(folder: RunFolder, stores: Mapping[str, Store]) -> None:
    """Raises SpecError where the images are not those that a run began with."""
    before = (folder.environment() or {}).get("data", {})
    for domain, store in stores.items():
        then, now = before.get(domain, {}), store.facts()
        if then.get("sha256") != now["sha256"]:
            raise SpecError(
                f"data.{domain}: these are not the images that {folder.path} began with:"
                f" {now['images']} now, {then.get('images')} then, or their content has changed"
            )


def _restore(engine: Engine, newest: Path) -> list[Record]:
    """Gives the records that were not yet written when it was saved."""
    state = checkpoint.load_state(newest)
    try:
        engine.load_state(state)
        return list(state.get(_UNRECORDED, ()))
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
