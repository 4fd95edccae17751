"""The image source `folder`: every image file below a folder."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image, ImageOps
from pydantic import Field

from ganlab.data.image_files import Range, declared_size, found_below, picture
from ganlab.data.labels import LABELS, Classes, read_labels
from ganlab.determinism import keyed
from ganlab.errors import SpecError
from ganlab.files import home_expanded
from ganlab.interfaces.hooks import hookimpl
from ganlab.interfaces.sources import Source


class Folder(Source):
    """Every image file below a folder, recursively, sorted by path.

    Hidden files and folders are left out. A folder is entered once, even if several links lead to it. The largest
    centred square is cut out and resized (bicubic, antialiased). Transparent images are laid on white. AVIF, BMP, GIF,
    JPEG, JPEG 2000, PNG, PPM (also PBM, PGM, PFM), TIFF and WebP are read, whatever the file is named; of several
    images in a file, the first.

    A file `labels.csv` in the folder, if there is one, says what the images show. Its header has the column `file`: the
    paths of images, relative to the folder. Every other column is an attribute of them.

    Args:
        path: the folder. A relative path starts at the folder of the spec file, or with --set at the working folder;
            "~" is the user's home folder.
        channels: 3 (RGB) or 1 (grey).
        limit: the number of images to keep, chosen at random; 0 keeps all.
        seed: the random seed of that choice.
        range: [low, high], the values that become black and white in grey images of more than 8 bits. By default they
            are the smallest and the largest value of the unsigned 12 or 16 bits that a file declares; files of floats,
            signed integers or 32 bits are left out.
        labels: the column of labels.csv whose values are the images' classes. By default there are no classes.
        classes: the values that become classes 0, 1, ...; images without one of them are left out.

    Raises ValueError if `low` is not below `high`, or if one of `labels` and `classes` is missing.
    """

    def __init__(
        self,
        path: Path,
        channels: Literal[1, 3] = 3,
        limit: Annotated[int, Field(ge=0, le=10**9)] = 0,
        seed: Annotated[int, Field(ge=0, lt=2**63)] = 0,
        range: Range | None = None,
        labels: str | None = None,
        classes: tuple[str, ...] = (),
    ) -> None:
        if range is not None and not range[0] < range[1]:
            raise ValueError(f"range is {[*range]}; the first must be below the second")
        self.path = home_expanded(path)
        self.channels = channels
        self.limit = limit
        self.seed = seed
        self.range = range
        self._classes = Classes(labels, classes)
        self.classes = len(self._classes)

    def keys(self, domain: str) -> list[str]:
        if not self.path.is_dir():
            what = "is not a folder" if self.path.exists() else "does not exist"
            raise SpecError(f"data.{domain}: the folder {str(self.path)!r} {what}")
        found = found_below(self.path)
        if not found:
            raise SpecError(f"data.{domain}: the folder {str(self.path)!r} is empty")
        found = self._described(found, domain)
        if self.limit and self.limit < len(found):
            chosen = keyed("folder", self.seed, len(found)).permutation(len(found))[: self.limit]
            found = [found[i] for i in sorted(chosen)]
        return found

    def image(self, key: str, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        return pixels(fitted(picture(os.path.join(self.path, key), self.range), size), self.channels)

    def files(self, key: str) -> list[Path]:
        """Returns the image's file, and `labels.csv` if the image has a class."""
        return [self.path / key, *([self.path / LABELS] if self.classes else [])]

    def is_image(self, key: str) -> bool:
        return declared_size(self.path / key) is not None

    def label(self, key: str) -> int:
        found = self._classes.of(self.attributes(key))
        if found is None:
            raise ValueError(f"{key} has none of the classes {', '.join(self._classes.values)}")
        return found

    def attributes(self, key: str) -> dict[str, str]:
        return dict(self._known.get(key, {}))

    @functools.cached_property
    def _known(self) -> Mapping[str, Mapping[str, str]]:
        """{path of an image: its attributes}."""
        path = self.path / LABELS
        return read_labels(path) if path.is_file() else {}

    def _described(self, found: list[str], domain: str) -> list[str]:
        """Returns the files below the folder without `labels.csv` and, if there are classes, without other images."""
        if LABELS in found:
            found = [key for key in found if key != LABELS]
            if self._known.keys().isdisjoint(found):
                raise SpecError(
                    f"data.{domain}: {self.path / LABELS} names none of the {len(found)} files in its folder"
                )
        elif self.classes:
            raise SpecError(f"data.{domain}: labels is {self._classes.attribute!r}, and {self.path} has no {LABELS}")
        if self.classes:
            self._classes.check(f"data.{domain}", map(self.attributes, found))
            found = [key for key in found if self._classes.of(self.attributes(key)) is not None]
        return found


def fitted(image: Image.Image, size: int) -> Image.Image:
    """Returns the largest centred square of an image, resized to `size` x `size` pixels (bicubic, antialiased)."""
    return ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)


def pixels(image: Image.Image, channels: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Returns an image as (H, W, channels), 0 to 255; `channels` is 1 (grey) or 3 (RGB)."""
    mode = "L" if channels == 1 else "RGB"
    return np.array(image if image.mode == mode else image.convert(mode)).reshape(image.height, image.width, channels)


@hookimpl
def ganlab_sources() -> dict[str, type[Source]]:
    return {"folder": Folder}
