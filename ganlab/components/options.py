"""Reads the options of a component from its constructor, and checks options that a spec gives.

The types and defaults of the constructor's parameters are the only declaration of the options.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import typing
from collections.abc import Hashable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, NamedTuple, cast

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import PydanticCustomError

from ganlab.components.docstrings import about, described
from ganlab.interfaces.callbacks import Callback
from ganlab.interfaces.losses import Loss
from ganlab.interfaces.metrics import Metric
from ganlab.interfaces.networks import Discriminator, Domain, Features, Generator
from ganlab.interfaces.schedules import Schedule
from ganlab.interfaces.sources import Source

KINDS: dict[str, type] = {
    "generator": Generator,
    "discriminator": Discriminator,
    "loss": Loss,
    "schedule": Schedule,
    "source": Source,
    "features": Features,
    "metric": Metric,
    "callback": Callback,
}
"""{kind of component: its interface}."""


STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, validate_default=True, protected_namespaces=())
"""Refuses unknown keys, numbers that are not finite, and values of another type (`true` is not 1)."""


_RESERVED = ("type", "weight")


class Signature(NamedTuple):
    """The parameters of a component's constructor."""

    model: type[BaseModel]
    """The options that are not components."""
    nested: dict[str, str]
    """{option: kind} of the nested components."""
    supplied: tuple[str, ...]
    """The parameters that are a `Domain`, which the core supplies."""
    paths: tuple[str, ...]
    """The options that are paths: annotated `Path`, `Path | None`, `tuple[Path, ...]` or `Mapping[str, Path]`. A
    relative one starts at the folder of the spec file that gives it."""


def signature(component: type) -> Signature:
    """Reads the constructor of `component`. Raises TypeError if a parameter can't be an option."""
    return _signature(cast(Hashable, component))


@functools.cache
def _signature(component: Any) -> Signature:
    name = component.__name__
    init = component.__init__
    # by its class, because torch.compile replaces the method itself
    if next(cls for cls in component.__mro__ if "__init__" in vars(cls)) in (object, torch.nn.Module):
        return Signature(create_model(name, __config__=STRICT), {}, (), ())
    try:
        hints = typing.get_type_hints(init, include_extras=True)
    except Exception as error:
        raise TypeError(f"the types of {name}.__init__ can't be read: {error}") from error
    fields: dict[str, Any] = {}
    nested: dict[str, str] = {}
    supplied: list[str] = []
    paths: list[str] = []
    for parameter in list(inspect.signature(init).parameters.values())[1:]:
        option = parameter.name
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise TypeError(f"{name}.__init__ takes {parameter}; every option needs a name and a type of its own")
        if option not in hints:
            raise TypeError(f"{name}.__init__ gives its option {option!r} no type")
        # an option must not hide an attribute of pydantic's models, such as `copy`
        if option in _RESERVED or option.startswith("_") or hasattr(BaseModel, option):
            raise TypeError(f"{name}.__init__ has an option {option!r}; that name is reserved")
        hint = hints[option]
        if hint is Domain:
            supplied.append(option)
        elif Domain in typing.get_args(hint):
            raise TypeError(f"{name}.__init__ annotates {option!r} {hint}; expected Domain alone")
        elif hint in KINDS.values():
            if parameter.default is not parameter.empty:
                raise TypeError(f"{name}.__init__ gives the nested component {option!r} a default; it can have none")
            nested[option] = next(kind for kind, interface in KINDS.items() if interface is hint)
        else:
            if _is_path(hint):
                paths.append(option)
                hint = Annotated[hint, Field(json_schema_extra={"minLength": 1})]
            fields[option] = (hint, ... if parameter.default is parameter.empty else parameter.default)
    _check_supplied(component, supplied)
    for option, (hint, default) in fields.items():
        _check_fits_json(name, option, hint, default)
    return Signature(create_model(name, __config__=STRICT, **fields), nested, tuple(supplied), tuple(paths))


def _is_path(hint: Any) -> bool:
    """Returns True for `Path`, and for types made of `Path`, None, an ellipsis and the keys of a mapping alone."""
    hint = hint.__origin__ if typing.get_origin(hint) is Annotated else hint
    parts = typing.get_args(hint)
    if typing.get_origin(hint) in (dict, Mapping):
        parts = parts[1:]
    return hint is Path or (bool(parts) and all(part in (NoneType, ...) or _is_path(part) for part in parts))


