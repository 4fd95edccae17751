"""Training into a run folder: the engine's loop with its records, samples, measurements and checkpoints."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ganlab import checkpoint
from ganlab.build import System
from ganlab.data.sampler import to_device
from ganlab.data.store import Store
from ganlab.engine import Engine, Record
from ganlab.errors import Interrupted, RunError
from ganlab.evaluation.run import PREFIX, RunExaminer
from ganlab.facts import keep_facts
from ganlab.folder import Recorder, RunFolder, write
from ganlab.guard import Won, refuse_poisoned, refuse_unfit
from ganlab.modules import evaluating
from ganlab.networks import full
from ganlab.rehearsal import untouched_randomness
from ganlab.report.grid import png, sample_grid
from ganlab.spec import Spec

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
    spec, total = engine.system.spec, engine.system.schedule.steps
    keep_facts(folder, engine.system, stores, watcher.warns)
    unrecorded = _restore(engine, folder)
    watcher.begins(folder, spec, engine.done, total)
    history = [r for r in folder.records() if r["step"] <= engine.done]
    with folder.recorder(engine.done) as recorder, _stopped_by_signals() as stopped:
        keeper = _Keeper(engine, stores, folder, watcher, recorder, _Assessed(examiner, history, watcher), history)
        if engine.done:
            keeper.complete([r for r in unrecorded if not history or r["step"] > history[-1]["step"]])
        while engine.done < total:
            engine.step()
            # read once: a signal that comes later is for the next step
            halt = stopped[0] if stopped else None
            keeper.keep(halt is not None or engine.done == total)
            if halt is not None and engine.done < total:
                raise Interrupted(f"stopped after step {engine.done} of {total}; everything is saved", halt)


class _Keeper:
    """What of each step goes into the folder: its records, what is measured, the samples, the checkpoint."""

    def __init__(
        self,
        engine: Engine,
        stores: dict[str, Store],
        folder: RunFolder,
        watcher: Watcher,
        recorder: Recorder,
        assessed: _Assessed,
        history: list[Record],
    ) -> None:
        self._engine, self._stores, self._folder, self._watcher = engine, stores, folder, watcher
        self._recorder, self._assessed = recorder, assessed
        self._won = Won(watcher.warns, history)

    def keep(self, last: bool) -> None:
        """What is due after a step, which may be the `last` of this process."""
        engine, spec = self._engine, self._engine.system.spec
        measure, draw = self._assessed.due(engine), self._drawn()
        save = last or measure or engine.done % spec.checkpoints.every == 0
        if save or draw or engine.done % spec.runtime.log_every == 0:
            records = engine.read()
            refuse_unfit(records, self._recorder, self._folder, engine.system.parts)
            if not measure:
                self._record(records)
            if save or draw:
                refuse_poisoned(engine, self._folder)
            try:
                self._show(records if measure else None, draw)
            except Exception:
                # no step is lost by what only looks at it
                with suppress(Exception):
                    self._save(records if measure else ())
                raise
        if save:
            # last: a run goes on after its newest checkpoint and must lack nothing that came before
            self._save()

    def complete(self, unrecorded: list[Record]) -> None:
        """What failed after the step that was saved."""
        self._show(unrecorded or None, self._drawn() and not self._folder.sample(self._engine.done).exists())

    def _drawn(self) -> bool:
        system = self._engine.system
        return self._engine.done == system.schedule.steps or self._engine.done % system.spec.samples.every == 0

    def _show(self, records: list[Record] | None, draw: bool) -> None:
        """Measure, for records that wait for it, and draw."""
        engine, system = self._engine, self._engine.system
        if records is not None:
            with system.parts.blamed("", "the evaluation", engine.done):
                self._assessed(engine, records)
            self._record(records)
        if draw:
            with system.parts.blamed("", "the samples", engine.done):
                images = sample(engine.translators(), self._stores, system, system.spec.samples.count)
            write(self._folder.sample(engine.done), png(sample_grid(images)))

    def _record(self, records: list[Record]) -> None:
        self._recorder(records)
        self._won(records)
        self._watcher.steps(records)

    def _save(self, unrecorded: Sequence[Record] = ()) -> None:
        engine, spec = self._engine, self._engine.system.spec
        state = {**engine.state(), _UNRECORDED: unrecorded}
        spared = self._assessed.best()
        checkpoint.save(self._folder.checkpoints, engine.done, engine.modules(), state, spec.checkpoints.keep, spared)


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


def _restore(engine: Engine, folder: RunFolder) -> list[Record]:
    """Load the newest checkpoint, if there is one. Returns the records that were not yet written when it was saved."""
    if not folder.steps:
        return []
    newest = checkpoint.path_of(folder.checkpoints, folder.steps[-1])
    checkpoint.load_networks(newest, engine.modules())
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
