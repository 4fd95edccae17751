"""Graphs of steps on a machine without a GPU, and the trainers of small forms of the shipped experiments."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ganlab.engine.capture import StepCapture
from ganlab.engine.step_log import Row
from ganlab.engine.trainer import Trainer
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from ganlab.spec.resolve import resolve
from ganlab.system.build import build, build_sources
from helpers.experiments import BATCH, SIZE, small
from helpers.systems import RandomImages

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
            trainer.schedule = SimpleNamespace(clip=trainer.schedule.clip)  # type: ignore[assignment]
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
