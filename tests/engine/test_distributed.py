"""Several processes train one run. They give the weights of one process, and stop together."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

import ganlab
from ganlab import distributed
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from helpers.folders import draw, names
from helpers.paths import TESTS
from helpers.processes import ENVIRONMENT, Forker, records
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


def in_ranks(forker: Forker, count: int, folder: Path, *words: str, trouble: str = "") -> Ranks:
    """Starts ganlab in several processes. The cache of features is folder/cache; what the plugin notes, folder/log."""
    folder.mkdir(exist_ok=True)
    script = (str(TESTS / "helpers/ranks.py"), str(count), str(folder), *words)
    environment = {"GANLAB_CACHE": str(folder / "cache"), "TRIAL_LOG": str(folder / "log")}
    environment |= {"TRIAL_TROUBLE": trouble} if trouble else {}
    done = forker.run(*script, python=True, paths=[str(TESTS)], environment=environment)
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
        check_overlap(tmp_path, ranks, rank)
    expected = {name: train(name, batch) for name in SYSTEMS}
    for name, accumulate in TRAINED:
        every = [torch.load(tmp_path / f"{name}-{accumulate}-{rank}.pt") for rank in range(ranks)]
        for found in every:
            torch.testing.assert_close(found["state"], every[0]["state"], rtol=0, atol=0)
            torch.testing.assert_close(found["state"], expected[name]["state"], rtol=0, atol=1e-8)
            assert found["draws"] == expected[name]["draws"]
            for record, whole in zip(found["records"], expected[name]["records"], strict=True):
                assert record | {"seconds": 0} == pytest.approx(whole | {"seconds": 0}, rel=0, abs=1e-8)


def check_overlap(folder: Path, ranks: int, rank: int) -> None:
    """A gradient is sent within the backward pass if this rank has it and has sent all later parameters' gradients.

    The first parameter's gradient waits for the end, as does what rank 1 lacks, and all that precedes it.
    """
    for lacking, rank_1_sends in ((None, 3), (0, 3), (2, 1)):
        found = torch.load(folder / f"lacking-{lacking}-{rank}.pt")
        assert found["sent"] == (rank_1_sends if rank == 1 else 3)
        # rank r's gradient is r + 1 in each of two passes
        every, but_one = (2 * (sum(range(1, ranks + 1)) - less) / ranks for less in (0, 2))
        for index, gradient in enumerate(found["gradients"]):
            assert gradient.tolist() == pytest.approx([but_one if index == lacking else every] * 1000)
    # SyncBatchNorm lets all gradients wait for the end
    after = torch.load(folder / f"after-{rank}.pt")
    assert after["sent"] == 0
    torch.testing.assert_close(after["gradients"], found["gradients"], rtol=0, atol=0)


def test_the_processes_of_one_attempt_agree_on_its_number() -> None:
    """The store has what the processes of earlier attempts left there, because torchrun keeps it. Rank 0 comes last."""
    store = dist.HashStore()
    for number in range(1, 4):
        for rank in (1, 2):
            store.set(f"attempts/{number - 1}/{rank}", "ended")
        met: dict[int, int] = {}

        def meet(rank: int, met: dict[int, int] = met) -> None:
            met[rank] = distributed.agree_on_attempt(store, rank, 3)

        others = [Thread(target=meet, args=(rank,), daemon=True) for rank in (1, 2)]
        for other in others:
            other.start()
        while any(store.get(f"attempts/{number - 1}/{rank}") == b"ended" for rank in (1, 2)):
            assert not met
            assert all(other.is_alive() for other in others)
        meet(0)
        for other in others:
            other.join(60)
        assert met == dict.fromkeys(range(3), number)


def test_torchrun_trains_a_run_in_two_processes(forker: Forker, spec: Path, tmp_path: Path) -> None:
    both, alone = tmp_path / "both", tmp_path / "alone"
    done = torchrun(forker, "2", "-m", "ganlab", "run", str(spec), "--out", str(both))
    assert done.code == 0, done.said
    assert done.said.count("trained: 8 steps") == done.said.count("tiny starts:") == 1
    assert "tiny starts: 8 steps on cpu, float64, 1 thread in each of 2 processes, in " in done.said
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
    allowed = "only `ganlab run` and `ganlab eval` take several processes"
    assert done.said == [f"ganlab: start `ganlab bench` without torchrun: {allowed}\n", ""]


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
    assert "stopped after step 3 of 8; everything is saved; the same command resumes the run\n" in done.said
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


def test_pieces_of_work_are_dealt_to_every_process(forker: Forker, tmp_path: Path) -> None:
    """Three processes: rank 0 deals one or two pieces to each at once, and computes what another can't."""
    done = in_ranks(forker, 3, tmp_path, "pieces")
    assert done.codes == [0, 0, 0], done.said
    zero, one, two = (json.loads((tmp_path / f"pieces-{rank}.json").read_text()) for rank in range(3))
    assert zero["before, 3"] == [[piece, 0, []] for piece in range(3)]
    assert zero["everywhere, 11"] == [[piece, piece % 3, []] for piece in range(11)]
    assert zero["numbers"] == [1, 2]
    assert zero["everywhere, 3"] == [[0, 0, []], [1, 1, [[2, "two"]]], [2, 2, [[2, "two"]]]]
    assert zero["everywhere, 1"] == [[0, 0, []]]
    assert zero["only in rank 0, 8"] == [[piece, 0, []] for piece in range(8)]
    assert zero["only in rank 0, 7"] == [[piece, 0, []] for piece in range(7)]
    why = "KeyError: 'only in rank 0'"
    assert zero["warned"] == [f"process 1 of 3, counted from 0, failed to compute its share, so process 0 does: {why}"]
    # the first piece that fails is the one at which a single process would stop
    assert zero["nowhere, 8"] == "piece 3 of rank 0"
    assert zero["everywhere, 2"] == [[0, 0, []], [1, 1, [[2, "two"]]]]
    assert zero["end"] == "the end"
    assert one == two == {"forgotten": True, "end": ["the end", 2]}


