"""Small data sets of real pictures, in the layouts and formats in which CelebA, Danbooru Faces and IMDB-WIKI come."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import skimage
from PIL import Image
from scipy.io import savemat

Array = np.ndarray[Any, np.dtype[Any]]

# the names and their order as CelebA's README has them
ATTRIBUTES = (
    "5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair "
    "Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male "
    "Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks "
    "Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace "
    "Wearing_Necktie Young "
)
"""The second line of `list_attr_celeba.txt`, which ends with a space."""

COUNT = 24


@functools.cache
def _lfw() -> Array:
    """The faces of Labelled Faces in the Wild that scikit-image ships, (100, 25, 25) in [0, 1]."""
    return np.asarray(np.load(Path(skimage.__file__).parent / "data" / "lfw_subset.npy")[:100])


def face(number: int, width: int, height: int) -> Image.Image:
    """Returns a photograph of a face; each number has its own."""
    grey = Image.fromarray(np.rint(_lfw()[number] * 255).astype(np.uint8))
    return grey.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)


class CelebA(NamedTuple):
    """A written CelebA."""

    has: dict[str, dict[str, bool]]
    """{key: {attribute: whether the image has it}}."""
    part: dict[str, str]
    """{key: "train", "valid" or "test"}."""
    pictures: Path


def write_celeba(root: Path, layout: Literal["flat", "authors", "csv"] = "flat", count: int = COUNT) -> CelebA:
    """Writes pictures of 178x218 pixels with random attributes; a third of them is in each part."""
    names = ATTRIBUTES.split()
    signs = np.where(np.random.default_rng(0).random((count, 40)) < 0.4, 1, -1)
    keys = [f"{number:06}.jpg" for number in range(1, count + 1)]
    places = [number % 3 for number in range(count)]
    folders = {"flat": ("", "", ""), "authors": ("Anno", "Eval", "Img"), "csv": ("", "", "img_align_celeba")}[layout]
    about, parts, images = (root / folder for folder in folders)
    pictures = images / "img_align_celeba"
    for folder in (about, parts, pictures):
        folder.mkdir(parents=True, exist_ok=True)
    for number, key in enumerate(keys):
        face(number, 178, 218).save(pictures / key, quality=90)
    if layout == "csv":
        rows = [f"{key},{','.join(map(str, row))}" for key, row in zip(keys, signs, strict=True)]
        (about / "list_attr_celeba.csv").write_text("\n".join([f"image_id,{','.join(names)}", *rows, ""]))
        divided = [f"{key},{place}" for key, place in zip(keys, places, strict=True)]
        (parts / "list_eval_partition.csv").write_text("\n".join(["image_id,partition", *divided, ""]))
    else:
        # the first value of a row is not padded
        rows = [
            f"{key} {row[0]} {' '.join(f'{sign:2}' for sign in row[1:])}" for key, row in zip(keys, signs, strict=True)
        ]
        (about / "list_attr_celeba.txt").write_text("\n".join([str(count), ATTRIBUTES, *rows, ""]))
        divided = [f"{key} {place}" for key, place in zip(keys, places, strict=True)]
        (parts / "list_eval_partition.txt").write_text("\n".join([*divided, ""]))
    has = {key: dict(zip(names, (row > 0).tolist(), strict=True)) for key, row in zip(keys, signs, strict=True)}
    part = {key: ("train", "valid", "test")[place] for key, place in zip(keys, places, strict=True)}
    return CelebA(has, part, pictures)


def write_danbooru(root: Path, tree: bool = True) -> list[str]:
    """Writes a dozen faces of 256x256 pixels, in a folder for each of three artists or in one folder. Returns their
    paths inside `root`, sorted."""
    found = []
    for number in range(12):
        path = f"{2_000_000 + 7 * number}.jpg"
        path = f"artist_{'cab'[number % 3]}/{path}" if tree else path
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        face(number, 256, 256).save(root / path, quality=90)
        found.append(path)
    return sorted(found)


class Person(NamedTuple):
    """An image of IMDB-WIKI, as its metadata have it."""

    born: float
    """MATLAB's serial date number."""
    taken: int
    gender: float
    box: Sequence[float]
    score: float
    second_score: float
    name: str = "Somebody"
    path: str | None = ""
    """The default is made of the image's number and the year. None is an empty cell, without a picture."""


