"""A whole run: what it leaves, and what it leaves alone."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.io
import torch
from safetensors.torch import load_file

import ganlab
from ganlab import RunError, SpecError
from ganlab.report.grids import GAP, MARGIN, STRIP
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from ganlab.system.build import build, build_data
from helpers.callbacks import Recording, interrupt
from helpers.folders import names
from helpers.processes import networks

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
