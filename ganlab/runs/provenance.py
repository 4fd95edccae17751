"""Hashes of the code that trained or measured a run, and warnings when that code has changed."""

from __future__ import annotations

import functools
import hashlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from types import ModuleType

from ganlab.components.registry import Component, registry
from ganlab.spec.models import Json, ResolvedComponent

_CORE = __name__.partition(".")[0]


def code(components: Iterable[ResolvedComponent]) -> Json:
    """Returns {module: {"package", "version", "sha256", "used_by"}} for components and those nested in them.

    The keys are top-level modules: ganlab, the module of each component, and every module with components that it
    imports, directly or through others. "sha256" is the SHA-256 of the output of `sha256sum` for the module's .py
    files, sorted, with paths from the module's parent folder; None if the code can't be read as files. "used_by" lists
    the components' places in the spec.
    """
    used = [part for component in components for part in component.walk()]
    owners = {_top(owner): owner for owner in (*registry().components, *(part.component for part in used))}
    found: Json = {}
    for part in used:
        for name in sorted(_reached(_top(part.component), set(owners)) | ({_CORE} & owners.keys())):
            owner = {"package": owners[name].package, "version": owners[name].version}
            entry = found.setdefault(name, {**owner, "sha256": _source(sys.modules.get(name))[0], "used_by": []})
            entry["used_by"].append(part.place)
    return dict(sorted(found.items()))


def code_changes(path: Path, kept: Json, now: Json) -> Iterator[str]:
    """Yields a warning for each time that a run's code changed: between its processes, and since it was trained.

    `kept` is the run's environment.json, `now` the present `code`. Yields nothing if the run recorded no code.
    """
    known = [(entry.get("step", 0), entry["code"]) for entry in (kept, *kept.get("continued", ())) if "code" in entry]
    for (_, before), (step, after) in pairwise(known):
        if changed := _changed(before, after):
            yield (
                f"the code of {changed} changed after step {step} of {path}: its networks and results come from both"
                " versions; `ganlab run` with --fresh starts over"
            )
    if known and (changed := _changed(known[-1][1], now)):
        yield (
            f"the code of {changed} has changed since {path} was trained: its networks and results come from the"
            " earlier version; `ganlab run` with --fresh starts over"
        )


def metric_code_changes(path: Path, kept: Mapping[str, Mapping[str, str | None]]) -> Iterator[str]:
    """Yields a warning if the code of metrics has changed since {metric: {module: SHA-256}} was `kept`."""
    changed: dict[str, list[str]] = {}
    for metric, modules in kept.items():
        for name, sha256 in modules.items():
            if name in sys.modules and _source(sys.modules[name])[0] != sha256:
                changed.setdefault(name, []).append(metric)
    if changed:
        named = ", ".join(f"{name} ({', '.join(metrics)})" for name, metrics in changed.items())
        yield f"the code of {named} has changed since {path} was measured; `ganlab eval {path}` measures it again"


def _changed(before: Json, after: Json) -> str:
    """Returns the modules whose code differs, each with the places that use it unless every place does."""
    everywhere = {place for entry in after.values() for place in entry["used_by"]}
    named = []
    for name in sorted(before | after):
        one, other = before.get(name, {}), after.get(name, {})
        # only the version is known of code that can't be read as files
        parts = ("sha256",) if one.get("sha256") else ("sha256", "version")
        if any(one.get(part) != other.get(part) for part in parts):
            places = (other or one)["used_by"]
            named.append(name if set(places) == everywhere else f"{name} ({', '.join(places)})")
    return ", ".join(named)


def _top(component: Component) -> str:
    return component.cls.__module__.partition(".")[0]


def _reached(name: str, known: set[str]) -> set[str]:
    """Returns the module and all of `known` that it imports, directly or through others."""
    found, left = set[str](), {name}
    while left:
        found |= left
        left = {other for one in left for other in _source(sys.modules.get(one))[1] & known} - found
    return found


@functools.cache
def _source(module: ModuleType | None) -> tuple[str | None, frozenset[str]]:
    """Returns the hash of a top-level module's code and the top-level modules that it imports.

    Reads the files once per process, because a later edit does not change the code that runs.
    """
    file = getattr(module, "__file__", None)
    roots = [Path(root) for root in getattr(module, "__path__", None) or ([file] if file else [])]
    files = {
        path.relative_to(root.parent).as_posix(): path
        for root in roots
        for path in (root.rglob("*.py") if root.is_dir() else [root])
        # an editor's lock is a dangling link, its copies lie in hidden folders
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts)
    }
    try:
        contents = {name: path.read_bytes() for name, path in sorted(files.items())}
    except OSError:
        contents = {}
    lines = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in contents.items())
    statements = re.findall(rb"^\s*(?:from|import)\s+(\w[\w., ]*)", b"\n".join(contents.values()), re.M)
    imported = (name.split() for names in statements for name in names.decode().split(","))
    sha256 = hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest() if lines else None
    return sha256, frozenset(words[0].partition(".")[0] for words in imported if words)
