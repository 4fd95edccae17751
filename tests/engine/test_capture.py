"""Steps from graphs, without a GPU: a graph is replaced by the step's function, which reads nothing but the buffers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from ganlab.data.sampler import Batch
from ganlab.engine.capture import StepCapture
from ganlab.engine.step_log import Record, Row
from ganlab.engine.trainer import Trainer
from ganlab.interfaces.losses import Translation
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from ganlab.spec.resolve import resolve
from ganlab.system.build import System, build, build_sources
from ganlab.system.forward_cache import ForwardCache
from ganlab.system.host_inputs import StaticInputs
from ganlab.system.host_reads import HostReads
from helpers.experiments import BATCH, FILES, SIZE, small
from helpers.systems import RandomImages, make_trainer

Replay = Callable[[], Row | None]


class Again:
    """Graphs of a machine without a GPU. A capture computes nothing; a replay calls the step's function.

    A replay can't read the host: neither the step, the schedule and the source of batches nor random numbers.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.replays = 0

    def warm_up(self, step: Replay) -> Row | None:
        return step()

    def capture(self, step: Replay) -> Replay:
        def replay() -> Row | None:
            self.replays += 1
            trainer = self.trainer
            host = trainer.state.step, trainer.schedule, trainer.batches
            trainer.state.step = -1
            trainer.schedule = SimpleNamespace(batches=trainer.schedule.batches)  # type: ignore[assignment]
            trainer.batches = None  # type: ignore[assignment]
            try:
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr("ganlab.system.host_inputs.keyed", None)
                    return step()
            finally:
                trainer.state.step, trainer.schedule, trainer.batches = host

        return replay


def capturing(trainer: Trainer) -> tuple[Again, list[str]]:
    """Makes a trainer take its steps from `Again`. Returns it, and the warnings to come."""
    graphs, warnings = Again(trainer), list[str]()
    trainer.capture = StepCapture(trainer.system, trainer.state, trainer.position, graphs, warnings.append)
    return graphs, warnings


def images_of(spec: Any) -> RandomImages:
    sources = build_sources(spec)
    channels = {name: source.channels for name, source in sources.items()}
    return RandomImages(BATCH, SIZE, torch.float32, sources["b"].classes, channels)


def experiment(name: str, patch: Json | None = None) -> Trainer:
    spec = resolve(merge(small(name), patch or {}), name)
    images = images_of(spec)
    return Trainer(build(spec, images.domains), images)


def take(trainer: Trainer, steps: int) -> None:
    for _ in range(steps):
        trainer.step()


def tensors(value: Any, at: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield at, value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from tensors(inner, f"{at}/{name}")


def records(trainer: Trainer) -> list[Record]:
    return [record | {"seconds": 0} for record in trainer.log.read(trainer.state)]


def assert_same(one: Trainer, other: Trainer) -> None:
    """Asserts that two trainers have the same records and the same bytes."""
    for ours, theirs in zip(records(one), records(other), strict=True):
        assert [(name, ours[name], theirs.get(name)) for name in ours if ours[name] != theirs.get(name)] == []
    states = [
        dict(tensors({"state": t.state.state_dict(), **{n: m.state_dict() for n, m in t.state.modules().items()}}))
        for t in (one, other)
    ]
    assert states[0].keys() == states[1].keys()
    assert [name for name, tensor in states[0].items() if not torch.equal(tensor, states[1][name])] == []
    assert (one.state.step, one.state.draws, one.state.rates) == (other.state.step, other.state.draws, other.state.rates)


@pytest.mark.parametrize("name", [name for name in FILES if "/" not in name])
def test_steps_from_graphs_have_the_bytes_of_ordinary_steps(name: str) -> None:
    ordinary = experiment(name)
    take(ordinary, 3)
    captured = experiment(name)
    graphs, warnings = capturing(captured)
    take(captured, 3)
    assert warnings == []
    assert graphs.replays == 2
    assert_same(ordinary, captured)


class OnMeta(RandomImages):
    def __call__(self, draw: int) -> Batch:
        batch = super().__call__(draw)
        return batch._replace(
            images={name: images.to("meta") for name, images in batch.images.items()},
            labels={name: labels.to("meta") for name, labels in batch.labels.items()},
        )


def on_meta(ordinary: Trainer, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    """Returns a trainer of the same system on the device "meta", where tensors have no values."""

    def prepare(system: System, batch: Batch) -> None:
        for loss in system.losses.values():
            for direction in system.schedule.directions:
                loss.prepare(Translation(direction, ForwardCache(system.networks, batch, {}, 0)))
            loss.to("meta")

    monkeypatch.setattr("ganlab.engine.trainer.prepare_losses", prepare)
    monkeypatch.setattr("ganlab.engine.trainer.dry_run", lambda *_: ordinary.dry_run)
    runtime = ordinary.system.spec.runtime.model_copy(update={"device": "meta"})
    images = ordinary.batches
    assert isinstance(images, RandomImages)
    images.__class__ = OnMeta
    system = build(ordinary.system.spec.model_copy(update={"runtime": runtime}), images.domains)
    # torch's fused kernels know no device "meta"
    system.schedule.optimizer = lambda _, parameters: torch.optim.SGD(parameters, fused=None)  # type: ignore
    return Trainer(system, images)


@pytest.mark.parametrize("name", [name for name in FILES if "/" not in name])
def test_no_operation_of_a_step_reads_the_device_or_a_tensor_of_the_host(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the device "meta" tensors have no values: to read one is an error, and the host's are on another device."""
    trainer = on_meta(experiment(name), monkeypatch)
    reads = HostReads(trainer.system.device, trainer.system.components, trainer.position)
    turns = trainer.plan(0, trainer.position)
    trainer.set_numbers(turns)
    with reads:
        trainer.take(turns, StaticInputs(reads))
    assert reads.found is None
