"""`ganlab eval`, and the numbers that `ganlab run` and `ganlab check` print."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from ganlab import Interrupted, experiment
from ganlab.cli.commands import app
from ganlab.cli.process import Output
from ganlab.cli.tables import show_evaluation
from ganlab.data.image_files import FORMATS
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from helpers.callbacks import Recording, interrupt


@pytest.fixture
def here(tiny: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trial: None) -> Path:
    """The working directory, with pictures, `tiny.json` and a third party's features and metric."""
    # narrower than the table, which must be printed whole
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.chdir(tmp_path)
    evaluation = {"features": "averages", "metrics": ["kid", "brightness"]}
    spec = merge(tiny, {"data": {"holdout": 0.8}, "evaluation": evaluation, "schedule": {"steps": 2}})
    (tmp_path / "tiny.json").write_text(json.dumps(spec))
    return tmp_path


def ganlab(*words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def test_a_run_ends_with_the_table_and_eval_prints_it_again(here: Path) -> None:
    ran = ganlab("run", "tiny.json").stdout
    again = ganlab("eval")
    shown = again.stdout
    assert "measures runs/tiny, the newest run with a checkpoint" in again.stderr.splitlines()
    assert ran.startswith(shown)
    title, headings, *lines = shown.splitlines()
    assert title.split() == ["step", "2", "(last)"]
    assert headings.split() == [
        "number",
        "direction",
        "value",
        "95%",
        "interval",
        "real",
        "identity",
        "chance",
        "counts",
    ]
    evaluation = json.loads((here / "runs/tiny/evaluation.json").read_text())
    for line, result in zip(lines, evaluation["results"], strict=False):
        assert line.startswith(f" {result['number']} ")
        assert f" {result['direction']} " in line
        for value in (result["value"], *result["interval"]):
            assert f"{value:.4g}" in line
        assert f"{result['counts']['outputs']} outputs" in line
    assert "results      runs/tiny/evaluation.json" in ran


def test_json_is_what_the_file_holds(here: Path) -> None:
    ran = json.loads(ganlab("run", "tiny.json", "--json").stdout)
    left = here / "runs/tiny/.evaluation.json.17.unfinished"
    left.touch()
    found = json.loads(ganlab("eval", "runs/tiny", "--json").stdout)
    assert found == json.loads((here / "runs/tiny/evaluation.json").read_text())
    assert ran["evaluation"] == found
    # a killed process had left this file
    assert not left.exists()


def test_what_can_not_be_written_keeps_nothing_else_from_it(here: Path) -> None:
    ganlab("run", "tiny.json")
    (here / "runs/tiny/evaluation.json").unlink()
    (here / "runs/tiny/speed.json").unlink()
    (here / "runs/tiny/speed.json").mkdir()
    done = ganlab("eval", "runs/tiny", "--json")
    assert "speed.json can't be written: Is a directory" in " ".join(done.stderr.split())
    assert json.loads((here / "runs/tiny/evaluation.json").read_text()) == json.loads(done.stdout)


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        (["--kid"], {"kid-averages"}),
        (["--fid"], {"kid-averages", "fid-averages"}),
        (["--metric", "brightness", "--kid"], {"kid-averages", "brightness"}),
    ],
)
def test_flags_choose_the_metrics(here: Path, words: list[str], numbers: set[str]) -> None:
    folders = {name: here / f"many-{name}" for name in "ab"}
    random = np.random.default_rng(0)
    for folder in folders.values():
        folder.mkdir()
        for number in range(12):
            Image.fromarray(random.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    asked = ["eval", "--images", *map(str, folders.values()), "--features", "averages", *words]
    found = json.loads(ganlab(*asked, "--json").stdout)
    assert {result["number"] for result in found["results"]} == numbers
    assert "12 outputs, 12 real" in ganlab(*asked).stdout


REFUSED: list[tuple[list[str], str]] = [
    (["nowhere"], "nowhere is not a run: it has no spec.json"),
    ([], "there is no run in runs; name one, or train one with `ganlab run SPEC`"),
    (["--images", "a", "b", "--kid"], "a does not exist"),
    (["--images", "a", "b"], "--images needs two folders and a metric; known are: "),
    (["--images", "a", "b", "--metric", "kidd"], "eval.metrics.0: there is no metric 'kidd'; did you mean 'kid'?"),
    (["--inputs", "a"], "--inputs goes with --images"),
    (["nowhere", "--images", "a", "b"], "either a run (nowhere) or two folders of --images are measured, not both"),
]


@pytest.mark.parametrize(("words", "said"), REFUSED)
def test_what_can_not_be_measured_is_refused_in_one_sentence(here: Path, words: list[str], said: str) -> None:
    before = sorted(here.rglob("*"))
    result = ganlab("eval", *words, code=2)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"ganlab: {said}")
    assert sorted(here.rglob("*")) == before


def test_check_explains_each_number(here: Path) -> None:
    shown = ganlab("check", "tiny.json").stdout
    assert re.search(r"^ brightness +higher +how bright an image is *$", shown, re.M), shown
    numbers = json.loads(ganlab("check", "tiny.json", "--json").stdout)["numbers"]
    assert [number["number"] for number in numbers] == ["kid-averages", "brightness"]
    assert [number["about"].endswith(" Feature network: averages.") for number in numbers] == [True, False]


