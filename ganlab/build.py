"""Spec -> networks, losses, schedule: the only place where names become objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ganlab.blame import Part, Parts
from ganlab.data.store import Progress, Store, load, silent
from ganlab.errors import GanlabError, SpecError, text_of
from ganlab.interfaces import Discriminator, Domain, Features, Generator, Loss, Metric, Pair, Schedule, Source
from ganlab.modules import evaluating, settle, shape_lazy
from ganlab.networks import Networks
from ganlab.options import arguments, signature
from ganlab.registry import Registry
from ganlab.spec import Options, Spec, sees

DTYPES = {"float64": torch.float64}
"""What tensors are kept in, where it isn't float32."""


@dataclass(frozen=True)
class System:
    """What a spec describes, built."""

    spec: Spec
    networks: Networks
    losses: dict[str, Loss]
    schedule: Schedule
    parts: Parts
    device: torch.device
    dtype: torch.dtype


def build_sources(registry: Registry, spec: Spec) -> dict[str, Source]:
    """{domain: its source}, nothing read yet."""
    sources = {}
    for domain, options in (("a", spec.data.a), ("b", spec.data.b)):
        source = _make(registry, "source", options, f"data.{domain}")
        assert isinstance(source, Source)
        sources[domain] = source
    return sources


def build_data(
    registry: Registry, spec: Spec, progress: Progress = silent, most: int | None = None
) -> dict[str, Store]:
    """{domain: its images}, read now; of each only the first `most`."""
    stores = {}
    for domain, source in build_sources(registry, spec).items():
        with _blamed(registry, "source", spec.data.source(domain), f"data.{domain}"):
            stores[domain] = load(source, domain, spec.data.size, spec.data.holdout, progress, most)
    return stores


def build(registry: Registry, spec: Spec, domains: Mapping[str, Domain]) -> System:
    """Networks with the seed's initial weights, on their device; losses; the schedule.

    Draws from torch's global generator, which it seeds.
    """
    device = torch.device(spec.runtime.device)
    dtype = DTYPES.get(spec.runtime.precision, torch.float32)
    torch.manual_seed(spec.seed)
    parts = Parts()
    generators = _generators(registry, spec.generator, domains, spec.translations, parts)
    embedding = _embedding(registry, spec, generators, domains)
    on_images: dict[tuple[str, str], Discriminator] = {}
    on_embeddings: dict[str, Discriminator] = {}
    for label, options in spec.discriminators.items():
        where = f"discriminators.{label}"
        if sees(registry, options) == "embeddings":
            made = _make(registry, "discriminator", options, where, parts, embedding)
            assert isinstance(made, Discriminator)
            on_embeddings[label] = made
            continue
        for to in sorted({way[1] for way in spec.translations}):
            made = _make(registry, "discriminator", options, where, parts, domains[to])
            assert isinstance(made, Discriminator)
            on_images[label, to] = made
    losses = {}
    for label, options in spec.losses.items():
        loss = _make(registry, "loss", options, f"losses.{label}", parts)
        assert isinstance(loss, Loss)
        losses[label] = loss.to(device, dtype)
    schedule = build_schedule(registry, spec, parts)
    autocast = device.type if spec.runtime.precision == "bfloat16" else None
    networks = Networks(generators, on_images, on_embeddings, autocast)
    for module in networks.modules.values():
        module.to(device, dtype)
    return System(spec, networks, losses, schedule, parts, device, dtype)


def build_schedule(registry: Registry, spec: Spec, parts: Parts | None = None) -> Schedule:
    """The schedule alone, which needs no data; `parts` takes note of it."""
    schedule = _make(registry, "schedule", spec.schedule, "schedule", parts)
    assert isinstance(schedule, Schedule)
    schedule.ways = spec.translations
    steps = getattr(schedule, "steps", None)
    if type(steps) is not int or steps < 1:
        raise SpecError(f"schedule: {spec.schedule['type']!r} has steps {steps!r}, not a number from 1 up")
    return schedule


