"""Looks at every picture of a source once, and keeps what the findings need instead of its pixels."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
from PIL import Image

from ganlab.data.folder import Folder
from ganlab.data.image_files import declared_size, picture
from ganlab.inspection.borders import letterbox, repeated_edge
from ganlab.inspection.near_duplicates import Bytes, hashes, reduced, thumbnail
from ganlab.interfaces.sources import Source

LARGEST = 512
"""The side of the square into which a picture is reduced before its borders are looked for."""


class Look(NamedTuple):
    """What is kept of one picture."""

    size: tuple[int, int]
    """The width and height in pixels."""
    digest: bytes
    """A hash of the pixels and the size."""
    hashes: Bytes
    """(VIEWS, BITS / 8), packed bits."""
    brightness: float
    """The mean of the grey values, 0 to 255."""
    contrast: float
    """The standard deviation of the grey values, of 255."""
    saturation: float
    """The mean saturation, 0 to 255: 0 is grey."""
    warmth: float
    """The mean of red minus blue, -255 to 255."""
    repeated: bool
    """True if a side ends in copies of one row or column."""
    letterbox: bool
    """True if there are bars of one colour."""


class LookedAt(Source):
    """A source of thumbnails of another source's images. `image` also looks at the whole picture, and keeps the result.

    The whole picture is that of the file for the source `folder`, and the image at `size` pixels for other sources.
    """

    def __init__(self, source: Source, size: int) -> None:
        self.source = source
        self.classes = source.classes
        self.divided = source.divided
        self.looks: dict[str, Look] = {}
        """{key: what was seen}."""
        self._size = size

    def keys(self, domain: str) -> list[str]:
        return self.source.keys(domain)

    def image(self, key: str, size: int) -> Bytes:
        whole = self.picture(key)
        small = reduced(whole)
        self.looks[key] = _look(whole, small)
        return thumbnail(small)

    def picture(self, key: str) -> Image.Image:
        """Returns the whole picture. Raises OSError or ValueError if it can't be read."""
        if isinstance(self.source, Folder):
            return picture(self.source.files(key)[0], self.source.range)
        return Image.fromarray(self.source.image(key, self._size).squeeze()).convert("RGB")

    def is_picture(self, key: str) -> bool:
        """Returns True if a file begins as a picture, so that one which can't be read is damaged."""
        return isinstance(self.source, Folder) and declared_size(self.source.files(key)[0]) is not None

    def is_held_out(self, key: str) -> bool:
        return self.source.is_held_out(key)

    def label(self, key: str) -> int:
        return self.source.label(key)

    def attributes(self, key: str) -> dict[str, str]:
        return self.source.attributes(key)


def _look(whole: Image.Image, small: Image.Image) -> Look:
    grey = np.asarray(small.convert("L"), np.float32)
    colours = np.asarray(small, np.float32).mean((0, 1))
    inner = whole
    if max(whole.size) > LARGEST:
        # reduced by whole numbers: a border of equal rows stays one
        inner = whole.reduce(-(-max(whole.size) // LARGEST))
    pixels = np.asarray(inner)
    return Look(
        whole.size,
        hashlib.sha256(f"{whole.size}".encode() + whole.tobytes()).digest(),
        hashes(small),
        float(grey.mean()),
        float(grey.std()),
        float(np.asarray(small.convert("HSV"), np.float32)[..., 1].mean()),
        float(colours[0] - colours[2]),
        repeated_edge(pixels),
        letterbox(pixels),
    )
