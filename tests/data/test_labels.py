"""`labels.csv` of the source `folder`: attributes and classes of its images."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ganlab
from ganlab.data.folder import Folder
from ganlab.data.labels import Classes, read_labels
from ganlab.errors import SpecError
from ganlab.spec.models import Json
from ganlab.system.build import build_data, build_domains

ROWS = [
    ("00.png", "black", 'long, "curly"'),
    ("01.png", "red", ""),
    ("02.png", "", "short"),
    ("03.png", "black", "short"),
    ("deep/ü 漢.png", "blond", "long"),
    ("04.png", "red", "short"),
    ("gone.png", "green", "short"),
]


def write(folder: Path, encoding: str = "utf-8") -> dict[str, dict[str, str]]:
    """Writes `labels.csv` and pictures, one of which it does not name. Returns {key: its attributes}."""
    with (folder / "labels.csv").open("w", encoding=encoding, newline="") as file:
        csv.writer(file).writerows([("file", "hair", "length"), *ROWS])
    (folder / "deep").mkdir()
    for name in [*(row[0] for row in ROWS), "unnamed.png"]:
        if name != "gone.png":
            (folder / name).write_bytes((folder / "05.png").read_bytes())
    named = {
        name: {column: value for column, value in (("hair", hair), ("length", length)) if value}
        for name, hair, length in ROWS
        if name != "gone.png"
    }
    return {
        path: named.get(path, {})
        for path in sorted([*(f"{n:02}.png" for n in range(12)), "deep/ü 漢.png", "unnamed.png"])
    }


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_columns_are_attributes(pictures: dict[str, Path], encoding: str) -> None:
    written = write(pictures["a"], encoding)
    source = Folder(pictures["a"])
    assert source.keys("a") == [*written]
    assert source.classes == 0
    assert {key: source.attributes(key) for key in written} == written


def test_values_of_a_column_are_classes(pictures: dict[str, Path]) -> None:
    written = write(pictures["a"])
    source = Folder(pictures["a"], labels="hair", classes=("red", "black"))
    expected = {
        key: ("red", "black").index(has["hair"]) for key, has in written.items() if has.get("hair") in ("red", "black")
    }
    assert len(expected) == 4
    assert {key: source.label(key) for key in source.keys("a")} == expected
    with pytest.raises(ValueError, match=r"^02\.png has none of the classes red, black$"):
        source.label("02.png")
    assert len(Folder(pictures["a"], labels="hair", classes=("red", "black"), limit=3).keys("a")) == 3


def test_classes_reach_the_training_and_need_no_files(pictures: dict[str, Path], tiny: Json) -> None:
    write(pictures["a"])
    asked = {"labels": "hair", "classes": ["black", "red"]}
    spec = ganlab.load_spec({**tiny, "data": {**tiny["data"], "a": {**tiny["data"]["a"], **asked}}})
    loaded = build_data(spec)["a"]
    assert loaded.labels is not None
    assert dict(zip(loaded.keys, loaded.labels.tolist(), strict=True)) == {
        "00.png": 0,
        "01.png": 1,
        "03.png": 0,
        "04.png": 1,
    }
    assert loaded.domain.classes == 2
    (pictures["a"] / "labels.csv").unlink()
    # a trained run is used without its images
    assert build_domains(spec)["a"].classes == 2
    with pytest.raises(SpecError, match=r"^data\.a: labels is 'hair', and .*pictures-a has no labels\.csv$"):
        build_data(spec)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("name,hair\n00.png,red\n", ": expected different columns, one of them 'file', got name, hair"),
        ("file;hair\n00.png;red\n", ": expected different columns, one of them 'file', got file;hair"),
        ("file,hair,hair\n00.png,red,red\n", ": expected different columns, one of them 'file', got file, hair, hair"),
        ("", ": expected different columns, one of them 'file', got none"),
        ("file,hair\n\n00.png,red\n01.png\n", ", line 4: expected 2 cells, got 1: '01.png'"),
        ("file,hair\n00.png,a,b\n", ", line 2: expected 2 cells, got 3: '00.png,a,b'"),
        ("file,hair\n00.png,red\n00.png,black\n", ", line 3: '00.png' is in an earlier line too"),
        ('file,hair\n00.png,"red\n', " can't be read: unexpected end of data"),
        (b"file,hair\n00.png,r\xff\n", " can't be read: 'utf-8' codec can't decode"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path: Path, content: str | bytes, said: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SpecError) as refused:
        read_labels(path)
    assert str(refused.value).startswith(f"{path}{said}")


def test_a_file_that_names_no_image_is_refused(pictures: dict[str, Path]) -> None:
    (pictures["a"] / "labels.csv").write_text("file,hair\nphotos/00.png,red\n")
    with pytest.raises(SpecError, match=r"^data\.b: .*labels\.csv names none of the 12 files in its folder$"):
        Folder(pictures["a"]).keys("b")


def test_a_class_without_an_image_is_refused(pictures: dict[str, Path]) -> None:
    write(pictures["a"])
    said = r"^data\.a: no image has the hair 'green'; the values are: black, blond, red$"
    with pytest.raises(SpecError, match=said):
        Folder(pictures["a"], labels="hair", classes=("red", "green")).keys("a")
    with pytest.raises(SpecError, match=r"^data\.a: no image has the colour 'red'; the values are: none$"):
        Folder(pictures["a"], labels="colour", classes=("red", "black")).keys("a")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((None, ["a", "b"]), r"^classes lists \['a', 'b'\], and labels names nothing that has these values$"),
        (("hair", []), r"^labels is 'hair', and classes lists \[\]; list the values that become classes, two or more"),
        (("hair", ["a"]), r"^labels is 'hair', and classes lists \['a'\]; list"),
        (("hair", ["a", "a"]), r"^labels is 'hair', and classes lists \['a', 'a'\]; list"),
    ],
)
def test_labels_and_classes_come_together(arguments: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Classes(*arguments)


def test_a_folder_without_labels_has_none(pictures: dict[str, Path]) -> None:
    source = Folder(pictures["a"])
    assert len(source.keys("a")) == 12
    assert source.attributes("00.png") == {}
    assert np.asarray(source.image("00.png", 16)).shape == (16, 16, 3)
