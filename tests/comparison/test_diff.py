"""`ganlab diff`: what differs between two runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import ganlab
from ganlab import SpecError
from ganlab.cli.commands import app
from ganlab.comparison import tables
from ganlab.spec.files import merge
from ganlab.spec.models import Json

PARTS = ("spec", "data", "environment", "code", "measured")


@pytest.fixture
def here(tiny: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory with a run."""
    monkeypatch.chdir(tmp_path)
    patch = {"evaluation": {"metrics": ["content"]}, "schedule": {"steps": 2}, "data": {"holdout": 0.7}}
    (tmp_path / "tiny.json").write_text(json.dumps(merge(tiny, patch)))
    ganlab.run("tiny.json", out="one")
    return tmp_path


def test_equal_runs_differ_in_nothing(here: Path) -> None:
    ganlab.run("tiny.json", out="again")
    found = ganlab.diff("one", "again")
    assert [found[part] for part in PARTS] == [{}] * 5
    results = json.loads((here / "one/evaluation.json").read_text())["results"]
    assert [result["values"] for result in found["results"]] == [[result["value"]] * 2 for result in results]
    assert {result["difference"] for result in found["results"]} == {0}
    assert [line for line in tables.differences(found).splitlines() if line.endswith(": the same")] == [
        f"{part}: the same" for part in PARTS
    ]


def test_every_difference_is_named(here: Path) -> None:
    ganlab.run("tiny.json", ["losses.cycle.weight=1", "data.a.limit=11"], "other")
    environment = json.loads((here / "other/environment.json").read_text())
    environment["packages"]["torch"] = "1.0"
    environment["code"]["ganlab"]["sha256"] = "0" * 64
    (here / "other/environment.json").write_text(json.dumps(environment))
    found = ganlab.diff("one", "other")
    assert found["spec"] == {
        "data.a.limit": ["0", "11"],
        "losses.cycle.weight.discriminator": ["10.0", "1.0"],
        "losses.cycle.weight.generator": ["10.0", "1.0"],
    }
    assert found["data"].keys() == {"data.a.images", "data.a.sha256"}
    assert found["data"]["data.a.images"] == ["12", "11"]
    assert [pair[1] for pair in found["environment"].values()] == ['"1.0"']
    assert found["environment"].keys() == {"packages.torch"}
    assert [pair[1] for pair in found["code"].values()] == ['"0.1.0 000000000000"']
    assert found["measured"].keys() == {f"images.a.{part}" for part in ("sha256", "train")}
    text = tables.differences(found)
    assert "  losses.cycle.weight.generator: 10.0 / 1.0\n" in text
    assert max(map(len, text.splitlines())) <= 110
    for result in found["results"]:
        a, b = (
            {(r["number"], r["direction"]): r["value"] for r in json.loads(path.read_text())["results"]}
            for path in (here / "one/evaluation.json", here / "other/evaluation.json")
        )
        place = result["number"], result["direction"]
        assert result["difference"] == pytest.approx(b[place] - a[place])


def test_runs_without_results_are_compared_too(here: Path) -> None:
    ganlab.run("tiny.json", ["evaluation.metrics=[]"], "unmeasured")
    found = ganlab.diff("one", "unmeasured")
    assert found["why"] == ["", "it is not measured"]
    assert found["results"] == []
    assert "B  unmeasured: 2 steps, it is not measured" in tables.differences(found)
    with pytest.raises(SpecError, match=r"tiny\.json is not a run: it has no spec\.json"):
        ganlab.diff("one", "tiny.json")


def test_the_command_prints_text_or_json(here: Path) -> None:
    done = CliRunner().invoke(app, ["diff", "one", "one"])
    assert done.exit_code == 0, done.output
    assert done.stdout == tables.differences(ganlab.diff("one", "one"))
    as_json = CliRunner().invoke(app, ["diff", "one", "one", "--json"])
    assert json.loads(as_json.stdout) == ganlab.diff("one", "one")