def build_features(registry: Registry, options: Options) -> Features:
    """The network whose vectors metrics compare. Raises Unavailable where its weights are not to be had."""
    features = _make(registry, "features", options, "evaluation.features")
    assert isinstance(features, Features)
    return features


def build_metric(registry: Registry, options: Options) -> Metric:
    """What measures a system."""
    metric = _make(registry, "metric", options, "evaluation.metrics")
    assert isinstance(metric, Metric)
    if not isinstance(numbers := getattr(metric, "numbers", None), Mapping):
        raise SpecError(
            f"evaluation.metrics: metric {options['type']!r} has the numbers {numbers!r}, not {{name: Number}}"
        )
    return metric


def _plain(registry: Registry, kind: str, options: Options) -> tuple[type, dict[str, Any]]:
    cls = registry.find(kind, options["type"], kind).cls
    return cls, arguments(cls, options)


def _make(
    registry: Registry,
    kind: str,
    options: Options,
    where: str,
    parts: Parts | None = None,
    domain: Domain | None = None,
) -> object:
    """A component with its nested ones; the domain is a discriminator's."""
    cls, plain = _plain(registry, kind, options)
    sign = signature(cls)
    nested = {k: _make(registry, inner, options[k], f"{where}.{k}", parts, domain) for k, inner in sign.nested.items()}
    with _blamed(registry, kind, options, where):
        made = cls(**plain, **nested, **dict.fromkeys(sign.supplied, domain))
        settle(made)
        if isinstance(made, Discriminator) and domain is not None:
            shape_lazy(made, _blank(domain))
    if parts is not None:
        parts.add(made, Part(where, _described(registry, kind, options)))
    return made


def _generators(
    registry: Registry,
    options: Options,
    domains: Mapping[str, Domain],
    ways: tuple[str, ...],
    parts: Parts,
    where: str = "generator",
) -> dict[str, Generator]:
    cls, plain = _plain(registry, "generator", options)
    assert issubclass(cls, Generator)
    nested: dict[str, Any] = {}
    for option, kind in signature(cls).nested.items():
        place = f"{where}.{option}"
        if kind == "generator":
            nested[option] = Pair(_generators(registry, options[option], domains, ways, parts, place))
        else:
            nested[option] = _make(registry, kind, options[option], place, parts)
    with _blamed(registry, "generator", options, where):
        made = cls.pair(domains, ways, **plain, **nested)
        if not isinstance(made, Mapping) or set(made) != set(ways):
            gives = f"the ways {', '.join(made)}" if isinstance(made, Mapping) else f"a {type(made).__name__}"
            raise TypeError(f"pair gives {gives} where a generator of each way, {', '.join(ways)}, is due")
        for way, generator in made.items():
            settle(generator)
            shape_lazy(generator, _blank(domains[way[0]]))
            parts.add(generator, Part(where, _described(registry, "generator", options)))
    return made


def _embedding(
    registry: Registry, spec: Spec, generators: dict[str, Generator], domains: Mapping[str, Domain]
) -> Domain:
    """The shape of the embeddings, found by running an encoder."""
    way = spec.translations[0]
    generator = generators[way]
    with _blamed(registry, "generator", spec.generator, "generator"), torch.no_grad(), evaluating(generator):
        shape = generator.encode(_blank(domains[way[0]])).shape
    if len(shape) != 4:
        raise SpecError(f"generator: its embedding has the shape {tuple(shape)}, not (N, E, h, w)")
    return Domain("embedding", *shape[1:])


def _blank(domain: Domain) -> Tensor:
    return torch.zeros(2, domain.channels, domain.height, domain.width)


@contextmanager
def _blamed(registry: Registry, kind: str, options: Options, where: str) -> Iterator[None]:
    """An error inside a component becomes a sentence that names the component and whose it is."""
    try:
        yield
    except GanlabError:
        raise
    except Exception as error:
        raise SpecError(f"{where}: {_described(registry, kind, options)}: {text_of(error)}") from error


def _described(registry: Registry, kind: str, options: Options) -> str:
    return registry.find(kind, options["type"], kind).full_name
