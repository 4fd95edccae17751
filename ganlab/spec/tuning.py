"""Keeps the fastest setting for each device of this machine, as `ganlab bench --tune` has measured it.

The file lies in the user's cache folder and may be deleted at any time.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from ganlab import files
from ganlab.errors import RunError


class Tuned(NamedTuple):
    """A setting of `runtime` that `ganlab bench --tune` times."""

    precision: str
    compiled: bool = False
    """True if the networks are compiled."""

    def __str__(self) -> str:
        return f"{self.precision}, compiled" if self.compiled else self.precision


def place() -> Path | None:
    """Returns the file; None for a user without a home folder."""
    return files.cache_folder("tuned.json")


def tuned(device_name: str, known: Collection[str]) -> Tuned | None:
    """Returns the fastest setting of a device with this version of torch.

    Returns None if nothing was measured, if the precision is not one of `known`, or if the file can't be read.
    """
    found = _kept().get(_key(device_name))
    if not isinstance(found, Mapping) or not isinstance(precision := found.get("precision"), str):
        return None
    return Tuned(precision, found.get("compile") is True) if precision in known else None


def keep(device_name: str, fastest: Tuned, seconds: Mapping[Tuned, float], spec: str) -> Path:
    """Writes the fastest setting of a device and returns the file.

    `seconds` are those of a step in each setting, and `spec` names what was measured; people may read both. Raises
    RunError if the file can't be written.
    """
    if (path := place()) is None:
        raise RunError("the user has no home folder to keep the result in; name a folder in $GANLAB_CACHE")
    measured = {str(each): time for each, time in seconds.items()}
    entry = {"precision": fastest.precision, "compile": fastest.compiled, "seconds_a_step": measured, "spec": spec}
    with files.writing(path):
        files.write(path, json.dumps({**_kept(), _key(device_name): entry}, indent=2).encode())
    return path


def _key(device_name: str) -> str:
    return f"{device_name}, torch {torch.__version__}"


def _kept() -> dict[str, object]:
    if (path := place()) is None:
        return {}
    try:
        with files.opened(path) as file:
            found = json.load(file)
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
