"""Lists of files to leave out of a folder of images: the option `exclude` of `folder`.

A list is UTF-8 text with one path a line. A relative path starts at the folder of the list. Empty lines and lines that
start with # are ignored.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Mapping
from pathlib import Path

from ganlab.errors import SpecError


def read_exclusions(path: Path) -> frozenset[Path]:
    """Returns the files that a list names, for `remaining`. Raises SpecError if the list can't be read."""
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SpecError(f"exclude: {path} can't be read: {why}") from error
    named = (line.rstrip("\r") for line in text.split("\n"))
    return frozenset(_place(path.parent / line) for line in named if line and not line.startswith("#"))


def remaining(files: Mapping[str, Path], excluded: Container[Path]) -> list[str]:
    """Returns the keys of the files that are not excluded. `files` is {key: its file}."""
    # a folder of many files is looked up once
    inside = {parent: _place(parent / "file").parent for parent in {file.parent for file in files.values()}}
    return [key for key, file in files.items() if inside[file.parent] / file.name not in excluded]


def exclusions(path: Path, sections: Mapping[str, Iterable[Path]]) -> bytes:
    """Returns the content of a list at `path`: the files of each section, under its title as a comment.

    Paths below the folder of the list or beside it are relative. A name that no line can hold, because it has a line
    break or is not UTF-8, is left out.
    """
    lines: list[str] = []
    for title, files in sections.items():
        lines.append(f"# {title}")
        for file in files:
            line = os.path.relpath(file, path.absolute().parent)
            lines.append(f".{os.sep}{line}" if line.startswith("#") else line)
    return "".join(f"{line}\n" for line in lines if holds(line)).encode()


def holds(name: str) -> bool:
    """Returns True if a line can hold the name of a file."""
    return not any(character in "\r\n" or "\ud800" <= character <= "\udfff" for character in name)


def _place(path: Path) -> Path:
    """Returns a path whose folder is the same whichever links lead there. A link to a file keeps its own name."""
    return Path(os.path.realpath(path.parent)) / path.name
