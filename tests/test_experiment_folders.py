"""Which folders a run takes: new ones, its own, those of other runs, damaged ones."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import skimage.io
import torch
from PIL import Image

import ganlab
from ganlab import RunError, SpecError
from ganlab.engine.step_log import Record
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from ganlab.spec.resolve import resolve
from helpers.callbacks import Recording, interrupt, stop
from helpers.damage import forge
from helpers.folders import names
from helpers.processes import networks


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
