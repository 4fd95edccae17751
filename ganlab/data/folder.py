"""The image source `folder`: every image file below a folder."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image, ImageOps
from pydantic import Field

from ganlab.data.companions import Companions
from ganlab.data.exclusions import read_exclusions, remaining
from ganlab.data.image_files import Range, declared_size, found_below, picture
from ganlab.data.labels import LABELS, Classes, read_labels
from ganlab.determinism import keyed
from ganlab.errors import SpecError
from ganlab.files import home_expanded
from ganlab.interfaces.hooks import hookimpl
from ganlab.interfaces.sources import Extra, Source

HELD_OUT = "held_out//"
"""The keys of held-out images begin with it. No path in a folder does: it has no empty part."""

Fit = Literal["cover", "stretch", "pad"]
"""How an image becomes a square."""


Name = Annotated[str, Field(pattern="^[A-Za-z0-9_-]+$")]
"""The name of an extra."""


class Folder(Source):
    """Every image file below a folder, recursively, sorted by path.

    Hidden files and folders are left out. A folder is entered once, even if several links lead to it. Images become
    squares as `fit` says (bicubic, antialiased). Transparent images are laid on white. AVIF, BMP, GIF, JPEG, JPEG 2000,
    PNG, PPM (also PBM, PGM, PFM), TIFF and WebP are read, whatever the file is named; of several images in a file, the
    first.

    A file `labels.csv` in the folder, if there is one, says what the images show. Its header has the column `file`: the
    paths of images, relative to the folder. Every other column is an attribute of them. The folder of held-out images
    has a labels.csv of its own.

    Losses read masks and further pictures of the images as extras (`t.source_extras`). They are in folders of their
    own. A mask or picture has the path of its image there, apart from the suffix, and the proportions of its image. An
    image without one of them is left out. Held-out images need none.

    Args:
        path: the folder. A relative path starts at the folder of the spec file, or with --set at the working folder;
            "~" is the user's home folder.
        held_out: the folder of the images that are held out of training. `path` then has training images only, and
            those of its images that are below `held_out` are held out. By default a part of the images in `path` is,
            `data.holdout`.
        channels: 3 (RGB) or 1 (grey).
        fit: "cover" cuts out the largest centred square. "stretch" resizes the whole image to a square, as CycleGAN
            does. "pad" keeps the whole image and its proportions, and adds white at two sides.
        limit: the number of images in `path` to keep, chosen at random; 0 keeps all.
        seed: the random seed of that choice.
        range: [low, high], the values that become black and white in grey images of more than 8 bits. By default they
            are the smallest and the largest value of the unsigned 12 or 16 bits that a file declares; files of floats,
            signed integers or 32 bits are left out.
        labels: the column of labels.csv whose values are the images' classes. By default there are no classes.
        classes: the values that become classes 0, 1, ...; images without one of them are left out.
        exclude: a list of files to leave out, such as `ganlab data inspect --write-filter` writes: UTF-8 text with one
            path a line. A relative path starts at the folder of the list; lines that start with # are comments. A list
            may also name files that are not in the folder, so that one list serves both domains.
        masks: {name: folder} of masks with a class for each pixel, 0 to 255: an 8-bit grey value or the index of a
            palette (BMP, GIF, PNG, PPM or TIFF). A mask is resized by taking the nearest pixel; "pad" adds class 0.
        pictures: {name: folder} of further pictures. They are read and resized as the images are.

    Raises ValueError if `low` is not below `high`, if one of `labels` and `classes` is missing, or if `masks` and
    `pictures` share a name.
    """

    def __init__(
        self,
        path: Path,
        held_out: Path | None = None,
        channels: Literal[1, 3] = 3,
        fit: Fit = "cover",
        limit: Annotated[int, Field(ge=0, le=10**9)] = 0,
        seed: Annotated[int, Field(ge=0, lt=2**63)] = 0,
        range: Range | None = None,
        labels: str | None = None,
        classes: tuple[str, ...] = (),
        exclude: Path | None = None,
        masks: Mapping[Name, Path] = {},
        pictures: Mapping[Name, Path] = {},
    ) -> None:
        if range is not None and not range[0] < range[1]:
            raise ValueError(f"range is {[*range]}; the first must be below the second")
        self.path = home_expanded(path)
        self._folders = {"": self.path}
        self.divided = held_out is not None
        if held_out is not None:
            self._folders[HELD_OUT] = home_expanded(held_out)
        self.channels = channels
        self.fit: Fit = fit
        self.limit = limit
        self.seed = seed
        self.range = range
        self._classes = Classes(labels, classes)
        self.classes = len(self._classes)
        self.exclude = None if exclude is None else home_expanded(exclude)
        if shared := masks.keys() & pictures.keys():
            raise ValueError(f"masks and pictures share the name {min(shared)!r}")
        self.extras = dict.fromkeys(masks, Extra(1, "classes")) | dict.fromkeys(pictures, Extra(channels, "picture"))
        self._companions = {name: Companions(name, at, "classes") for name, at in masks.items()} | {
            name: Companions(name, at, "picture") for name, at in pictures.items()
        }

    def keys(self, domain: str) -> list[str]:
        for name, companions in self._companions.items():
            companions.check(f"data.{domain}.{'masks' if self.extras[name].values == 'classes' else 'pictures'}")
        found, held = self._keys_in("", domain), []
        if self.divided:
            found, held = self._without_held_out(found, domain), self._keys_in(HELD_OUT, domain)
        kept = self._without_excluded(found + held, domain)
        train = [key for key in kept if not self.is_held_out(key)]
        if self.limit and self.limit < len(train):
            chosen = keyed("folder", self.seed, len(train)).permutation(len(train))[: self.limit]
            train = [train[i] for i in sorted(chosen)]
        return train + [key for key in kept if self.is_held_out(key)]

    def image(self, key: str, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        return pixels(fitted(picture(self._file(key), self.range), size, self.fit), self.channels)

    def extra(self, name: str, key: str, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        found = self._companions[name].read(key, self._file(key), self.range)
        return pixels(fitted(found, size, self.fit), self.extras[name].channels)

    def files(self, key: str) -> list[Path]:
        """Returns the image's file, `labels.csv` if the image has a class, and the files of its extras."""
        folder = self._folders[self._start_of(key)]
        return [self._file(key), *([folder / LABELS] if self.classes else []), *self._beside(key)]

    def _beside(self, key: str) -> list[Path]:
        """Returns the files of an image's extras, without those that are missing."""
        found = []
        for companions in self._companions.values() if not self.is_held_out(key) else ():
            with suppress(ValueError):
                found.append(companions.file(key))
        return found

    def is_image(self, key: str) -> bool:
        whole = self.is_held_out(key) or len(self._beside(key)) == len(self._companions)
        return whole and declared_size(self._file(key)) is not None

    def is_held_out(self, key: str) -> bool:
        return key.startswith(HELD_OUT)

    def label(self, key: str) -> int:
        found = self._classes.of(self.attributes(key))
        if found is None:
            raise ValueError(f"{key} has none of the classes {', '.join(self._classes.values)}")
        return found

    def attributes(self, key: str) -> dict[str, str]:
        return dict(self._known.get(key, {}))

    @functools.cached_property
    def _known(self) -> Mapping[str, Mapping[str, str]]:
        """{key of an image: its attributes}."""
        return {
            start + name: attributes
            for start, folder in self._folders.items()
            if (folder / LABELS).is_file()
            for name, attributes in read_labels(folder / LABELS).items()
        }

    def _start_of(self, key: str) -> str:
        return HELD_OUT if self.is_held_out(key) else ""

    def _file(self, key: str) -> Path:
        start = self._start_of(key)
        return self._folders[start] / key.removeprefix(start)

    def _keys_in(self, start: str, domain: str) -> list[str]:
        """Returns the keys that begin with `start`, "" or `HELD_OUT`. Raises SpecError if there are none."""
        folder = self._folders[start]
        if not folder.is_dir():
            what = "is not a folder" if folder.exists() else "does not exist"
            raise SpecError(f"data.{domain}: the folder {str(folder)!r} {what}")
        found = [start + name for name in found_below(folder)]
        if not found:
            raise SpecError(f"data.{domain}: the folder {str(folder)!r} is empty")
        return self._described(found, start, domain)

    def _without_held_out(self, keys: list[str], domain: str) -> list[str]:
        """Returns the keys of images that are not below the folder of held-out images."""
        outer = self._folders[HELD_OUT].resolve()
        # several links may lead to one folder
        inside = {at: (self.path / at).resolve().is_relative_to(outer) for at in {*map(os.path.dirname, keys)}}
        found = [key for key in keys if not inside[os.path.dirname(key)]]
        if not found:
            raise SpecError(f"data.{domain}: every image of {self.path} is below held_out, {self._folders[HELD_OUT]}")
        return found

    def _without_excluded(self, keys: list[str], domain: str) -> list[str]:
        """Returns the keys of the images that the list `exclude` does not name."""
        if self.exclude is None:
            return keys
        try:
            excluded = read_exclusions(self.exclude)
        except SpecError as error:
            raise SpecError(f"data.{domain}.{error}") from error
        kept = remaining({key: self._file(key) for key in keys}, excluded)
        folders = " and ".join(map(str, self._folders.values()))
        if len(kept) == len(keys):
            raise SpecError(
                f"data.{domain}.exclude: {self.exclude} names none of the {len(keys)} files in {folders}; a relative"
                f" path in it starts at {self.exclude.parent}"
            )
        if not kept:
            raise SpecError(f"data.{domain}.exclude: {self.exclude} names every file in {folders}")
        return kept

    def _described(self, found: list[str], start: str, domain: str) -> list[str]:
        """Returns the keys of a folder without `labels.csv` and, if there are classes, without other images."""
        folder = self._folders[start]
        if start + LABELS in found:
            found = [key for key in found if key != start + LABELS]
            if self._known.keys().isdisjoint(found):
                raise SpecError(f"data.{domain}: {folder / LABELS} names none of the {len(found)} files in its folder")
        elif self.classes:
            raise SpecError(f"data.{domain}: labels is {self._classes.attribute!r}, and {folder} has no {LABELS}")
        if self.classes:
            if not start:
                # few held-out images may lack a class
                self._classes.check(f"data.{domain}", map(self.attributes, found))
            found = [key for key in found if self._classes.of(self.attributes(key)) is not None]
        return found


