"""CelebA (arXiv:1411.7766), in the layout and the formats of its authors, and with the same lists as CSV."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

import ganlab
from ganlab.components.options import nearest
from ganlab_faces.shared import Faces, Limit, Seed

PAGE = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"

ATTRIBUTES = (
    *("5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs", "Big_Lips", "Big_Nose"),
    *("Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair", "Bushy_Eyebrows", "Chubby", "Double_Chin", "Eyeglasses"),
    *("Goatee", "Gray_Hair", "Heavy_Makeup", "High_Cheekbones", "Male", "Mouth_Slightly_Open", "Mustache"),
    *("Narrow_Eyes", "No_Beard", "Oval_Face", "Pale_Skin", "Pointy_Nose", "Receding_Hairline", "Rosy_Cheeks"),
    *("Sideburns", "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Earrings", "Wearing_Hat", "Wearing_Lipstick"),
    *("Wearing_Necklace", "Wearing_Necktie", "Young"),
)
"""The attributes, as `list_attr_celeba.txt` spells them."""

SPLITS = {"train": "0", "valid": "1", "test": "2"}
"""{name of a split: its number in `list_eval_partition.txt`}."""

_FOLDERS = ("img_align_celeba/img_align_celeba", "img_align_celeba", "Img/img_align_celeba")
_LISTS = ("", "Anno", "Eval")

_NAMES = {"enum": list(ATTRIBUTES)}


class CelebA(Faces):
    """The aligned faces of CelebA: 202,599 pictures of 178x218 pixels, each with 40 attributes that are true or false.

    The folder holds `img_align_celeba` with the pictures, `list_attr_celeba.txt` and, to choose a split,
    `list_eval_partition.txt`. The authors' own folders `Img`, `Anno` and `Eval` are found too, and so are the lists as
    CSV. CelebA may be used for non-commercial research only.

    Args:
        path: the folder. The default is `celeba` in $GANLAB_DATA, or else in ganlab/data in the user's data folder.
        where: {attribute: true or false}; other images are left out.
        split: the authors' part of the images: "train", "valid", "test", or "all".
        labels: attributes that make classes. One attribute makes the classes 0 (false) and 1 (true). Of several, such
            as the colours of hair, each makes a class, and images with none or several of them are left out.
        limit: the number of images to keep, chosen at random; 0 keeps all.
        seed: the random seed of that choice.

    Raises ValueError if there is no such attribute, or if `labels` repeats one.
    """

    name = "celeba"
    get = (
        f"{PAGE} has CelebA, for non-commercial research only; put img_align_celeba, unpacked, list_attr_celeba.txt and"
        " list_eval_partition.txt there"
    )

    def __init__(
        self,
        path: Path | None = None,
        where: Annotated[dict[str, bool], Field(json_schema_extra={"propertyNames": _NAMES})] = {},  # noqa: B006  (read only)
        split: Literal["all", "train", "valid", "test"] = "all",
        labels: tuple[Annotated[str, Field(json_schema_extra=_NAMES)], ...] = (),
        limit: Limit = 0,
        seed: Seed = 0,
    ) -> None:
        super().__init__(path, limit, seed)
        for option, names in (("where", where), ("labels", labels)):
            for name in names:
                if name not in ATTRIBUTES:
                    raise ValueError(f"{option}: CelebA has no attribute {name!r}{nearest(name, ATTRIBUTES)}")
        if len(set(labels)) < len(labels):
            raise ValueError(f"labels lists {[*labels]}; list each attribute once")
        self._where = where
        self._split = split
        self._labels = labels
        self.classes = 2 if len(labels) == 1 else len(labels)

    def keys(self, domain: str) -> list[str]:
        """Returns "000001.jpg", ... in the order of `list_attr_celeba.txt`."""
        places = {name: ATTRIBUTES.index(name) for name in self._where}
        found = [
            key for key, has in self._table.items() if all(has[places[name]] == self._where[name] for name in places)
        ]
        if self._split != "all":
            part = self._parts
            found = [key for key in found if part.get(key) == SPLITS[self._split]]
        if self.classes:
            found = [key for key in found if self._class(key) is not None]
        if not found:
            asked = {"where": dict(self._where), "split": self._split, "labels": [*self._labels]}
            raise ganlab.SpecError(f"data.{domain}: none of CelebA's {len(self._table)} images fits {asked}")
        return self.chosen(found)

    @functools.cached_property
    def pictures(self) -> Path:
        """The folder of the pictures. Raises SpecError if it is missing."""
        for folder in _FOLDERS:
            if (self.root / folder).is_dir():
                return self.root / folder
        raise self.missing("img_align_celeba")

    def files(self, key: str) -> list[Path]:
        """Returns the picture and, if it has a class, the list of attributes."""
        return [*super().files(key), *([self._attributes_file] if self.classes else [])]

    def label(self, key: str) -> int:
        """Returns the class that `labels` gives the image. Raises ValueError if it gives none."""
        found = self._class(key)
        if found is None:
            raise ValueError(f"{key} has not exactly one of the attributes {', '.join(self._labels)}")
        return found

    def attributes(self, key: str) -> dict[str, str]:
        """Returns {"Male": "false", "Smiling": "true", ...}: all 40 attributes."""
        return {name: "true" if has else "false" for name, has in zip(ATTRIBUTES, self._table[key], strict=True)}

    def credits(self) -> str:
        return (
            f"CelebA, by Ziwei Liu, Ping Luo, Xiaogang Wang and Xiaoou Tang, {PAGE}, for non-commercial research only;"
            " the images were obtained from the Internet and belong to their owners"
        )

    def _class(self, key: str) -> int | None:
        has = [self._table[key][ATTRIBUTES.index(name)] for name in self._labels]
        if len(has) == 1:
            return has[0]
        return has.index(1) if sum(has) == 1 else None

    @functools.cached_property
    def _attributes_file(self) -> Path:
        return self._list("list_attr_celeba")

    @functools.cached_property
    def _table(self) -> Mapping[str, bytes]:
        """{key: a byte for each of `ATTRIBUTES`, 0 or 1}."""
        path = self._attributes_file
        rows = _rows(path)
        count = None if path.suffix == ".csv" else next(rows, (0, [""]))[1][0]
        names = next(rows, (0, []))[1][path.suffix == ".csv" :]
        if sorted(names) != sorted(ATTRIBUTES):
            raise ganlab.SpecError(
                f"{path}: expected the {len(ATTRIBUTES)} attributes of CelebA, got {' '.join(names)!r}"
            )
        order = [names.index(name) for name in ATTRIBUTES]
        found: dict[str, bytes] = {}
        for number, (key, *values) in rows:
            if len(values) != len(names) or not {"1", "-1"}.issuperset(values):
                raise ganlab.SpecError(f"{path}, line {number}: expected {len(names)} values, 1 or -1, got {values}")
            found[key] = bytes(values[place] == "1" for place in order)
        if count not in (None, str(len(found))):
            raise ganlab.SpecError(f"{path}: expected {count} images, as its first line says, got {len(found)}")
        return found

    @functools.cached_property
    def _parts(self) -> Mapping[str, str]:
        """{key: number of its split}."""
        path = self._list("list_eval_partition")
        rows = list(_rows(path))[path.suffix == ".csv" :]
        for number, row in rows:
            if len(row) != 2 or row[1] not in SPLITS.values():
                raise ganlab.SpecError(f"{path}, line {number}: expected an image and 0, 1 or 2, got {' '.join(row)!r}")
        return {key: part for _, (key, part) in rows}

    def _list(self, name: str) -> Path:
        """Returns the file of a list. Raises SpecError if it is missing."""
        for folder in _LISTS:
            for suffix in (".txt", ".csv"):
                if (path := self.root / folder / f"{name}{suffix}").is_file():
                    return path
        raise self.missing(f"{name}.txt")


def _rows(path: Path) -> Iterator[tuple[int, Sequence[str]]]:
    """Yields (number of the line, cells) of a list that spaces separate, or commas if it is a CSV file."""
    separator = "," if path.suffix == ".csv" else None
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, [cell.strip() for cell in line.split(separator)]
    except (OSError, UnicodeDecodeError) as error:
        raise ganlab.SpecError(f"{path} can't be read: {error}") from error
