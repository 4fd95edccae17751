"""Of which code a run is, and whether that has changed since."""

from __future__ import annotations

import functools
import hashlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from types import ModuleType

from ganlab.options import signature
from ganlab.registry import Component, Registry
from ganlab.spec import Json, Options, Spec

_CORE = __name__.partition(".")[0]


def code(registry: Registry, used: Iterable[tuple[str, Component]]) -> Json:
    """{module: {"package", "version", "sha256", "used_by"}} of components, each with the place where it is used: the
    top-level modules that their classes come from and those with components that these import, ganlab's own too.

    The hash is of what `sha256sum` prints of the module's .py files, in the order of their names from its parent
    folder; None where they are no files.
    """
    owners = {_top(component): component for component in registry.components}
    found: Json = {}
    for place, component in used:
        for name in sorted(_reached(_top(component), set(owners)) | ({_CORE} & owners.keys())):
            owner = {"package": owners[name].package, "version": owners[name].version}
            fact = found.setdefault(name, {**owner, "sha256": _source(sys.modules.get(name))[0], "used_by": []})
            fact["used_by"].append(place)
    return dict(sorted(found.items()))


def of_other_code(path: Path, kept: Json, now: Json) -> Iterator[str]:
    """A sentence for each time that the code changed under a run: `kept` is its environment.json, `now` the present
    `code`. One that was begun before code was kept says nothing."""
    known = [(0, kept["code"])] if "code" in kept else []
    known += [(went_on["step"], went_on["code"]) for went_on in kept.get("continued", ()) if "code" in went_on]
    for (_, then), (step, after) in pairwise(known):
        if changed := _changed(then, after):
            yield (
                f"the code of {changed} changed after step {step} of {path}, whose networks and figures are of both;"
                " `ganlab run` with --fresh begins anew"
            )
    if known and (changed := _changed(known[-1][1], now)):
        yield (
            f"the code of {changed} has changed since {path} was trained, whose networks and figures are of the code as"
            " it was; `ganlab run` with --fresh trains anew"
        )


def measured_by_other_code(path: Path, kept: Mapping[str, Mapping[str, str | None]]) -> Iterator[str]:
    """A sentence where the code of metrics changed: `kept` is {metric: {module: hash}} as they measured the run."""
    changed: dict[str, list[str]] = {}
    for metric, modules in kept.items():
        for name, sha256 in modules.items():
            if name in sys.modules and _source(sys.modules[name])[0] != sha256:
                changed.setdefault(name, []).append(metric)
    if changed:
        told = ", ".join(f"{name} ({', '.join(metrics)})" for name, metrics in changed.items())
        yield f"the code of {told} has changed since {path} was measured; `ganlab eval {path}` measures anew"


def _changed(then: Json, now: Json) -> str:
    """The modules whose code differs, each with the components that use it unless all do."""
    everywhere = {place for fact in now.values() for place in fact["used_by"]}
    told = []
    for name in sorted(then | now):
        one, other = then.get(name, {}), now.get(name, {})
        # where files can't be read, the version is all that is known
        if any(one.get(k) != other.get(k) for k in ("sha256", *(["version"] if one.get("sha256") is None else []))):
            places = (other or one)["used_by"]
            told.append(name if set(places) == everywhere else f"{name} ({', '.join(places)})")
    return ", ".join(told)


def trains(registry: Registry, spec: Spec) -> Iterator[tuple[str, Component]]:
    """(place in the spec, component) of all that trains."""
    named = {("discriminator", f"discriminators.{label}"): options for label, options in spec.discriminators.items()}
    named |= {("loss", f"losses.{label}"): options for label, options in spec.losses.items()}
    named |= {("source", f"data.{domain}"): spec.data.source(domain) for domain in "ab"}
    named |= {(kind, kind): getattr(spec, kind) for kind in ("generator", "schedule")}
    for (kind, place), options in named.items():
        yield from with_nested(registry, kind, place, options)


def with_nested(registry: Registry, kind: str, place: str, options: Options) -> Iterator[tuple[str, Component]]:
    """(place, component) of a component and of those inside it."""
    component = registry.find(kind, options["type"], place)
    yield place, component
    for option, inner in signature(component.cls).nested.items():
        yield from with_nested(registry, inner, f"{place}.{option}", options[option])


def _top(component: Component) -> str:
    return component.cls.__module__.partition(".")[0]


def _reached(name: str, known: set[str]) -> set[str]:
    """A module and those of the known ones that it imports, and so on."""
    found, left = set[str](), {name}
    while left:
        found |= left
        left = {other for one in left for other in _source(sys.modules.get(one))[1] & known} - found
    return found


@functools.cache
def _source(module: ModuleType | None) -> tuple[str | None, frozenset[str]]:
    """The hash of a top-level module's code, and the names of the top-level modules that it imports. Read once: what is
    edited later is not what runs."""
    lines, imports = [], set[str]()
    file = getattr(module, "__file__", None)
    roots = [Path(root) for root in getattr(module, "__path__", None) or ([file] if file else [])]
    files = {
        path.relative_to(root.parent).as_posix(): path
        for root in roots
        for path in (root.rglob("*.py") if root.is_dir() else [root])
        # an editor's lock is a link to nothing, its copies lie in hidden folders
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts)
    }
    try:
        for name, path in sorted(files.items()):
            content = path.read_bytes()
            lines.append(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
            for found in re.findall(rb"^\s*(?:from|import)\s+(\w[\w., ]*)", content, re.M):
                imports |= {each.split()[0].split(".")[0] for each in found.decode().split(",") if each.strip()}
    except OSError:
        lines = []
    text = "".join(lines).encode(errors="surrogateescape")
    return hashlib.sha256(text).hexdigest() if lines else None, frozenset(imports)
