"""Files that belong to the images of a folder: masks and further pictures, which are in folders of their own."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from ganlab.data.image_files import FORMATS, Range, declared_size, found_below, opened, picture
from ganlab.errors import SpecError
from ganlab.files import home_expanded

EXACT = tuple(sorted({*FORMATS} - {"AVIF", "JPEG", "JPEG2000", "WEBP"}))
"""The formats of masks. The others may change values a little, which makes other classes."""


class Companions:
    """One file for each image: the file of the same path inside a folder, whatever its suffix."""

    def __init__(self, name: str, folder: Path, values: Literal["picture", "classes"]) -> None:
        self._name, self._folder, self._values = name, home_expanded(folder), values

    def check(self, where: str) -> None:
        """Raises SpecError if there is no such folder."""
        if not self._folder.is_dir():
            what = "is not a folder" if self._folder.exists() else "does not exist"
            raise SpecError(f"{where}.{self._name}: the folder {str(self._folder)!r} {what}")

    def file(self, key: str) -> Path:
        """Returns the file for the image with the path `key` in its folder. Raises ValueError unless there is exactly
        one."""
        names = self._names.get(os.path.splitext(key)[0], [])
        if not names:
            raise ValueError(f"has no {self._name!r} in {self._folder}")
        if len(names) > 1 and key not in names:
            raise ValueError(f"has several {self._name!r} in {self._folder}: {', '.join(names)}")
        return self._folder / (key if key in names else names[0])

    @functools.cached_property
    def _names(self) -> Mapping[str, list[str]]:
        """{path without its suffix: paths}."""
        found: dict[str, list[str]] = {}
        for name in found_below(self._folder):
            found.setdefault(os.path.splitext(name)[0], []).append(name)
        return found

    def read(self, key: str, image: Path, range: Range | None) -> Image.Image:
        """Returns the picture, RGB, or the mask, "L", for the image `key`, whose file is `image`.

        `range` is that of `ganlab.data.image_files.picture`. Raises ValueError if the file can't be read, or if its
        sides have another ratio than those of the image.
        """
        path = self.file(key)
        try:
            found = picture(path, range) if self._values == "picture" else mask(path)
            # a file may be turned by its EXIF orientation
            (short, long), sides = sorted(found.size), sorted(declared_size(image) or found.size)
            if abs(short * sides[1] - long * sides[0]) > max(long, sides[1]):
                raise ValueError(f"is {found.width} x {found.height} pixels, which is not the shape of the image")
        except ValueError as error:
            raise ValueError(f"its {self._name!r}, {path}, {error}") from error
        return found


def mask(path: Path) -> Image.Image:
    """Returns the classes that a file has for its pixels, as an image of mode "L".

    They are the grey values, or the indices of a palette. Raises ValueError if the file can't be read or has colours
    without a palette, more than 8 bits, or a format that is not in `EXACT`.
    """
    with opened(path, EXACT, "mask") as image:
        if image.mode not in ("1", "L", "P"):
            raise ValueError(f"is no mask: expected 8-bit grey or a palette, got the mode {image.mode} of Pillow")
        # an array of a picture of 1 bit has 0 and 1
        return Image.fromarray(np.asarray(ImageOps.exif_transpose(image)).astype(np.uint8))
