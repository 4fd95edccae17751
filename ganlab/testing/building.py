"""Builds components from classes and options, as the core builds them from a spec."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, cast

from pydantic import ValidationError

from ganlab.components.options import KINDS, arguments, nearest, signature, validate
from ganlab.components.registry import check_contract
from ganlab.interfaces.networks import Domain, Generator, Pair
from ganlab.system.build import finish_construction
from ganlab.testing.requirement import requirement
from ganlab.testing.simple import DIRECTIONS, STAND_INS

__tracebackhide__ = True


def check_class(cls: type, kind: str, options: Mapping[str, Any]) -> None:
    """Checks a class against the interface of its kind, and its options against JSON."""
    with requirement(cls, f"is a {KINDS[kind].__name__} with options that survive a round trip through JSON") as check:
        check(issubclass(cls, KINDS[kind]), f"it is {cls!r}")
        try:
            check_contract(cls)
            nested = signature(cls).nested
        except TypeError as error:
            check(False, str(error))
        plain = {name: value for name, value in options.items() if name not in nested}
        try:
            checked = validate(cls, plain)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            check(False, f"{'.'.join(map(str, first['loc']))}: {first['input']!r}: {first['msg']}")
        again = validate(cls, json.loads(checked.model_dump_json()))
        check(again == checked, f"{checked!r} comes back as {again!r}")
    with requirement(cls, "spells the names of the interface correctly") as check:
        missing, others = _names(cls, KINDS[kind])
        for name in others:
            check(not get_close_matches(name, missing, cutoff=0.8), f"it has {name!r}{nearest(name, missing)}")


def _names(cls: type, interface: type) -> tuple[list[str], list[str]]:
    """Returns the interface's public names that a class does not define, and the public names that the class adds to
    the interface but never uses itself."""
    known = {name for name in (*vars(interface), *inspect.get_annotations(interface)) if not name.startswith("_")}
    bases = [vars(base) for base in cls.__mro__ if base not in interface.__mro__]
    own = {name for base in bases for name in base}
    methods = [method for base in bases for method in base.values() if inspect.isfunction(method)]
    called = {name for method in methods for name in method.__code__.co_names}
    others = {name for name in own - known - called if not name.startswith("_") and not hasattr(interface, name)}
    return sorted(known - own), sorted(others)


def build(cls: type, options: Mapping[str, Any], domain: Domain | None = None) -> Any:
    """Builds a component and its nested components."""
    sign = signature(cls)
    made = cls(
        **arguments(cls, options),
        **{name: build(_nested(cls, options, name), {}, domain) for name in sign.nested},
        **dict.fromkeys(sign.supplied, domain),
    )
    finish_construction(made)
    return made


def build_pair(cls: type[Generator], domains: Mapping[str, Domain], options: Mapping[str, Any]) -> dict[str, Generator]:
    """Builds {direction: generator} for both directions."""
    nested: dict[str, Any] = {}
    for name, kind in signature(cls).nested.items():
        inner = _nested(cls, options, name)
        nested[name] = Pair(build_pair(inner, domains, {})) if kind == "generator" else build(inner, {})
    return cls.pair(domains, DIRECTIONS, **arguments(cls, options), **nested)


def _nested(cls: type, options: Mapping[str, Any], name: str) -> type:
    kind = signature(cls).nested[name]
    inner = options.get(name) or STAND_INS.get(kind)
    if inner is None:
        raise AssertionError(f"{cls.__name__} wraps a {kind}: pass a class as {name}=")
    return cast(type, inner)
