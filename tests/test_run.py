"""`ganlab.run`: what it leaves behind, what it refuses, how it fails, and that it disturbs nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
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
from ganlab.build import build, build_data
from ganlab.cli import app
from ganlab.engine import Engine, Record
from ganlab.folder import RunFolder
from ganlab.guard import WON_STEPS, Won, refuse_poisoned
from ganlab.laboratory import Nobody
from ganlab.registry import registry
from ganlab.report.grid import GAP, MARGIN, STRIP
from ganlab.spec import Json, merge

Array = np.ndarray[Any, np.dtype[Any]]


@pytest.fixture
def trial(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """With the components of tests/installed, found as any other package's."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "installed"))
    registry.cache_clear()
    yield
    registry.cache_clear()


@pytest.fixture
def cheap(tiny: Json, trial: None) -> Json:
    """A few milliseconds a step, moved by plain gradient descent."""
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


class Watching(Nobody):
    """Notes what it is told, and does something once after some step."""

    def __init__(self, at: int = 0, do: Callable[[], Any] = int) -> None:
        self.warned: list[str] = []
        self.begun: list[int] = []
        self.at, self.do = at, do

    def begins(self, folder: Any, spec: Any, done: int, steps: int) -> None:
        self.begun.append(done)

    def steps(self, records: list[Record]) -> None:
        if self.at and records and records[-1]["step"] >= self.at:
            self.at = 0
            self.do()

    def warns(self, sentence: str) -> None:
        self.warned.append(sentence)


def networks(folder: Path, step: int) -> bytes:
    return (folder / f"checkpoints/step-{step:06d}/networks.safetensors").read_bytes()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def interrupt() -> None:
    # to this thread and now, whatever others are there
    signal.raise_signal(signal.SIGINT)


# -- what a run leaves ------------------------------------------------------------------------------------------


def test_a_run_leaves_the_files_that_are_promised(tiny: Json, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = ganlab.run(tiny, out=out)
    assert [name for name in names(out) if not name.startswith(("events", "."))] == [
        "checkpoints",
        "environment.json",
        "metrics.jsonl",
        "samples",
        "spec.json",
    ]
    assert len(list(out.glob("events.out.tfevents.*"))) == 1
    assert names(out / "samples") == ["step-000003.png", "step-000006.png"]
    assert names(out / "checkpoints") == ["step-000004", "step-000006"]
    assert names(out / "checkpoints/step-000006") == ["networks.safetensors", "state.pt"]
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
        f"loss/{player}/{way}/{term}"
        for way in ("ab", "ba")
        for player, terms in (
            ("generator", ("adversarial", "cycle")),
            ("discriminator", ("adversarial/real", "adversarial/fake")),
        )
        for term in terms
    } | {"gradient/generator/ab+ba", "gradient/discriminator/ab+ba"}


