"""Builds what a resolved spec describes: sources, networks, losses, the schedule, and what an evaluation needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ganlab.components.options import arguments, nearest, signature
from ganlab.data.dataset import Dataset, load
from ganlab.data.pairs import joined, pairs_of, refuse_none_left
from ganlab.data.reading import Progress, silent
from ganlab.errors import GanlabError, SpecError, text_of
from ganlab.interfaces.callbacks import Callback
from ganlab.interfaces.losses import Loss
from ganlab.interfaces.metrics import Metric
from ganlab.interfaces.networks import Discriminator, Domain, Features, Generator, Pair
from ganlab.interfaces.schedules import Schedule
from ganlab.interfaces.sources import Source
from ganlab.spec.models import ResolvedComponent, Spec
from ganlab.system.error_attribution import ComponentRef, Components
from ganlab.system.image_size import refuse_too_small
from ganlab.system.networks import Networks
from ganlab.torch_utils import evaluating, shape_lazy, shown

DTYPES = {"float64": torch.float64}
"""The type of parameters and images for each `runtime.precision` that does not keep them in float32."""


Made = TypeVar("Made")


@dataclass(frozen=True)
class System:
    """Everything that a spec trains, built and placed on its device."""

    spec: Spec
    networks: Networks
    losses: dict[str, Loss]
    schedule: Schedule
    components: Components
    device: torch.device
    dtype: torch.dtype


def build_sources(spec: Spec) -> dict[str, Source]:
    """Returns {domain: its image source}. Reads no image."""
    return {domain: _make(spec.components[f"data.{domain}"], Source) for domain in "ab"}


def build_data(spec: Spec, progress: Progress = silent, most: int | None = None) -> dict[str, Dataset]:
    """Returns {domain: its images}, read into memory: all of them, or only the first `most` of each domain.

    Raises SpecError if the data can't be used.
    """
    sources = build_sources(spec)

    def read(domain: str, keys: Sequence[str], ordered_as: str = "") -> Dataset:
        component = spec.components[f"data.{domain}"]

        with _attributing(component):
            source = sources[domain]
            names = source.keys(domain) if keys is None else keys

            def at(size: int) -> Dataset:
                return load(
                    source, domain, size, spec.data.holdout, progress, most, ordered_as, component.identity, names
                )

            dataset = at(spec.data.size)
            if spec.data.resize is None:
                return dataset
            larger = at(spec.data.resize)
            if larger.keys != dataset.keys:
                raise SpecError(f"data.{domain}: the images changed while they were read; run the command again")
            return replace(dataset, larger=larger)

    keys = {}
    for domain, source in sources.items():
        with _attributing(spec.components[f"data.{domain}"]):
            found = source.keys(domain)
            # the first few need images to train on
            keys[domain] = sorted(found, key=source.is_held_out) if most and source.divided else found
    if not spec.data.paired:
        return {domain: read(domain, keys[domain]) for domain in sources}
    pairs = pairs_of(keys)
    a = read("a", list(pairs), "a")
    b = read("b", [pairs[key] for key in a.keys], "a")
    both = joined(a, b, pairs, keys)
    if most is None:
        refuse_none_left(both["a"])
    return both


def build_domains(spec: Spec) -> dict[str, Domain]:
    """Returns {name: domain} of both domains, as their sources declare them. Reads no image."""
    size = spec.data.size
    return {
        name: Domain(name, source.channels, size, size, source.classes) for name, source in build_sources(spec).items()
    }


def build_generators(spec: Spec, domains: Mapping[str, Domain]) -> Networks:
    """Builds the generators alone, on the run's device, with weights drawn from torch's global generator.

    Raises SpecError if one can't be built.
    """
    generators = _generators(spec.components["generator"], domains, spec.directions, Components())
    networks = Networks(generators, {}, {}, _autocast(spec))
    for module in networks.modules.values():
        module.to(spec.runtime.device, dtype_of(spec))
    return networks


def dtype_of(spec: Spec) -> torch.dtype:
    """Returns the type of the run's parameters and images."""
    return DTYPES.get(spec.runtime.precision, torch.float32)


def _autocast(spec: Spec) -> str | None:
    return torch.device(spec.runtime.device).type if spec.runtime.precision == "bfloat16" else None


