"""`ganlab.run`: the files that it leaves, the folders that it refuses, its errors, and no other effects."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.io
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

import ganlab
from ganlab import RunError, SpecError
from ganlab.cli.commands import app
from ganlab.components.registry import registry
from ganlab.engine.step_log import Record
from ganlab.report.grids import GAP, MARGIN, STRIP
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from ganlab.spec.resolve import resolve
from ganlab.system.build import build, build_data
from helpers.callbacks import Recording, interrupt, stop
from helpers.damage import forge

Array = np.ndarray[Any, np.dtype[Any]]


@pytest.fixture
def cheap(tiny: Json, trial: None) -> Json:
    """A spec that takes a few milliseconds for a step and is trained by plain gradient descent."""
    return merge(  # type: ignore[no-any-return]
        tiny,
        {
            "generator": {"type": "sharing"},
            "discriminators": {"image": {"type": "plain"}},
            "losses": {"cycle": None},
            "schedule": {"type": "exploding", "steps": 12},
            "checkpoints": {"every": 4},
            "samples": {"every": 3},
        },
    )


def networks(folder: Path, step: int) -> bytes:
    return (folder / f"checkpoints/step-{step:06d}/networks.safetensors").read_bytes()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


# -- what a run leaves ------------------------------------------------------------------------------------------


def test_a_run_leaves_the_files_that_are_documented(tiny: Json, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = ganlab.run(tiny, out=out)
    assert [name for name in names(out) if not name.startswith(("events", "."))] == [
        "checkpoints",
        "environment.json",
        "metrics.jsonl",
        "report.html",
        "samples",
        "spec.json",
    ]
    assert len(list(out.glob("events.out.tfevents.*"))) == 1
    assert names(out / "samples") == ["step-000003.png", "step-000006.png"]
    assert names(out / "checkpoints") == ["step-000004", "step-000006"]
    assert names(out / "checkpoints/step-000006") == ["manifest.json", "networks.safetensors", "state.pt"]
    assert json.loads((out / "spec.json").read_text()) == ganlab.load_spec(tiny).as_json()
    facts = json.loads((out / "environment.json").read_text())
    assert facts["packages"]["torch"] == version("torch")
    assert (facts["device"], facts["threads"]) == ("cpu", 1)
    assert facts["components"]["loss/cycle"] == "cyclegan"
    assert facts["data"]["a"]["images"] == 12
    assert facts["data"]["a"]["held_out"] == 3
    assert done == ganlab.load_run(out)
    assert (done.folder, done.step, done.finished) == (out, 6, True)
    assert [record["step"] for record in done.records] == [1, 2, 3, 4, 5, 6]
    assert [record["images"] for record in done.records] == [4, 8, 12, 16, 20, 24]
    seconds = [record["seconds"] for record in done.records]
    assert seconds == sorted(seconds)
    assert set(done.records[0]) == {"step", "seconds", "images"} | {
        f"loss/{player}/{direction}/{term}"
        for direction in ("ab", "ba")
        for player, terms in (
            ("generator", ("adversarial", "cycle")),
            ("discriminator", ("adversarial/real", "adversarial/fake")),
        )
        for term in terms
    } | {
        "gradient/generator/ab+ba",
        "gradient/discriminator/ab+ba",
        "learning_rate/generator",
        "learning_rate/discriminator",
    }


def test_a_spec_can_be_a_mapping_a_path_or_a_spec(tiny: Json, tmp_path: Path) -> None:
    before = json.dumps(tiny)
    path = tmp_path / "tiny.json"
    path.write_text(before)
    forms: dict[str, Any] = {"mapping": tiny, "path": path, "string": str(path), "spec": ganlab.load_spec(tiny)}
    made = {
        name: ganlab.run(form, ["schedule.steps=2"], out=tmp_path / name, callback=Recording())
        for name, form in forms.items()
    }
    assert {run.step for run in made.values()} == {2}
    assert len({networks(run.folder, 2) for run in made.values()}) == 1
    assert json.dumps(tiny) == before


def test_by_default_a_run_lies_in_runs_under_its_name(
    tiny: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = ganlab.run(merge(tiny, {"name": "mine", "schedule": {"steps": 1}}))
    assert done.folder == Path("runs/mine")
    assert (tmp_path / "runs/mine/checkpoints/step-000001/state.pt").exists()


def test_how_often_the_log_is_read_changes_nothing(cheap: Json, tmp_path: Path) -> None:
    """Samples, checkpoints and readings change nothing, with every kind of layer that they could disturb."""
    spec = merge(cheap, {"discriminators": {"image": {"type": "forgetful"}}, "schedule": {"steps": 5}})
    for index, patch in enumerate(
        (
            {},
            {"samples": {"every": 1}, "runtime": {"log_every": 3}, "checkpoints": {"every": 1000}},
            {"samples": {"every": 1000, "count": 3}, "checkpoints": {"every": 1}},
        )
    ):
        ganlab.run(merge(spec, patch), out=tmp_path / str(index))
    assert networks(tmp_path / "0", 5) == networks(tmp_path / "1", 5) == networks(tmp_path / "2", 5)
    assert len(names(tmp_path / "1/samples")) == 5
    assert names(tmp_path / "2/samples") == ["step-000005.png"]
    found = load_file(tmp_path / "0/checkpoints/step-000005/networks.safetensors")
    # a part of a generator that its author put into eval mode stays in eval mode
    assert found["generator/ab.frozen.num_batches_tracked"] == 0
    # building, the dry run and the sample grids do not change the batch norms
    assert found["generator/ab.encoder.1.num_batches_tracked"] == 5


@pytest.mark.parametrize(
    ("averaged", "count", "holdout", "chosen"), [(False, 9, 0.25, (0, 1, 2)), (True, 3, 0.5, (0, 2, 4))]
)
def test_samples_are_of_held_out_images_by_the_averaged_generators(
    tiny: Json, pictures: dict[str, Path], tmp_path: Path, averaged: bool, count: int, holdout: float, chosen: Any
) -> None:
    # fast enough that a generator and its average differ
    patch = {"schedule": {"lr": 0.02}, "samples": {"count": count}, "data": {"holdout": holdout}}
    averages = {"ema_halflife_images": 200 if averaged else None}
    spec = ganlab.load_spec(merge(merge(tiny, patch), averages))
    done = ganlab.run(spec, out=tmp_path / "run")
    grid = skimage.io.imread(tmp_path / "run/samples/step-000006.png").astype(int)
    size, datasets = spec.data.size, build_data(spec)
    system = build(spec, {name: dataset.domain for name, dataset in datasets.items()})
    tensors = load_file(done.folder / "checkpoints/step-000006/networks.safetensors")
    for block, direction in enumerate(("ab", "ba")):
        dataset = datasets[direction[0]]
        assert len(dataset.holdout) == 12 * holdout
        keys = [dataset.keys[dataset.holdout[index]] for index in chosen]
        shown = [skimage.io.imread(pictures[direction[0]] / key)[2 : 2 + size].astype(int) for key in keys]
        outputs = {}
        for kind in ("ema", "generator"):
            prefix = f"{kind}/{direction}."
            if state := {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}:
                network = system.networks.generator(direction)
                network.load_state_dict(state)
                with torch.no_grad():
                    images = network(torch.from_numpy(np.stack(shown)).permute(0, 3, 1, 2).float() / 127.5 - 1)
                outputs[kind] = (images.clamp(-1, 1) + 1).mul(127.5).permute(0, 2, 3, 1).numpy()
        top = block * len(grid) // 2 + STRIP
        for index, picture in enumerate(shown):
            left = MARGIN + index * (2 * (size + GAP) + MARGIN)
            assert (grid[top : top + size, left : left + size] == picture).all()
            made = grid[top : top + size, left + size + GAP : left + size + GAP + size]
            assert np.abs(made - outputs["ema" if averaged else "generator"][index]).max() < 0.51
            if averaged:
                assert np.abs(made - outputs["generator"][index]).max() > 5
            else:
                assert "ema" not in outputs


# -- which folders it takes -------------------------------------------------------------------------------------


def test_a_finished_run_is_read_and_not_trained_again(tiny: Json, tmp_path: Path) -> None:
    one = ganlab.run(tiny, out=tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    shutil.rmtree(tmp_path / "pictures-a")
    callback = Recording()
    assert ganlab.run(tiny, out=tmp_path / "run", callback=callback) == one
    assert callback.begun == []
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


def test_a_run_resolves_its_spec_once_and_the_spec_of_its_folder_once(
    tiny: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved: list[str] = []

    def counting(asked: Json, where: str, **more: Any) -> ganlab.Spec:
        resolved.append(where)
        return resolve(asked, where, **more)

    monkeypatch.setattr("ganlab.experiment.training.resolve", counting)
    monkeypatch.setattr("ganlab.runs.folder.resolve", counting)
    kept = str(tmp_path / "run/spec.json")
    ganlab.run(tiny, out=tmp_path / "run")
    ganlab.run(tiny, out=tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints/step-000006")
    ganlab.run(tiny, out=tmp_path / "run")
    assert resolved == ["spec", kept, "spec", kept, "spec"]


def test_environment_json_names_the_origin_of_the_spec_that_is_trained(tiny: Json, tmp_path: Path) -> None:
    class Editing(ganlab.Callback):
        def progress(self, items: Iterable[Any], what: str, total: int) -> Iterable[Any]:
            (tmp_path / "own.json").write_text("no spec any more")
            return items

    (tmp_path / "base.json").write_text(json.dumps(tiny))
    (tmp_path / "own.json").write_text(json.dumps({"extends": "base.json", "seed": 3}))
    where, out = str(tmp_path / "own.json"), tmp_path / "run"
    ganlab.run(where, ["schedule.steps=1"], out=out, callback=Editing())
    assert json.loads((out / "environment.json").read_text())["spec_origin"] == {
        "spec": where,
        "set": ["schedule.steps=1"],
        "out": str(out),
        "parent": "base.json",
        "differences": {"seed": ["0", "3"], "schedule.steps": [str(tiny["schedule"]["steps"]), "1"]},
    }


def test_another_spec_is_refused_and_every_difference_named(tiny: Json, tmp_path: Path) -> None:
    ganlab.run(tiny, ["schedule.steps=1"], out=tmp_path / "run")
    before = networks(tmp_path / "run", 1)
    asked = merge(tiny, {"seed": 3, "losses": {"cycle": {"weight": 5}, "identity": {"type": "identity"}}})
    with pytest.raises(SpecError) as caught:
        ganlab.run(asked, ["schedule.steps=1"], out=tmp_path / "run")
    told = str(caught.value)
    assert told.startswith(f"{tmp_path / 'run'} holds another spec (there / asked): ")
    for difference in (
        "losses.cycle.weight.generator: 10.0 / 5.0",
        'losses.identity.type: absent / "identity"',
        "seed: 0 / 3",
    ):
        assert difference in told
    assert "steps" not in told
    assert "--fresh" in told
    assert networks(tmp_path / "run", 1) == before
    ganlab.run(asked, ["schedule.steps=1"], out=tmp_path / "run", fresh=True)
    assert networks(tmp_path / "run", 1) != before


def test_a_folder_in_which_nothing_was_trained_takes_another_spec(tiny: Json, tmp_path: Path) -> None:
    def start(spec: Json, **named: Any) -> ganlab.Run:
        return ganlab.run(spec, ["schedule.steps=3", "samples.every=2"], out=tmp_path / "run", **named)

    other = merge(tiny, {"seed": 3})
    with pytest.raises(ganlab.Interrupted, match="no step is saved"):
        start(tiny, callback=Recording(1, stop))
    assert (tmp_path / "run/spec.json").exists()
    assert start(other).spec.seed == 3
    assert [record["step"] for record in ganlab.load_run(tmp_path / "run").records] == [1, 2, 3]
    # somebody may have removed the checkpoints alone, which take the most room
    shutil.rmtree(tmp_path / "run/checkpoints")
    with pytest.raises(SpecError, match="holds another spec"):
        start(tiny)
    assert names(tmp_path / "run/samples") == ["step-000002.png", "step-000003.png"]


@pytest.mark.parametrize("patch", ["name=other", "about=something else"])
def test_a_name_makes_no_other_spec(tiny: Json, tmp_path: Path, patch: str) -> None:
    ganlab.run(tiny, ["schedule.steps=1"], out=tmp_path / "run")
    assert ganlab.run(tiny, ["schedule.steps=1", patch], out=tmp_path / "run").finished


def test_a_run_that_starts_while_another_reads_its_images_is_not_mixed_with_it(tiny: Json, tmp_path: Path) -> None:
    class Overtaken(Recording):
        def progress(self, items: Iterable[Any], what: str, total: int) -> Iterable[Any]:
            if not (tmp_path / "run").exists():
                ganlab.run(tiny, ["schedule.steps=1", "seed=8"], out=tmp_path / "run")
            return items

    with pytest.raises(SpecError, match=r"holds another spec .*seed: 8 / 0"):
        ganlab.run(tiny, ["schedule.steps=1"], out=tmp_path / "run", callback=Overtaken())
    assert ganlab.load_run(tmp_path / "run").spec.seed == 8


@pytest.mark.parametrize("fresh", [True, False])
def test_a_folder_of_something_else_is_refused(tiny: Json, tmp_path: Path, fresh: bool) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("years")
    (tmp_path / "file").touch()
    for name in ("mine", "file"):
        with pytest.raises(SpecError, match=rf"{name} exists and is not a run; choose another folder with --out"):
            ganlab.run(tiny, out=tmp_path / name, fresh=fresh)
    assert names(tmp_path / "mine") == ["thesis.tex"]


def test_fresh_removes_the_run_and_nothing_beside_it(tiny: Json, tmp_path: Path) -> None:
    out = tmp_path / "run"
    ganlab.run(tiny, ["schedule.steps=4"], out=out)
    (out / "notes.txt").write_text("mine")
    first = networks(out, 4)
    done = ganlab.run(tiny, ["schedule.steps=3"], out=out, fresh=True)
    assert (done.step, len(done.records)) == (3, 3)
    assert names(out / "checkpoints") == ["step-000002", "step-000003"]
    assert names(out / "samples") == ["step-000003.png"]
    assert (out / "notes.txt").read_text() == "mine"
    ganlab.run(tiny, ["schedule.steps=4"], out=out, fresh=True)
    assert networks(out, 4) == first


@pytest.mark.parametrize("change", ["a pixel", "a file more", "a name"])
def test_images_that_changed_since_the_run_began_are_noticed(
    tiny: Json, pictures: dict[str, Path], tmp_path: Path, change: str
) -> None:
    with pytest.raises(ganlab.Interrupted):
        ganlab.run(tiny, out=tmp_path / "run", callback=Recording(2, interrupt))
    before = networks(tmp_path / "run", 3)
    first, other = pictures["b"] / "00.png", pictures["b"] / "x.png"
    if change == "a pixel":
        pixels = skimage.io.imread(first)
        pixels[9, 9] ^= 255
        Image.fromarray(pixels).save(first)
    elif change == "a name":
        first.rename(other)
    else:
        shutil.copy(first, other)
    with pytest.raises(SpecError, match=r"data\.b: these are not the images that .*run began with"):
        ganlab.run(tiny, out=tmp_path / "run")
    assert networks(tmp_path / "run", 3) == before


def test_a_feature_network_is_no_state_and_its_weight_file_is_of_the_run(cheap: Json, tmp_path: Path) -> None:
    weights = tmp_path / "weights.json"
    weights.write_text("[1.0, 2.0, 3.0]")
    loss = {"type": "perceptual", "features": {"type": "weighed", "file": str(weights)}}
    spec = merge(cheap, {"losses": {"look": loss}, "schedule": {"steps": 4}, "checkpoints": {"every": 2}})
    whole, run = tmp_path / "whole", tmp_path / "run"
    ganlab.run(spec, out=whole)
    state = torch.load(whole / "checkpoints/step-000004/state.pt", weights_only=True)
    assert state["losses"] == {"adversarial": {}, "look": {}}
    kept = json.loads((whole / "environment.json").read_text())["weights"]
    assert kept == {"weights.json": hashlib.sha256(weights.read_bytes()).hexdigest()}
    with pytest.raises(ganlab.Interrupted):
        ganlab.run(spec, out=run, callback=Recording(2, interrupt))
    weights.write_text("[1.0, 2.0, 4.0]")
    with pytest.raises(SpecError, match=r"not the weight files that .*run began with: weights.json now, weights.json"):
        ganlab.run(spec, out=run)
    weights.write_text("[1.0, 2.0, 3.0]")
    assert ganlab.run(spec, out=run).finished
    assert networks(run, 4) == networks(whole, 4)


@pytest.mark.parametrize("change", [False, True])
def test_without_its_environment_a_run_resumes_with_its_own_images_alone(
    tiny: Json, pictures: dict[str, Path], tmp_path: Path, change: bool
) -> None:
    out = tmp_path / "run"
    with pytest.raises(ganlab.Interrupted):
        ganlab.run(tiny, out=out, callback=Recording(2, interrupt))
    (out / "environment.json").unlink()
    if change:
        shutil.copy(pictures["b"] / "01.png", pictures["b"] / "00.png")
        with pytest.raises(SpecError, match=r"data\.b: these are not the images that .*run began with"):
            ganlab.run(tiny, out=out)
        assert not (out / "environment.json").exists()
    else:
        callback = Recording()
        assert ganlab.run(tiny, out=out, callback=callback).finished
        assert callback.warned == [f"{out} has lost its environment.json: it can't be told what trained it up to here"]
        assert (out / "environment.json").exists()


def test_a_run_whose_folder_is_removed_stops_and_can_be_begun_again(tiny: Json, tmp_path: Path) -> None:
    out, seen = tmp_path / "run", list[float]()

    class Steps(Recording):
        def records(self, records: Sequence[Record]) -> None:
            seen.extend(record["step"] for record in records)
            super().records(records)

    callback = Steps(1, lambda: shutil.rmtree(out))
    with pytest.raises(RunError, match="run was removed or replaced while this run trained in it"):
        ganlab.run(tiny, ["checkpoints.every=100", "samples.every=100"], out=out, callback=callback)
    assert seen == [1]
    assert not out.exists()
    assert ganlab.run(tiny, out=out).finished


def test_a_finished_run_is_not_taken_as_such_if_its_checkpoint_is_damaged(tiny: Json, tmp_path: Path) -> None:
    ganlab.run(tiny, out=tmp_path / "run")
    path = tmp_path / "run/checkpoints/step-000006/state.pt"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RunError, match=r"its content is not what was saved; remove .*step-000006 to resume"):
        ganlab.run(tiny, out=tmp_path / "run")
    shutil.rmtree(path.parent)
    assert ganlab.run(tiny, out=tmp_path / "run").step == 6


def test_checkpoints_can_lie_on_another_disk(tiny: Json, tmp_path: Path) -> None:
    out, disk = tmp_path / "run", tmp_path / "disk"
    disk.mkdir()
    out.mkdir()
    ganlab.run(tiny, out=out)
    shutil.rmtree(out / "checkpoints")
    (out / "checkpoints").symlink_to(disk, target_is_directory=True)
    ganlab.run(tiny, ["schedule.steps=4"], out=out, fresh=True)
    assert names(disk) == ["step-000002", "step-000004"]
    ganlab.run(tiny, out=out, fresh=True)
    assert names(disk) == ["step-000004", "step-000006"]
    assert (out / "checkpoints").is_symlink()
    assert not [name for name in names(out) if name.startswith(".") and name != ".lock"]


def test_checkpoints_on_a_disk_that_is_not_there_cost_nothing(tiny: Json, tmp_path: Path) -> None:
    out, disk = tmp_path / "run", tmp_path / "disk"
    ganlab.run(tiny, out=out)
    shutil.move(out / "checkpoints", disk / "checkpoints")
    (out / "checkpoints").symlink_to(disk / "checkpoints")
    disk.rename(tmp_path / "unmounted")
    before = {path: path.read_bytes() for path in out.iterdir() if path.is_file()}
    with pytest.raises(SpecError, match=r"checkpoints is a link to .*disk/checkpoints, which is not there"):
        ganlab.run(tiny, out=out)
    assert {path: path.read_bytes() for path in out.iterdir() if path.is_file()} == before
    (tmp_path / "unmounted").rename(disk)
    assert ganlab.run(tiny, out=out).finished


def test_another_machine_is_a_warning(tiny: Json, tmp_path: Path) -> None:
    with pytest.raises(ganlab.Interrupted):
        ganlab.run(tiny, out=tmp_path / "run", callback=Recording(2, interrupt))
    path = tmp_path / "run/environment.json"
    facts = json.loads(path.read_text())
    facts["packages"]["torch"] = "1.0"
    path.write_text(json.dumps(facts))
    callback = Recording()
    assert ganlab.run(tiny, out=tmp_path / "run", callback=callback).finished
    (told,) = callback.warned
    run = tmp_path / "run"
    assert told == f"the environment has changed since {run} began (packages): the last digits may differ"


def test_files_that_are_no_images_are_a_warning_and_in_the_environment(
    tiny: Json, pictures: dict[str, Path], tmp_path: Path
) -> None:
    for name in ("x.txt", "y.png", "\udcff.png"):
        (pictures["b"] / name).write_text("no picture")
    callback = Recording()
    ganlab.run(tiny, ["schedule.steps=1"], out=tmp_path / "run", callback=callback)
    (told,) = callback.warned
    assert told.startswith("data.b: 3 of 15 files are no readable images and are left out: x.txt: ")
    facts = json.loads((tmp_path / "run/environment.json").read_text())["data"]["b"]
    assert facts["images"] == 12
    assert [text.split(":")[0] for text in facts["skipped"]] == ["x.txt", "y.png", "\udcff.png"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"name": "x"}'])
def test_a_damaged_spec_is_named_and_the_run_can_start_over(tiny: Json, tmp_path: Path, content: str) -> None:
    ganlab.run(tiny, ["schedule.steps=1"], out=tmp_path / "run")
    (tmp_path / "run/spec.json").write_text(content)
    for ask in (lambda: ganlab.run(tiny, out=tmp_path / "run"), lambda: ganlab.load_run(tmp_path / "run")):
        with pytest.raises(SpecError, match=r"run/spec\.json"):
            ask()
    assert ganlab.run(tiny, ["schedule.steps=1"], out=tmp_path / "run", fresh=True).finished


@pytest.mark.parametrize("name", ["networks.safetensors", "state.pt"])
def test_a_damaged_checkpoint_is_named_and_left_as_it_is(tiny: Json, tmp_path: Path, name: str) -> None:
    with pytest.raises(ganlab.Interrupted):
        ganlab.run(tiny, out=tmp_path / "run", callback=Recording(3, interrupt))
    path = tmp_path / "run/checkpoints/step-000004" / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(
        RunError, match=rf"step-000004/{name} can't be used: its content is not what was saved; remove "
    ):
        ganlab.run(tiny, out=tmp_path / "run")
    assert len(ganlab.load_run(tmp_path / "run").records) == 4
    path.write_bytes(whole)
    assert ganlab.run(tiny, out=tmp_path / "run").finished


def test_the_state_of_another_system_is_named(tiny: Json, tmp_path: Path) -> None:
    for place in ("run", "other"):
        with pytest.raises(ganlab.Interrupted):
            ganlab.run(tiny, out=tmp_path / place, callback=Recording(3, interrupt))
    path = tmp_path / "run/checkpoints/step-000004/state.pt"
    for state in ([1, 2], {"done": 4}, {**torch.load(path), "optimizers": {}}):
        torch.save(state, path)
        forge(path.parent)
        with pytest.raises(RunError, match=r"state\.pt holds the state of another system"):
            ganlab.run(tiny, out=tmp_path / "run")


@pytest.mark.parametrize("place", ["", "losses.cycle."])
def test_a_run_of_another_version_is_said_to_be_one(tiny: Json, tmp_path: Path, place: str) -> None:
    ganlab.run(tiny, ["schedule.steps=1"], out=tmp_path / "run")
    path = tmp_path / "run/spec.json"
    spec = json.loads(path.read_text())
    (spec["losses"]["cycle"] if place else spec)["translations"] = ["ab"]
    path.write_text(json.dumps(spec))
    calls: list[Callable[[], object]] = [
        lambda: ganlab.run(tiny, ["schedule.steps=1"], out=tmp_path / "run"),
        lambda: ganlab.evaluate(tmp_path / "run", ["brightness"]),
        lambda: ganlab.load_run(tmp_path / "run"),
    ]
    for call in calls:
        with pytest.raises(SpecError) as caught:
            call()
        said = str(caught.value)
        assert said.startswith(f"{path}: {place}translations: unknown key; known are: ")
        assert said.endswith(
            "; the run was made with another version of ganlab or of a plugin, which had this key: use that version to"
            " read it, or start over with --fresh or in another folder with --out"
        )
    assert ganlab.run(tiny, ["schedule.steps=1"], out=tmp_path / "run", fresh=True).finished


def test_a_folder_without_a_run_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"is not a run: it has no spec\.json"):
        ganlab.load_run(tmp_path)


def test_a_run_can_be_read_while_it_trains(tiny: Json, tmp_path: Path) -> None:
    seen: list[Any] = []

    def look() -> None:
        found = ganlab.load_run(tmp_path / "run")
        seen.append((found.step, found.finished, len(found.records)))

    ganlab.run(tiny, out=tmp_path / "run", callback=Recording(5, look))
    assert seen == [(4, False, 5)]


# -- what it leaves alone ---------------------------------------------------------------------------------------


def world() -> dict[str, Any]:
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),  # type: ignore[index] # noqa: NPY002 (it is the global one)
        "random": random.getstate(),
        "threads": torch.get_num_threads(),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "matmul": torch.get_float32_matmul_precision(),
        "cudnn": [
            getattr(torch.backends.cudnn, name) for name in ("enabled", "benchmark", "deterministic", "allow_tf32")
        ],
        "grad": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "folder": os.getcwd(),
    }


@pytest.mark.parametrize("how", ["finishes", "is refused", "fails", "is interrupted"])
def test_the_rest_of_the_process_is_left_as_it_was(cheap: Json, tmp_path: Path, how: str) -> None:
    spec, threads = cheap, torch.get_num_threads()
    callback = Recording(2, interrupt) if how == "is interrupted" else Recording()
    if how == "fails":
        spec = merge(spec, {"losses": {"script": {"type": "scripted", "values": {2: "nan"}}}})
    elif how == "is refused":
        spec = merge(spec, {"discriminators": {"image": None}})
    wanted = {"finishes": None, "is refused": SpecError, "fails": RunError, "is interrupted": ganlab.Interrupted}[how]
    # settings that differ from the spec's
    torch.set_num_threads(2)
    torch.set_float32_matmul_precision("medium")
    try:
        before = world()
        caught: type[BaseException] | None = None
        try:
            ganlab.run(spec, out=tmp_path / "run", callback=callback)
        except ganlab.GanlabError as error:
            caught = type(error)
        assert caught is wanted
        assert world() == before
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision("highest")


def test_what_went_before_in_the_process_does_not_matter(cheap: Json, tmp_path: Path) -> None:
    spec = merge(cheap, {"discriminators": {"image": {"type": "forgetful"}}, "schedule": {"steps": 3}})
    with torch.random.fork_rng([]):
        for place in ("one", "other"):
            ganlab.run(spec, out=tmp_path / place)
            torch.rand(3)
    assert networks(tmp_path / "one", 3) == networks(tmp_path / "other", 3)


def test_what_measures_does_not_change_what_trains(cheap: Json, tmp_path: Path) -> None:
    """The metric draws from torch's global generator when it is built; dropout draws from it in training."""
    spec = merge(cheap, {"discriminators": {"image": {"type": "forgetful"}}, "schedule": {"steps": 3}})
    measured = merge(spec, {"evaluation": {"metrics": ["brightness"], "every": 1}, "checkpoints": {"keep": 9}})
    for place, patched in (("one", spec), ("other", measured)):
        ganlab.run(patched, out=tmp_path / place)
    assert networks(tmp_path / "one", 3) == networks(tmp_path / "other", 3)