def test_a_spec_can_be_a_mapping_a_path_or_a_spec(tiny: Json, tmp_path: Path) -> None:
    before = json.dumps(tiny)
    path = tmp_path / "tiny.json"
    path.write_text(before)
    forms: dict[str, Any] = {"mapping": tiny, "path": path, "string": str(path), "spec": ganlab.load_spec(tiny)}
    made = {
        name: ganlab.run(form, ["schedule.steps=2"], out=tmp_path / name, watcher=Nobody())
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


def test_how_often_is_looked_changes_nothing(cheap: Json, tmp_path: Path) -> None:
    """Samples, checkpoints and readings, with every kind of layer that a look could disturb."""
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
    # a generator's part that its author put into eval mode has stayed there
    assert found["generator/ab.frozen.num_batches_tracked"] == 0
    # nor has building, rehearsing or showing it counted as a step
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
    size, stores = spec.data.size, build_data(registry(), spec)
    system = build(registry(), spec, {name: store.domain for name, store in stores.items()})
    tensors = load_file(done.folder / "checkpoints/step-000006/networks.safetensors")
    for block, way in enumerate(("ab", "ba")):
        store = stores[way[0]]
        assert len(store.held) == 12 * holdout
        keys = [store.keys[store.held[index]] for index in chosen]
        shown = [skimage.io.imread(pictures[way[0]] / key)[2 : 2 + size].astype(int) for key in keys]
        outputs = {}
        for kind in ("ema", "generator"):
            prefix = f"{kind}/{way}."
            if state := {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}:
                network = system.networks.generator(way)
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
    watcher = Watching()
    assert ganlab.run(tiny, out=tmp_path / "run", watcher=watcher) == one
    assert watcher.begun == []
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


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


@pytest.mark.parametrize("patch", ["name=other", "about=something else"])
def test_a_name_makes_no_other_spec(tiny: Json, tmp_path: Path, patch: str) -> None:
    ganlab.run(tiny, ["schedule.steps=1"], out=tmp_path / "run")
    assert ganlab.run(tiny, ["schedule.steps=1", patch], out=tmp_path / "run").finished


def test_a_run_that_begins_while_another_reads_its_images_is_not_mixed_with_it(tiny: Json, tmp_path: Path) -> None:
    class Overtaken(Watching):
        def progress(self, items: Iterable[Any], what: str, total: int) -> Iterable[Any]:
            if not (tmp_path / "run").exists():
                ganlab.run(tiny, ["schedule.steps=1", "seed=8"], out=tmp_path / "run")
            return items

    with pytest.raises(SpecError, match=r"holds another spec .*seed: 8 / 0"):
        ganlab.run(tiny, ["schedule.steps=1"], out=tmp_path / "run", watcher=Overtaken())
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
        ganlab.run(tiny, out=tmp_path / "run", watcher=Watching(2, interrupt))
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
        ganlab.run(spec, out=run, watcher=Watching(2, interrupt))
    weights.write_text("[1.0, 2.0, 4.0]")
    with pytest.raises(SpecError, match=r"not the weight files that .*run began with: weights.json now, weights.json"):
        ganlab.run(spec, out=run)
    weights.write_text("[1.0, 2.0, 3.0]")
    assert ganlab.run(spec, out=run).finished
    assert networks(run, 4) == networks(whole, 4)


def test_another_machine_is_a_warning(tiny: Json, tmp_path: Path) -> None:
    with pytest.raises(ganlab.Interrupted):
        ganlab.run(tiny, out=tmp_path / "run", watcher=Watching(2, interrupt))
    path = tmp_path / "run/environment.json"
    facts = json.loads(path.read_text())
    facts["packages"]["torch"] = "1.0"
    path.write_text(json.dumps(facts))
    watcher = Watching()
    assert ganlab.run(tiny, out=tmp_path / "run", watcher=watcher).finished
    (told,) = watcher.warned
    assert "began with another packages" in told


def test_files_that_are_no_images_are_a_warning_and_in_the_environment(
    tiny: Json, pictures: dict[str, Path], tmp_path: Path
) -> None:
    for name in ("x.txt", "y.png", "\udcff.png"):
        (pictures["b"] / name).write_text("no picture")
    watcher = Watching()
    ganlab.run(tiny, ["schedule.steps=1"], out=tmp_path / "run", watcher=watcher)
    (told,) = watcher.warned
    assert told.startswith("data.b: 3 of 15 files are no readable images and are left out: x.txt: ")
    facts = json.loads((tmp_path / "run/environment.json").read_text())["data"]["b"]
    assert facts["images"] == 12
    assert [text.split(":")[0] for text in facts["skipped"]] == ["x.txt", "y.png", "\udcff.png"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"name": "x"}'])
def test_a_damaged_spec_is_named_and_can_be_begun_anew(tiny: Json, tmp_path: Path, content: str) -> None:
    ganlab.run(tiny, ["schedule.steps=1"], out=tmp_path / "run")
    (tmp_path / "run/spec.json").write_text(content)
    for ask in (lambda: ganlab.run(tiny, out=tmp_path / "run"), lambda: ganlab.load_run(tmp_path / "run")):
        with pytest.raises(SpecError, match=r"run/spec\.json"):
            ask()
    assert ganlab.run(tiny, ["schedule.steps=1"], out=tmp_path / "run", fresh=True).finished


@pytest.mark.parametrize("name", ["networks.safetensors", "state.pt"])
def test_a_damaged_checkpoint_is_named_and_left_as_it_is(tiny: Json, tmp_path: Path, name: str) -> None:
    with pytest.raises(ganlab.Interrupted):
        ganlab.run(tiny, out=tmp_path / "run", watcher=Watching(3, interrupt))
    path = tmp_path / "run/checkpoints/step-000004" / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(RunError, match=rf"step-000004/{name} can't be read: "):
        ganlab.run(tiny, out=tmp_path / "run")
    assert len(ganlab.load_run(tmp_path / "run").records) == 4
    path.write_bytes(whole)
    assert ganlab.run(tiny, out=tmp_path / "run").finished


def test_the_state_of_another_system_is_named(tiny: Json, tmp_path: Path) -> None:
    for place in ("run", "other"):
        with pytest.raises(ganlab.Interrupted):
            ganlab.run(tiny, out=tmp_path / place, watcher=Watching(3, interrupt))
    path = tmp_path / "run/checkpoints/step-000004/state.pt"
    for state in ([1, 2], {"done": 4}, {**torch.load(path), "optimizers": {}}):
        torch.save(state, path)
        with pytest.raises(RunError, match=r"state\.pt holds the state of another system"):
            ganlab.run(tiny, out=tmp_path / "run")


def test_a_folder_without_a_run_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"is not a run: it has no spec\.json"):
        ganlab.load_run(tmp_path)


