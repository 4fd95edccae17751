"""What the suites time: an experiment's engine on noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ganlab.build import build
from ganlab.data.sampler import Batch
from ganlab.engine import Engine
from ganlab.interfaces import Domain
from ganlab.registry import registry
from ganlab.spec import merge, read, resolve

EXPERIMENTS = Path(__file__).parent.parent / "experiments"


class RandomImages:
    """Draws batches of noise: the time of a step doesn't depend on what the pictures show."""

    def __init__(self, batch: int, size: int, device: str) -> None:
        self.batch, self.device = batch, device
        self.domains = {name: Domain(name, 3, size, size) for name in "ab"}

    def __call__(self, draw: int) -> Batch:
        random = torch.Generator().manual_seed(draw)
        shape = (self.batch, *self.domains["a"][1:4])
        images = {name: torch.rand(shape, generator=random) * 2 - 1 for name in self.domains}
        return Batch({name: batch.to(self.device) for name, batch in images.items()}, {})


def make_engine(experiment: str, patch: dict[str, Any]) -> Engine:
    """An experiment's engine, patched, on noise."""
    spec = resolve(registry(), merge(read(EXPERIMENTS / experiment), patch))
    images = RandomImages(spec.data.batch, spec.data.size, spec.runtime.device)
    return Engine(build(registry(), spec, images.domains), images)  # type: ignore[arg-type]