def test_it_runs_in_a_thread_where_signals_cannot_be_had(cheap: Json, tmp_path: Path) -> None:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(ganlab.run(cheap, out=tmp_path / "run")))
    thread.start()
    thread.join()
    assert found[0].finished


def test_an_interrupt_saves_and_the_run_resumes_to_the_same_end(cheap: Json, tmp_path: Path) -> None:
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        out = tmp_path / f"run {code}"
        with pytest.raises(ganlab.Interrupted, match="stopped after step 6 of 12; everything is saved") as caught:
            ganlab.run(cheap, out=out, callback=Recording(5, lambda number=number: signal.raise_signal(number)))
        assert caught.value.exit_code == code
        callback = Recording()
        assert ganlab.run(cheap, out=out, callback=callback).finished
        assert callback.begun == [6]
    ganlab.run(cheap, out=tmp_path / "whole")
    assert networks(out, 12) == networks(tmp_path / "whole", 12)


# -- how it fails -----------------------------------------------------------------------------------------------


def test_an_interrupt_of_the_last_evaluation_leaves_it_to_the_next_call(
    cheap: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(merge(cheap, {"evaluation": {"metrics": ["brightness"], "every": None}})))
    out = tmp_path / "run"
    words = ["run", str(path), "--out", str(out)]
    with monkeypatch.context() as patch:
        metric = registry().find("metric", "brightness", "").cls
        patch.setattr(metric, "measure", lambda self, data: interrupt())
        # a shell's background job begins with SIGINT ignored
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            done = CliRunner().invoke(app, words)
        finally:
            signal.signal(signal.SIGINT, before)
    assert done.exit_code == 130
    told = f"ganlab: all 12 steps are saved, not yet measured; resume with: ganlab run {path} --out {out}\n"
    assert done.stderr.endswith(told)
    assert not (out / "evaluation.json").exists()
    before = networks(out, 12)
    assert CliRunner().invoke(app, words).exit_code == 0
    assert (out / "evaluation.json").exists()
    assert networks(out, 12) == before


