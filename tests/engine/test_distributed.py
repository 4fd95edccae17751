"""Several processes train one run. They give the weights of one process, and stop together."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file

import ganlab
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from helpers.folders import names
from helpers.paths import TESTS
from helpers.processes import Forker, records
from helpers.ranks import SYSTEMS, TRAINED, train

LOST = (
    "ganlab: another process of this run was killed or has failed, so this one stops; the same command resumes from"
    " the newest checkpoint\n"
)
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node")


class Ranks(NamedTuple):
    """What the processes of a run have done."""

    codes: list[int]
    said: list[str]


def in_ranks(forker: Forker, count: int, folder: Path, *words: str) -> Ranks:
    """Starts ganlab in several processes."""
    folder.mkdir(exist_ok=True)
    script = (str(TESTS / "helpers/ranks.py"), str(count), str(folder), *words)
    done = forker.run(*script, python=True, paths=[str(TESTS)])
    assert done.code == 0, done.said
    said = [(folder / f"rank-{rank}.txt").read_text() for rank in range(count)]
    return Ranks(json.loads(done.said.splitlines()[-1]), said)


def torchrun(forker: Forker, *words: str) -> Any:
    """Starts `torchrun --nproc-per-node WORD ...`."""
    return forker.run(*TORCHRUN, *words, python=True)


@pytest.fixture
def spec(tiny: Json, tmp_path: Path) -> Path:
    """TINY in float64, with a pool, noise and averaged weights. Its pictures are in twelve steps of four."""
    patch = {
        "losses": {"adversarial": {"type": "noisy_lsgan", "flip": 0.2}},
        "schedule": {"steps": 8, "pool": 5},
        "checkpoints": {"every": 4},
        "runtime": {"precision": "float64", "log_every": 3},
        "ema_halflife_images": 8,
    }
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(merge(tiny, patch)))
    return path


def patched(spec: Path, patch: Json) -> Path:
    path = spec.with_name("patched.json")
    path.write_text(json.dumps(merge(json.loads(spec.read_text()), patch)))
    return path


def check_same(one: Path, other: Path, step: int) -> None:
    """Both runs have the same networks and records, up to rounding."""
    mine, theirs = (load_file(run / f"checkpoints/step-{step:06d}/networks.safetensors") for run in (one, other))
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-8)
    for record, expected in zip(records(one), records(other), strict=True):
        assert record == pytest.approx(expected, rel=0, abs=1e-8)


@pytest.mark.parametrize(("ranks", "batch"), [(2, 16), pytest.param(3, 12, marks=pytest.mark.faults)])
def test_several_processes_and_parts_take_the_steps_of_one(
    forker: Forker, trial: None, tmp_path: Path, ranks: int, batch: int
) -> None:
    """Two processes, which see 8 images each, and three, which see 4; also in two parts in each."""
    done = in_ranks(forker, ranks, tmp_path, "systems", str(batch))
    assert done.codes == [0] * ranks, done.said
    for rank in range(ranks):
        found = torch.load(tmp_path / f"means-{rank}.pt")
        first, second, third = found["gradients"]
        assert first.tolist() == [(ranks - 1) / 2] * 2
        assert second.tolist() == pytest.approx([1 / ranks] * 2)
        assert third is None
        buffers = found["buffers"]
        # 0.1 is the same in all processes: its bits are kept, and a mean of three would have others
        assert buffers["running_mean"].tolist() == [(ranks - 1) / 2, torch.tensor(0.1).item()]
        assert buffers["num_batches_tracked"].item() == 10
        assert buffers["first"].tolist() == [True, False]
        assert found["records"] == [{"every": (ranks - 1) / 2, "one": 5.0}]
    expected = {name: train(name, batch) for name in SYSTEMS}
    for name, accumulate in TRAINED:
        every = [torch.load(tmp_path / f"{name}-{accumulate}-{rank}.pt") for rank in range(ranks)]
        for found in every:
            torch.testing.assert_close(found["state"], every[0]["state"], rtol=0, atol=0)
            torch.testing.assert_close(found["state"], expected[name]["state"], rtol=0, atol=1e-8)
            assert found["draws"] == expected[name]["draws"]
            for record, whole in zip(found["records"], expected[name]["records"], strict=True):
                assert record | {"seconds": 0} == pytest.approx(whole | {"seconds": 0}, rel=0, abs=1e-8)


def test_torchrun_trains_a_run_in_two_processes(forker: Forker, spec: Path, tmp_path: Path) -> None:
    both, alone = tmp_path / "both", tmp_path / "alone"
    done = torchrun(forker, "2", "-m", "ganlab", "run", str(spec), "--out", str(both))
    assert done.code == 0, done.said
    assert done.said.count("trained: 8 steps") == done.said.count("tiny starts:") == 1
    ganlab.run(spec, out=alone)
    check_same(both, alone, 8)
    mine, theirs = (names(run) for run in (both, alone))
    assert [name for name in mine if "tfevents" not in name] == [name for name in theirs if "tfevents" not in name]
    assert len(mine) == len(theirs)
    assert names(both / "checkpoints/step-000008") == names(alone / "checkpoints/step-000008")
    assert (both / "spec.json").read_bytes() == (alone / "spec.json").read_bytes()
    assert [json.loads((run / "environment.json").read_text())["processes"] for run in (both, alone)] == [2, 1]


def test_a_term_that_is_not_finite_in_one_process_stops_all(forker: Forker, spec: Path, tmp_path: Path) -> None:
    path = patched(spec, {"losses": {"troubled": {"type": "troubled", "step": 3, "how": "nan"}}})
    done = in_ranks(forker, 2, tmp_path / "ranks", "run", str(path), "--out", str(tmp_path / "run"))
    assert done.codes == [1, 1]
    name = "loss/generator/ab/troubled became nan at step 4 (loss 'troubled' of plugin 'trial' of ganlab-trial 1.0)"
    assert done.said[0].splitlines()[-1] == f"ganlab: {name}; there is no checkpoint before it"
    assert done.said[1] == ""
    assert [record["step"] for record in records(tmp_path / "run")] == [1, 2, 3]


@pytest.mark.parametrize(
    ("patch", "sentence"),
    [
        ({"data": {"batch": 3}}, "runtime.accumulate: 1 in each of 2 processes is not allowed: data.batch, 3 images, "),
        ({"generator": {"norm": "batch"}}, "generator/ab has batch norms, which torch does not compute in several "),
        ({"data": {"a": {"path": "missing"}}}, "data.a: "),
        ({"extends": "missing.json"}, "missing.json: can't be read"),
    ],
)
def test_what_several_processes_can_not_train_is_one_sentence(
    forker: Forker, spec: Path, tmp_path: Path, patch: Json, sentence: str
) -> None:
    done = in_ranks(forker, 2, tmp_path / "ranks", "run", str(patched(spec, patch)), "--out", str(tmp_path / "run"))
    assert done.codes == [2, 2]
    assert done.said[0].startswith("ganlab: ")
    assert sentence in done.said[0]
    assert len(done.said[0].splitlines()) == 1
    assert done.said[1] == ""
    assert names(tmp_path / "run") == []


def test_other_commands_take_one_process(forker: Forker, spec: Path, tmp_path: Path) -> None:
    done = in_ranks(forker, 2, tmp_path / "ranks", "bench", str(spec))
    assert done.codes == [2, 2]
    sentence = "ganlab: start `ganlab bench` without torchrun: only `ganlab run` takes several processes\n"
    assert done.said == [sentence, ""]


@pytest.mark.parametrize(("how", "code"), [("kill", -signal.SIGKILL), ("error", 1), ("interrupt", 130)])
def test_the_others_stop_if_a_process_ends(forker: Forker, spec: Path, tmp_path: Path, how: str, code: int) -> None:
    """What the newest checkpoint has is kept: one process resumes from it, and has the weights of an unstopped run."""
    run, alone = tmp_path / "run", tmp_path / "alone"
    path = patched(spec, {"losses": {"troubled": {"type": "troubled", "step": 5, "how": how}}})
    done = in_ranks(forker, 2, tmp_path / "ranks", "run", str(path), "--out", str(run))
    assert done.codes == [1, code]
    assert done.said[0].endswith(LOST)
    assert "Traceback" not in "".join(done.said)
    assert {"kill": "", "error": "trouble", "interrupt": "ganlab: interrupted\n"}[how] in done.said[1]
    assert names(run / "checkpoints") == ["step-000004"]
    for out in (run, alone):
        assert forker.run("run", str(path), "--out", str(out)).code == 0
    check_same(run, alone, 8)
    (continued,) = json.loads((run / "environment.json").read_text())["continued"]
    assert continued == {"step": 4, "processes": 1}


@pytest.mark.faults
def test_a_run_resumes_with_another_number_of_processes(forker: Forker, spec: Path, tmp_path: Path) -> None:
    """SIGTERM to torchrun saves the run after the present step. Three processes continue what two began."""
    run, alone = tmp_path / "run", tmp_path / "alone"
    path = patched(
        spec,
        {"data": {"batch": 6}, "losses": {"troubled": {"type": "troubled", "step": 2, "how": "stop"}}},
    )
    words = ("run", str(path), "--out", str(run))
    done = torchrun(forker, "2", "-m", "ganlab", *words)
    assert done.code != 0
    assert "stopped after step 3 of 8; everything is saved; the same command resumes it\n" in done.said
    assert names(run / "checkpoints") == ["step-000003"]
    done = torchrun(forker, "3", "-m", "ganlab", *words, "--set", "checkpoints.every=5", "--set", "samples.every=5")
    assert done.code == 0, done.said
    assert forker.run("run", str(path), "--out", str(alone)).code == 0
    check_same(run, alone, 8)


@pytest.mark.faults
def test_torchrun_starts_a_killed_run_again(forker: Forker, spec: Path, tmp_path: Path) -> None:
    """--fresh removes the run only at the first start."""
    run, alone = tmp_path / "run", tmp_path / "alone"
    path = patched(spec, {"losses": {"troubled": {"type": "troubled", "step": 5, "how": "kill"}}})
    for _ in range(2):
        done = torchrun(
            forker, "2", "--max-restarts", "1", "-m", "ganlab", "run", str(path), "--out", str(run), "--fresh"
        )
        assert done.code == 0, done.said
        assert done.said.count("trained: 8 steps") == 1
        assert "tiny resumes after step 4" in done.said
    assert forker.run("run", str(path), "--out", str(alone)).code == 0
    check_same(run, alone, 8)
