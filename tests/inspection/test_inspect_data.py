"""Troubles planted among photographs are found, and little else; a training leaves out what a list names."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import ganlab
from ganlab.cli.commands import app
from ganlab.data.folder import HELD_OUT, Folder
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from ganlab.spec.resolve import resolve
from ganlab.system.build import build_data, build_sources
from helpers.folders import draw
from helpers.photographs import COPIES, boxed, jpeg, photographs, smeared
from helpers.systems import TINY

HOSTILE = "<img src=x onerror=alert(1)>"


class Planted(NamedTuple):
    folder: Path
    names: dict[str, set[str]]
    """{kind of finding: files that should be in it}."""
    found: Json


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """Photographs with troubles among them, inspected as the one domain that they are."""
    folder = tmp_path_factory.mktemp("inspected") / "photos"
    folder.mkdir()
    names: dict[str, set[str]] = {"exact": set(), "near": set(), "repeated": set(), "letterbox": set()}
    images = photographs()
    order = np.random.default_rng(0).permutation(len(images)).tolist()

    def add(kind: str, name: str, image: Image.Image, **options: Any) -> None:
        image.save(folder / name, **options)
        names[kind].add(name)

    sides = ("t", "l", "tb", "tblr", "r")
    for number, place in enumerate(order):
        image, of = images[place], f"{place:03}"
        if number < 12:
            # in place of the photograph
            add("repeated", f"{of}.smeared.jpg", smeared(image, 10 + number, sides[number % 5]), quality=92)
        elif number < 20:
            colour = ("black", "white", "#204060", "black")[number % 4]
            add("letterbox", f"{of}.boxed.jpg", boxed(image, number - 4, colour, number % 2 == 0), quality=90)
        else:
            image.save(folder / f"{of}.png")
        if 20 <= number < 40:
            add("exact", f"{of}.again.png", image)
        elif 40 <= number < 40 + 2 * len(COPIES):
            name, make = list(COPIES.items())[number % len(COPIES)]
            add("near", f"{of}.{name}.png", make(image))
    (folder / "notes.txt").write_text("no picture")
    (folder / f"{HOSTILE}.png").write_text("no picture either")
    jpeg(images[0], 90).save(folder / "whole.jpg", quality=80)
    content = (folder / "whole.jpg").read_bytes()
    (folder / "whole.jpg").write_bytes(content[: len(content) // 2])
    Image.new("RGB", (90, 90), (200, 201, 203)).save(folder / "grey.png")
    images[1].resize((30, 24)).save(folder / "tiny.png")
    page, listed = folder.parent / "page.html", folder.parent / "out.txt"
    return Planted(folder, names, ganlab.inspect_data(folder, out=page, write_filter=listed))


def named(found: Json, kind: str) -> set[str]:
    """The files of a finding."""
    (finding,) = (finding for finding in found["findings"] if finding["kind"] == kind)
    return {image["name"] for group in finding["groups"] for image in group}


def test_what_is_planted_is_found_and_little_else(planted: Planted) -> None:
    images = planted.found["domains"]["a"]["images"]
    for kind, names in planted.names.items():
        found = named(planted.found, kind)
        assert len(found & names) >= 0.95 * len(names), (kind, names - found)
        # of duplicates, the original is found too
        originals = {f"{name[:3]}.png" for name in names} if kind in ("exact", "near") else set()
        assert len(found - names - originals) <= 0.02 * images, (kind, found - names - originals)


def test_duplicates_are_grouped_with_their_originals(planted: Planted) -> None:
    for finding in planted.found["findings"]:
        if finding["kind"] in ("exact", "near"):
            for group in finding["groups"]:
                assert len({image["name"][:3] for image in group} - {"tin"}) == 1, group


def test_damaged_files_are_told_from_other_files(planted: Planted) -> None:
    assert named(planted.found, "unreadable") == {"notes.txt", f"{HOSTILE}.png"}
    assert named(planted.found, "damaged") == {"whole.jpg"}
    assert named(planted.found, "flat") == {"grey.png"}
    assert named(planted.found, "tiny") == {"tiny.png"}


def test_the_page_holds_everything_and_no_name_acts(planted: Planted) -> None:
    text = (planted.folder.parent / "page.html").read_text("utf-8")
    assert HOSTILE not in text
    assert "&lt;img src=x onerror=alert(1)&gt;.png" in text
    assert text.count('<img src="data:image/webp;base64,') > 40
    assert not re.search(r'(src|href)="(?!data:|#)', text)
    assert text.count("<polygon") == 6
    assert len(text) < 1_000_000


def test_a_training_leaves_out_what_the_list_names(planted: Planted, tmp_path: Path) -> None:
    listed = planted.folder.parent / "out.txt"
    left_out = set(planted.found["left_out"]["a"])
    assert planted.found["filter"] == {"file": str(listed), "files": {"a": len(left_out)}}
    lines = [line for line in listed.read_text("utf-8").splitlines() if not line.startswith("#")]
    assert sorted(lines) == sorted(f"photos/{name}" for name in left_out)
    kept = set(Folder(planted.folder, exclude=listed).keys("a"))
    assert kept == set(Folder(planted.folder).keys("a")) - left_out
    # of each group of duplicates one image stays
    for finding in planted.found["findings"]:
        if finding["kind"] in ("exact", "near"):
            for group in finding["groups"]:
                assert len(kept & {image["name"] for image in group}) <= 1
    singles = {finding["kind"]: finding["count"] for finding in planted.found["findings"]}
    assert (
        len(kept & {f"{name[:3]}.png" for name in planted.names["exact"]}) + len(kept & planted.names["exact"])
        >= 0.9 * singles["exact"]
    )
    spec = _spec(planted.folder, draw(tmp_path)["b"], listed)
    again = ganlab.inspect_data(spec, out=tmp_path / "page.html")
    assert {finding["kind"]: finding["counts"]["a"] for finding in again["findings"] if finding["counts"]["a"]} == {}


def _spec(a: Path, b: Path, exclude: Path | None = None) -> Json:
    sources = {
        "a": {"type": "folder", "path": str(a), **({"exclude": str(exclude)} if exclude else {})},
        "b": {"type": "folder", "path": str(b)},
    }
    return {**TINY, "name": "inspected", "data": {**TINY["data"], **sources, "holdout": 0.4}}


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders of a few photographs; some are in a twice, and one is in both."""
    images = photographs()
    for domain, first, last in (("a", 0, 20), ("b", 20, 36)):
        (tmp_path / domain).mkdir()
        for number in range(first, last):
            images[number].save(tmp_path / domain / f"{number:02}.png")
    for number in range(10):
        shutil.copy(tmp_path / f"a/{number:02}.png", tmp_path / f"a/copy-{number:02}.png")
    images[30].resize((80, 80)).save(tmp_path / "a/of-b.jpg", quality=80)
    (tmp_path / "a/labels.csv").write_text(
        "file,hair\n" + "".join(f"{n:02}.png,{'red' if n < 5 else 'black'}\n" for n in range(20))
    )
    return tmp_path / "a", tmp_path / "b"


