"""The image source `folder`: every image file below a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image, ImageOps
from pydantic import Field

from ganlab.data.image_files import Range, declared_size, found_below, picture
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

    Args:
        path: the folder. A relative path starts at the folder of the spec file, or with --set at the working folder;
            "~" is the user's home folder.
        channels: 3 (RGB) or 1 (grey).
        limit: the number of images to keep, chosen at random; 0 keeps all.
        seed: the random seed of that choice.
        range: [low, high], the values that become black and white in grey images of more than 8 bits. By default they
            are the smallest and the largest value of the unsigned 12 or 16 bits that a file declares; files of floats,
            signed integers or 32 bits are left out.

    Raises ValueError if `low` is not below `high`.
    """

    def __init__(
        self,
        path: Path,
        channels: Literal[1, 3] = 3,
        limit: Annotated[int, Field(ge=0, le=10**9)] = 0,
        seed: Annotated[int, Field(ge=0, lt=2**63)] = 0,
        range: Range | None = None,
    ) -> None:
        if range is not None and not range[0] < range[1]:
            raise ValueError(f"range is {[*range]}; the first must be below the second")
        self.path = home_expanded(path)
        self.channels = channels
        self.limit = limit
        self.seed = seed
        self.range = range

    def keys(self, domain: str) -> list[str]:
        if not self.path.is_dir():
            what = "is not a folder" if self.path.exists() else "does not exist"
            raise SpecError(f"data.{domain}: the folder {str(self.path)!r} {what}")
        found = found_below(self.path)
        if not found:
            raise SpecError(f"data.{domain}: the folder {str(self.path)!r} is empty")
        if self.limit and self.limit < len(found):
            chosen = keyed("folder", self.seed, len(found)).permutation(len(found))[: self.limit]
            found = [found[i] for i in sorted(chosen)]
        return found

    def image(self, key: str, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        return pixels(fitted(picture(self.path / key, self.range), size), self.channels)

    def is_image(self, key: str) -> bool:
        return declared_size(self.path / key) is not None


def fitted(image: Image.Image, size: int) -> Image.Image:
    """Returns the largest centred square of an image, resized to `size` x `size` pixels (bicubic, antialiased)."""
    return ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)


def pixels(image: Image.Image, channels: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Returns an image as (H, W, channels), 0 to 255; `channels` is 1 (grey) or 3 (RGB)."""
    return np.array(image.convert("L" if channels == 1 else "RGB")).reshape(image.height, image.width, channels)


@hookimpl
def ganlab_sources() -> dict[str, type[Source]]:
    return {"folder": Folder}
