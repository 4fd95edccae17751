"""The source `folder`: every image below a folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image, ImageOps
from pydantic import Field

from ganlab.draws import keyed
from ganlab.errors import SpecError
from ganlab.hookspecs import hookimpl
from ganlab.interfaces import Source


class Folder(Source):
    """Every image file below a folder, recursively, in the order of their paths.

    Hidden ones are left out; a folder is entered once, however many links lead to it. The largest centred square is
    cut out and resized (bicubic, antialiased); transparency is laid on white. `limit` keeps that many, chosen at random
    by `seed`; 0 keeps all.
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
        found = sorted(self._files())
        if not found:
            raise SpecError(f"data.{domain}: the folder {str(self.path)!r} is empty")
        if self.limit and self.limit < len(found):
            chosen = keyed("folder", self.seed, len(found)).permutation(len(found))[: self.limit]
            found = [found[i] for i in sorted(chosen)]
        return found

    def _files(self) -> list[str]:
        files: list[str] = []
        seen: set[str] = set()
        for folder, folders, names in os.walk(self.path, followlinks=True):
            # of two links to one folder always the same is followed
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            if (real := os.path.realpath(folder)) in seen:
                folders.clear()
                continue
            seen.add(real)
            files += [
                (Path(folder) / name).relative_to(self.path).as_posix() for name in names if not name.startswith(".")
            ]
        return files

    def image(self, key: str, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        if not (self.path / key).is_file():
            # a pipe would be waited for
            raise ValueError("is no file")
        try:
            with Image.open(self.path / key) as opened:
                image = _eight_bit(ImageOps.exif_transpose(opened))
        # Pillow's decoders raise much more than OSError on damaged files
        except Exception as error:
            raise ValueError(str(error)) from error
        square = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
        return np.array(square.convert("L" if self.channels == 1 else "RGB")).reshape(size, size, self.channels)


def _eight_bit(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # 16 bits a pixel: Pillow's own conversion clips at 255 instead of scaling
        values = np.asarray(image, dtype=np.float64)
        return Image.fromarray(np.clip(np.rint(values / 257), 0, 255).astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


@hookimpl
def ganlab_sources() -> dict[str, type[Source]]:
    return {"folder": Folder}