def noted(folder: Path) -> dict[str, dict[str, list[int]]]:
    """Returns {what the plugin noted: {rank: the images of each batch}}."""
    found: dict[str, dict[str, list[int]]] = {}
    for line in (folder / "log").read_text().splitlines():
        rank, what, count = line.split()
        found.setdefault(what, {}).setdefault(rank, []).append(int(count))
    return found


@pytest.fixture
def measured(spec: Path) -> Path:
    """The same spec with 72 held-out images, which are measured after the last step, and generators that draw then."""
    folders = draw(spec.parent / "many", 80)
    patch = {
        "data": {"a": {"path": str(folders["a"]), "channels": 1}, "b": {"path": str(folders["b"])}, "holdout": 0.9},
        "generator": {"type": "restless", "width": None, "blocks": None},
        "evaluation": {"every": 8, "metrics": ["kid", "embedded", "brightness"], "features": "noted"},
    }
    return patched(spec, patch)


def test_an_evaluation_that_was_killed_gives_the_same_bytes_with_one_process_and_with_two(
    forker: Forker, measured: Path, tmp_path: Path
) -> None:
    """Rank 1 is killed in the last direction at the last step, which is saved. One process or two measure the rest."""
    run, words = tmp_path / "run", ("run", str(measured), "--out")
    done = in_ranks(forker, 2, tmp_path / "killed", *words, str(run), trouble="1 4 SIGKILL")
    assert done.codes == [1, -signal.SIGKILL]
    assert done.said[0].endswith(LOST)
    assert "Traceback" not in done.said[0]
    assert names(run / "checkpoints") == ["step-000004", "step-000008"]
    assert not any("evaluation/ab/brightness" in record for record in records(run))
    runs = [shutil.copytree(run, tmp_path / f"run-{count}") for count in (1, 2)]
    for count, each in enumerate(runs, 1):
        assert in_ranks(forker, count, tmp_path / f"ranks-{count}", *words, str(each)).codes == [0] * count
    alone, both = runs
    for name in ("metrics.jsonl", "evaluation.json"):
        assert (alone / name).read_bytes() == (both / name).read_bytes()
    assert "evaluation/ab/kid-noted" in records(both)[-1]
    found = {result["number"] for result in json.loads((both / "evaluation.json").read_text())["results"]}
    assert found == {"kid-noted", "embedded", "brightness"}
    by_one, by_two = noted(tmp_path / "ranks-1"), noted(tmp_path / "ranks-2")
    # each set has 36 images, and rank 1 has their second batch
    for what in ("translations", "embeddings", "vectors"):
        whole = by_one[what]["0"]
        assert whole.count(4) > 1
        assert (by_two[what]["0"].count(32), by_two[what]["0"].count(4)) == (whole.count(32), 0)
        assert (by_two[what]["1"].count(32), by_two[what]["1"].count(4)) == (0, whole.count(4))
    (both / "evaluation.json").unlink()
    done = in_ranks(forker, 2, tmp_path / "eval", "eval", str(both))
    assert done.codes == [0, 0], done.said
    assert done.said[1] == ""
    assert (both / "evaluation.json").read_bytes() == (alone / "evaluation.json").read_bytes()
    assert noted(tmp_path / "eval")["translations"]["1"] == [4] * 4