def build(spec: Spec, domains: Mapping[str, Domain]) -> System:
    """Builds networks with their initial weights, losses and the schedule, and moves them to the run's device.

    Seeds torch's global generator with the run's random seed and draws the initial weights from it. Raises SpecError if
    a component can't be built.
    """
    device = torch.device(spec.runtime.device)
    dtype = dtype_of(spec)
    torch.manual_seed(spec.seed)
    components = Components()
    generators = _generators(spec.components["generator"], domains, spec.directions, components)
    embedding = _embedding(spec, generators, domains)
    on_images: dict[tuple[str, str], Discriminator] = {}
    on_embeddings: dict[str, Discriminator] = {}
    for label in spec.discriminators:
        resolved = spec.components[f"discriminators.{label}"]
        kind = sees(resolved)
        if kind == "embeddings":
            on_embeddings[label] = _make(resolved, Discriminator, components, embedding)
            continue
        for direction in sorted(spec.directions, key=lambda direction: direction[1]):
            source, target = domains[direction[0]], domains[direction[1]]
            shape = target._replace(channels=source.channels + target.channels) if kind == "pairs" else target
            on_images[label, direction[1]] = _make(resolved, Discriminator, components, shape)
    losses = {
        label: _make(spec.components[f"losses.{label}"], Loss, components).to(device, dtype) for label in spec.losses
    }
    for label in [label for label, loss in losses.items() if loss.on_pairs and not spec.data.paired]:
        raise SpecError(
            f"losses.{label}: {spec.losses[label]['type']!r} compares each translation with its partner, and the data"
            " are not paired; set data.paired to true, or remove the loss"
        )
    for label, loss in losses.items():
        with _attributing(spec.components[f"losses.{label}"]):
            every = loss.every
        if type(every) is not int or every < 1:
            raise SpecError(f"losses.{label}: its `every` is {shown(every)}, not a number from 1 up")
        for part in loss.modules():
            if isinstance(part, Loss) and part is not loss and part.every != 1:
                raise SpecError(
                    f"losses.{label}: a loss nested in it has `every` {shown(part.every)}, which is not allowed: a step"
                    " leaves out whole losses alone"
                )
    schedule = build_schedule(spec, components)
    networks = Networks(generators, on_images, on_embeddings, _autocast(spec), spec.runtime.checkpoint_activations)
    for module in networks.modules.values():
        module.to(device, dtype)
    return System(spec, networks, losses, schedule, components, device, dtype)


def build_schedule(spec: Spec, components: Components | None = None) -> Schedule:
    """Builds the schedule, which needs no data, and adds it to `components`."""
    schedule = make_schedule(spec.components["schedule"], spec.directions, components)
    with _attributing(spec.components["schedule"]):
        for name in schedule.fade_out:
            if name not in spec.losses:
                raise SpecError(f"schedule.fade_out: there is no loss {name!r}{nearest(name, spec.losses)}")
    return schedule


def make_schedule(
    resolved: ResolvedComponent, directions: tuple[str, ...], components: Components | None = None
) -> Schedule:
    """Builds a schedule for these directions. Raises SpecError if it has no valid number of steps, or no valid clip."""
    schedule = _make(resolved, Schedule, components)
    # in a plugin's class they may be properties, which may fail
    with _attributing(resolved):
        schedule.directions = directions
        steps, clip = getattr(schedule, "steps", None), schedule.clip
    if type(steps) is not int or steps < 1:
        raise SpecError(f"schedule: {resolved.component.name!r} has steps {shown(steps)}, not a number from 1 up")
    if clip is not None and not (isinstance(clip, int | float) and clip > 0 and clip is not True):
        raise SpecError(f"schedule: {resolved.component.name!r} has clip {shown(clip)}, not a number above 0 or None")
    return schedule


def build_features(resolved: ResolvedComponent) -> Features:
    """Builds a feature network. Raises Unavailable if its weights are missing."""
    return _make(resolved, Features)


def build_metric(resolved: ResolvedComponent) -> Metric:
    """Builds a metric. Raises SpecError if it doesn't say which numbers it measures."""
    metric = _make(resolved, Metric)
    if not isinstance(numbers := getattr(metric, "numbers", None), Mapping):
        name = resolved.component.name
        raise SpecError(f"{resolved.place}: metric {name!r} has the numbers {numbers!r}, not {{name: MetricInfo}}")
    return metric