def _check_fits_json(name: str, option: str, hint: Any, default: Any) -> None:
    where = f"the option {option!r} of {name}.__init__"
    try:
        required = create_model(name, __config__=STRICT, **cast(dict[str, Any], {option: (hint, ...)}))
        if '"uniqueItems": true' in json.dumps(required.model_json_schema()):
            raise ValueError("a set has no order of its own; a tuple has")
        fits = list(required.model_fields) == [option]
    except Exception as error:
        raise TypeError(f"{where} has a type that doesn't fit JSON: {_one_line(error)}") from error
    if not fits:
        raise TypeError(f"{where} has a type that an option can't have: {hint}")
    if default is ...:
        return
    try:
        model = create_model(name, __config__=STRICT, **cast(dict[str, Any], {option: (hint, default)}))
        text = model().model_dump_json()
        # the value must be the same if a spec gives the default and if it leaves it out
        kept = [getattr(model.model_validate_json(given), option) for given in (text, "{}")]
    except Exception as error:
        raise TypeError(f"{where} has a default that is not allowed, {default!r}: {_one_line(error)}") from error
    if list(json.loads(text)) != [option] or any(value != getattr(model(), option) for value in kept):
        raise TypeError(f"{where} has a default that JSON can't keep: {default!r} comes back as {kept[0]!r}")


def _one_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return _says(error.errors(include_url=False)[0]["msg"])
    return str(error).split("\n")[0].split(". ")[0]


def _check_supplied(component: type, supplied: list[str]) -> None:
    if issubclass(component, Generator) and not set(supplied) <= {"source", "target"}:
        raise TypeError(f"{component.__name__}.__init__ takes Domains {supplied}; a generator's are source and target")
    if issubclass(component, Discriminator) and len(supplied) > 1:
        raise TypeError(f"{component.__name__}.__init__ takes {len(supplied)} Domains; a discriminator has one")
    if not issubclass(component, Generator | Discriminator) and supplied:
        raise TypeError(f"{component.__name__}.__init__ takes a Domain; only networks are given one")


def validate(component: type, options: Mapping[str, Any]) -> BaseModel:
    """Returns the options that are not components, checked and with defaults. Raises pydantic's ValidationError."""
    # in JSON mode pydantic accepts a list for a tuple, which JSON doesn't have
    sign = signature(component)
    checked = sign.model.model_validate_json(json.dumps(options, default=os.fspath))
    kept = json.loads(checked.model_dump_json())
    for option, asked in options.items():
        if option in sign.paths and "" in _values(asked):
            # pathlib takes it for the current folder
            allowed = "the path of a file or a folder"
        elif _retyped(asked, kept[option]):
            allowed = json.dumps(kept[option])
        else:
            continue
        wrong = PydanticCustomError("own_type", "Input should be {allowed}", {"allowed": allowed})
        raise ValidationError.from_exception_data(
            component.__name__, [{"type": wrong, "loc": (option,), "input": asked}]
        )
    return checked


def _values(asked: Any) -> Iterable[Any]:
    """Returns the items of a list or the values of an object; of anything else, the value itself."""
    return asked.values() if isinstance(asked, Mapping) else asked if isinstance(asked, list) else [asked]


