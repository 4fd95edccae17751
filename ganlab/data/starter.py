"""Writes the spec of an experiment on two folders of pictures, with an image size and a batch that fit them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ganlab import files
from ganlab.data.image_files import declared_size, found_below
from ganlab.errors import SpecError
from ganlab.spec.devices import devices
from ganlab.spec.models import Json
from ganlab.spec.resolve import checked

BASE = "own"
"""The shipped experiment that the spec extends."""

SIZES = {64: 8, 128: 4, 256: 1}
"""{image size: batch}. CycleGAN trains one image of 256 pixels at a time (arXiv:1703.10593)."""

LOOKED_AT = 200
"""The most pictures of a folder of which the size is read."""

HELD_OUT = 16
"""The number of pictures to hold out of a small folder: half of them validate, and half are measured."""


FEWEST = 32
"""The fewest pictures of a folder with which all numbers can be measured: half are held out, and half of those are
measured."""


class _Pictures(NamedTuple):
    readable: int
    """The number of readable pictures, estimated from those looked at."""
    side: float
    """The median of the shorter sides, in pixels."""


def init(name: str, a: str | Path, b: str | Path, warn: Callable[[str], object] = str) -> tuple[Path, Json]:
    """Writes NAME.json, a spec for the pictures in the folders a and b. Returns its path and its content.

    The image size is at most the pictures' own, and 64 pixels without a GPU. `warn` receives a sentence if a folder has
    too few pictures to measure. Raises SpecError, with nothing written, if the name is not allowed, the file exists,
    one folder is inside the other, or a folder has fewer than two readable pictures.
    """
    path = Path(f"{name}.json")
    found = {domain: _pictures(folder, f"--{domain}") for domain, folder in (("a", a), ("b", b))}
    _check_apart(a, b)
    side, count = min(p.side for p in found.values()), min(p.readable for p in found.values())
    on_gpu = devices()[0] != "cpu"
    size = max((s for s in SIZES if s <= side and on_gpu), default=min(SIZES))
    holdout = round(min(max(HELD_OUT / count, 0.1), 0.5), 2)
    training = count - min(max(round(count * holdout), 1), count - 1)
    spec = {
        "about": f"pictures of {Path(a).name} into those of {Path(b).name}, and back",
        "extends": BASE,
        "data": {
            "a": {"type": "folder", "path": str(a)},
            "b": {"type": "folder", "path": str(b)},
            "size": size,
            "batch": min(SIZES[size], training),
            "holdout": holdout,
        },
    }
    # for the rules of names and texts; the base has the other keys
    checked({"name": name, "data": spec["data"], "generator": {}, "losses": {"any": {}}, "schedule": {}}, "init")
    text = json.dumps(spec, indent=2, ensure_ascii=False) + "\n"
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise SpecError(f"{path} exists already; choose another name, or move it away") from None
    counts = zip((a, b), (pictures.readable for pictures in found.values()), strict=True)
    if few := [f"{folder} holds {readable}" for folder, readable in counts if readable < FEWEST]:
        warn(f"some numbers need {FEWEST} pictures in each folder, and {' and '.join(few)}; they are left out")
    return path, spec


def _check_apart(a: str | Path, b: str | Path) -> None:
    """Raises SpecError if a picture would be in both domains: folders are read with their subfolders."""
    one, other = files.home_expanded(a).resolve(), files.home_expanded(b).resolve()
    if one == other:
        raise SpecError(f"--a and --b are the same folder, {a}; each is one of two sets of pictures")
    for inner, outer in ((one, other), (other, one)):
        if inner.is_relative_to(outer):
            raise SpecError(f"--a and --b share pictures: {inner} is inside {outer}, which is read with its subfolders")


def _pictures(folder: str | Path, option: str) -> _Pictures:
    try:
        path = files.home_expanded(folder)
    except ValueError as error:
        raise SpecError(f"{option}: {error}") from error
    if not path.is_dir():
        raise SpecError(f"{option}: {folder} {'is not a folder' if path.exists() else 'does not exist'}")
    keys = found_below(path)
    chosen = keys[:: max(1, -(-len(keys) // LOOKED_AT))]
    sides = [min(size) for key in chosen if (size := declared_size(path / key)) is not None]
    count = round(len(keys) * len(sides) / len(chosen)) if chosen else 0
    if count < 2:
        raise SpecError(f"{option}: {folder} holds {count} readable pictures; at least two are needed")
    return _Pictures(count, statistics.median(sides))
