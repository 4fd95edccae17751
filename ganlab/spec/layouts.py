"""Finds the images of both domains below one folder, in the layouts that data sets come in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ganlab.errors import SpecError, plural
from ganlab.spec.models import Json
from ganlab.spec.paths import absolute

SPLITS = ("test", "val", "valid", "validation")
"""The names of splits that are held out of training. Of several, the first is used."""

_OF_SPLITS = {f"{split}{end}" for split in ("train", *SPLITS) for end in ("", "A", "B")}
"""The names of folders that hold a split of the images, not a domain."""

LAYOUTS = (
    "trainA and trainB, optionally testA and testB; train with two folders, optionally test with the same two; two"
    " folders, one for each domain; or images and no folders, which become domain a"
)
"""The layouts that are understood, in words."""


class Layout(NamedTuple):
    """The folders of both domains."""

    train: Mapping[str, Path]
    """{domain: the folder of its images}; a alone for a folder of images."""
    held_out: Mapping[str, Path]
    """{domain: the folder of its held-out images}; empty if there is no such split."""
    unused: Sequence[str]
    """The names of further splits, which are not read."""


def find(root: Path) -> Layout:
    """Returns the folders of both domains below `root`, or `root` itself as that of a if it has no folders.

    If the folders are not named by the letters A and B, the first in alphabetical order is that of a. Raises SpecError
    if the layout is none of `LAYOUTS`.
    """
    names = _folders(root)
    inner = _folders(root / "train") if "train" in names else []
    if {"trainA", "trainB"} <= {*names}:
        pattern, ends = "{split}{end}", ["A", "B"]
    elif len(inner) == 2:
        pattern, ends = "{split}/{end}", inner
    elif len(names) == 2 and _OF_SPLITS.isdisjoint(names):
        return Layout(dict(zip("ab", (root / name for name in names), strict=True)), {}, ())
    elif not names and any(not each.name.startswith(".") for each in root.iterdir()):
        return Layout({"a": root}, {}, ())
    else:
        among = f"{plural(len(names), 'folder')}{': ' if names else ''}{_some(names)}"
        below = f"; train has {plural(len(inner), 'folder')}{': ' if inner else ''}{_some(inner)}"
        raise SpecError(f"data.root: {root} has {among}{below if 'train' in names else ''}; expected {LAYOUTS}")

    def folders(split: str) -> dict[str, Path]:
        return {d: root / pattern.format(split=split, end=end) for d, end in zip("ab", ends, strict=True)}

    splits = [split for split in SPLITS if _is_there(root, folders(split))]
    return Layout(folders("train"), folders(splits[0]) if splits else {}, splits[1:])


def _is_there(root: Path, folders: Mapping[str, Path]) -> bool:
    """Returns True if a split has both domains, False if it has none. Raises SpecError if it has one alone."""
    missing = [folder.relative_to(root) for folder in folders.values() if not folder.is_dir()]
    present = [folder.relative_to(root) for folder in folders.values() if folder.is_dir()]
    outer = next(iter(folders.values())).parent
    if missing and (present or (outer != root and outer.is_dir())):
        raise SpecError(f"data.root: {root} has {(present or [outer.relative_to(root)])[0]}, and no {missing[0]}")
    return not missing


def _folders(folder: Path) -> list[str]:
    """Returns the names of the folders in a folder, sorted, without hidden ones. Raises SpecError."""
    try:
        return sorted(each.name for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))
    except OSError as error:
        raise SpecError(f"data.root: the folder {str(folder)!r} can't be read: {error.strerror or error}") from error


def _some(names: Sequence[str]) -> str:
    return ", ".join([*names[:5], *(["..."] if len(names) > 5 else [])])


def with_sources(asked: Json, where: str) -> Json:
    """Returns a spec in which sources of type `folder`, one for each domain found, replace `data.root` and `data.swap`.

    If the spec already has a source of that type, only its `path` and `held_out` are replaced. The source of a domain
    that is not in the folder is kept. A spec without `data.root` is returned unchanged. `where` names the spec in error
    messages. Raises SpecError if the layout is not understood, or if `data.swap` is true without `data.root`.
    """
    if (found := _layout(asked)) is None:
        if isinstance(data := asked.get("data"), dict) and data.get("swap") is True:
            raise SpecError(f"{where}: data.swap: true is not allowed without data.root, the folder of both domains")
        return asked
    data = {key: value for key, value in asked["data"].items() if key not in ("root", "swap")}
    for domain in found.train:
        old = data.get(domain)
        options = dict(old) if isinstance(old, dict) and old.get("type", "folder") == "folder" else {}
        options |= {"type": "folder", "path": str(found.train[domain]), "held_out": None}
        if domain in found.held_out:
            options["held_out"] = str(found.held_out[domain])
        data[domain] = options
    return {**asked, "data": data}


def described(asked: Json) -> str | None:
    """Returns the sentence that says which folder below `data.root` is which domain; None without `data.root`.

    Raises SpecError if the layout is not understood.
    """
    if (found := _layout(asked)) is None:
        return None
    held = ", ".join(str(folder) for folder in found.held_out.values())
    which = ", ".join(f"{domain} is {found.train.get(domain, 'as the spec has it')}" for domain in "ab")
    return "; ".join(
        [
            f"{which} (--swap exchanges them)",
            *([f"held out: {held}"] if held else []),
            *([f"not used: {', '.join(found.unused)}"] if found.unused else []),
        ]
    )


def _layout(asked: Json) -> Layout | None:
    """Returns the layout of `data.root` with the domains exchanged if `data.swap` is true; None without a root."""
    data = asked.get("data")
    if not isinstance(data, dict) or not isinstance(root := data.get("root"), str) or not root:
        # the check of the spec's form refuses other values
        return None
    found = find(Path(absolute(root, Path())))
    if data.get("swap") is not True:
        return found
    train, held_out = ({"ab"["ba".index(d)]: folder for d, folder in part.items()} for part in found[:2])
    return Layout(train, held_out, found.unused)
