"""The folder of a shared model: its files, and how they are written."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

from ganlab import files
from ganlab.components.options import signature
from ganlab.errors import SpecError
from ganlab.runs import shared
from ganlab.runs.folder import RunFolder
from ganlab.sharing.card import Model, card
from ganlab.spec.models import Json, Spec
from ganlab.spec.paths import each_path

CARD, GRID, SPEC, EVALUATION = "README.md", "grid.png", "spec.json", "evaluation.json"

NAMES = (
    # the spec first: without it the folder is no model
    *(SPEC, CARD, GRID, EVALUATION),
    *(f"{direction}.{suffix}" for direction in shared.DIRECTIONS for suffix in ("safetensors", "onnx")),
)
"""The names of all files that a shared model may have."""


def check_target(target: Path, overwrite: bool) -> None:
    """Raises SpecError if the folder can't become a shared model, or if it is one and `overwrite` is False.

    Files with the names of a model's are replaced only in the folder of a model: a README.md elsewhere is the user's.
    """
    there = RunFolder(target)
    if there.exists and not there.shared:
        raise SpecError(f"{target} is a run, which is not overwritten; choose another folder")
    if target.exists() and not target.is_dir():
        raise SpecError(f"{target} is not a folder; choose another name")
    present = [name for name in NAMES if os.path.lexists(target / name)]
    if present and not there.shared:
        raise SpecError(f"{target / present[0]} exists, and {target} is no shared model; choose another folder")
    if present and not overwrite:
        others = f", and {len(present) - 1} others do" if len(present) > 1 else ""
        raise SpecError(f"{target / present[0]} exists{others}; replace with --overwrite, or choose another folder")


def contents(model: Model, grid: bytes | None = None) -> dict[str, bytes]:
    """Returns {name: content} of the files of a model."""
    weights = {
        f"{direction}.safetensors": shared.content(generator, model.about[direction])
        for direction, generator in model.generators.items()
    }
    return {
        **weights,
        **{f"{direction}.onnx": exported.content for direction, exported in model.onnx.items()},
        **({GRID: grid} if grid is not None else {}),
        **({EVALUATION: _json(model.evaluation)} if model.evaluation is not None else {}),
        CARD: card(model).encode(),
        # last: without it the folder is no model
        SPEC: _json(shareable(model.spec)),
    }


def write(target: Path, made: dict[str, bytes]) -> None:
    """Writes the files of a model, and removes those of the model that was there. Raises RunError if the disk fails."""
    with files.writing(target):
        for name in NAMES:
            (target / name).unlink(missing_ok=True)
        for name, content in made.items():
            files.write(target / name, content)


def shareable(spec: Spec) -> Json:
    """Returns a resolved spec as JSON, without what tells of a machine and its user.

    Of each path only the last part is kept. Callbacks are left out: they are no part of the model, they name accounts
    and servers, and who reads the model may lack their plugins.
    """
    found = spec.as_json()
    found["callbacks"] = {}
    components = [*spec.components.values(), *spec.evaluation.metric_components]
    if (features := spec.evaluation.features_component) is not None:
        components.append(features)
    for part in (part for component in components for part in component.walk()):
        for option in signature(part.component.cls).paths:
            _shorten(found, *part.place.split("."), option)
    # a run of this machine
    found["init"]["run"] = None
    return found


def _shorten(spec: Json, *place: str) -> None:
    *outer, key = place
    within: Any = functools.reduce(
        lambda inside, part: inside[int(part) if isinstance(inside, list) else part], outer, spec
    )
    within[key] = each_path(within[key], lambda path: path and Path(path).name)


def _json(value: Json) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"
