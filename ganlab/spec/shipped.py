"""The experiments that ship with ganlab."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

_PACKAGE = Path(__file__).parents[1]


class Experiment(NamedTuple):
    """A spec that ships with ganlab."""

    name: str
    """Its name for commands and for `extends`: "emb", "paper/emb"."""
    about: str
    """The description in its spec."""
    path: Path
    """Its file."""


def experiments() -> list[Experiment]:
    """Returns the experiments, sorted by name, the small ones first."""
    paths = sorted(_folder().rglob("[!.]*.json"), key=lambda path: (len(path.parts), path))
    return [Experiment(_name(path), json.loads(path.read_text("utf-8")).get("about", ""), path) for path in paths]


def located(path: Path, name: str) -> Path:
    """Returns `path`, or the file of the shipped experiment `name` if there is no file at `path` and it exists."""
    shipped = _folder() / f"{name.removesuffix('.json')}.json"
    known = os.path.isfile(shipped) and not any(part.startswith(".") for part in Path(name).parts)
    return shipped if known and not os.path.isfile(path) else path


def asked_for(path: Path) -> Path:
    """Returns the file of a spec on a command line.

    That is `path`, or `path` with the suffix .json, or the shipped experiment of that name, whichever is there first.
    """
    beside = path.with_name(f"{path.name}.json") if path.name else path
    return beside if os.path.isfile(beside) and not os.path.isfile(path) else located(path, path.as_posix())


def _folder() -> Path:
    # a wheel has them in the package, a clone beside it
    inside = _PACKAGE / "experiments"
    return inside if inside.is_dir() else _PACKAGE.parent / "experiments"


def _name(path: Path) -> str:
    return path.relative_to(_folder()).with_suffix("").as_posix()
