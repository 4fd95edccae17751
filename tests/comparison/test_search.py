"""A search proposes trials, prunes them and is continued; its ranges."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import ganlab
from ganlab import RunError, Search, SpecError
from ganlab.cli.commands import app
from ganlab.comparison import processes
from ganlab.comparison.ranges import ranges_of
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from helpers.trials import InThisProcess

RANGES = ["schedule.lr=log(1e-6,1)", "losses.cycle.weight=uniform(0,20)", "losses.cycle.norm=choice(l1,l2)"]
STEPS, TRIALS = 3, 13


@pytest.fixture
def here(tiny: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory with a spec."""
    pytest.importorskip("optuna", reason="the extra `search` is not installed")
    monkeypatch.chdir(tmp_path)
    patch = {
        "name": None,
        "evaluation": {"metrics": ["content"], "every": 1},
        "schedule": {"steps": STEPS},
        "samples": {"every": STEPS},
        "checkpoints": {"every": 1},
        "data": {"holdout": 0.7},
    }
    (tmp_path / "plain.json").write_text(json.dumps(merge(tiny, patch)))
    return tmp_path


def decided(found: Json) -> list[Json]:
    """Everything in the trials of a search but their places."""
    places = ("folder", "command")
    return [{key: value for key, value in trial.items() if key not in places} for trial in found["trials"]]


def test_a_search_that_is_interrupted_makes_the_same_trials(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(InThisProcess, "trained", {})
    monkeypatch.setattr(processes, "start", InThisProcess)
    whole = ganlab.search(Search("plain.json", RANGES, TRIALS, "content-colour", out="whole"))
    assert len(whole["trials"]) == TRIALS
    # stopped in a late trial; TPE proposes the later ones from the others' results
    last = max(trial["trial"] for trial in whole["trials"] if trial["state"] == "finished")
    monkeypatch.setattr(InThisProcess, "interrupted", f"parts/plain-{last}/seed-0")
    with pytest.raises(RunError, match=rf"plain-{last}, seed 0: stopped at once; .*; the same command tries it again"):
        ganlab.search(Search("plain.json", RANGES, TRIALS, "content-colour", out="parts"))
    monkeypatch.setattr(InThisProcess, "interrupted", None)
    parts = ganlab.search(Search("plain.json", RANGES, TRIALS, "content-colour", out="parts"))
    assert decided(parts) == decided(whole)
    verify_pruning(whole["trials"])
    verify_best(whole)
    # another search would not continue this one
    with pytest.raises(SpecError, match=r"whole holds another search \(there / asked\): seed: 0 / 1; choose another"):
        ganlab.search(Search("plain.json", RANGES, TRIALS, "content-colour", seed=1, out="whole"))


def verify_pruning(trials: list[Json]) -> None:
    """A trial is pruned at the first step at which its best value is worse than the median of the finished trials
    before it, if five trials were made."""
    states = [trial["state"] for trial in trials]
    assert "pruned" in states
    for number, trial in enumerate(trials):
        before = [t["measured"] for t in trials[:number] if t["state"] == "finished"]
        values = list(trial["measured"].values())
        behind = [
            step
            for step in range(1, STEPS)
            if len(before) >= 5 and max(values[:step]) < np.median([each[str(step)] for each in before])
        ]
        assert trial["state"] == ("pruned" if behind else "finished")
        assert trial["step"] == min(behind, default=STEPS)


def verify_best(found: Json) -> None:
    finished = {trial["value"]: trial for trial in found["trials"] if trial["state"] == "finished"}
    best = finished[max(finished)]
    assert found["best"]["trial"] == best["trial"]
    records = [json.loads(line) for line in Path(best["folder"], "metrics.jsonl").read_text().splitlines()]
    each = [records[-1][f"evaluation/{direction}/content-colour"] for direction in ("ab", "ba")]
    assert best["value"] == pytest.approx(sum(each) / 2)
    measured = json.loads(Path(best["folder"], "evaluation.json").read_text())
    assert found["best"]["results"] == [r for r in measured["results"] if r["step"] == STEPS]
    spec = ganlab.load_spec("whole/best.json")
    assert spec.name == "plain-best"
    assert spec.trains() == ganlab.load_run(best["folder"]).spec.trains()
    table = Path("whole/search.md").read_text()
    assert table.count("| pruned at step ") == sum(t["state"] == "pruned" for t in found["trials"])


def test_a_failed_trial_is_kept_and_more_trials_may_follow(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(InThisProcess, "trained", {})
    monkeypatch.setattr(processes, "start", InThisProcess)
    ranges = ["schedule.lr=choice(0.01,1e+30)"]
    one = ganlab.search(Search("plain.json", ranges, 1, seed=2, out="found"))
    more = ganlab.search(Search("plain.json", ranges, 3, seed=2, out="found"))
    assert decided(more)[:1] == decided(one)
    states = {trial["parameters"]["schedule.lr"]: trial["state"] for trial in more["trials"]}
    assert states == {"0.01": "finished", "1e+30": "failed"}
    (why, *_) = [trial["why"] for trial in more["trials"] if trial["state"] == "failed"]
    assert " became " in why
    # without --number, the first number that training measures
    assert more["number"] == "content-colour"


@pytest.mark.faults
def test_the_command_searches_in_processes(here: Path) -> None:
    words = ["compare", "plain.json", "--search", "trials=1", "losses.cycle.weight=int(1,9)", "--out", "found"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "plain: 1 of 1 trials, content-colour on validation images, higher is better"
    assert max(map(len, lines)) <= 80, lines
    assert any(re.match(r"content-colour ab +[\d.]+ +-?[\d.]+ to [\d.]+ +1 +1$", line) for line in lines), done.stdout
    weight = json.loads(Path("found/search.json").read_text())["best"]["parameters"]["losses.cycle.weight"]
    assert 1 <= weight <= 9
    assert Path("found/plain-0/seed-0/evaluation.json").exists()


WRONG = [
    ("lr", "lr: is no range; ranges are KEY=log(LOW,HIGH), KEY=uniform(LOW,HIGH), "),
    ("lr=normal(0,1)", "lr=normal(0,1): is no range; ranges are "),
    ("lr=log(0,1)", "lr=log(0,1): is not allowed: log takes two numbers above 0, the lower one first"),
    ("lr=log(2,1)", "lr=log(2,1): is not allowed: log takes two numbers above 0, the lower one first"),
    ("lr=uniform(1)", "lr=uniform(1): is not allowed: uniform takes two numbers, the lower one first"),
    ("lr=uniform(a,b)", "lr=uniform(a,b): is not allowed: uniform takes two numbers, the lower one first"),
    ("lr=uniform(0,inf)", "lr=uniform(0,inf): is not allowed: uniform takes two numbers, the lower one first"),
    ("n=int(1,2.5)", "n=int(1,2.5): is not allowed: int takes two whole numbers, the lower one first"),
    ("x=choice(a)", "x=choice(a): is not allowed: choice takes two or more different values"),
    ("x=choice(a,a)", "x=choice(a,a): is not allowed: choice takes two or more different values"),
    ("seed=int(0,9)", "seed=int(0,9): is not allowed: a search sets seed; see --seeds"),
]


@pytest.mark.parametrize(("word", "said"), WRONG)
def test_a_wrong_range_is_refused(word: str, said: str) -> None:
    with pytest.raises(SpecError, match=re.escape(f"--search {said}")):
        ranges_of([word])


def test_values_of_a_choice_may_hold_commas() -> None:
    (found,) = ranges_of(["evaluation.metrics=choice([1,2],[3])"])
    assert found.values == ("[1, 2]", "[3]")


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"ranges": []}, "--search: needs a range to search, KEY=log(LOW,HIGH)"),
    ({"ranges": [RANGES[0], RANGES[0]]}, "--search schedule.lr: has two ranges"),
    ({"ranges": ["losses.cycle.weight=uniform(-1,1)"]}, "losses.cycle.weight: -1 is not allowed"),
    ({"ranges": ["data.size=choice(16,32)"]}, "do not have the same data: data.size: 16 / 32"),
    ({"ranges": ["schedule.steps=int(1,9)"]}, "plain trains 3 steps and plain-other 1"),
    ({"number": "content"}, "no number 'content' for which lower or higher is better is measured"),
    ({"on": "dask"}, "--on: 'dask' is not allowed: it should be ray, or ray://HOST:PORT of a Ray cluster"),
    ({"on": "ray"}, "--search: on Ray needs --jobs N"),
]


