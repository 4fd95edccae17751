"""The systems that the benchmarks time: an experiment's trainer on noise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ganlab.data.dataset import Dataset
from ganlab.data.sampler import Batch, BatchSource, Sampler
from ganlab.engine.trainer import Trainer
from ganlab.interfaces.networks import Domain
from ganlab.interfaces.sources import Source
from ganlab.parts import WHOLE, Part
from ganlab.spec.files import merge, read
from ganlab.spec.models import Spec
from ganlab.spec.resolve import resolve
from ganlab.system.build import build, build_sources, dtype_of

EXPERIMENTS = Path(__file__).parent.parent / "experiments"

MakeBatches = Callable[[Spec, dict[str, Domain]], BatchSource]
"""Makes the batches of a spec with these domains."""


class RandomImages:
    """Draws batches of noise: the time of a step doesn't depend on what the pictures show."""

    def __init__(self, batch: int, domains: dict[str, Domain], device: str) -> None:
        self.batch, self.domains, self.device = batch, domains, device

    @classmethod
    def of(cls, spec: Spec, domains: dict[str, Domain]) -> RandomImages:
        return cls(spec.data.batch, domains, spec.runtime.device)

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


def sampled_noise(spec: Spec, domains: dict[str, Domain]) -> Sampler:
    """Samples a set of noise as a run samples its images, so that a GPU does not wait for the host to draw noise."""
    count = 2 * spec.data.batch + 2
    datasets = {}
    for seed, (name, domain) in enumerate(domains.items()):
        shape = (count, domain.channels, domain.height, domain.width)
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
        labels = torch.arange(count) % domain.classes if domain.classes else None
        keys = tuple(map(str, range(count)))
        datasets[name] = Dataset(
            domain, Source(), keys, pixels, labels, torch.arange(1, count), torch.arange(1), skipped=()
        )
    data, device = spec.data, torch.device(spec.runtime.device)
    return Sampler(datasets, data.batch, data.flip, spec.seed, device, dtype_of(spec))


def make_trainer(experiment: str, patch: dict[str, Any], batches: MakeBatches = RandomImages.of) -> Trainer:
    """An experiment's trainer, patched, on noise of its sources' shapes."""
    spec = resolve(merge(read(EXPERIMENTS / experiment), patch))
    size = spec.data.size
    sources = build_sources(spec)
    domains = {name: Domain(name, source.channels, size, size, source.classes) for name, source in sources.items()}
    return Trainer(build(spec, domains), batches(spec, domains))
