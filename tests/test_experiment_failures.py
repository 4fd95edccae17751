"""How a run fails: it says why in one sentence, and loses nothing that was good."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

import ganlab
from ganlab import RunError
from ganlab.cli.commands import app
from ganlab.components.registry import registry
from ganlab.engine.step_log import Record
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from helpers.callbacks import Recording, interrupt
from helpers.folders import names
from helpers.processes import networks


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