def test_a_run_can_be_read_while_it_trains(tiny: Json, tmp_path: Path) -> None:
    seen: list[Any] = []

    def look() -> None:
        seen.append(ganlab.load_run(tmp_path / "run"))

    ganlab.run(tiny, out=tmp_path / "run", watcher=Watching(5, look))
    (found,) = seen
    assert (found.step, found.finished, len(found.records)) == (4, False, 5)


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
    watcher = Watching(2, interrupt) if how == "is interrupted" else Watching()
    if how == "fails":
        spec = merge(spec, {"losses": {"script": {"type": "scripted", "values": {2: "nan"}}}})
    elif how == "is refused":
        spec = merge(spec, {"discriminators": {"image": None}})
    wanted = {"finishes": None, "is refused": SpecError, "fails": RunError, "is interrupted": ganlab.Interrupted}[how]
    # other than what the spec says
    torch.set_num_threads(2)
    torch.set_float32_matmul_precision("medium")
    try:
        before = world()
        caught: type[BaseException] | None = None
        try:
            ganlab.run(spec, out=tmp_path / "run", watcher=watcher)
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
    """A metric draws from torch's generator while it is made, dropout from the same one while it trains."""
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


def test_an_interrupt_saves_and_the_run_goes_on_to_the_same_end(cheap: Json, tmp_path: Path) -> None:
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        out = tmp_path / f"run {code}"
        with pytest.raises(ganlab.Interrupted, match="stopped after step 6 of 12; everything is saved") as caught:
            ganlab.run(cheap, out=out, watcher=Watching(5, lambda number=number: os.kill(os.getpid(), number)))
        assert caught.value.exit_code == code
        watcher = Watching()
        assert ganlab.run(cheap, out=out, watcher=watcher).finished
        assert watcher.begun == [6]
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
        patch.setattr(metric, "measure", lambda self, evidence: interrupt())
        # a shell's background job begins with SIGINT ignored
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            done = CliRunner().invoke(app, words)
        finally:
            signal.signal(signal.SIGINT, before)
    assert done.exit_code == 130
    told = f"ganlab: all 12 steps are saved, not yet measured; go on with: ganlab run {path} --out {out}\n"
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
    """The sentence with which a run fails; nothing it kept is of the `bad` step or later, or not finite."""
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
    # the same command fails in the same way, and harms nothing
    assert fails(spec, tmp_path / "run", bad, taken, sampled) == told


@pytest.mark.parametrize("player", ["generator", "discriminator"])
@pytest.mark.parametrize("log_every", [1, 20])
def test_a_gradient_that_is_not_finite_stops_the_run_though_the_loss_is(
    cheap: Json, tmp_path: Path, player: str, log_every: int
) -> None:
    script = {"type": "scripted", "player": player, "values": {1: 0.25}, "poisoned": 8}
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
        # found when it would be saved, when it would be shown, and by what the next step makes of it
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


POISONS: dict[str, tuple[str, Callable[[Engine], Tensor]]] = {
    "a generator": ("weights of generator/ba", lambda e: next(e.system.networks.modules["generator/ba"].parameters())),
    "an average": ("weights of ema/ab", lambda e: next(e.modules()["ema/ab"].parameters())),
    "a norm": (
        "weights of discriminator/image/b",
        lambda e: dict(e.modules()["discriminator/image/b"].named_buffers())["net.3.running_var"],
    ),
    "a loss": ("values in losses/scale", lambda e: e.system.losses["scale"].scale),
    "a moment": (
        "values in optimizers/generator",
        lambda e: next(iter(e.optimizers["generator"].state.values()))["exp_avg_sq"],
    ),
    "a pool": ("values in pools/ab", lambda e: e.pools["ab"].images),
}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("what", POISONS)
def test_nothing_that_is_not_finite_gets_into_a_checkpoint(
    make_engine: Callable[..., Engine], tmp_path: Path, what: str, value: float
) -> None:
    engine = make_engine(
        {"ema_halflife_images": 8, "schedule": {"pool": 2}, "discriminators": {"image": {"norm": "batch"}}}
    )
    engine.step()
    scale = ganlab.Loss()
    scale.scale = torch.nn.Parameter(torch.ones(3))
    engine.system.losses["scale"] = scale
    refuse_poisoned(engine, RunFolder(tmp_path))
    name, find = POISONS[what]
    with torch.no_grad():
        find(engine).view(-1)[-1] = value
    with pytest.raises(RunError, match=rf"^{name} are not finite after step 1; there is no checkpoint before it$"):
        refuse_poisoned(engine, RunFolder(tmp_path))