def arguments(component: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options that are not components as the constructor takes them. Raises ValidationError."""
    named = {name: value for name, value in options.items() if name in signature(component).model.model_fields}
    checked = validate(component, named)
    return {name: getattr(checked, name) for name in named}


def _retyped(asked: Any, kept: Any) -> bool:
    """Returns True if pydantic took a number for one of another type. For a `Literal`, true and 1.0 equal 1."""
    if isinstance(asked, Mapping) and isinstance(kept, dict):
        return any(_retyped(value, kept.get(key)) for key, value in asked.items())
    if isinstance(asked, list | tuple) and isinstance(kept, list):
        return any(map(_retyped, asked, kept))
    return isinstance(kept, bool | int) and (isinstance(asked, bool) != isinstance(kept, bool) or type(asked) is float)


def schema(component: type, references: str = "#/$defs/{model}") -> dict[str, Any]:
    """Returns the JSON Schema of a component's options, with descriptions from the class's docstring.

    A nested component is an object with a `type`. `references` is the form of the schema's references to its own
    definitions.
    """
    sign = signature(component)
    result = sign.model.model_json_schema(ref_template=references)
    for option, kind in sign.nested.items():
        result["properties"][option] = {
            "type": "object",
            "title": f"a nested {kind}",
            "properties": {"type": {"type": "string"}},
            "required": ["type"],
        }
        result.setdefault("required", []).append(option)
    for option, text in described(component).items():
        if (place := result["properties"].get(option)) is not None:
            # a description in the annotation takes precedence
            place.setdefault("description", text)
    if text := about(component):
        result["description"] = text
    return result


def meant(name: str, known: Iterable[str]) -> str:
    """Returns the end of a message about an unknown name: "; did you mean 'x'?", or "" if no known name is near."""
    # a guess that is less close would mislead
    close = get_close_matches(name, known, n=1, cutoff=0.65)
    return f"; did you mean {close[0]!r}?" if close else ""


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns the end of a message about an unknown name: the nearest known name, and all known names."""
    known = sorted(known)
    guess = meant(name, known) or ";"
    return f"{guess} {'known are: ' + ', '.join(known) if known else 'there are none'}"


def sentence(
    error: ValidationError, where: str, known: Iterable[str], asked: Any, model: type[BaseModel] | None = None
) -> str:
    """Returns the first error in `asked` as one sentence that names the place, the value and what is allowed.

    With the `model` that refused, the sentence names both ends of a range.
    """
    errors = error.errors(include_url=False)
    first = errors[0]
    at = tuple(_within(first["loc"], asked))
    place = ".".join(str(part) for part in (where, *at) if part != "")
    start = f"{place}: " if place else ""
    if first["type"] == "json_invalid":
        return f"{start}is not JSON: {first['ctx']['error'].split(' at line ')[0]}"
    if first["type"] == "extra_forbidden":
        return f"{start}unknown key{nearest(str(at[-1]), known)}"
    if first["type"] == "missing":
        return f"{'.'.join(filter(None, (place, str(first['loc'][-1]))))}: is required and has no default"
    if first["type"] == "value_error":
        return f"{start}{first['msg'].removeprefix('Value error, ')}"
    shown = json.dumps(first["input"], default=str)
    # each branch of a union has an error with what it allows
    here = [e for e in errors if tuple(_within(e["loc"], asked)) == at]
    allowed = dict.fromkeys(_says(e["msg"]) for e in here)
    out_of_range = len(here) == 1 and first["type"].startswith(("greater_than", "less_than"))
    if model is not None and out_of_range and (bounds := _range(model.model_json_schema(), first["loc"])):
        allowed = {bounds: None}
    return f"{start}{shown if len(shown) < 80 else shown[:77] + '...'} is not allowed: {', or '.join(allowed)}"


_BOUNDS = {
    "exclusiveMinimum": "greater than",
    "minimum": "greater than or equal to",
    "exclusiveMaximum": "less than",
    "maximum": "less than or equal to",
}


def _range(schema: Mapping[str, Any], location: Iterable[int | str]) -> str:
    """Returns the allowed range of the number at a location in a schema; "" if there are not two bounds."""
    place: Any = schema
    for part in location:
        if reference := place.get("$ref"):
            place = schema["$defs"][reference.rpartition("/")[2]]
        if isinstance(part, int):
            parts = place.get("prefixItems", [])
            place = parts[part] if part < len(parts) else place.get("items", {})
        else:
            place = place.get("properties", {}).get(part, {})
    bounds = [f"{words} {place[key]}" for key, words in _BOUNDS.items() if key in place]
    return f"it should be {' and '.join(bounds)}" if len(bounds) == 2 else ""


def _within(location: tuple[int | str, ...], asked: Any) -> Iterator[int | str]:
    """Yields the parts of pydantic's location that are keys in `asked`. The others name branches of a union."""
    for part in location:
        if isinstance(asked, Mapping) and part in asked:
            asked = asked[str(part)]
        elif isinstance(asked, list | tuple) and isinstance(part, int) and part < len(asked):
            asked = asked[part]
        else:
            continue
        yield part


_WORDS = {
    "a valid dictionary": "an object",
    "a valid object": "an object",
    "a valid array": "an array",
    "a valid tuple": "an array",
    "a valid list": "an array",
    "a valid boolean": "true or false",
    "a valid integer": "an integer",
    "a valid number": "a number",
    "a valid string": "a string",
    "Input should": "it should",
    "Dictionary should": "it should",
    "Tuple should": "it should",
    "List should": "it should",
    "String should": "it should",
    " after validation": "",
}


def _says(message: str) -> str:
    """Returns pydantic's message in the words of JSON."""
    for pydantic, ours in _WORDS.items():
        message = message.replace(pydantic, ours)
    return message
