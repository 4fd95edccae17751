"""Classes of images from the values of an attribute, and the attributes in a file `labels.csv`."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ganlab.errors import SpecError

LABELS = "labels.csv"
"""The name of the file."""

FILE = "file"
"""The column with the paths of the images, relative to the folder of the file."""


class Classes:
    """Classes of images: chosen values of one attribute. The class of an image is the place of its value.

    Raises ValueError if an attribute is named and fewer than two different values are listed, or the reverse.
    """

    def __init__(self, attribute: str | None, values: Sequence[str]) -> None:
        if attribute is None and values:
            raise ValueError(f"classes lists {[*values]}, and labels names nothing that has these values")
        if attribute is not None and len(set(values)) < max(2, len(values)):
            raise ValueError(
                f"labels is {attribute!r}, and classes lists {[*values]}; list the values that become classes, two or"
                " more, each once"
            )
        self.attribute = attribute
        self.values = tuple(values)

    def __len__(self) -> int:
        return len(self.values)

    def of(self, attributes: Mapping[str, str]) -> int | None:
        """Returns the class of an image with these attributes; None if it has none."""
        value = None if self.attribute is None else attributes.get(self.attribute)
        return None if value not in self.values else self.values.index(value)

    def check(self, where: str, attributes: Iterable[Mapping[str, str]]) -> None:
        """Raises SpecError, with a message that begins with `where`, if a class has none of the images."""
        found = {each[self.attribute] for each in attributes if self.attribute is not None and self.attribute in each}
        for value in self.values:
            if value not in found:
                known = ", ".join(sorted(found)[:20]) or "none"
                raise SpecError(f"{where}: no image has the {self.attribute} {value!r}; the values are: {known}")


def read_labels(path: Path) -> dict[str, dict[str, str]]:
    """Reads a file `labels.csv`: UTF-8, comma-separated, with a header that has the column `file`.

    Returns {path of an image: {column: value}}. An empty cell gives no value. Raises SpecError if the file can't be
    read, has no such column, or has a line with too few or too many cells or with the path of a line before it.
    """
    found: dict[str, dict[str, str]] = {}
    try:
        # a table from Excel begins with a byte order mark
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            columns = next(lines, [])
            if FILE not in columns or len(set(columns)) < len(columns):
                raise SpecError(
                    f"{path}: expected different columns, one of them {FILE!r}, got {', '.join(columns) or 'none'}"
                )
            for cells in lines:
                if not cells:
                    continue
                if len(cells) != len(columns):
                    raise SpecError(
                        f"{path}, line {lines.line_num}: expected {len(columns)} cells, got {len(cells)}:"
                        f" {','.join(cells)!r}"
                    )
                row = dict(zip(columns, cells, strict=True))
                if (key := row.pop(FILE)) in found:
                    raise SpecError(f"{path}, line {lines.line_num}: {key!r} is in an earlier line too")
                found[key] = {column: value for column, value in row.items() if value}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SpecError(f"{path} can't be read: {error}") from error
    return found
