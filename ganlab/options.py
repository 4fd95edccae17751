"""A component's options, read from its constructor's signature: nothing is declared twice."""

from __future__ import annotations

import functools
import inspect
import json
import typing
from collections.abc import Hashable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple, cast

import torch
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from ganlab.interfaces import Discriminator, Domain, Generator, Loss, Schedule, Source

KINDS: dict[str, type] = {
    "generator": Generator,
    "discriminator": Discriminator,
    "loss": Loss,
    "schedule": Schedule,
    "source": Source,
}
"""The kinds of component and their interfaces."""

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, validate_default=True, protected_namespaces=())
"""Numbers are finite and of their own type (`true` is not 1); unknown keys are refused."""

_RESERVED = ("type", "weight")
_NO_OPTIONS = (object.__init__, torch.nn.Module.__init__)


class Signature(NamedTuple):
    """What a constructor says of itself."""

    model: type[BaseModel]
    """Its plain options."""
    nested: dict[str, str]
    """{option: kind} of its nested components."""
    supplied: tuple[str, ...]
    """The `Domain`s that the core supplies."""


def signature(component: type) -> Signature:
    """Read the constructor of `component`. Raises TypeError with a sentence where it breaks the contract."""
    return _signature(cast(Hashable, component))


@functools.cache
def _signature(component: Any) -> Signature:
    name = component.__name__
    init = component.__init__
    if init in _NO_OPTIONS:
        return Signature(create_model(name, __config__=STRICT), {}, ())
    try:
        hints = typing.get_type_hints(init, include_extras=True)
    except Exception as error:
        raise TypeError(f"the types of {name}.__init__ can't be read: {error}") from error
    fields: dict[str, Any] = {}
    nested: dict[str, str] = {}
    supplied: list[str] = []
    for parameter in list(inspect.signature(init).parameters.values())[1:]:
        option = parameter.name
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise TypeError(f"{name}.__init__ takes {parameter}; every option needs a name and a type of its own")
        if option not in hints:
            raise TypeError(f"{name}.__init__ gives its option {option!r} no type")
        if option in _RESERVED or option.startswith("_"):
            raise TypeError(f"{name}.__init__ has an option {option!r}; that name is reserved")
        hint = hints[option]
        if hint is Domain:
            supplied.append(option)
        elif hint in KINDS.values():
            if parameter.default is not parameter.empty:
                raise TypeError(f"{name}.__init__ gives the nested component {option!r} a default; it can have none")
            nested[option] = next(kind for kind, interface in KINDS.items() if interface is hint)
        else:
            fields[option] = (hint, ... if parameter.default is parameter.empty else parameter.default)
    _check_supplied(component, supplied)
    try:
        model = create_model(name, __config__=STRICT, **fields)
        model.model_json_schema()
        defaults = create_model(name, __config__=STRICT, **{k: f for k, f in fields.items() if f[1] is not ...})
        defaults.model_validate_json(defaults().model_dump_json())
    except Exception as error:
        raise TypeError(f"the options of {name}.__init__ don't fit JSON: {str(error).splitlines()[0]}") from error
    return Signature(model, nested, tuple(supplied))


def _check_supplied(component: type, supplied: list[str]) -> None:
    if issubclass(component, Generator) and not set(supplied) <= {"source", "target"}:
        raise TypeError(f"{component.__name__}.__init__ takes Domains {supplied}; a generator's are source and target")
    if issubclass(component, Discriminator) and len(supplied) > 1:
        raise TypeError(f"{component.__name__}.__init__ takes {len(supplied)} Domains; a discriminator has one")
    if issubclass(component, Loss | Schedule | Source) and supplied:
        raise TypeError(f"{component.__name__}.__init__ takes a Domain; only networks are given one")


def validate(component: type, options: Mapping[str, Any]) -> BaseModel:
    """The plain options, checked and with defaults. Raises pydantic's ValidationError."""
    # JSON mode: strictness then accepts a list for a tuple, as a JSON spec must write it
    return signature(component).model.model_validate_json(json.dumps(options))


def schema(component: type) -> dict[str, Any]:
    """The JSON Schema of a component's options; a nested one is an object with a `type`."""
    sign = signature(component)
    result = sign.model.model_json_schema()
    for option, kind in sign.nested.items():
        result.setdefault("properties", {})[option] = {
            "type": "object",
            "title": f"a nested {kind}",
            "properties": {"type": {"type": "string"}},
            "required": ["type"],
        }
        result.setdefault("required", []).append(option)
    return result


def nearest(name: str, known: Iterable[str]) -> str:
    """What to say after an unknown name: the nearest known one, and all of them."""
    known = sorted(known)
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    guess = f"; did you mean {close[0]!r}?" if close else ";"
    return f"{guess} {'known are: ' + ', '.join(known) if known else 'there are none'}"


def sentence(error: ValidationError, where: str, known: Iterable[str]) -> str:
    """The first thing wrong, as one sentence that names the place, the value and what is allowed."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in (where, *first["loc"]) if str(part))
    if first["type"] == "extra_forbidden":
        return f"{place}: unknown key{nearest(str(first['loc'][-1]), known)}"
    if first["type"] == "missing":
        return f"{place}: is required and has no default"
    if first["type"] == "value_error":
        return f"{place}: {first['msg'].removeprefix('Value error, ')}"
    shown = json.dumps(first["input"], default=str)
    return f"{place}: {shown if len(shown) < 80 else shown[:77] + '...'} is not allowed: {_lower(first['msg'])}"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
