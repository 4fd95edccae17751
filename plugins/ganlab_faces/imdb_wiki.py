"""IMDB-WIKI (doi:10.1007/s11263-016-0940-3): pictures of people with their ages, as its authors publish it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from PIL import Image
from pydantic import Field

import ganlab
from ganlab.data.folder import pixels
from ganlab.data.image_files import picture
from ganlab.errors import one_line
from ganlab_faces.shared import Faces, Limit, Seed

PAGE = "https://data.vision.ee.ethz.ch/cvl/rrothe/imdb-wiki/"

ARCHIVES = {
    "imdb": "imdb_meta.tar and imdb_0.tar to imdb_9.tar",
    "wiki": "wiki.tar.gz",
    "imdb_crop": "imdb_crop.tar",
    "wiki_crop": "wiki_crop.tar",
}
"""{part: the archives that have it}."""

MARGIN = 0.4
"""The margin of the parts that their authors have cropped."""

OLDEST = 120
"""An age above it, or below 0, comes from a wrong date."""

_EPOCH = 719529
"""MATLAB's serial number of 1970-01-01."""

Age = Annotated[int, Field(ge=0, le=OLDEST)]
Boxes = np.ndarray[Any, np.dtype[np.float64]]
Integers = np.ndarray[Any, np.dtype[np.int64]]


class Metadata(NamedTuple):
    """The metadata of N images."""

    paths: list[str]
    """The paths of the images inside the part's folder; "" if there is none."""
    age: Integers
    """(N,) full years on 1 July of the year in which the picture was taken; -1 if it is not known."""
    gender: Boxes
    """(N,) 0 for female, 1 for male, NaN if it is not known."""
    box: Boxes
    """(N, 4) left, top, right and bottom of the face in pixels of the uncropped picture, from its top left corner; NaN
    if the box has no area."""
    score: Boxes
    """(N,) the detector's score of the face; not finite if it found none."""
    second_score: Boxes
    """(N,) the score of the second face; NaN if there is none."""


