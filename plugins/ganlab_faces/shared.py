"""Pictures in files of a data set that the user has downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

import ganlab
from ganlab.data.folder import fitted, pixels
from ganlab.data.image_files import declared_size, picture
from ganlab.determinism import keyed
from ganlab.files import data_folder

Limit = Annotated[int, Field(ge=0, le=10**9)]
"""The number of images to keep; 0 keeps all."""

Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""The random seed of the choice."""


class Faces(ganlab.Source):
    """Pictures of faces in a folder, or a random part of them. A key is the path of a picture inside the folder."""

    name: str
    """The source's `type` in a spec."""
    get: str
    """The end of the sentence about missing data: where to get it, what its licence allows, where to put it."""

    def __init__(self, path: Path | None, limit: int, seed: int) -> None:
        self.root = data_folder(self.name, path, inside=self.name)
        self._limit = limit
        self._seed = seed

    @property
    def pictures(self) -> Path:
        """The folder that the keys start at."""
        return self.root

    def image(self, key: str, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Returns the largest centred square of a picture as (size, size, 3)."""
        return pixels(fitted(picture(self.pictures / key), size), self.channels)

    def files(self, key: str) -> list[Path]:
        return [self.pictures / key]

    def is_image(self, key: str) -> bool:
        return declared_size(self.pictures / key) is not None

    def missing(self, what: str) -> ganlab.SpecError:
        """Returns the error that says that the data are missing."""
        return ganlab.SpecError(
            f"the source {self.name!r} finds no {what} in {self.root}: {self.get}, or set the option `path` to the"
            " folder that holds them"
        )

    def chosen(self, keys: list[str]) -> list[str]:
        """Returns `limit` of the keys, drawn with `seed`, in their order; all of them if `limit` is 0."""
        if not 0 < self._limit < len(keys):
            return keys
        places = keyed("faces", self._seed, len(keys)).permutation(len(keys))[: self._limit]
        return [keys[place] for place in sorted(places)]
