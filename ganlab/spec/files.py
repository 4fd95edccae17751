"""Reads spec files: JSON that may extend another file, changed by `--set`."""

from __future__ import annotations

import json
from math import isfinite
from pathlib import Path
from typing import Any

from ganlab.errors import SpecError
from ganlab.spec.models import Json


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


def read(path: str | Path) -> Json:
    """Returns the JSON of a spec file, merged with the files that it extends.

    `name` is by default the name of the file. Raises SpecError if a file can't be read.
    """
    path = Path(path)
    try:
        return {"name": path.stem, **_read(path, ())}
    except RecursionError as error:
        raise SpecError(f"{path}: is nested too deeply") from error


def _read(path: Path, seen: tuple[Path, ...]) -> Json:
    try:
        real = path.resolve()
        # some editors start a file with a byte order mark, which utf-8-sig drops
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, RuntimeError, ValueError) as error:
        what = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error
        why = error.strerror if isinstance(error, OSError) and error.strerror else what
        raise SpecError(f"{path}: can't be read: {why}{f' ({seen[-1].name} extends it)' if seen else ''}") from error
    if real in seen:
        chain = " -> ".join(p.name for p in (*seen, real))
        raise SpecError(f"{path}: extends itself: {chain}")
    spec = _parse(text, path)
    base = spec.pop("extends", None)
    if base is None:
        alone: Json = merge({}, spec)
        return alone
    if not isinstance(base, str):
        raise SpecError(f"{path}: extends: {json.dumps(base)} is not allowed: it is the path of another spec")
    extended = _read(path.parent / base, (*seen, real))
    # these keys describe one file, and are not inherited
    merged: Json = merge({k: v for k, v in extended.items() if k not in ("name", "about", "$schema")}, spec)
    return merged


def _parse(text: str, path: Path) -> Json:
    def constant(name: str) -> float:
        raise SpecError(f"{path}: {name} is not allowed: numbers are finite")

    def number(text: str) -> float:
        return value if isfinite(value := float(text)) else constant(text)

    def unique(pairs: list[tuple[str, Any]]) -> Json:
        keys = [k for k, _ in pairs]
        for key in keys:
            if keys.count(key) > 1:
                raise SpecError(f"{path}: the key {key!r} appears twice in one object")
        return dict(pairs)

    try:
        spec = json.loads(text, parse_constant=constant, parse_float=number, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise SpecError(f"{path}: is not JSON: line {error.lineno}, column {error.colno}: {error.msg}") from error
    except ValueError as error:
        # Python refuses integers of thousands of digits
        raise SpecError(f"{path}: is not allowed: {str(error).split(';')[0]}") from error
    if not isinstance(spec, dict):
        raise SpecError(f"{path}: is JSON, but not an object")
    return spec


def assignment(text: str) -> Json:
    """Returns the patch that `--set path.to.key=value` describes. The value is JSON, or else a string."""
    path, equals, value = text.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not equals or not all(keys):
        raise SpecError(f"--set {text}: is not of the form path.to.key=value")
    try:
        patch: Any = json.loads(value, parse_constant=str)
    except (ValueError, RecursionError):
        patch = value
    for key in reversed(keys):
        patch = {key: patch}
    result: Json = patch
    return result
