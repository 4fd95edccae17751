"""Keeps the precision that is the fastest on each device of this machine, as `ganlab bench --tune` has measured it.

The file lies in the user's cache folder and may be deleted at any time.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path

import torch

from ganlab import files
from ganlab.errors import RunError


def place() -> Path | None:
    """Returns the file; None for a user without a home folder."""
    return files.cache_folder("tuned.json")


def tuned(device_name: str, known: Collection[str]) -> str | None:
    """Returns the precision that was the fastest on a device with this version of torch.

    Returns None if none was measured, if it is not one of `known`, or if the file can't be read.
    """
    found = _kept().get(_key(device_name))
    chosen = found.get("precision") if isinstance(found, Mapping) else None
    return chosen if isinstance(chosen, str) and chosen in known else None


def keep(device_name: str, precision: str, seconds: Mapping[str, float], spec: str) -> Path:
    """Writes the fastest precision of a device and returns the file.

    `seconds` are those of a step in each precision, and `spec` names what was measured; people may read both. Raises
    RunError if the file can't be written.
    """
    if (path := place()) is None:
        raise RunError("the user has no home folder to keep the result in; name a folder in $GANLAB_CACHE")
    entry = {"precision": precision, "seconds_a_step": dict(seconds), "spec": spec}
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
