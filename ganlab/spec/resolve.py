"""Resolves a spec: checks it, fills in every default and every "auto", and finds the class of each component.

Names of components become classes here and nowhere else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from ganlab.components.options import nearest, sentence, signature, validate
from ganlab.components.registry import Registry, check_nested
from ganlab.components.registry import registry as installed_registry
from ganlab.errors import SpecError, one_line
from ganlab.parts import check_parts
from ganlab.spec import devices
from ganlab.spec.layouts import with_sources
from ganlab.spec.models import (
    LABEL,
    Data,
    Evaluation,
    Json,
    Options,
    ResolvedComponent,
    ResolvedMetric,
    Runtime,
    Spec,
    Weight,
    as_options,
    check_json,
)
from ganlab.spec.paths import absolute


def resolve(asked: Json, where: str = "spec", like: Spec | None = None, registry: Registry | None = None) -> Spec:
    """Returns a spec with every default and every "auto" filled in, and its components.

    Relative paths start at the working folder and become absolute, so that the spec means the same everywhere.

    Args:
        asked: The spec as a JSON object, without `extends`.
        where: Names the spec in error messages.
        like: The resolved spec of an earlier run. Its value replaces each "auto" of `runtime`, except the device's.
        registry: The components that the spec may name, by default all that are installed.

    Raises SpecError with one sentence that names the value, what is allowed and where it stands.
    """
    spec = checked(asked, where)
    _check_crop(spec.data, f"{where}: data")
    resolver = _Resolver(registry or installed_registry(), f"{where}: ")
    named: dict[str, tuple[str, Options]] = {
        "data.a": ("source", spec.data.a),
        "data.b": ("source", spec.data.b),
        "generator": ("generator", spec.generator),
        "schedule": ("schedule", spec.schedule),
        **{f"discriminators.{name}": ("discriminator", options) for name, options in spec.discriminators.items()},
        **{f"losses.{name}": ("loss", options) for name, options in spec.losses.items()},
    }
    components = {
        # a weight belongs to a loss's place in the spec, not to the loss: a nested one has none
        place: resolver.component(kind, options, place, ("weight",) if kind == "loss" else (), named)
        for place, (kind, options) in named.items()
    }
    full = spec.model_copy(deep=True)
    full._components = components
    full.data.a, full.data.b, full.generator, full.schedule = (
        components[place].as_json() for place in ("data.a", "data.b", "generator", "schedule")
    )
    full.discriminators = {name: components[f"discriminators.{name}"].as_json() for name in spec.discriminators}
    full.losses = {
        name: {
            **components[f"losses.{name}"].as_json(),
            "weight": _weight(options.get("weight", {}), f"{where}: losses.{name}"),
        }
        for name, options in spec.losses.items()
    }
    full.init = spec.init.model_copy(update={"run": absolute(spec.init.run, Path())})
    callbacks = resolver.callbacks(spec.callbacks)
    full.callbacks = {name: None if callback is None else callback.as_json() for name, callback in callbacks.items()}
    full._callbacks = {name: callback for name, callback in callbacks.items() if callback is not None}
    full.evaluation = resolver.evaluation(spec.evaluation, "evaluation")
    full.runtime = _runtime(spec.runtime, f"{where}: runtime", like.runtime if like else Runtime())
    check_parts(spec.data.batch, spec.runtime.accumulate, f"{where}: runtime.accumulate")
    return full


def checked(asked: Json, where: str) -> Spec:
    """Returns a spec whose form is checked: keys, types and ranges. Components are neither looked up nor checked.

    Has the sources a and b instead of `data.root`.

    Raises SpecError.
    """
    if "extends" in asked:
        raise SpecError(f"{where}: extends: only a file can extend another")
    check_json(asked, where)
    # `$schema` tells an editor the place of the JSON Schema
    note = asked.get("$schema", "")
    if not isinstance(note, str):
        raise SpecError(f"{where}: $schema: {json.dumps(note)} is not allowed: it is the path of a JSON Schema")
    asked = with_sources({key: value for key, value in asked.items() if key != "$schema"}, where)
    try:
        spec = Spec.model_validate_json(json.dumps(asked))
    except ValidationError as error:
        raise SpecError(f"{where}: {sentence(error, '', _known_keys(error), asked, Spec)}") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise SpecError(f"{where}: is not JSON: {one_line(error).split(';')[0]}") from error
    for key, names in (("discriminators", spec.discriminators), ("losses", spec.losses), ("callbacks", spec.callbacks)):
        for name in names:
            if not re.fullmatch(LABEL, name):
                raise SpecError(f"{where}: {key}: the name {name!r} is not allowed: letters, digits, '_' and '-'")
    return spec


def resolve_component(kind: str, asked: Options, place: str) -> ResolvedComponent:
    """Returns a component alone, with every default filled in. Raises SpecError."""
    return _Resolver(installed_registry()).component(kind, asked, place)


def resolve_evaluation(asked: Evaluation, where: str) -> Evaluation:
    """Returns the evaluation that a command asks for, with every default filled in, and its components.

    If it names no feature network, it gets the first installed one that has its weights inside a package. Raises
    SpecError.
    """
    registry = installed_registry()
    features = asked.features or next(iter(registry.shipped_features()), None)
    return _Resolver(registry).evaluation(asked.model_copy(update={"features": features}), where)


class _Resolver:
    """Finds components in a registry. `prefix` opens its error messages and names the spec."""

    def __init__(self, registry: Registry, prefix: str = "") -> None:
        self._registry, self._prefix = registry, prefix

    def component(
        self,
        kind: str,
        asked: Options,
        place: str,
        beside: tuple[str, ...] = (),
        others: Mapping[str, tuple[str, Options]] = {},
    ) -> ResolvedComponent:
        """Returns the component that `asked` describes, with its nested ones.

        The keys in `beside`, such as a loss's `weight`, are no options of the component and are left out. `others`,
        {place: (kind, options)}, are the spec's components, one of which may be meant. Raises SpecError.
        """
        where = f"{self._prefix}{place}"
        name = asked.get("type")
        if not isinstance(name, str):
            parent, _, own = place.rpartition(".")
            whole = [
                at.removeprefix(f"{parent}.") for at, (of, part) in others.items() if of == kind and "type" in part
            ]
            meant = nearest(own, whole) if name is None and whole else ""
            raise SpecError(
                f"{where}: names no {kind}: its type is {'missing' if name is None else json.dumps(name)}{meant}"
            )
        found = self._registry.find(kind, name, where)
        sign = signature(found.cls)
        try:
            check_nested(found.cls)
        except TypeError as error:
            raise SpecError(f"{where}: {error} ({found.full_name})") from error
        plain = {k: v for k, v in asked.items() if k not in ("type", *sign.nested, *beside)}
        try:
            options = json.loads(validate(found.cls, plain).model_dump_json())
        except ValidationError as error:
            known = [*sign.model.model_fields, *sign.nested, "type", *beside]
            said = sentence(error, where, known, plain, sign.model)
            match error.errors(include_url=False)[0]:
                case {"type": "extra_forbidden", "loc": (key,)} if path := self._path_to(sign.nested, asked, key):
                    said += f"; there is {place}.{path}"
            raise SpecError(f"{said} ({found.full_name})") from error
        options |= {option: absolute(options[option], Path()) for option in sign.paths}
        nested = {}
        for option, inner in sign.nested.items():
            if not isinstance(value := asked.get(option), dict):
                raise SpecError(f"{where}.{option}: is required: the {inner} that {kind} {name!r} wraps, an object")
            nested[option] = self.component(inner, value, f"{place}.{option}")
        return ResolvedComponent(place, found, options, nested)

    def _path_to(self, nested: Mapping[str, str], asked: Options, key: Any) -> str:
        """Returns the path from a component to the option `key` of one that is nested in it; "" if none has it."""
        for option, kind in nested.items():
            inner = asked.get(option)
            if isinstance(inner, dict) and inner.get("type") in self._registry.names(kind):
                sign = signature(self._registry.find(kind, inner["type"], option).cls)
                if key in sign.model.model_fields or key in sign.nested:
                    return f"{option}.{key}"
                if path := self._path_to(sign.nested, inner, key):
                    return f"{option}.{path}"
        return ""

    def _metric(self, asked: Options, place: str) -> ResolvedMetric:
        """Returns a metric. One that compares feature vectors may name its own feature network, beside its options."""
        name, own = asked.get("type"), asked.get("features")
        if own is None or name not in self._registry.names("metric"):
            features = None
        elif not getattr(self._registry.find("metric", name, place).cls, "on_features", False):
            raise SpecError(f"{self._prefix}{place}.features: is not allowed: {name!r} compares no feature vectors")
        elif not isinstance(own, str | dict):
            raise SpecError(f"{self._prefix}{place}.features: {own!r} is not allowed: a type, or an object with a type")
        else:
            features = self.component("features", as_options(own), f"{place}.features")
        beside = () if features is None else ("features",)
        metric = self.component("metric", asked, place, beside)
        return ResolvedMetric(metric.place, metric.component, metric.options, metric.nested, features)

    def callbacks(self, asked: Mapping[str, Options | None]) -> dict[str, ResolvedComponent | None]:
        """Returns the callbacks that a spec names, and those that are on by default; None for one that it turns off."""
        default: dict[str, Options] = {name: {"type": name} for name in self._registry.callbacks_by_default()}
        types = [options.get("type") for options in asked.values() if options is not None]
        # what has another name is not wanted twice
        every = {**{name: options for name, options in default.items() if name not in types}, **asked}
        found: dict[str, ResolvedComponent | None] = {}
        for name, options in every.items():
            if options is not None:
                found[name] = self.component("callback", default.get(name, {}) | options, f"callbacks.{name}")
            elif name in default:
                # null is kept, because without it the callback would be on
                found[name] = None
        return found

    def evaluation(self, asked: Evaluation, place: str) -> Evaluation:
        """Returns an evaluation with every default filled in, and its components. Raises SpecError."""
        where = f"{self._prefix}{place}"
        full = asked.model_copy()
        full._metrics = tuple(
            self._metric(as_options(metric), f"{place}.metrics.{index}") for index, metric in enumerate(asked.metrics)
        )
        full._features = None
        if asked.features is not None:
            full._features = self.component("features", as_options(asked.features), f"{place}.features")
        full.metrics = tuple(metric.as_json() for metric in full._metrics)
        full.features = None if full._features is None else full._features.as_json()
        names = [metric.key for metric in full._metrics]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise SpecError(f"{where}.metrics: {name!r} is named twice")
        if full.every is not None and not names:
            raise SpecError(f"{where}.every: {full.every} is not allowed: there are no metrics to measure")
        for name in full.during or ():
            self._registry.find("metric", name, f"{where}.during")
        if full.monitor is not None and full.every is None:
            raise SpecError(
                f"{where}.monitor: {full.monitor!r} picks nothing: without `every` there is only one checkpoint"
            )
        return full


def _known_keys(error: ValidationError) -> Iterable[str]:
    """Returns the keys that are allowed in the object of the first error."""
    model: Any = Spec
    for part in error.errors(include_url=False)[0]["loc"][:-1]:
        field = getattr(model, "model_fields", {}).get(part)
        model = field.annotation if field is not None else None
    return getattr(model, "model_fields", {})


def _weight(weight: Any, where: str) -> Json:
    both = weight if isinstance(weight, dict) else {"generator": weight, "discriminator": weight}
    try:
        result: Json = json.loads(Weight.model_validate_json(json.dumps(both)).model_dump_json())
    except ValidationError as error:
        # the message shows `weight` as the spec has it, not `both`
        raise SpecError(sentence(error, f"{where}.weight", Weight.model_fields, weight)) from error
    return result


def _check_crop(data: Data, where: str) -> None:
    if data.crop and data.resize is None:
        raise SpecError(f"{where}.crop: true is not allowed without resize, the size of the images that are cut")
    if data.resize is not None and not data.crop:
        raise SpecError(f"{where}.resize: {data.resize} is not allowed without crop: true, which cuts to size pixels")
    if data.resize is not None and data.resize < data.size:
        raise SpecError(f"{where}.resize: {data.resize} is not allowed: it should be at least size, {data.size}")


def _runtime(asked: Runtime, where: str, like: Runtime) -> Runtime:
    """Returns the runtime without "auto": each is `like`'s value, or this machine's if `like` has "auto" too."""
    runs_on = devices.device(asked.device, where)
    on_cuda = runs_on.startswith("cuda")
    here: dict[str, Any] = {"precision": devices.precision(runs_on), "threads": torch.get_num_threads()}

    def chosen(name: str) -> Any:
        return next(value for value in (getattr(asked, name), getattr(like, name), here[name]) if value != "auto")

    precision = chosen("precision")
    if precision == "float64" and runs_on == "mps":
        raise SpecError(f"{where}.precision: 'float64' is not allowed: mps has no float64")
    if precision == "tf32" and not on_cuda:
        raise SpecError(f"{where}.precision: 'tf32' is not allowed: only CUDA devices have it, not {runs_on!r}")
    here["compile"] = devices.compiles(runs_on, precision) and not asked.checkpoint_activations
    if (compiles := chosen("compile")) and asked.checkpoint_activations:
        raise SpecError(
            f"{where}.compile: true is not allowed with checkpoint_activations: true; a compiled network keeps what its"
            " backward pass needs"
        )
    update = {"device": runs_on, "precision": precision, "threads": chosen("threads"), "compile": compiles}
    return asked.model_copy(update=update)
