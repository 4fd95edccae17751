"""Builds components from classes and options, as the core builds them from a spec."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, cast

from pydantic import ValidationError

from ganlab.components.docstrings import documented
from ganlab.components.options import KINDS, arguments, nearest, signature, validate
from ganlab.components.registry import check_contract
from ganlab.interfaces.networks import Discriminator, Domain, Generator, Pair
from ganlab.system.build import finish_construction
from ganlab.testing.requirement import requirement
from ganlab.testing.simple import STAND_INS

__tracebackhide__ = True

Given = type | tuple[type, Mapping[str, Any]]
"""A component as an author passes it: its class, or (its class, {option: value})."""


def check_class(cls: type, kind: str, options: Mapping[str, Any]) -> None:
    """Checks a class against the interface of its kind, and its options against JSON; then its nested components."""
    interface = KINDS[kind]
    with requirement(cls, f"is a {interface.__name__} with options that survive a round trip through JSON") as check:
        check(issubclass(cls, interface), f"it is {cls!r}")
        try:
            check_contract(cls)
            sign = signature(cls)
        except TypeError as error:
            check(False, str(error))
        nested = {name: options[name] for name in sign.nested if name in options}
        for name, given in nested.items():
            check(_is_component(given), f"{name} is {given!r}; pass a class, or (class, {{option: value}})")
        plain = {name: value for name, value in options.items() if name not in sign.nested}
        try:
            checked = validate(cls, plain)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            check(False, f"{'.'.join(map(str, first['loc']))}: {first['input']!r}: {first['msg']}")
        again = validate(cls, json.loads(checked.model_dump_json()))
        check(again == checked, f"{checked!r} comes back as {again!r}")
    with requirement(cls, "spells the names of the interface correctly") as check:
        missing, others = _names(cls, interface)
        for name in others:
            check(not get_close_matches(name, missing, cutoff=0.8), f"it has {name!r}{nearest(name, missing)}")
    with requirement(cls, "describes only options that it has, in the section Args of its docstring") as check:
        known = [*sign.model.model_fields, *sign.nested, *sign.supplied]
        for name in documented(cls):
            check(name in known, f"there is no option {name!r}{nearest(name, known)}")
    for name, given in nested.items():
        inner, inner_options = _parts(given)
        check_class(inner, sign.nested[name], inner_options)


def check_given(given: Given, kind: str, argument: str) -> tuple[type, Mapping[str, Any]]:
    """Returns the class and the options of a component that an author passes beside the component under test, checked.

    Raises TypeError if the argument has another form.
    """
    if not _is_component(given):
        raise TypeError(f"{argument} is {given!r}; pass a class, or (class, {{option: value}})")
    cls, options = _parts(given)
    check_class(cls, kind, options)
    return cls, options


def _is_component(given: object) -> bool:
    match given:
        case type() | (type(), {}):
            return True
    return False


def _parts(given: Given) -> tuple[type, Mapping[str, Any]]:
    return given if isinstance(given, tuple) else (given, {})


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
        **{name: build(*_nested(cls, options, name), domain) for name in sign.nested},
        **dict.fromkeys(sign.supplied, domain),
    )
    finish_construction(made)
    if isinstance(made, Discriminator):
        made.sees = sees(cls, options)
    return made


def build_pair(
    cls: type[Generator], domains: Mapping[str, Domain], directions: Sequence[str], options: Mapping[str, Any]
) -> dict[str, Generator]:
    """Builds {direction: generator}."""
    nested: dict[str, Any] = {}
    for name, kind in signature(cls).nested.items():
        inner, given = _nested(cls, options, name)
        is_generator = kind == "generator"
        nested[name] = Pair(build_pair(inner, domains, directions, given)) if is_generator else build(inner, given)
    return cls.pair(domains, directions, **arguments(cls, options), **nested)


def sees(cls: type, options: Mapping[str, Any]) -> str:
    """Returns what a discriminator sees; a wrapper sees the same as the discriminator that it wraps."""
    for name, kind in signature(cls).nested.items():
        if kind == "discriminator":
            return sees(*_nested(cls, options, name))
    return cast(type[Discriminator], cls).sees


def _nested(cls: type, options: Mapping[str, Any], name: str) -> tuple[Any, Mapping[str, Any]]:
    kind = signature(cls).nested[name]
    given = options.get(name) or STAND_INS.get(kind)
    if given is None:
        raise AssertionError(f"{cls.__name__} wraps a {kind}: pass a class as {name}=")
    return _parts(given)
