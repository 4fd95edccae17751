"""The systems that the benchmarks time: an experiment's trainer on noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ganlab.data.sampler import Batch
from ganlab.engine.trainer import Trainer
from ganlab.interfaces.networks import Domain
from ganlab.parts import WHOLE, Part
from ganlab.spec.files import merge, read
from ganlab.spec.resolve import resolve
from ganlab.system.build import build, build_sources

EXPERIMENTS = Path(__file__).parent.parent / "experiments"


class RandomImages:
    """Draws batches of noise: the time of a step doesn't depend on what the pictures show."""

    def __init__(self, batch: int, domains: dict[str, Domain], device: str) -> None:
        self.batch, self.domains, self.device = batch, domains, device

    def __call__(self, draw: int, part: Part = WHOLE) -> Batch:
        random = torch.Generator().manual_seed(draw)
        images, labels = {}, {}
        rows = part.rows(self.batch // part.parts)
        for name, domain in self.domains.items():
            shape = (self.batch, domain.channels, domain.height, domain.width)
            images[name] = (torch.rand(shape, generator=random)[rows] * 2 - 1).to(self.device)
            if domain.classes:
                labels[name] = torch.randint(domain.classes, (self.batch,), generator=random)[rows].to(self.device)
        return Batch(images, labels, {name: domain.classes for name, domain in self.domains.items()})


def make_trainer(experiment: str, patch: dict[str, Any]) -> Trainer:
    """An experiment's trainer, patched, on noise of its sources' shapes."""
    spec = resolve(merge(read(EXPERIMENTS / experiment), patch))
    size = spec.data.size
    sources = build_sources(spec)
    domains = {name: Domain(name, source.channels, size, size, source.classes) for name, source in sources.items()}
    images = RandomImages(spec.data.batch, domains, spec.runtime.device)
    return Trainer(build(spec, domains), images)
