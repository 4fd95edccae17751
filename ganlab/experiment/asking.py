"""Finds what a call names: a spec with its changes, a run folder, and where the spec came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ganlab.errors import SpecError
from ganlab.runs.folder import RunFolder
from ganlab.spec.files import assigned, parent, read
from ganlab.spec.models import Json, Spec, leaf_differences
from ganlab.spec.resolve import resolve


def asked_json(spec: str | Path | Mapping[str, Any] | Spec, set: Iterable[str]) -> tuple[Json, str]:
    """Returns a spec as JSON with the changes of `set`, and its name for messages."""
    if isinstance(spec, Spec):
        spec = spec.as_json()
    if isinstance(spec, Mapping):
        asked, where = dict(spec), "spec"
    elif folder := run_folder(spec):
        asked, where = RunFolder(folder).spec_json(), str(folder / "spec.json")
    else:
        asked, where = read(spec), str(spec)
    for text in set:
        asked = assigned(asked, text)
    return asked, where


def run_folder(spec: object) -> Path | None:
    """Returns the run folder that `spec` names, if it names one."""
    return Path(spec) if isinstance(spec, str | Path) and RunFolder(spec).exists else None


def origin_of(spec: object, set: Sequence[str], out: str | Path | None, asked: Json) -> Json:
    """Returns the origin of `asked`, a spec from `asked_json`: the entry "spec_origin" of environment.json.

    "spec", "set" and "out" are the arguments. "parent" is the file that the spec extends, or the spec's own file if
    `set` changed it. "differences" is {path: [value in the parent, value in `asked`]}. Returns {} for a spec that is
    not a file.
    """
    if not isinstance(spec, str | Path) or run_folder(spec):
        return {}
    found: Json = {"spec": str(spec), "set": list(set), "out": str(out) if out is not None else None}
    if (extended := parent(spec)) is None and not set:
        return found
    name, base = extended or (Path(spec).name, read(spec))
    try:
        before, after = (resolve({"name": "", **part}, name).as_json() for part in (base, asked))
    except SpecError:
        # the parent may be no whole spec
        before, after = base, dict(asked)
    for part in (before, after):
        for key in ("$schema", "name", "about"):
            part.pop(key, None)
    return {**found, "parent": name, "differences": {k: list(v) for k, v in leaf_differences(before, after).items()}}
