"""Reads spec files: JSON that may extend another file, changed by `--set`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any

from ganlab.components.options import meant, nearest
from ganlab.components.registry import registry
from ganlab.errors import SpecError, shortened
from ganlab.files import opened
from ganlab.spec.models import Json, check_json
from ganlab.spec.paths import anchored
from ganlab.spec.shipped import asked_for, experiments, located


def merge(target: Any, patch: Any) -> Any:
    """Returns `target` changed by a JSON Merge Patch (RFC 7396).

    One rule differs: an object with another `type` replaces the old object; only the old `weight` is kept.
    """
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    if "type" in patch and "type" in result and patch["type"] != result["type"]:
        result = {k: v for k, v in result.items() if k == "weight"}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def patched(spec: Json, patch: Json) -> Json:
    """Returns a spec changed by `merge`. A callback that the patch sets to null stays null: it may be on by default."""
    result: Json = merge(spec, patch)
    callbacks = patch.get("callbacks")
    if isinstance(callbacks, dict):
        result["callbacks"] |= {name: None for name, part in callbacks.items() if part is None}
    return result


def read(path: str | Path) -> Json:
    """Returns the JSON of a spec file, merged with the files that it extends.

    If there is no such file, the path may be the name of an experiment that ships with ganlab. Relative paths, also
    those of components' options, start at the folder of the file that gives them; they become absolute. `name` is by
    default the name of the file. Raises SpecError if a file can't be read.
    """
    path = asked_for(Path(path))
    try:
        return {"name": path.stem, **_read(path, ())}
    except RecursionError as error:
        raise SpecError(f"{path}: is nested too deeply") from error


def parent(path: str | Path) -> tuple[str, Json] | None:
    """Returns the spec that a spec file extends, with its name; None if it extends none. Raises SpecError."""
    path = asked_for(Path(path))
    base = _parse(_text(path, ()), path).get("extends")
    return (base, _read(located(path.parent / base, base), ())) if isinstance(base, str) else None


def _read(path: Path, seen: tuple[Path, ...]) -> Json:
    text, real = _text(path, seen), path.resolve()
    if real in seen:
        chain = " -> ".join(p.name for p in (*seen, real))
        raise SpecError(f"{path}: extends itself: {chain}")
    spec = _parse(text, path)
    base = spec.pop("extends", None)
    if base is None:
        alone: Json = anchored(patched({}, spec), path.parent)
        return alone
    if not isinstance(base, str):
        raise SpecError(f"{path}: extends: {json.dumps(base)} is not allowed: it is the path of another spec")
    extended = _read(located(path.parent / base, base), (*seen, real))
    # these keys describe one file, and are not inherited
    inherited = {k: v for k, v in extended.items() if k not in ("name", "about", "$schema")}
    # the paths of the extended files are absolute already
    merged: Json = anchored(patched(inherited, spec), path.parent)
    return merged


def _text(path: Path, seen: tuple[Path, ...]) -> str:
    """Returns the content of a spec file; `seen` are the files that extend it."""
    try:
        path.resolve()
        # some editors start a file with a byte order mark, which utf-8-sig drops
        with opened(path) as file:
            return file.read().decode("utf-8-sig")
    except (OSError, RuntimeError, ValueError) as error:
        if path.is_dir():
            raise SpecError(
                f"{path}: is a folder without a run; a spec is a JSON file, a shipped experiment or a run folder"
            ) from error
        what = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error
        why = error.strerror if isinstance(error, OSError) and error.strerror else what
        extended = f" ({seen[-1].name} extends it)" if seen else ""
        # the path of an extended file is absolute
        name = (path.name if seen else path.as_posix()).removesuffix(".json")
        guess = meant(name, (each.name for each in experiments())) if isinstance(error, FileNotFoundError) else ""
        raise SpecError(f"{path}: can't be read: {why}{extended}{guess}") from error


def _parse(text: str, path: Path) -> Json:
    def constant(name: str) -> float:
        raise SpecError(f"{path}: {name} is not allowed: numbers are finite")

    def number(text: str) -> float:
        return value if isfinite(value := float(text)) else constant(text)

    def unique(pairs: list[tuple[str, Any]]) -> Json:
        found: Json = {}
        for key, value in pairs:
            if key in found:
                raise SpecError(f"{path}: the key {key!r} appears twice in one object")
            found[key] = value
        return found

    try:
        spec = json.loads(text, parse_constant=constant, parse_float=number, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise SpecError(f"{path}: is not JSON: line {error.lineno}, column {error.colno}: {error.msg}") from error
    except ValueError as error:
        # Python refuses integers of thousands of digits
        raise SpecError(f"{path}: is not allowed: {str(error).split(';')[0]}") from error
    if not isinstance(spec, dict):
        raise SpecError(f"{path}: is JSON, but not an object")
    check_json(spec, str(path))
    return spec


def _json(text: str) -> Any:
    """Returns the value of JSON; text that is not JSON stands for itself."""
    try:
        return json.loads(text, parse_constant=str)
    except (ValueError, RecursionError):
        return text


def assigned(spec: Json, text: str) -> Json:
    """Returns a spec changed by `--set path.to.key=value`. Raises SpecError."""
    patch = assignment(text)
    for key in ("discriminators", "losses", "callbacks"):
        named, parts = patch.get(key), spec.get(key) or {}
        if key == "callbacks" and isinstance(parts, dict):
            parts = dict.fromkeys(registry().callbacks_by_default()) | parts
        for name, part in named.items() if isinstance(named, dict) and isinstance(parts, dict) else ():
            # a merge patch that removes a missing key changes nothing, and gives no error
            if part is None and name not in parts:
                raise SpecError(f"--set {text}: there is no {name!r} to remove from {key}{nearest(name, parts)}")
    return patched(spec, patch)


def assignment(text: str) -> Json:
    """Returns the patch that `--set path.to.key=value` describes. The value is JSON, or else a string."""
    path, equals, value = text.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not equals or not all(keys):
        raise SpecError(f"--set {text}: is not of the form path.to.key=value")
    patch = _json(value)
    for key in reversed(keys):
        patch = {key: patch}
    check_json(patch, f"--set {shortened(text, 80)}")
    result: Json = patch
    return result


@contextmanager
def explaining(assignments: Iterable[str]) -> Iterator[None]:
    """Adds a hint to a SpecError about a value that one of the assignments gave as JSON, if a string may be meant."""
    try:
        yield
    except SpecError as error:
        for text in assignments:
            path, _, value = text.partition("=")
            read_as = _json(value)
            wrong = (f"{json.dumps(read_as)} is not allowed: it should be a string", "is required")
            if not isinstance(read_as, str) and any(f"{path}: {why}" in str(error) for why in wrong):
                raise SpecError(
                    f"{error}; --set reads {value} as JSON: the string is --set '{path}=\"{value}\"', and"
                    f" a file or folder of that name is also ./{value}"
                ) from error
        raise