@pytest.mark.parametrize(("options", "said"), REFUSED)
def test_a_search_that_compares_unlike_trials_is_refused(options: dict[str, Any], said: str, here: Path) -> None:
    with pytest.raises(SpecError, match=re.escape(said)):
        ganlab.search(Search(**{"spec": "plain.json", "ranges": RANGES, "trials": 2, "out": "none", **options}))
    assert not Path("none").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--search", "30", "a=int(1,2)"], "--search: '30' is not allowed: it should be trials=N"),
        (["--search", "trials=0", "a=int(1,2)"], "--search: 'trials=0' is not allowed"),
        (
            ["--search", "trials=1", "--vary", "a=1", "a=int(1,2)"],
            "--search: does not go with --images, --vary, --baseline, --from or --dry-run",
        ),
        (["--search", "trials=1", "--seeds", "0,1", "a=int(1,2)"], "--search: takes one seed, got 2"),
        (["--search", "trials=1", "wide.json", "a=int(1,2)"], "--search: takes one spec, got 2"),
        (["a=int(1,2)"], "compare: a=int(1,2) is a range to search; say how many trials with --search trials=N"),
    ],
)
def test_wrong_words_of_a_search_are_refused(words: list[str], said: str, here: Path) -> None:
    done = CliRunner().invoke(app, ["compare", "plain.json", *words])
    assert done.exit_code == 2
    assert done.stderr.startswith(f"ganlab: {said}"), done.stderr


@pytest.mark.parametrize(
    ("package", "words", "said"),
    [
        ("optuna", ["--search", "trials=1", "a=int(1,2)"], "--search: needs the package optuna; pip install"),
        ("ray", ["--on", "ray"], "--on ray: needs the package ray; pip install 'ganlab[cluster]'"),
    ],
)
def test_a_missing_package_is_named(
    package: str, words: list[str], said: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    done = CliRunner().invoke(app, ["compare", "plain.json", *words])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"ganlab: {said}")