def finite(state: Any) -> bool:
    if isinstance(state, Tensor):
        return bool(torch.isfinite(state).all())
    if isinstance(state, dict):
        return all(finite(value) for value in state.values())
    if isinstance(state, list | tuple):
        return all(finite(value) for value in state)
    return not isinstance(state, float) or bool(np.isfinite(state))


def fails(spec: Json, out: Path, bad: int, taken: list[int], sampled: list[int]) -> str:
    """Returns the sentence with which a run fails. Checks that it kept nothing of the `bad` step or later, and nothing
    that is not finite."""
    with pytest.raises(RunError) as caught:
        ganlab.run(spec, out=out)
    assert caught.value.exit_code == 1
    told = str(caught.value)
    assert "\n" not in told
    found = ganlab.load_run(out)
    assert [record["step"] for record in found.records] == list(range(1, bad))
    assert finite(found.records)
    assert names(out / "checkpoints") == [f"step-{step:06d}" for step in taken[-2:]]
    assert names(out / "samples") == [f"step-{step:06d}.png" for step in sampled]
    for place in (out / "checkpoints").glob("*"):
        assert finite(load_file(place / "networks.safetensors"))
        assert finite(torch.load(place / "state.pt", weights_only=True))
    last = f"the last good checkpoint is {out / f'checkpoints/step-{taken[-1]:06d}'}" if taken else ""
    assert told.endswith(last or "there is no checkpoint before it")
    return told


