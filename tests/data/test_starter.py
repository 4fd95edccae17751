"""`ganlab init`: a spec for two folders of pictures."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

import ganlab
from ganlab.cli.commands import app
from ganlab.data import starter
from ganlab.data.starter import init
from helpers.paths import EXPERIMENTS
from helpers.pictures import colourful


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def folder(name: str, count: int, width: int = 100, height: int = 80) -> str:
    Path(name, "sub").mkdir(parents=True)
    for number in range(count):
        colourful(width, height).save(f"{name}/sub/{number:03}.png")
    return name


def test_it_writes_a_spec_that_loads_and_holds_differences_only(here: Path) -> None:
    path, spec = init("mine", folder("photos", 40), folder("comics", 50))
    assert path == Path("mine.json")
    assert json.loads(path.read_text()) == spec
    assert spec["data"] == {
        "a": {"type": "folder", "path": "photos"},
        "b": {"type": "folder", "path": "comics"},
        "size": 64,
        "batch": 8,
        "holdout": 0.4,
    }
    loaded = ganlab.load_spec("mine")
    assert (loaded.name, loaded.about) == ("mine", "pictures of photos into those of comics, and back")
    assert loaded.data.a["path"] == str(here / "photos")
    emb = ganlab.load_spec(EXPERIMENTS / "emb.json")
    assert (loaded.generator, loaded.losses, loaded.schedule) == (emb.generator, emb.losses, emb.schedule)
    # nothing that needs labels
    assert [metric for metric in loaded.evaluation.metrics if metric not in emb.evaluation.metrics] == [  # type: ignore[index]
        {"type": "content", "shared": {}}
    ]


@pytest.mark.parametrize(
    ("count", "holdout", "batch"), [(2, 0.5, 1), (12, 0.5, 6), (64, 0.25, 8), (160, 0.1, 8), (1000, 0.1, 8)]
)
def test_sixteen_pictures_of_the_smaller_folder_are_held_out_and_a_batch_is_there(
    here: Path, monkeypatch: pytest.MonkeyPatch, count: int, holdout: float, batch: int
) -> None:
    monkeypatch.setattr(starter, "LOOKED_AT", 3)
    photos, comics = folder("photos", 3), folder("comics", 3)
    for number in range(3, count + (count > 3)):
        os.link("photos/sub/000.png", f"photos/sub/{number:03}.png")
    for number in range(3, count):
        os.link("comics/sub/000.png", f"comics/sub/{number:03}.png")
    if count == 2:
        Path("comics/sub/002.png").unlink()
    _, spec = init("mine", photos, comics)
    assert (spec["data"]["holdout"], spec["data"]["batch"]) == (holdout, batch)


@pytest.mark.parametrize(
    ("width", "height", "devices", "expected"),
    [
        (300, 260, ["cuda", "cpu"], (256, 1)),
        (300, 255, ["cuda", "cpu"], (128, 4)),
        (127, 300, ["cuda", "cpu"], (64, 8)),
        (20, 20, ["cuda", "cpu"], (64, 8)),
        (300, 260, ["cpu"], (64, 8)),
    ],
)
def test_the_size_is_at_most_the_pictures_own(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    width: int,
    height: int,
    devices: list[str],
    expected: tuple[int, int],
) -> None:
    monkeypatch.setattr(starter, "devices", lambda: devices)
    _, spec = init("mine", folder("photos", 20, 400, 500), folder("comics", 20, width, height))
    assert (spec["data"]["size"], spec["data"]["batch"]) == expected


def test_what_is_no_picture_does_not_count(here: Path) -> None:
    folder("photos", 6)
    os.mkfifo("photos/pipe.png")
    Path("photos/notes.txt").write_text("notes")
    _, spec = init("mine", "photos", folder("comics", 20))
    # three of six to train on
    assert spec["data"]["batch"] == 3


def test_its_spec_trains(here: Path) -> None:
    init("mine", folder("photos", 8), folder("comics", 8))
    small = ["data.size=32", "data.batch=2", "generator.width=4", "discriminators.image.of.width=4", "schedule.steps=1"]
    small += ["discriminators.embedding.width=4", "runtime.threads=1", "evaluation=null"]
    assert ganlab.run("mine", small).finished


def test_the_command_says_what_to_do_next(here: Path) -> None:
    words = ["init", "mine", "--a", folder("photos", 40), "--b", folder("comics", 50)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        "written: mine.json: 64 x 64 pixels, batch 8, 40% of the pictures held out",
        "  look at it   ganlab check mine",
        "  train it     ganlab run mine",
    ]
    assert done.stderr == ""
    Path("mine.json").rename("first.json")
    found = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert found == {"file": "mine.json", "spec": json.loads(Path("first.json").read_text())}


def test_a_folder_that_is_too_small_to_measure_is_a_warning(here: Path) -> None:
    done = CliRunner().invoke(app, ["init", "mine", "--a", folder("photos", 31), "--b", folder("comics", 32)])
    assert (done.exit_code, done.stderr) == (
        0,
        "warning: some numbers need 32 pictures in each folder, and photos holds 31; they are left out\n",
    )


@pytest.mark.parametrize(
    ("name", "a", "b", "sentence"),
    [
        ("mine", "photos", "no", "--b: no does not exist"),
        ("mine", "text", "photos", "--a: text holds 0 readable pictures; at least two are needed"),
        ("mine", "empty", "photos", "--a: empty holds 0 readable pictures; at least two are needed"),
        ("mine", "photos/000.png", "photos", "--a: photos/000.png does not exist"),
        ("mine", "~nobody-here", "photos", "--a: '~nobody-here': the home folder that its '~' stands for is not known"),
        ("mine", "photos", "photos/", "--a and --b are the same folder, photos; each is one of two sets of pictures"),
        ("mine", "photos", "photos/sub", "--a and --b share pictures: HERE/photos/sub is inside HERE/photos, which is"),
        ("mine", "photos/sub", "photos", "--a and --b share pictures: HERE/photos/sub is inside HERE/photos, which is"),
        ("taken", "photos", "comics", "taken.json exists already; choose another name, or move it away"),
        ("a/b", "photos", "comics", "init: name: 'a/b' is not allowed: it names a folder, so at most 100 letters,"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_nothing_is_written(
    here: Path, name: str, a: str, b: str, sentence: str
) -> None:
    folder("photos", 2)
    folder("comics", 2)
    Path("empty").mkdir()
    Path("text").mkdir()
    Path("text/notes.txt").write_text("notes")
    Path("taken.json").write_text("{}")
    before = sorted(here.rglob("*"))
    done = CliRunner().invoke(app, ["init", name, "--a", a, "--b", b])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"ganlab: {sentence.replace('HERE', str(here))}")
    assert sorted(here.rglob("*")) == before
    assert Path("taken.json").read_text() == "{}"