def build_callback(resolved: ResolvedComponent) -> Callback:
    """Builds a callback. Raises SpecError if it can't be built, Unavailable if a package is missing."""
    return _make(resolved, Callback)


def finish_construction(component: object) -> None:
    """Freezes a feature network. Raises TypeError if a module's constructor did not call torch's."""
    if isinstance(component, nn.Module) and "_modules" not in vars(component):
        raise TypeError(f"{type(component).__name__}.__init__ doesn't call super().__init__()")
    if isinstance(component, Features):
        component.requires_grad_(False).eval()


def sees(resolved: ResolvedComponent) -> str:
    """Returns what a discriminator sees: "images", "pairs" or "embeddings". A wrapper sees the same as the
    discriminator that it wraps."""
    for inner in resolved.nested.values():
        if inner.component.kind == "discriminator":
            return sees(inner)
    cls = resolved.component.cls
    assert issubclass(cls, Discriminator)
    return cls.sees


def _make(
    resolved: ResolvedComponent,
    interface: type[Made],
    components: Components | None = None,
    domain: Domain | None = None,
) -> Made:
    """Builds a component with its nested ones, and adds each to `components`. Only discriminators have a domain."""
    cls = resolved.component.cls
    nested = {option: _make(inner, object, components, domain) for option, inner in resolved.nested.items()}
    with _attributing(resolved):
        supplied = dict.fromkeys(signature(cls).supplied, domain)
        made = cls(**arguments(cls, resolved.options), **nested, **supplied)
        finish_construction(made)
        if isinstance(made, Discriminator) and domain is not None:
            # a wrapper may forget it
            made.sees = sees(resolved)
            shape_lazy(made, _blank(domain))
    if components is not None:
        components.add(made, ComponentRef(resolved.place, resolved.component.full_name))
    assert isinstance(made, interface)
    return made


def _generators(
    resolved: ResolvedComponent, domains: Mapping[str, Domain], directions: tuple[str, ...], components: Components
) -> dict[str, Generator]:
    """Builds {direction: generator} with `Generator.pair`. A generator nested in it is built as a pair too."""
    cls = resolved.component.cls
    assert issubclass(cls, Generator)
    nested: dict[str, Any] = {
        option: Pair(_generators(inner, domains, directions, components))
        if inner.component.kind == "generator"
        else _make(inner, object, components)
        for option, inner in resolved.nested.items()
    }
    with _attributing(resolved):
        made = cls.pair(domains, directions, **arguments(cls, resolved.options), **nested)
        if not isinstance(made, Mapping) or set(made) != set(directions):
            given = f"the directions {', '.join(made)}" if isinstance(made, Mapping) else f"a {type(made).__name__}"
            raise TypeError(f"pair: expected a generator for each direction, {', '.join(directions)}, got {given}")
        for direction, generator in made.items():
            finish_construction(generator)
            shape_lazy(generator, _blank(domains[direction[0]]))
            components.add(generator, ComponentRef(resolved.place, resolved.component.full_name))
    return made


def _embedding(spec: Spec, generators: dict[str, Generator], domains: Mapping[str, Domain]) -> Domain:
    """Returns the shape of the embeddings, found by running the encoder of the first direction."""
    direction = spec.directions[0]
    generator = generators[direction]
    source, resolved = domains[direction[0]], spec.components["generator"]
    with _attributing(resolved), torch.no_grad(), evaluating(generator):
        try:
            shape = generator.encode(_blank(source)).shape
        except Exception:
            refuse_too_small(
                source.height,
                resolved.component.full_name,
                lambda size: generator.encode(_blank(source._replace(height=size, width=size))),
            )
            raise
    if len(shape) != 4:
        raise SpecError(f"generator: its embedding has the shape {tuple(shape)}, not (N, E, h, w)")
    return Domain("embedding", *shape[1:])


def _blank(domain: Domain) -> Tensor:
    return torch.zeros(2, domain.channels, domain.height, domain.width)


@contextmanager
def _attributing(resolved: ResolvedComponent) -> Iterator[None]:
    """Turns an exception that a component raises into a SpecError that names the component and its package."""
    try:
        yield
    except GanlabError:
        raise
    except Exception as error:
        raise SpecError(f"{resolved.place}: {resolved.component.full_name}: {text_of(error)}") from error
