"""`ganlab translate`: what it prints and refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

import ganlab
from ganlab.cli.commands import app
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from helpers.pictures import colourful


@pytest.fixture
def here(tiny: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with runs/tiny, a picture and a file that is none."""
    monkeypatch.chdir(tmp_path)
    ganlab.run(merge(tiny, {"schedule": {"steps": 1}}))
    (tmp_path / "in").mkdir()
    colourful(30, 20).save("in/me.png")
    Path("in/notes.txt").write_text("notes")
    return tmp_path


def test_it_says_what_it_made_and_left_out(here: Path) -> None:
    words = ["translate", "runs/tiny", "in", "--to", "b", "--size", "keep", "--grid", "--cycle"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        "translated: 1 picture from a to b, step 1",
        "  look at      runs/tiny/translated/b/grid.png",
        "  left out     1 file",
    ]
    (warning,) = done.stderr.splitlines()
    assert warning.startswith("warning: in/notes.txt is left out: is no image of a kind that is read (AVIF, ")
    assert sorted(path.name for path in Path("runs/tiny/translated/b").iterdir()) == [
        "grid.png",
        "me.back.png",
        "me.png",
    ]
    again = CliRunner().invoke(app, words)
    assert (again.exit_code, again.stdout) == (2, "")
    assert again.stderr.splitlines() == [
        "ganlab: runs/tiny/translated/b/grid.png exists, and 2 others do; replace with --overwrite, or choose another"
        " folder with --out"
    ]
    done = CliRunner().invoke(app, [*words, "--overwrite", "--checkpoint", "best"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "runs/tiny has no best checkpoint: nothing was measured during its training" in done.stderr
    assert done.stderr.endswith("; choose 'last' or one of the steps 1\n")


def test_its_result_as_json_is_that_of_the_function(here: Path) -> None:
    done = CliRunner().invoke(app, ["translate", "runs/tiny", "in/*.png", "--to", "a", "--out", "out", "--json"])
    assert done.exit_code == 0, done.output
    shutil.move("out/me.png", "by-the-command.png")
    assert json.loads(done.stdout) == ganlab.translate("runs/tiny", ["in/me.png"], to="a", out="out")
    assert Path("out/me.png").read_bytes() == Path("by-the-command.png").read_bytes()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["no", "in", "--to", "b"], "no is not a run: it has no spec.json"),
        (["runs/tiny", "in", "--to", "c"], "to: 'c' is not allowed: this run translates to a and to b"),
        (["runs/tiny", "in", "--to", "b", "--size", "64"], "size: '64' is not allowed: it should be 'run' or 'keep'"),
    ],
)
def test_what_is_wrong_is_one_sentence(here: Path, words: list[str], sentence: str) -> None:
    done = CliRunner().invoke(app, ["translate", *words])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == f"ganlab: {sentence}\n"