def test_leaks_and_images_of_both_domains(folders: tuple[Path, Path], tmp_path: Path) -> None:
    spec = _spec(*folders)
    found = ganlab.inspect_data(spec, out=tmp_path / "page.html", write_filter=tmp_path / "out.txt")
    dataset = build_data(resolve(spec, "spec"))["a"]
    held = {dataset.keys[place] for place in dataset.holdout.tolist()}
    pairs = [{f"{number:02}.png", f"copy-{number:02}.png"} for number in range(10)]
    leaks = [pair for pair in pairs if len(pair & held) == 1]
    assert len(leaks) >= 3
    assert named(found, "leaks") == set().union(*leaks)
    # the training image is left out, the held-out image stays
    assert set().union(*leaks) & set(found["left_out"]["a"]) == set().union(*leaks) - held
    assert named(found, "shared") == {"of-b.jpg", "30.png"}
    assert found["domains"]["a"] == {
        "source": str(folders[0]),
        "images": 31,
        "held_out": 12,
        "labels": {"hair": {"black": 15, "red": 5}},
    }


def test_one_folder_with_both_domains(tmp_path: Path) -> None:
    root, pictures = tmp_path / "set", photographs()
    for place, folder in enumerate(("trainA", "trainB", "testA", "testB")):
        (root / folder).mkdir(parents=True)
        for number in range(4):
            pictures[4 * place + number].save(root / folder / f"{number}.png")
    shutil.copy(root / "testA" / "1.png", root / "trainA" / "leak.png")
    found = ganlab.inspect_data(root, out=tmp_path / "page.html", write_filter=tmp_path / "out.txt")
    assert {name: (a["images"], a["held_out"]) for name, a in found["domains"].items()} == {"a": (9, 4), "b": (8, 4)}
    assert named(found, "leaks") == {"leak.png", f"{HELD_OUT}1.png"}
    assert found["left_out"] == {"a": ["leak.png"], "b": []}
    data = {"root": str(root), "a": {"type": "folder", "exclude": str(tmp_path / "out.txt")}}
    dataset = build_data(resolve(merge({key: value for key, value in TINY.items() if key != "data"}, {"data": data})))[
        "a"
    ]
    kept = [f"{number}.png" for number in range(4)]
    assert dataset.keys == (*kept, *(HELD_OUT + name for name in kept))