def test_notes_name_a_checkpoint_only_among_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Output, "stream", io.StringIO())
    common = {"number": "fid", "value": 1.0, "interval": [0, 2], "counts": {}, "references": {}, "notes": ["biased"]}
    results = [{**common, "direction": way, "step": 2, "checkpoint": "last = best"} for way in ("ab", "ba")]
    show_evaluation({"results": results, "left_out": []})
    show_evaluation({"results": [*results, {**results[0], "step": 1, "checkpoint": "best"}], "left_out": []})
    notes = [line for line in Output.stream.getvalue().splitlines() if line.startswith("biased")]
    assert notes == ["biased: fid ab, fid ba", "biased: fid ab last = best, fid ba last = best, fid ab best"]


def test_a_spec_without_a_description_is_named_alone(here: Path) -> None:
    assert ganlab("check", "tiny.json").stdout.splitlines()[0] == "tiny"


def test_content_of_folders_names_the_option_that_is_missing(here: Path, pictures: dict[str, Path]) -> None:
    said = ganlab("eval", "--images", *map(str, pictures.values()), "--content", code=2).stderr
    assert said.splitlines()[-1] == (
        "ganlab: nothing could be measured: content needs the input of each output; give their folder with --inputs"
    )


def test_what_the_images_do_not_allow_is_said_once_and_before_anything_is_trained(here: Path) -> None:
    shared = {name: {"attribute": name} for name in ("hair", "skin")}
    evaluation = {"metrics": [{"type": "content", "shared": shared}, "brightness"], "every": 1}
    spec = merge(json.loads((here / "tiny.json").read_text()), {"evaluation": evaluation})
    (here / "shared.json").write_text(json.dumps(spec))
    why = "it needs attributes of the images, and those of a, b have none"
    warning = f"warning: content-hair, content-skin can't be measured on these images: {why}"
    checked = ganlab("check", "shared.json")
    assert checked.stderr.splitlines() == [warning]
    assert "\nimages: 12 of a, 12 of b\n" in checked.stdout
    said = ganlab("run", "shared.json").stderr.splitlines()
    assert warning in said
    assert "".join(said).count("content-hair") == 1


def test_an_unfinished_run_is_measured_and_said_to_be_one(here: Path) -> None:
    spec = merge(json.loads((here / "tiny.json").read_text()), {"data": {"batch": 3}, "schedule": {"steps": 3}})
    with pytest.raises(Interrupted):
        experiment.run(spec, out="half", callback=Recording(1, interrupt))
    words = ["eval", "half", "--metric", "brightness"]
    assert [line for line in ganlab(*words).stderr.splitlines() if line.startswith("warning")] == [
        "warning: half is unfinished: step 2 of 3, 6 of 9 images of each domain"
    ]
    assert experiment.run(spec, out="half").finished
    assert "unfinished" not in ganlab(*words).stderr


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"metrics": ["kid", "kid"]}, "evaluation.metrics: 'kid' is named twice"),
    ({"metrics": ["kdi"]}, "evaluation.metrics.0: there is no metric 'kdi'; did you mean 'kid'?"),
    (
        {"metrics": [{"type": "brightness", "bettr": "lower"}]},
        "evaluation.metrics.0.bettr: unknown key; did you mean 'better'?",
    ),
    ({"metrics": [3]}, "evaluation.metrics.0: 3 is not allowed: "),
    ({"features": "average"}, "evaluation.features: there is no features 'average'; did you mean 'averages'?"),
    ({"metrics": [], "every": 2}, "evaluation.every: 2 is not allowed: there are no metrics to measure"),
    ({"during": ["kidd"]}, "evaluation.during: there is no metric 'kidd'; did you mean 'kid'?"),
    ({"evry": 2}, "evaluation.evry: unknown key; did you mean 'every'?"),
]


@pytest.mark.parametrize(("patch", "said"), WRONG)
@pytest.mark.parametrize("command", ["run", "check"])
def test_a_wrong_evaluation_is_refused(here: Path, command: str, patch: dict[str, Any], said: str) -> None:
    spec = merge(json.loads((here / "tiny.json").read_text()), {"evaluation": patch})
    (here / "wrong.json").write_text(json.dumps(spec))
    assert ganlab(command, "wrong.json", code=2).stderr.startswith(f"ganlab: wrong.json: {said}")
    assert not (here / "runs").exists()


def test_metrics_on_features_need_them(here: Path) -> None:
    spec = merge(json.loads((here / "tiny.json").read_text()), {"evaluation": {"features": None}})
    (here / "wrong.json").write_text(json.dumps(spec))
    for command in ("run", "check"):
        said = ganlab(command, "wrong.json", code=2).stderr
        assert said.splitlines()[-1].startswith("ganlab: evaluation.features: is required by kid; known are: ")


def test_too_few_images_and_files_that_are_none_are_warned_of(here: Path, pictures: dict[str, Path]) -> None:
    (pictures["a"] / "notes.txt").write_text("no picture")
    spec = merge(json.loads((here / "tiny.json").read_text()), {"data": {"holdout": 0.5}})
    for domain in "ab":
        spec["data"][domain] = {"type": "folder", "path": str(pictures[domain])}
    (here / "few.json").write_text(json.dumps(spec))
    checked = ganlab("check", "few.json")
    assert "\nimages: 12 of a, 12 of b\n" in checked.stdout
    assert checked.stderr.splitlines() == [
        "warning: data.a: 1 of 13 files are no readable images and are left out: notes.txt: is no image of a kind that"
        f" is read ({', '.join(FORMATS)})",
        *(
            f"warning: data.{domain}: 6 images are held out and half of them are measured, but kid needs 4: add"
            " images or hold out more"
            for domain in "ab"
        ),
    ]