NAN, INF = math.nan, math.inf


def serial(year: int, month: int, day: int) -> float:
    """MATLAB's datenum: day 1 is the first of January of the year 0, which has 366 days."""
    return float(date(year, month, day).toordinal() + 366)


# boxes are left, top, right, bottom, from 1, in pictures of 96x80; both ends belong to them
PEOPLE = {
    "a woman": Person(serial(1980, 3, 1), 2010, 0, [31, 21, 50, 40], 3.5, NAN),
    "a man": Person(serial(1950, 12, 31), 2010, 1, [31, 21, 50, 44], 1.2, 0.8),
    "two faces": Person(serial(1970, 7, 1), 2000, 1, [31, 21, 50, 40], 4.0, 3.9),
    "the day after": Person(serial(1970, 7, 2), 2000, 0, [31, 21, 50, 40], 4.0, 2.0),
    "gender unknown": Person(serial(1990, 1, 1), 2015, NAN, [31.5, 21.25, 70.75, 60.5], 2.0, NAN),
    "no name": Person(serial(1990, 1, 1), 2015, 0, [31, 21, 50, 40], 2.5, NAN, name=""),
    "not born": Person(serial(2012, 1, 1), 2010, 0, [31, 21, 50, 40], 2.5, NAN),
    "no date": Person(0, 2010, 0, [31, 21, 50, 40], 2.5, NAN),
    "date unknown": Person(NAN, 2010, 1, [31, 21, 50, 40], 2.5, NAN),
    "score unknown": Person(serial(1980, 1, 1), 2010, 0, [31, 21, 50, 40], NAN, NAN),
    "no face": Person(serial(1980, 1, 1), 2010, 0, [1, 1, 96, 80], -INF, NAN),
    "no face either": Person(serial(1980, 1, 1), 2010, 0, [1, 1, 96, 80], INF, NAN),
    "an empty box": Person(serial(1980, 1, 1), 2010, 0, [31, 21, 31, 40], 5.0, NAN),
    "no box": Person(serial(1980, 1, 1), 2010, 0, [NAN] * 4, 5.0, NAN),
    "beyond": Person(serial(1980, 1, 1), 2010, 0, [200, 21, 220, 41], 5.0, NAN),
    "partly beyond": Person(serial(1980, 1, 1), 2010, 1, [80, -9, 110, 20], 5.0, NAN),
    "no path": Person(serial(1980, 1, 1), 2010, 0, [31, 21, 50, 40], 5.0, NAN, path=None),
}
"""{who: an image}, with every oddity of the published metadata."""

FACELESS = {"score unknown", "no face", "no face either", "an empty box", "no box", "no path"}


def write_imdb_wiki(root: Path, part: str, people: Sequence[Person], size: tuple[int, int] = (96, 80)) -> list[str]:
    """Writes the metadata and pictures of `size` (width, height). Returns the paths in the metadata."""
    name = part.removesuffix("_crop")
    paths = [
        "" if person.path is None else person.path or f"{number:02}/{number}_{person.taken}.jpg"
        for number, person in enumerate(people)
    ]
    for number, path in enumerate(paths):
        if not path:
            continue
        (root / part / path).parent.mkdir(parents=True, exist_ok=True)
        face(number, *size).save(root / part / path, quality=95)

    def cells(values: Sequence[Any]) -> Array:
        found = np.empty((1, len(values)), object)
        for place, value in enumerate(values):
            found[0, place] = value
        return found

    columns = list(zip(*people, strict=True))
    struct = {
        "dob": np.array([columns[0]]),
        "photo_taken": np.array([columns[1]], np.uint16),
        "full_path": cells([path or np.zeros(0) for path in paths]),
        "gender": np.array([columns[2]], float),
        "name": cells([person.name or np.zeros(0) for person in people]),
        "face_location": cells([np.array([person.box], float) for person in people]),
        "face_score": np.array([columns[4]], float),
        "second_face_score": np.array([columns[5]], float),
    }
    savemat(root / part / f"{name}.mat", {name: struct})
    return paths
