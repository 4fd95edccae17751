"""Components made of classes and options, as the core makes them of a spec."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, cast

from pydantic import ValidationError

from ganlab.interfaces import Domain, Generator, Pair
from ganlab.modules import settle
from ganlab.options import KINDS, arguments, nearest, signature, validate
from ganlab.registry import check_contract
from ganlab.testing.promise import promise
from ganlab.testing.simple import STAND_INS, WAYS

__tracebackhide__ = True


def check_class(cls: type, kind: str, options: Mapping[str, Any]) -> None:
    with promise(cls, f"is a {KINDS[kind].__name__} whose options come back from JSON as they are") as so:
        so(issubclass(cls, KINDS[kind]), f"it is {cls!r}")
        try:
            check_contract(cls)
            nested = signature(cls).nested
        except TypeError as error:
            so(False, str(error))
        plain = {name: value for name, value in options.items() if name not in nested}
        try:
            checked = validate(cls, plain)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            so(False, f"{'.'.join(map(str, first['loc']))}: {first['input']!r}: {first['msg']}")
        again = validate(cls, json.loads(checked.model_dump_json()))
        so(again == checked, f"{checked!r} comes back as {again!r}")
    with promise(cls, "spells what it defines as the interface does") as so:
        missing, others = _names(cls, KINDS[kind])
        for name in others:
            so(not get_close_matches(name, missing, cutoff=0.8), f"it has {name!r}{nearest(name, missing)}")


def _names(cls: type, interface: type) -> tuple[list[str], list[str]]:
    """The interface's public names that a class doesn't define, and the class's own that are none of the interface, nor
    called by itself."""
    known = {name for name in (*vars(interface), *inspect.get_annotations(interface)) if not name.startswith("_")}
    bases = [vars(base) for base in cls.__mro__ if base not in interface.__mro__]
    own = {name for base in bases for name in base}
    methods = [method for base in bases for method in base.values() if inspect.isfunction(method)]
    called = {name for method in methods for name in method.__code__.co_names}
    others = {name for name in own - known - called if not name.startswith("_") and not hasattr(interface, name)}
    return sorted(known - own), sorted(others)


def made_of(cls: type, options: Mapping[str, Any], domain: Domain | None = None) -> Any:
    """A component as the core makes it, its nested ones too."""
    sign = signature(cls)
    made = cls(
        **arguments(cls, options),
        **{name: made_of(_nested(cls, options, name), {}, domain) for name in sign.nested},
        **dict.fromkeys(sign.supplied, domain),
    )
    settle(made)
    return made


def pair_of(cls: type[Generator], domains: Mapping[str, Domain], options: Mapping[str, Any]) -> dict[str, Generator]:
    nested: dict[str, Any] = {}
    for name, kind in signature(cls).nested.items():
        inner = _nested(cls, options, name)
        nested[name] = Pair(pair_of(inner, domains, {})) if kind == "generator" else made_of(inner, {})
    return cls.pair(domains, WAYS, **arguments(cls, options), **nested)


def _nested(cls: type, options: Mapping[str, Any], name: str) -> type:
    kind = signature(cls).nested[name]
    inner = options.get(name) or STAND_INS.get(kind)
    if inner is None:
        raise AssertionError(f"{cls.__name__} wraps a {kind}, and none is given: {name}=a class")
    return cast(type, inner)