@pytest.mark.parametrize("log_every", [1, 20])
@pytest.mark.parametrize(
    ("value", "player", "bad", "taken", "sampled"),
    [
        ("nan", "generator", 7, [4], [3, 6]),
        ("inf", "discriminator", 7, [4], [3, 6]),
        ("-inf", "generator", 8, [4], [3, 6]),
        ("nan", "discriminator", 9, [4, 8], [3, 6]),
        ("inf", "generator", 1, [], []),
        ("-inf", "discriminator", 12, [4, 8], [3, 6, 9]),
    ],
)
def test_a_term_that_is_not_finite_stops_the_run(
    cheap: Json, tmp_path: Path, value: str, player: str, bad: int, taken: list[int], sampled: list[int], log_every: int
) -> None:
    script = {"type": "scripted", "player": player, "values": {bad: value}}
    spec = merge(cheap, {"losses": {"script": script}, "runtime": {"log_every": log_every}})
    told = fails(spec, tmp_path / "run", bad, taken, sampled)
    whose = "loss 'scripted' of plugin "
    assert told.startswith(f"loss/{player}/ab/script became {value} at step {bad} ({whose}")
    # the same command fails in the same way and damages nothing
    assert fails(spec, tmp_path / "run", bad, taken, sampled) == told


@pytest.mark.parametrize("player", ["generator", "discriminator"])
@pytest.mark.parametrize("log_every", [1, 20])
def test_a_gradient_that_is_not_finite_stops_the_run_though_the_loss_is(
    cheap: Json, tmp_path: Path, player: str, log_every: int
) -> None:
    script = {"type": "scripted", "player": player, "values": {1: 0.25}, "not_finite_at": 8}
    spec = merge(cheap, {"losses": {"script": script}, "runtime": {"log_every": log_every}})
    told = fails(spec, tmp_path / "run", 8, [4], [3, 6])
    if player == "generator":
        assert told.startswith("gradient/generator/ab+ba became ")
    else:
        assert told.startswith("gradient/discriminator/ab+ba became ")
    assert " at step 8; " in told


