"""Danbooru Faces, the set of anime faces that face2comic was trained on."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from ganlab.data.image_files import found_below
from ganlab_faces.shared import Faces, Limit, Seed

PAGE = "https://gist.github.com/stormraiser/a8066517b0b60a50c701ee9c8f720691"


class DanbooruFaces(Faces):
    """Danbooru Faces v0.1: about 443,000 anime faces of 256x256 pixels by about 7,000 artists.

    Every JPEG file below a folder is an image: in the tree that is published, with a folder for each artist, or in one
    flat folder. Other files are left out. The drawings belong to their artists, and no licence to them is known.

    Args:
        path: the folder. The default is `danbooru_faces` in $GANLAB_DATA, or else in ganlab/data in the user's data
            folder.
        limit: the number of images to keep, chosen at random; 0 keeps all. face2comic kept 120,000.
        seed: the random seed of that choice.
    """

    name = "danbooru_faces"
    get = (
        f"{PAGE} has Danbooru Faces, drawings that belong to their artists and for which no licence is known; put its"
        " JPEG files there, in folders or not"
    )

    def __init__(self, path: Path | None = None, limit: Limit = 0, seed: Seed = 0) -> None:
        super().__init__(path, limit, seed)

    def keys(self, domain: str) -> list[str]:
        """Returns the paths of the JPEG files inside the folder, sorted."""
        found = [key for key in found_below(self.root) if key.lower().endswith((".jpg", ".jpeg"))]
        if not found:
            raise self.missing("JPEG files")
        return self.chosen(found)

    def attributes(self, key: str) -> dict[str, str]:
        """Returns {"artist": name of the folder that the image is in}; {} in a flat folder."""
        artist = PurePosixPath(key).parent.name
        return {"artist": artist} if artist else {}

    def credits(self) -> str:
        return f"Danbooru Faces v0.1, by stormraiser, {PAGE}; the drawings belong to their artists; no licence is known"
