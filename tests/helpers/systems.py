"""Small systems to train and the noise they train on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import torch
from torch import Tensor

import ganlab
from ganlab.components.options import signature
from ganlab.components.registry import Component, Registry, registry
from ganlab.data.sampler import Batch
from ganlab.engine.trainer import Trainer
from ganlab.interfaces.networks import Domain
from ganlab.parts import WHOLE, Part
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from ganlab.spec.resolve import resolve
from ganlab.system.build import build, build_sources

SIZE = 16
DIRECTIONS = ("ab", "ba")

TINY: Json = {
    "name": "tiny",
    "data": {
        "a": {"type": "folder", "path": "a"},
        "b": {"type": "folder", "path": "b"},
        "size": SIZE,
        "batch": 4,
        "holdout": 0.25,
    },
    "generator": {"type": "resnet", "width": 4, "blocks": 2},
    "discriminators": {"image": {"type": "patch", "width": 4, "layers": 1}},
    "losses": {"adversarial": {"type": "lsgan"}, "cycle": {"type": "cycle", "weight": 10}},
    "schedule": {"type": "simultaneous", "steps": 6},
    "samples": {"every": 3, "count": 2},
    "checkpoints": {"every": 2},
    "runtime": {"device": "cpu", "precision": "float32", "threads": 1, "log_every": 1},
}
"""A whole experiment that takes hundredths of a second a step. `merge` patches it."""

SHIPPED = [component for component in registry().components if component.package == "ganlab"]


def choices(component: Component) -> list[tuple[str, Any]]:
    """Returns (option, value) for each value of a `Literal` or boolean option."""
    fields = {name: field.annotation for name, field in signature(component.cls).model.model_fields.items()}
    few = {name: (False, True) if kind is bool else get_args(kind) for name, kind in fields.items()}
    return [(name, value) for name, values in few.items() for value in values if isinstance(value, bool | int | str)]


class RandomImages:
    """A batch source of noise: each batch depends only on the number of the draw."""

    def __init__(
        self,
        batch: int = 4,
        size: int = SIZE,
        dtype: torch.dtype = torch.float64,
        classes: int | Mapping[str, int] = 0,
        channels: int | Mapping[str, int] = 3,
        extras: Mapping[str, Mapping[str, ganlab.Extra]] = {},
    ) -> None:
        """`classes` and `channels` are those of both domains, or {domain: number}. `extras` are masks, {domain: {name:
        extra}}."""
        self.batch, self.dtype, self.extras = batch, dtype, extras

        def of(name: str, count: int | Mapping[str, int]) -> int:
            return count if isinstance(count, int) else count[name]

        self.domains = {name: Domain(name, of(name, channels), size, size, of(name, classes)) for name in "ab"}

    def __call__(self, draw: int, part: Part = WHOLE) -> Batch:
        random = torch.Generator().manual_seed(1000 + draw)
        rows = part.rows(self.batch // part.parts)
        images = {
            name: (torch.rand((self.batch, *domain[1:4]), generator=random, dtype=self.dtype) * 2 - 1)[rows]
            for name, domain in self.domains.items()
        }
        labels = {
            name: torch.randint(domain.classes, (self.batch,), generator=random)[rows]
            for name, domain in self.domains.items()
            if domain.classes
        }
        extras = {
            name: {of: torch.randint(2, (self.batch, 1, *images[name].shape[2:]), generator=random) for of in named}
            for name, named in self.extras.items()
        }
        return Batch(images, labels, {name: domain.classes for name, domain in self.domains.items()}, extras)


class Around(ganlab.Discriminator):
    """A wrapper that overrides nothing but `forward`."""

    def __init__(self, of: ganlab.Discriminator) -> None:
        super().__init__()
        self.of = of

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.of(x)
        return scores


def make_trainer(
    patch: Mapping[str, Any] | None = None,
    batch: int = 4,
    classes: int | Mapping[str, int] = 0,
    known: Registry | None = None,
) -> Trainer:
    """Returns a trainer of TINY, patched, on noise in float64. `known` is the registry, or what is installed."""
    known = known or registry()
    spec = resolve(merge(merge(TINY, {"runtime": {"precision": "float64"}}), dict(patch or {})), registry=known)
    extras = {name: source.extras for name, source in build_sources(spec).items()}
    images = RandomImages(batch, spec.data.size, classes=classes, extras=extras)
    return Trainer(build(spec, images.domains), images)


def stir(trainer: Trainer, critics: bool = True) -> None:
    """Moves every weight well away from its small initial value, so that no term hides behind another."""
    noise = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, module in trainer.system.networks.modules.items():
            if critics or name.startswith("generator"):
                for p in module.parameters():
                    p.add_(0.1 * torch.randn(p.shape, generator=noise, dtype=p.dtype))