@pytest.mark.parametrize("player", ["generator", "discriminator"])
@pytest.mark.parametrize(
    ("at", "bad", "taken", "sampled", "said"),
    [
        # found before a checkpoint, before a sample grid, and by the terms of the next step
        (8, 9, [4], [3, 6], "weights of {player}/.* are not finite after step 8; "),
        (9, 10, [4, 8], [3, 6], "weights of {player}/.* are not finite after step 9; "),
        (7, 8, [4], [3, 6], "loss/.* became (nan|inf|-inf) at step 8 "),
    ],
)
def test_weights_that_are_not_finite_stop_the_run_though_all_terms_are(
    cheap: Json, tmp_path: Path, player: str, at: int, bad: int, taken: list[int], sampled: list[int], said: str
) -> None:
    spec = merge(cheap, {"schedule": {"player": player, "at": at}})
    told = fails(spec, tmp_path / "run", bad, taken, sampled)
    assert re.match(said.format(player=player), told), told


def test_a_learning_rate_beyond_all_measure_is_stopped(tiny: Json, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"(became|are not finite)") as caught:
        ganlab.run(merge(tiny, {"schedule": {"lr": 1e38}}), out=tmp_path / "run")
    assert str(caught.value).endswith("there is no checkpoint before it")
    assert names(tmp_path / "run/checkpoints") == names(tmp_path / "run/samples") == []