def test_a_broken_disk_is_one_sentence(cheap: Json, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="file/run can't be written: Not a directory"):
        ganlab.run(cheap, out=tmp_path / "file/run")

    def obstruct() -> None:
        (tmp_path / "run/samples").write_text("in the way")

    with pytest.raises(RunError, match=r"samples/step-000003\.png can't be written: "):
        ganlab.run(cheap, out=tmp_path / "run", watcher=Watching(1, obstruct))
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
    """All but the events, whose name has the time in it."""
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("events.")]
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
        watcher = Watching(last, lambda: breaks.enter_context(broken()))
        with pytest.raises(RunError, match=rf"^generator, in the {doing} at step {step}: not now "):
            ganlab.run(spec, out=run, watcher=watcher)
        assert names(run / "checkpoints")[-1] == f"step-{step:06d}"
        assert len(timeless(run)) == recorded
        left = files(run)
        watcher = Watching()
        with pytest.raises(RunError, match=rf"^generator, in the {doing} at step {step}: not now "):
            ganlab.run(spec, out=run, watcher=watcher)
        assert watcher.begun == [step]
        assert files(run) == left
    watcher = Watching()
    assert ganlab.run(spec, out=run, watcher=watcher).finished
    assert watcher.begun == [step]
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
        # a label that begins like a contested one is still another term
        "losses": {"adversarial": None, "won": won, "wo": penalty},
        "translations": ["ab"],
        "schedule": {"steps": 230},
        "samples": {"every": 1000},
        "checkpoints": {"every": 1000},
        "runtime": {"log_every": 20},
    }
    spec = merge(cheap, patch)
    watcher = Watching(100, interrupt)
    with pytest.raises(ganlab.Interrupted):
        ganlab.run(spec, out=tmp_path / "run", watcher=watcher)
    assert watcher.warned == []
    # the steps of the first process count
    watcher = Watching(210, interrupt)
    with pytest.raises(ganlab.Interrupted):
        ganlab.run(spec, out=tmp_path / "run", watcher=watcher)
    (told,) = watcher.warned
    assert "loss/discriminator/ab/won has been below 0.01 for 200 steps and is 0.004 at step 202" in told
    # and what it has told is not told again
    watcher = Watching()
    assert ganlab.run(spec, out=tmp_path / "run", watcher=watcher).finished
    assert watcher.warned == []


def told(values: Iterable[float], generator: str = "ab/x", parts: tuple[str, ...] = ("",)) -> list[str]:
    """What is said of a discriminator whose loss takes these values, its parts equal."""
    watcher = Watching()
    won = Won(watcher.warns)
    for step, value in enumerate(values, 1):
        record = {"step": step, "seconds": 1.0, "images": step, f"loss/generator/{generator}": 0.5}
        won([record | {f"loss/discriminator/ab/x{part}": value / len(parts) for part in parts}])
    return watcher.warned


def test_the_figure_is_the_sum_of_the_parts_at_the_step_that_makes_it_enough() -> None:
    (sentence,) = told([0.0097] * WON_STEPS + [0.5], parts=("/real", "/fake"))
    # of the generators, whose slope it has not seen, it claims nothing
    assert sentence == (
        "loss/discriminator/ab/x has been below 0.01 for 200 steps and is 0.0097 at step 200: the discriminator has"
        " next to nothing left to learn from it; if the generators learn little either, weaken the discriminator, or"
        " give its targets noise"
    )
    assert told([0.0101] * 300, parts=("/real", "/fake")) == []


@pytest.mark.parametrize(
    ("values", "times"),
    [
        ([0.001] * (WON_STEPS - 1) + [0.5] + [0.001] * (WON_STEPS - 1), 0),
        ([0.001] * WON_STEPS, 1),
        ([0.0] * WON_STEPS, 1),
        ([0.001] * WON_STEPS + [0.5] + [0.001] * WON_STEPS, 1),
        ([0.01] * 300, 0),
        ([0.2] * 300, 0),
    ],
    ids=["199 steps twice", "200 steps", "zero", "twice", "at the bound", "contested"],
)
def test_it_is_told_after_two_hundred_low_steps_in_a_row_and_only_once(values: list[float], times: int) -> None:
    assert len(told(values)) == times


@pytest.mark.parametrize("values", [[-0.5] * 300, [-1e-5, *[1e-5] * 300]])
def test_a_critics_loss_has_no_least_value(values: list[float]) -> None:
    assert told(values) == []


@pytest.mark.parametrize("generator", ["ab/other", "ba/x", "ab/xy", "ab/x2/part"])
def test_a_penalty_that_generators_do_not_have_may_be_small(generator: str) -> None:
    assert told([0.001] * 300, generator=generator) == []
