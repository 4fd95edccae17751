"""The image source `folder`: every image file below a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image, ImageOps
from pydantic import Field

from ganlab.data.image_files import found_below, picture
from ganlab.determinism import keyed
from ganlab.errors import SpecError
from ganlab.interfaces.hooks import hookimpl
from ganlab.interfaces.sources import Source


class Folder(Source):
    """Every image file below a folder, recursively, sorted by path.

    Hidden files and folders are left out. A folder is entered once, even if several links lead to it. The largest
    centred square is cut out and resized (bicubic, antialiased). Transparent images are laid on white.

    Args:
        path: the folder; "~" is the user's home folder.
        channels: 3 (RGB) or 1 (grey).
        limit: the number of images to keep, chosen at random; 0 keeps all.
        seed: the random seed of that choice.
    """

    def __init__(
        self,
        path: Annotated[str, Field(min_length=1)],
        channels: Literal[1, 3] = 3,
        limit: Annotated[int, Field(ge=0)] = 0,
        seed: int = 0,
    ) -> None:
        self.path = Path(path).expanduser()
        self.channels = channels
        self.limit = limit
        self.seed = seed

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
        square = ImageOps.fit(picture(self.path / key), (size, size), Image.Resampling.BICUBIC)
        return np.array(square.convert("L" if self.channels == 1 else "RGB")).reshape(size, size, self.channels)


@hookimpl
def ganlab_sources() -> dict[str, type[Source]]:
    return {"folder": Folder}