def test_a_broken_disk_is_one_sentence(cheap: Json, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="file/run can't be written: Not a directory"):
        ganlab.run(cheap, out=tmp_path / "file/run")

    def obstruct() -> None:
        (tmp_path / "run/samples").write_text("in the way")

    with pytest.raises(RunError, match=r"samples/step-000003\.png can't be written: "):
        ganlab.run(cheap, out=tmp_path / "run", callback=Recording(1, obstruct))
    (tmp_path / "run/samples").unlink()
    assert ganlab.run(cheap, out=tmp_path / "run").finished
    assert names(tmp_path / "run/samples") == [f"step-{step:06d}.png" for step in (3, 6, 9, 12)]


@contextmanager
def broken() -> Iterator[None]:
    """Generators fail in eval mode."""
    cls = registry().find("generator", "sharing", "").cls
    works = cls.decode  # type: ignore[attr-defined]

    def decode(self: Any, embedding: Tensor) -> Any:
        if not self.training:
            raise ValueError("not now")
        return works(self, embedding)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cls, "decode", decode)
        yield


def files(folder: Path) -> dict[str, bytes]:
    """Returns {path: content} of all files except the event files and the page, which contain the time."""
    paths = [p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(("events.", "report."))]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def timeless(folder: Path) -> list[Record]:
    records = ganlab.load_run(folder).records
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