class IMDBWiki(Faces):
    """IMDB-WIKI: 460,723 pictures from IMDb and 62,328 from Wikipedia, with age and gender.

    The folder holds the folder of a part, with `imdb.mat` or `wiki.mat` and the pictures, as the archives have it.
    Images are left out if the detector found no face in them, or if the face's box has no area. Images of the parts
    `imdb` and `wiki` are the square around the box with a margin. Where it would leave the picture it is moved inside
    or made smaller: no border is invented. IMDB-WIKI may be used for academic research only.

    Args:
        part: "imdb" and "wiki" are the whole pictures; "imdb_crop" and "wiki_crop" are what the authors have cropped,
            with a margin of 0.4 and repeated borders.
        path: the folder that holds the part's folder. The default is `imdb_wiki` in $GANLAB_DATA, or else in
            ganlab/data in the user's data folder.
        age: [lowest, highest] age in full years; other images, and those without an age, are left out.
        gender: "female" or "male"; other images, and those without a gender, are left out.
        min_face_score: the lowest `face_score`.
        max_second_face_score: the highest `second_face_score`. Images without a second face are kept.
        min_face_size: the smallest side of the box `face_location`, in pixels of the uncropped picture.
        margin: the margin on each side of the box, as a fraction of the box's longer side.
        limit: the number of images to keep, chosen at random; 0 keeps all.
        seed: the random seed of that choice.

    Raises ValueError if `age` is no range, or if `margin` is given for a part that is cropped already.
    """

    name = "imdb_wiki"

    def __init__(
        self,
        part: Literal["imdb", "wiki", "imdb_crop", "wiki_crop"],
        path: Path | None = None,
        age: tuple[Age, Age] | None = None,
        gender: Literal["female", "male"] | None = None,
        min_face_score: float | None = None,
        max_second_face_score: float | None = None,
        min_face_size: Annotated[int, Field(ge=0, le=10**5)] = 0,
        margin: Annotated[float, Field(ge=0, le=10)] = MARGIN,
        limit: Limit = 0,
        seed: Seed = 0,
    ) -> None:
        super().__init__(path, limit, seed)
        if age is not None and not age[0] <= age[1]:
            raise ValueError(f"age is {[*age]}; the first must not be above the second")
        self._cropped = part.endswith("_crop")
        if self._cropped and margin != MARGIN:
            raise ValueError(
                f"margin is {margin}, and {part!r} is cropped already; {part[:4]!r} has the whole pictures"
            )
        self.get = f"{PAGE} has {ARCHIVES[part]}, for academic research only; unpack them there"
        self._part = part
        self._age = age
        self._gender = gender
        self._min_face_score = min_face_score
        self._max_second_face_score = max_second_face_score
        self._min_face_size = min_face_size
        self._margin = margin

    @property
    def pictures(self) -> Path:
        return self.root / self._part

    def keys(self, domain: str) -> list[str]:
        """Returns the paths inside the part's folder, "00/...", in the order of the metadata."""
        data = self._metadata
        sides = data.box[:, 2:] - data.box[:, :2]
        fits = np.isfinite(data.score) & (sides.min(1) >= self._min_face_size)
        if self._age is not None:
            fits &= (data.age >= 0) & (data.age >= self._age[0]) & (data.age <= self._age[1])
        if self._gender is not None:
            fits &= data.gender == (self._gender == "male")
        if self._min_face_score is not None:
            fits &= data.score >= self._min_face_score
        if self._max_second_face_score is not None:
            fits &= np.isnan(data.second_score) | (data.second_score <= self._max_second_face_score)
        found = [key for key, place in self._places.items() if fits[place]]
        if not found:
            raise ganlab.SpecError(f"data.{domain}: none of the {len(fits)} images of {self._part} fits the options")
        return self.chosen(found)

    def image(self, key: str, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Returns the face as (size, size, 3). Raises ValueError if its box lies outside the picture."""
        if self._cropped:
            return super().image(key, size)
        whole = picture(self.pictures / key)
        square = around(self._metadata.box[self._places[key]], self._margin, whole.size)
        return pixels(whole.resize((size, size), Image.Resampling.BICUBIC, square), self.channels)

    def files(self, key: str) -> list[Path]:
        """Returns the picture and the metadata, which have its box."""
        return [*super().files(key), self._file]

    def attributes(self, key: str) -> dict[str, str]:
        """Returns {"age": "42", "gender": "female"}, without what is not known."""
        data, place = self._metadata, self._places[key]
        age = {"age": str(data.age[place])} if data.age[place] >= 0 else {}
        gender = {"gender": "male" if data.gender[place] else "female"} if np.isfinite(data.gender[place]) else {}
        return age | gender

    def credits(self) -> str:
        return (
            f"IMDB-WIKI, by Rasmus Rothe, Radu Timofte and Luc Van Gool, {PAGE}, for academic research only; the"
            " copyright of the images belongs to their owners"
        )

    @property
    def _file(self) -> Path:
        return self.pictures / f"{self._part[:4]}.mat"

    @functools.cached_property
    def _metadata(self) -> Metadata:
        if not self._file.is_file():
            raise self.missing(f"{self._part}/{self._file.name}")
        state = self._file.stat()
        return _read(self._file, self._part[:4], state.st_size, state.st_mtime_ns)

    @functools.cached_property
    def _places(self) -> Mapping[str, int]:
        """{key: its place in the metadata}, the first one if a path is repeated."""
        found: dict[str, int] = {}
        for place, path in enumerate(self._metadata.paths):
            if path:
                found.setdefault(path, place)
        return found


def around(box: Boxes, margin: float, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Returns left, top, right and bottom of the square around a box (left, top, right, bottom) with a margin.

    Its side is the box's longer side and, on each side, `margin` of that. It lies inside the picture of `size` (width,
    height). Raises ValueError if the box does not.
    """
    if (box[2:] <= 0).any() or (box[:2] >= size).any():
        raise ValueError(
            f"the face's box {box.round(1).tolist()} lies outside the picture of {size[0]}x{size[1]} pixels"
        )
    side = min(float((box[2:] - box[:2]).max()) * (1 + 2 * margin), *size)
    left, top = ((box[:2] + box[2:] - side) / 2).clip(0, np.subtract(size, side)).tolist()
    return left, top, left + side, top + side


# both domains may use the same file, and reading the larger one takes seconds
@functools.lru_cache(maxsize=2)
def _read(file: Path, name: str, size: int, changed: int) -> Metadata:
    """Reads the metadata in the struct `name` of a .mat file. `size` and `changed` are the file's."""
    from scipy.io import loadmat

    # loadmat raises many other errors for damaged files
    try:
        table = loadmat(file, variable_names=[name])[name][0, 0]
        columns = {field: table[field].ravel() for field in table.dtype.names}
        taken, paths = columns["photo_taken"], [str(cell[0]) if cell.size else "" for cell in columns["full_path"]]
        located = np.array(
            [cell.ravel() if cell.size == 4 else [np.nan] * 4 for cell in columns["face_location"]], float
        )
        # MATLAB counts pixels from 1, and both ends belong to the box
        boxes = np.where((located[:, :2] < located[:, 2:]).all(1, keepdims=True), located - [1, 1, 0, 0], np.nan)
        gender, score, second = (
            columns[field].astype(float) for field in ("gender", "face_score", "second_face_score")
        )
        return Metadata(paths, ages(columns["dob"], taken), gender, boxes, score, second)
    except Exception as error:
        raise ganlab.SpecError(f"{file} can't be read ({type(error).__name__}: {one_line(error)})") from error


def ages(born: np.ndarray[Any, Any], taken: np.ndarray[Any, Any]) -> Integers:
    """Returns the full years (N,) on 1 July of a year `taken`, since the day `born`, a MATLAB serial date number.

    The authors take the middle of the year for the day of the picture. -1 stands for an age that is not known, or is
    not from 0 to `OLDEST`.
    """
    days = np.where(np.isfinite(born), born, 0).astype(np.int64) - _EPOCH
    birthday = days.astype("datetime64[D]")
    year = birthday.astype("datetime64[Y]")
    july = (year.astype("datetime64[M]") + 6).astype("datetime64[D]")
    found = taken.astype(np.int64) - (year.astype(np.int64) + 1970) - (birthday > july)
    return np.where((found >= 0) & (found <= OLDEST), found, -1)
