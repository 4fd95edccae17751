"""`ganlab runs`: the states of runs, their results and sizes, and what may be deleted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import ganlab
from ganlab import Interrupted, RunError, SpecError
from ganlab.cli.commands import app
from ganlab.components.registry import registry
from ganlab.runs.folder import RunFolder
from ganlab.runs.overview import Leftover, delete, leftovers, list_runs
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from helpers.callbacks import Recording, interrupt
from helpers.folders import draw
from helpers.paths import INSTALLED
from helpers.systems import TINY

BRIGHTEST = {"every": 1, "metrics": [{"type": "brightness", "better": "higher"}]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Json]]:
    """A folder with a run in each state that a run has when no process trains in it, and the spec of some."""
    where = tmp_path_factory.mktemp("overview")
    tiny = merge(TINY, {"data": {domain: {"path": str(path)} for domain, path in draw(where).items()}})
    # the best checkpoint is not the last
    best = {"schedule": {"lr": 0.05}, "ema_halflife_images": 8, "evaluation": BRIGHTEST, "checkpoints": {"keep": 4}}
    broken = merge(tiny, {"losses": {"scripted": {"type": "scripted", "values": {"1": 1.0, "4": "nan"}}}})
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(INSTALLED))
        registry.cache_clear()
        ganlab.run(merge(tiny, best), out=where / "finished")
        with pytest.raises(Interrupted):
            ganlab.run(tiny, out=where / "more/interrupted", callback=Recording(at=3, do=interrupt))
        with pytest.raises(RunError, match="became nan at step 4"):
            ganlab.run(broken, out=where / "failed")
        with pytest.raises(RunError, match="became nan at step 1"):
            ganlab.run(merge(broken, {"losses": {"scripted": {"values": {"1": "nan"}}}}), out=where / "failed-at-once")
        (where / "strange").mkdir()
        (where / "strange/spec.json").write_text(json.dumps({**tiny, "generator": {"type": "of a missing plugin"}}))
        (where / "no run").mkdir()
        yield where, tiny
    registry.cache_clear()


@pytest.fixture
def tiny(trained: tuple[Path, Json]) -> Json:
    return trained[1]


@pytest.fixture
def runs(trained: tuple[Path, Json], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder, named "runs" in the working folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained[0], "runs", ignore=shutil.ignore_patterns("pictures-*"))
    return Path("runs")


def test_each_run_has_its_state_step_and_size(runs: Path) -> None:
    found = {status.folder.relative_to(runs).as_posix(): status for status in list_runs(runs)}
    assert {name: (status.state, status.step, status.steps) for name, status in found.items()} == {
        "failed": ("failed", 2, 6),
        "failed-at-once": ("failed", 0, 6),
        "finished": ("finished", 6, 6),
        "more/interrupted": ("interrupted", 4, 6),
        "strange": ("unreadable", 0, None),
    }
    for status in found.values():
        assert status.size == sum(path.stat().st_size for path in status.folder.rglob("*") if path.is_file())
    assert (found["failed"].why or "").startswith("loss/generator/ab/scripted became nan at step 4")
    assert "of a missing plugin" in (found["strange"].why or "")
    assert [name for name, status in found.items() if status.why is None] == ["finished", "more/interrupted"]


def test_the_result_is_that_of_the_monitor_at_the_last_checkpoint(runs: Path) -> None:
    evaluation = json.loads((runs / "finished/evaluation.json").read_text())
    (status,) = list_runs(runs / "finished")
    assert status.number == "brightness" == evaluation["protocol"]["best_by"]["number"]
    assert {r["step"] for r in evaluation["results"]} > {6}
    assert status.values == {r["direction"]: r["value"] for r in evaluation["results"] if r["step"] == 6}
    assert [s.values for s in list_runs(runs) if s.folder.name != "finished"] == [{}] * 4


def test_a_run_in_which_a_process_trains_is_running(runs: Path) -> None:
    for name in ("finished", "failed"):
        with RunFolder(runs / name).locked():
            (status,) = list_runs(runs / name)
            assert (status.state, status.why) == ("running", None)
        assert list_runs(runs / name)[0].state == name


def test_a_run_that_resumes_has_not_failed_any_more(tiny: Json, runs: Path) -> None:
    out = runs / "more/interrupted"
    (out / "failed.json").write_text('{"why": "an earlier failure"}')
    assert list_runs(out)[0].why == "an earlier failure"
    there: list[bool] = []
    ganlab.run(tiny, out=out, callback=Recording(at=5, do=lambda: there.append((out / "failed.json").exists())))
    assert there == [False]
    shutil.rmtree(out / "checkpoints/step-000006")
    (out / "failed.json").write_text("damaged")
    assert list_runs(out)[0].state == "interrupted"
    RunFolder(runs / "failed").clear()
    assert [path.name for path in (runs / "failed").iterdir()] == [".lock"]


def step_names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_what_no_command_needs_is_deleted_and_nothing_else(runs: Path) -> None:
    evaluation = json.loads((runs / "finished/evaluation.json").read_text())
    best = evaluation["protocol"]["best_by"]["step"]
    checkpoints = step_names(runs / "finished")
    kept = sorted({"step-000006", f"step-{best:06d}"})
    assert len(checkpoints) > len(kept) == 2
    (runs / "failed-at-once/mine.txt").write_text("mine")
    found = leftovers(runs)
    assert [leftover.path for leftover in found] == [
        runs / "failed-at-once",
        *(runs / "finished/checkpoints" / name for name in checkpoints if name not in kept),
    ]
    for leftover in found:
        assert leftover.size == sum(path.stat().st_size for path in leftover.path.rglob("*") if path.is_file())
    before = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    gone = {path for leftover in found for path in leftover.path.rglob("*") if path.is_file()}
    for leftover in found:
        delete(leftover)
    after = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file() and path.name != ".lock"}
    mine = runs / "failed-at-once/mine.txt"
    assert after == {p: c for p, c in before.items() if p not in gone and p.name != ".lock"} | {mine: b"mine"}
    assert step_names(runs / "finished") == kept
    assert leftovers(runs) == []
    assert ganlab.load_run(runs / "finished").generator("ab", "best")


def test_a_run_without_a_checkpoint_leaves_no_folder(runs: Path) -> None:
    (leftover,) = leftovers(runs / "failed-at-once")
    delete(leftover)
    assert not (runs / "failed-at-once").exists()


def test_what_has_become_a_run_again_is_not_deleted(tiny: Json, runs: Path) -> None:
    out = runs / "failed-at-once"
    (leftover,) = leftovers(out)
    with RunFolder(out).locked():
        assert leftovers(out) == []
        with pytest.raises(SpecError, match="another process is training here"):
            delete(leftover)
    ganlab.run(tiny, out=out, fresh=True)
    before = sorted(out.rglob("*"))
    delete(leftover)
    assert sorted(out.rglob("*")) == before


def test_a_finished_run_that_is_not_measured_yet_keeps_its_checkpoints(runs: Path) -> None:
    (runs / "finished/evaluation.json").unlink()
    assert leftovers(runs / "finished") == []
    spec = json.loads((runs / "finished/spec.json").read_text())
    spec["evaluation"] = {}
    (runs / "finished/spec.json").write_text(json.dumps(spec))
    checkpoints = step_names(runs / "finished")[:-1]
    assert leftovers(runs / "finished") == [
        Leftover(path, sum(file.stat().st_size for file in path.iterdir()), "neither the last nor the best checkpoint")
        for path in (runs / "finished/checkpoints" / name for name in checkpoints)
    ]


def test_the_command_prints_a_table_and_deletes_only_if_it_is_told_to(runs: Path) -> None:
    shutil.rmtree(runs / "finished")
    words = ["runs", "--prune"]
    shown = CliRunner().invoke(app, ["runs"]).stdout.splitlines()
    assert shown[0].split() == ["run", "state", "step", "result", "size"]
    assert shown[1].split()[:3] == ["failed", "failed", "2/6"]
    assert [line.split(":")[0] for line in shown[5:]] == [
        "failed failed",
        "failed-at-once failed",
        "strange unreadable",
    ]
    assert max(map(len, shown[:5])) <= 80
    told = CliRunner().invoke(app, words).stdout
    assert "failed-at-once" in told
    assert "would be deleted: the same command with --yes deletes them" in told
    assert (runs / "failed-at-once/spec.json").exists()
    assert " are deleted" in CliRunner().invoke(app, [*words, "--yes"]).stdout
    assert not (runs / "failed-at-once").exists()
    assert CliRunner().invoke(app, [*words, "--yes"]).stdout == "there is nothing to delete in runs\n"
    assert CliRunner().invoke(app, ["runs", "runs/no run"]).stdout == "there is no run in runs/no run\n"
    found = json.loads(CliRunner().invoke(app, ["runs", "--json"]).stdout)
    assert [run["folder"] for run in found] == ["runs/failed", "runs/more/interrupted", "runs/strange"]
    assert json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout) == {"deleted": False, "leftovers": []}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["no"], "no does not exist"),
        (["runs/strange/spec.json"], "runs/strange/spec.json is not a folder"),
        (["--yes"], "--yes goes with --prune"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs/strange").mkdir(parents=True)
    Path("runs/strange/spec.json").write_text("{}")
    done = CliRunner().invoke(app, ["runs", *words])
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", f"ganlab: {sentence}\n")