MEASURED = {"metrics": ["brightness"], "every": 5}


@pytest.mark.parametrize(
    ("patch", "step", "doing", "recorded"),
    [
        ({}, 3, "samples", 3),
        ({"samples": {"every": 6}, "runtime": {"log_every": 5}}, 6, "samples", 6),
        ({}, 12, "samples", 12),
        ({"evaluation": MEASURED}, 5, "evaluation", 4),
        ({"evaluation": {**MEASURED, "every": 6}}, 12, "evaluation", 11),
        (
            {
                "evaluation": MEASURED,
                "samples": {"every": 100},
                "checkpoints": {"every": 100},
                "runtime": {"log_every": 3},
            },
            5,
            "evaluation",
            3,
        ),
    ],
)
def test_no_step_is_lost_by_what_fails_when_it_is_shown(
    cheap: Json, tmp_path: Path, patch: Json, step: int, doing: str, recorded: int
) -> None:
    patch = merge(patch, {"data": {"holdout": 0.5}, "discriminators": {"image": {"type": "forgetful"}}})
    spec = merge(cheap, patch)
    whole, run = tmp_path / "whole", tmp_path / "run"
    ganlab.run(spec, out=whole)
    with ExitStack() as breaks:
        last = recorded if recorded < step else step - 1
        callback = Recording(last, lambda: breaks.enter_context(broken()))
        with pytest.raises(RunError, match=rf"^generator, in the {doing} at step {step}: not now "):
            ganlab.run(spec, out=run, callback=callback)
        assert names(run / "checkpoints")[-1] == f"step-{step:06d}"
        assert len(timeless(run)) == recorded
        left = files(run)
        callback = Recording()
        with pytest.raises(RunError, match=rf"^generator, in the {doing} at step {step}: not now "):
            ganlab.run(spec, out=run, callback=callback)
        assert callback.begun == [step]
        assert files(run) == left
    callback = Recording()
    assert ganlab.run(spec, out=run, callback=callback).finished
    assert callback.begun == [step]
    assert networks(run, 12) == networks(whole, 12)
    assert timeless(run) == timeless(whole)
    shown = [{k: v for k, v in files(one).items() if k.startswith(("samples", "evaluation"))} for one in (run, whole)]
    assert shown[0] == shown[1]


