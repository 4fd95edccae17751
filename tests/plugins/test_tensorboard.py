"""TensorBoard's events, read back by TensorBoard: scalars, sample grids and results, each once, after a resume too."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ganlab_tensorboard import TensorBoard
from tensorboard.backend.event_processing.event_accumulator import IMAGES, SCALARS, EventAccumulator

import ganlab
from ganlab.engine.trainer import Trainer
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from helpers.callbacks import Recording, interrupt, start_of

NAME = "loss/generator/ab/cycle"


def record(step: int) -> dict[str, float]:
    return {"step": step, "seconds": step / 10, "images": 4 * step, NAME: 0.5 / step}


def events_in(folder: Path) -> Path:
    (path,) = folder.glob("events.out.tfevents.*")
    return path


@contextmanager
def following(folder: Path, step: int = 0) -> Iterator[TensorBoard]:
    callback = TensorBoard()
    callback.begin(start_of(folder, step, history=[record(done) for done in range(1, step + 1)]))
    yield callback
    callback.end(ganlab.TrainingEnd("finished", step, None))


def test_it_can_be_read_while_it_is_written(tmp_path: Path) -> None:
    with following(tmp_path) as callback:
        callback.records([record(1), record(2)])
        accumulator = EventAccumulator(str(tmp_path)).Reload()
        assert [s.step for s in accumulator.Scalars(NAME)] == [1, 2]
        callback.records([record(3)])
        accumulator.Reload()
        assert [s.value for s in accumulator.Scalars(NAME)] == pytest.approx([0.5, 0.25, 0.5 / 3])
        assert accumulator.Tags()["scalars"] == [NAME]


@pytest.mark.parametrize("kept", [0, 2, 5])
def test_a_run_that_resumes_shows_each_step_once(tmp_path: Path, kept: int) -> None:
    with following(tmp_path) as callback:
        callback.records([record(step) for step in range(1, 6)])
    # as if a process in another second had been killed while it wrote
    events_in(tmp_path).rename(tmp_path / "events.out.tfevents.0").write_bytes(b"torn")
    with following(tmp_path, kept) as callback:
        callback.records([record(step) for step in range(kept + 1, 8)])
    shown = EventAccumulator(str(events_in(tmp_path))).Reload().Scalars(NAME)
    assert [(s.step, s.value) for s in shown] == [(s, pytest.approx(0.5 / s)) for s in range(1, 8)]


def test_null_turns_it_off(tiny: Json, trial: None, tmp_path: Path) -> None:
    ganlab.run({**tiny, "callbacks": {"tensorboard": None}}, ["schedule.steps=1"], out=tmp_path / "run")
    assert list((tmp_path / "run").glob("events*")) == []
    assert ganlab.load_run(tmp_path / "run").spec.callbacks == {"tensorboard": None}


@pytest.mark.parametrize("stopped", [None, 4])
def test_tensorboard_shows_records_samples_and_results(
    tiny: Json, trial: None, tmp_path: Path, stopped: int | None
) -> None:
    metrics = {"metrics": [{"type": "brightness", "better": "higher"}], "every": 3}
    spec = merge(tiny, {"data": {"holdout": 0.5}, "schedule": {"decay_from": 0.5}, "evaluation": metrics})
    out = tmp_path / "run"
    if stopped:
        with pytest.raises(ganlab.Interrupted):
            ganlab.run(spec, out=out, callback=Recording(stopped, interrupt))
    done = ganlab.run(spec, out=out)
    # measured once more: nothing is shown twice
    ganlab.evaluate(out)
    (file,) = out.glob("events.out.tfevents.*")
    shown = EventAccumulator(str(file), {SCALARS: 0, IMAGES: 0}).Reload()
    scalars = {tag: {event.step: event.value for event in shown.Scalars(tag)} for tag in shown.Tags()["scalars"]}
    assert all(len(shown.Scalars(tag)) == len(values) for tag, values in scalars.items())
    rates = [2e-4 * factor for factor in (1, 1, 1, 1, 2 / 3, 1 / 3)]
    for player in ("generator", "discriminator"):
        name = f"learning_rate/{player}"
        assert [record[name] for record in done.records] == pytest.approx(rates)
        assert list(scalars[name].values()) == pytest.approx(rates)
    for record in done.records:
        for name, value in record.items():
            if name not in ("step", "seconds", "images"):
                assert scalars[name][int(record["step"])] == pytest.approx(value, rel=1e-6)
    assert list(scalars["evaluation/ab/brightness"]) == [3, 6]
    results = json.loads((out / "evaluation.json").read_text())["results"]
    assert {(r["direction"], r["step"]) for r in results} >= {("ab", 6), ("ba", 6)}
    for result in results:
        value = scalars[f"results/{result['direction']}/{result['number']}"][result["step"]]
        assert value == pytest.approx(result["value"])
    assert shown.Tags()["images"] == ["samples"]
    grids = {event.step: event for event in shown.Images("samples")}
    assert len(shown.Images("samples")) == len(grids) == 2
    for step, grid in grids.items():
        assert grid.encoded_image_string == (out / f"samples/step-{step:06d}.png").read_bytes()
        assert (grid.width, grid.height) == (2 * (2 * 18 + 4) + 4, 2 * (16 + 18 + 4))


def test_a_rate_of_each_parameter_group_is_told_apart(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer()
    trainer.state.rates["generator"] = [0.25, 0.5]
    assert trainer.state.learning_rates(["generator"]) == {
        "learning_rate/generator/0": 0.25,
        "learning_rate/generator/1": 0.5,
    }