def fitted(image: Image.Image, size: int, fit: Fit = "cover") -> Image.Image:
    """Returns an image at `size` x `size` pixels: RGB bicubic and antialiased, a mask ("L") by its nearest pixels.

    "cover" takes the largest centred square, "stretch" the whole image; "pad" lays the whole image on white, a mask on
    class 0.
    """
    filter, background = (Image.Resampling.NEAREST, 0) if image.mode == "L" else (Image.Resampling.BICUBIC, "white")
    if fit == "cover":
        return ImageOps.fit(image, (size, size), filter)
    if fit == "stretch":
        return image.resize((size, size), filter)
    width, height = (max(1, round(side * size / max(image.size))) for side in image.size)
    padded = Image.new(image.mode, (size, size), background)
    padded.paste(image.resize((width, height), filter), ((size - width) // 2, (size - height) // 2))
    return padded


def pixels(image: Image.Image, channels: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Returns an image as (H, W, channels), 0 to 255; `channels` is 1 (grey) or 3 (RGB)."""
    mode = "L" if channels == 1 else "RGB"
    return np.array(image if image.mode == mode else image.convert(mode)).reshape(image.height, image.width, channels)


@hookimpl
def ganlab_sources() -> dict[str, type[Source]]:
    return {"folder": Folder}