def test_a_source_without_files(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    spec = _spec(*folders)
    spec["data"]["b"] = {"type": "avatars", "style": "pixel-art", "count": 12}
    spec["data"]["size"] = 64
    found = ganlab.inspect_data(spec, out=tmp_path / "page.html", write_filter=tmp_path / "out.txt")
    assert found["domains"]["b"]["images"] == 12
    assert found["domains"]["b"]["labels"]["hair_color"]
    assert [f["kind"] for f in found["findings"] if f["counts"]["b"]] == []
    assert set(found["filter"]["files"]) == {"a"}


def test_bad_input_is_one_sentence(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    a, b = map(str, folders)
    empty = tmp_path / "empty"
    empty.mkdir()
    for words, said in (
        ([a, b, a], "3 folders are named; one or two are allowed"),
        ([a, "nowhere"], "nowhere' does not exist"),
        ([str(empty)], "is empty"),
        ([a, "--set", "seed=1"], "--set changes a spec"),
        (["nowhere"], "nowhere"),
        ([a, "--out", f"{a}/00.png/page.html"], "can't be written"),
    ):
        done = CliRunner().invoke(app, ["data", "inspect", "--out", str(tmp_path / "page.html"), *words])
        assert done.exit_code in (1, 2), words
        assert done.stdout == ""
        (line,) = (line for line in done.stderr.splitlines() if line.startswith("ganlab: "))
        assert said in line
    assert not (tmp_path / "page.html").exists()


def test_the_command_prints_counts_and_what_to_do(folders: tuple[Path, Path], tmp_path: Path) -> None:
    page, listed = tmp_path / "page.html", tmp_path / "out.txt"
    words = ["data", "inspect", *map(str, folders), "--out", str(page), "--write-filter", str(listed)]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0, shown.stderr
    assert re.search(r"^ exact duplicates +10 +0 $", shown.stdout, re.M)
    assert f"--set data.a.exclude={listed}\n" in shown.stdout
    assert "data.b.exclude" not in shown.stdout
    found = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert found["filter"] == {"file": str(listed), "files": {"a": 11}}
    source = build_sources(resolve(_spec(*folders, listed), "spec"))["a"]
    assert len(source.keys("a")) == 20