def test_an_evaluation_that_fails_can_be_given_up(cheap: Json, tmp_path: Path) -> None:
    spec = merge(cheap, {"data": {"holdout": 0.5}, "samples": {"every": 100}})
    with broken(), pytest.raises(RunError, match="in the evaluation at step 5: not now"):
        ganlab.run(merge(spec, {"evaluation": MEASURED}), out=tmp_path / "run")
    ganlab.run(spec, out=tmp_path / "run")
    ganlab.run(spec, out=tmp_path / "whole")
    assert timeless(tmp_path / "run") == timeless(tmp_path / "whole")


def test_a_sample_that_is_missing_is_drawn_again(cheap: Json, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ganlab.run(cheap, out=run)
    before = files(run)
    (run / "samples/step-000012.png").unlink()
    ganlab.run(cheap, out=run)
    assert files(run) == before


# -- a discriminator that wins ----------------------------------------------------------------------------------


def test_a_discriminator_that_wins_outright_is_told_once(cheap: Json, tmp_path: Path) -> None:
    won = {"type": "scripted", "values": {1: 0.5, 3: 0.004}}
    penalty = {"type": "scripted", "player": "discriminator", "values": {1: 0.001}}
    patch = {
        # a label that begins like another label is another term
        "losses": {"adversarial": None, "won": won, "wo": penalty},
        "directions": ["ab"],
        "schedule": {"steps": 230},
        "samples": {"every": 1000},
        "checkpoints": {"every": 1000},
        "runtime": {"log_every": 20},
    }
    spec = merge(cheap, patch)
    callback = Recording(100, interrupt)
    with pytest.raises(ganlab.Interrupted):
        ganlab.run(spec, out=tmp_path / "run", callback=callback)
    stopping = "stopping after this step; Ctrl-C again stops now"
    assert callback.warned == [stopping]
    # the steps of the first process are counted
    callback = Recording(210, interrupt)
    with pytest.raises(ganlab.Interrupted):
        ganlab.run(spec, out=tmp_path / "run", callback=callback)
    told, last = callback.warned
    assert last == stopping
    assert "loss/discriminator/ab/won has been below 0.01 for 200 steps and is 0.004 at step 202" in told
    # the warning is not repeated
    callback = Recording()
    assert ganlab.run(spec, out=tmp_path / "run", callback=callback).finished
    assert callback.warned == []


def test_an_interrupt_before_training_says_that_nothing_is_written(cheap: Json, tmp_path: Path) -> None:
    class Impatient(ganlab.Callback):
        def progress(self, items: Iterable[Any], what: str, total: int) -> Iterable[Any]:
            raise KeyboardInterrupt

    with pytest.raises(ganlab.Interrupted, match=r"^interrupted before training; nothing is written$"):
        ganlab.run(cheap, out=tmp_path / "run", callback=Impatient())
    assert not (tmp_path / "run").exists()