def test_what_fails_in_one_process_is_measured_by_the_first(forker: Forker, measured: Path, tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    said = "process 1 of 2, counted from 0, failed to compute its share, so process 0 does: features"
    for out, trouble, expected in ((run, "1 1 error", 1), (other, "", 0)):
        done = in_ranks(forker, 2, tmp_path / "ranks", "run", str(measured), "--out", str(out), trouble=trouble)
        assert done.codes == [0, 0]
        assert done.said[0].count(f'warning: {said} {{"type": "noted"}}: ValueError: trouble\n') == expected
        assert done.said[1] == ""
    assert (run / "evaluation.json").read_bytes() == (other / "evaluation.json").read_bytes()


def test_a_generator_that_fails_in_the_evaluation_is_named_as_by_one_process(
    forker: Forker, measured: Path, tmp_path: Path
) -> None:
    words = ("run", str(measured), "--out", str(tmp_path / "run"))
    both = in_ranks(forker, 2, tmp_path / "both", *words, trouble="dark")
    assert both.codes == [1, 1]
    assert names(tmp_path / "run/checkpoints") == ["step-000004", "step-000008"]
    alone = in_ranks(forker, 1, tmp_path / "alone", *words, trouble="dark")
    sentence = both.said[0].splitlines()[-1]
    assert sentence == alone.said[0].splitlines()[-1]
    assert sentence == (
        "ganlab: generator, in the evaluation at step 8: too dark (generator 'restless' of plugin 'trial' of"
        " ganlab-trial 1.0; images (32, 1, 16, 16), embedding (32, 4, 16, 16))"
    )
    assert both.said[1] == ""


@pytest.mark.parametrize("how", ["SIGINT", pytest.param("SIGTERM", marks=pytest.mark.faults)])
def test_a_signal_in_the_last_evaluation_stops_all_with_one_sentence(
    forker: Forker, measured: Path, tmp_path: Path, how: str
) -> None:
    """Each process gets the signal at its first batch. One process resumes."""
    words = ("run", str(measured), "--out", str(tmp_path / "run"), "--set", "evaluation.every=null")
    done = in_ranks(forker, 2, tmp_path / "ranks", *words, trouble=f"01 1 {how}")
    assert done.codes == [130, 130]
    assert "\nganlab: all 8 steps are saved, not yet measured; the same command resumes the run\n" in done.said[0]
    assert done.said[1] == ""
    assert forker.run(*words, environment={"GANLAB_CACHE": str(tmp_path)}).code == 0


@pytest.mark.faults
def test_a_process_that_is_killed_in_the_last_evaluation_ends_torchrun(
    forker: Forker, measured: Path, tmp_path: Path
) -> None:
    """Rank 0 says why it stops, before or after torchrun has told it to."""
    words = ("-m", "ganlab", "run", str(measured), "--out", str(tmp_path / "run"), "--set", "evaluation.every=null")
    environment = {"GANLAB_CACHE": str(tmp_path / "cache"), "TRIAL_TROUBLE": "1 1 SIGKILL"}
    done = forker.run(*TORCHRUN, "2", *words, python=True, environment=environment)
    assert done.code != 0
    assert LOST in done.said or "\nganlab: all 8 steps are saved, not yet measured; the same command " in done.said
    environment["TRIAL_TROUBLE"] = "0 0 nothing"
    done = forker.run(*TORCHRUN, "2", *words, python=True, environment=environment)
    assert done.code == 0
    assert (tmp_path / "run/evaluation.json").exists()


def test_two_processes_measure_folders_as_one_does(forker: Forker, trial: None, tmp_path: Path) -> None:
    folders = [str(folder) for folder in draw(tmp_path, 40).values()]
    words = ("eval", "--images", *folders, "--metric", "kid", "--features", "noted", "--json")
    both, alone = (in_ranks(forker, count, tmp_path / f"ranks-{count}", *words) for count in (2, 1))
    assert both.codes == [0, 0], both.said
    assert both.said == [alone.said[0], ""]
    assert noted(tmp_path / "ranks-2")["vectors"]["1"] == [8, 8]


@pytest.mark.parametrize(
    ("words", "trouble", "codes", "sentence"),
    [
        (["missing"], "", [2, 2], "missing is not a run"),
        (["--images", "A", "missing"], "", [2, 2], "missing does not exist"),
        (["--images", "A", "A"], "1 1 SIGKILL", [1, -signal.SIGKILL], "another process of this evaluation was killed"),
    ],
)
def test_an_evaluation_in_two_processes_fails_with_one_sentence(
    forker: Forker, trial: None, tmp_path: Path, words: list[str], trouble: str, codes: list[int], sentence: str
) -> None:
    folder = str(draw(tmp_path, 40)["a"])
    words = [{"A": folder, "missing": str(tmp_path / "missing")}.get(word, word) for word in words]
    metric = ("--metric", "kid", "--features", "noted")
    done = in_ranks(forker, 2, tmp_path / "ranks", "eval", *words, *metric, trouble=trouble)
    assert done.codes == codes
    assert done.said[0].startswith("ganlab: ")
    assert len(done.said[0].splitlines()) == 1
    assert sentence in done.said[0]
    assert done.said[1] == ""


@pytest.mark.faults
def test_machines_without_a_shared_folder_train_a_run_again_after_a_kill(
    forker: Forker, spec: Path, tmp_path: Path
) -> None:
    """Two torchruns stand for two machines. The one whose process lives on does not count the restart."""
    patch = {
        "data": {domain: {"path": f"pictures-{domain}"} for domain in "ab"},
        "losses": {"troubled": {"type": "troubled", "step": 5, "how": "kill"}},
    }
    path, machines = patched(spec, patch), [tmp_path / name for name in ("one", "two")]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        rendezvous = ("--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free.getsockname()[1]}")
    words = (*TORCHRUN, "1", "--nnodes", "2", "--max-restarts", "1", *rendezvous, "-m", "ganlab", "run", "spec.json")
    started = []
    for machine in machines:
        machine.mkdir()
        draw(machine)
        shutil.copy(path, machine / "spec.json")
        environment = ENVIRONMENT | {"GANLAB_CACHE": str(machine / "cache")}
        command = [sys.executable, *words, "--out", "run", "--fresh"]
        with (machine / "log").open("w") as log:
            started.append(subprocess.Popen(command, cwd=machine, env=environment, stdout=log, stderr=log))
    try:
        codes = [process.wait(timeout=600) for process in started]
    finally:
        for process in started:
            process.terminate()
    said = "".join((machine / "log").read_text() for machine in machines)
    assert codes == [0, 0], said
    assert said.count("trained: 8 steps") == 1
    assert "tiny resumes after step 4" in said
    # rank 0 is on either machine
    (run,) = (machine / "run" for machine in machines if names(machine / "run"))
    assert forker.run("run", str(path), "--out", str(tmp_path / "alone"), folder=str(machines[0])).code == 0
    check_same(run, tmp_path / "alone", 8)
