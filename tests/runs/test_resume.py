"""A run that is stopped in any way and resumed has the same networks, to the byte, as a run that never stopped.

The runs are processes that receive real signals. The moment of a signal is counted in the process's own calls, never in
seconds. `make faults` kills runs a hundred times and interrupts them thirty times.
"""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.util import tensor_util

import ganlab
from ganlab.errors import SpecError
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from helpers.processes import ENVIRONMENT, PATH, Forker, Outcome, moments, networks, records
from helpers.systems import SIZE, TINY

COMMAND = [sys.executable, "-c", "from ganlab.cli.commands import main; main()"]
STEPS = 16

# all that can have state: pool, averages, dropout, batch norms, shared layers, a loss's own parameters, drawn targets
FULL: Json = merge(
    TINY,
    {
        "data": {"batch": 3},
        "generator": {"type": "sharing"},
        "discriminators": {
            "image": {"type": "forgetful"},
            "embedding": {"type": "embedding", "width": 2, "layers": 1},
        },
        "losses": {
            "adversarial": {"type": "noisy_lsgan", "flip": 0.1},
            "embedding": {"type": "embedding_lsgan"},
            "learned": {"type": "learned"},
        },
        "schedule": {"steps": STEPS, "pool": 3, "decay_from": 0.5},
        "ema_halflife_images": 10,
        "samples": {"every": 5},
        "checkpoints": {"every": 4},
        "runtime": {"log_every": 2},
    },
)


class Bench(NamedTuple):
    """The processes and runs that these tests share."""

    forker: Forker
    spec: Path
    plain: Path
    """A spec without the test's own plugin."""
    whole: Path
    """The run of `spec` that never stopped, made by the real command."""
    marks: list[int]
    """The number of calls that a process has made before each step."""

    def run(self, out: Path, *words: str, **job: Any) -> Outcome:
        return self.forker.run("run", str(self.spec), "--out", str(out), *words, **job)


@pytest.fixture(scope="module")
def bench(forker: Forker, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("resume")
    sources = {}
    for index, domain in enumerate("ab"):
        pictures = folder / f"pictures {domain}"
        pictures.mkdir()
        noise = np.random.default_rng(index)
        for number in range(9):
            pixels = noise.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(pictures / f"{number}.png")
        sources[domain] = {"path": str(pictures)}
    specs = {"full": FULL, "plain": merge(TINY, {"schedule": {"steps": 4}})}
    for name, spec in specs.items():
        (folder / f"{name}.json").write_text(json.dumps(merge(spec, {"name": name, "data": sources})))
    whole = folder / "whole"
    command = [*COMMAND, "run", str(folder / "full.json"), "--out", str(whole)]
    real = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said, _ = real.communicate()
    assert real.returncode == 0, said
    twin, marks = folder / "twin", folder / "marks.json"
    done = forker.run("run", str(folder / "full.json"), "--out", str(twin), counted=str(marks))
    assert done.code == 0, done.said
    same(twin, whole)
    return Bench(forker, folder / "full.json", folder / "plain.json", whole, json.loads(marks.read_text()))


def events(run: Path) -> Counter[tuple[str, int, float | bytes]]:
    """Returns {scalar or sample grid: number of times that the event files hold it}."""
    found: Counter[tuple[str, int, float | bytes]] = Counter()
    for path in run.glob("events.out.tfevents.*"):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                content = tensor_util.make_ndarray(value.tensor)
                # an image is its width, its height and its file
                found[value.tag, event.step, content[2] if value.tag == "samples" else float(content)] += 1
    return found


def same(run: Path, whole: Path, kinds: Sequence[str] = ("samples/*.png", "checkpoints/*")) -> None:
    """Checks that a finished run equals the run that never stopped, and that no unfinished file is left."""
    assert networks(run, STEPS) == networks(whole, STEPS)
    assert [record["step"] for record in records(run)] == list(range(1, STEPS + 1))
    assert records(run) == records(whole)
    scalars = [
        (name, int(record["step"]), float(np.float32(value)))
        for record in records(run)
        for name, value in record.items()
        if name not in ("step", "images")
    ]
    samples = [("samples", int(path.stem[5:]), path.read_bytes()) for path in run.glob("samples/*.png")]
    assert events(run) == Counter([*scalars, *samples])
    assert set(Counter(scalars).values()) == {1}
    for kind in kinds:
        assert sorted(p.name for p in run.glob(kind)) == sorted(p.name for p in whole.glob(kind))
    for sample in whole.glob("samples/*.png"):
        assert (run / "samples" / sample.name).read_bytes() == sample.read_bytes()
    assert hidden(run) == [".lock"]


def hidden(run: Path) -> list[str]:
    return sorted(path.name for path in run.rglob(".*"))


def test_the_run_holds_every_kind_of_state(bench: Bench) -> None:
    with safe_open(bench.whole / f"checkpoints/step-{STEPS:06d}/networks.safetensors", "np") as file:
        names, described = set(file.keys()), json.loads(file.metadata()["ganlab"])
        average, weight = (file.get_tensor(f"{kind}/ab.decoder.1.weight") for kind in ("ema", "generator"))
    assert np.abs(average - weight).max() > 1e-5
    aliases = described["aliases"]
    assert described["samples"] == {"ab": "ema/ab", "ba": "ema/ba"}
    assert aliases["generator/ba.middle.weight"] == "generator/ab.middle.weight"
    assert "discriminator/image/a.net.1.running_mean" in names
    assert "discriminator/embedding.net.0.weight" in names
    assert [r["step"] for r in records(bench.whole)] == list(range(1, STEPS + 1))
    assert not names & set(aliases)


def test_two_processes_of_two_threads_make_the_same_bytes(bench: Bench, tmp_path: Path) -> None:
    # larger, so that there is work for two threads
    larger = ["data.size=32", "data.batch=6", "schedule.steps=3", "runtime.threads=2"]
    words = [word for text in larger for word in ("--set", text)]
    for name in ("one", "other"):
        done = bench.run(tmp_path / name, *words)
        assert done.code == 0, done.said
        assert "2 threads" in done.said
    assert networks(tmp_path / "one", 3) == networks(tmp_path / "other", 3)


def kill_by_polls(bench: Bench, out: Path, seed: random.Random) -> Outcome:
    """Kills the process a random number of polls after a step was seen on disk."""
    steps = max((int(p.name[5:]) for p in out.glob("checkpoints/step-*")), default=0)
    steps, further = steps + seed.randrange(2, 7), seed.randrange(500)
    metrics = out / "metrics.jsonl"

    def written() -> int:
        return metrics.stat().st_ino if metrics.exists() else 0

    # a resumed process replaces the file; one that finds no checkpoint removes it first
    before = written()
    pid = bench.forker.start("run", str(bench.spec), "--out", str(out))
    while bench.forker.running() and (written() in (0, before) or len(records(out)) < steps):
        pass
    for _ in range(further):
        written()
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return bench.forker.wait()


def kill_while_importing(bench: Bench, out: Path, seed: random.Random) -> Outcome:
    """Kills the real command while Python still imports."""
    env = os.environ | {"PYTHONPATH": PATH, "PYTHONPROFILEIMPORTTIME": "1"}
    command = [*COMMAND, "run", str(bench.spec), "--out", str(out)]
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        for _ in range(seed.randrange(1, 1200)):
            process.stderr.readline()
        process.kill()
    return Outcome(process.returncode, "")


def kills(bench: Bench, seed: random.Random) -> list[tuple[str, dict[str, Any]]]:
    """Returns ten kills in a random order."""
    marks = bench.marks
    anywhere = [{"at": [signal.SIGKILL, seed.randrange(marks[0], marks[9])]} for _ in range(3)]
    early = [{"at": [signal.SIGKILL, seed.randrange(1, marks[at])]} for at in (0, 3)]
    saving = [
        {"signals": [[signal.SIGKILL, "checkpoint.py:save", seed.randrange(1, 3), int(2 ** seed.uniform(0, 11))]]}
        for _ in range(2)
    ]
    counted = [("counted", job) for job in (*anywhere, *early, *saving)]
    found = [*counted, ("polls", {}), ("polls", {}), ("importing", {})]
    seed.shuffle(found)
    return found


@pytest.mark.parametrize("count", [1, pytest.param(100, marks=pytest.mark.faults)])
def test_a_killed_run_ends_as_one_that_was_not(
    bench: Bench, tmp_path: Path, count: int, record_property: Callable[[str, object], None]
) -> None:
    seed = moments()
    plan = [kill for _ in range(0, count, 10) for kill in kills(bench, seed)][:count]
    killed, runs = 0, 1
    while killed < count:
        out = tmp_path / f"killed-{runs}"
        how, job = plan[killed]
        if how == "polls":
            done = kill_by_polls(bench, out, seed)
        elif how == "importing":
            done = kill_while_importing(bench, out, seed)
        else:
            done = bench.run(out, **job)
        print(how, job, done.code, sorted(p.name for p in out.glob("checkpoints/*")))
        if done.code == -signal.SIGKILL:
            killed += 1
        else:
            # the kill came too late and the run is finished; another run takes the kill
            assert done.code == 0, done.said
            same(out, bench.whole)
            runs += 1
            assert runs < 10 * (count + 1), "the kills miss"
    done = bench.run(tmp_path / f"killed-{runs}")
    assert done.code == 0, done.said
    same(tmp_path / f"killed-{runs}", bench.whole)
    record_property("counted", f"{killed} SIGKILLs, {runs} runs with the bytes of one that never stopped")


@pytest.mark.parametrize("count", [1, pytest.param(30, marks=pytest.mark.faults)])
def test_an_interrupted_run_ends_as_one_that_was_not(
    bench: Bench, tmp_path: Path, count: int, record_property: Callable[[str, object], None]
) -> None:
    """Interrupts each process once, at any moment from its first call on."""
    seed = moments()
    # an interrupt saves its step, which may be among the newest checkpoints
    kinds = ["samples/*.png"]
    interrupted, runs = 0, 1
    while interrupted < count:
        out = tmp_path / f"interrupted-{runs}"
        at = seed.randrange(1, bench.marks[seed.randrange(12)])
        done = bench.run(out, at=[signal.SIGINT, at])
        print(at, done.code, sorted(p.name for p in out.glob("checkpoints/*")), done.said)
        assert "Traceback" not in done.said
        if done.code == -signal.SIGINT:
            # before the plugins are imported, a signal ends the process as it ends any
            interrupted += 1
            assert done.said == ""
        elif done.code == 130:
            interrupted += 1
            assert re.match("ganlab: (interrupted|stopped (after step|at once))", done.said.splitlines()[-1]), done.said
        else:
            assert done.code == 0, done.said
            same(out, bench.whole, kinds)
            runs += 1
            assert runs < 10 * (count + 1), "the interrupts miss"
    done = bench.run(tmp_path / f"interrupted-{runs}")
    assert done.code == 0, done.said
    same(tmp_path / f"interrupted-{runs}", bench.whole, kinds)
    record_property("counted", f"{interrupted} SIGINTs, {runs} runs with the bytes of one that never stopped")


def test_a_run_killed_while_it_ends_lacks_nothing(bench: Bench, tmp_path: Path) -> None:
    """Samples come at steps 5, 10, 15 and 16, checkpoints at 4, 8, 12 and 16."""
    out = tmp_path / "run"
    for moment in (
        ["samples.py:sample", 4, 100],
        ["checkpoint.py:save", 1, 0],
        ["checkpoint.py:_save_state", 1, 50],
    ):
        done = bench.run(out, signals=[[signal.SIGKILL, *moment]])
        assert done.code == -signal.SIGKILL
        assert sorted(path.name for path in out.glob("checkpoints/step-*")) == ["step-000008", "step-000012"]
    assert bench.run(out).code == 0
    same(out, bench.whole)


def test_nothing_is_left_of_a_file_that_a_kill_cut_off(bench: Bench, tmp_path: Path) -> None:
    """Each process writes spec.json, environment.json and metrics.jsonl, then the samples."""
    out = tmp_path / "run"
    for number, name in (
        (1, "spec.json"),
        (2, "environment.json"),
        (3, "metrics.jsonl"),
        (4, "step-000005.png"),
    ):
        done = bench.run(out, signals=[[signal.SIGKILL, "files.py:_sync", number, 0]])
        assert done.code == -signal.SIGKILL
        left = [path for path in hidden(out) if path.endswith(".unfinished")]
        assert len(left) == 1, left
        assert left[0].startswith(f".{name}."), left
    assert bench.run(out).code == 0
    same(out, bench.whole)


def test_a_run_killed_while_its_results_are_written_is_measured_again(bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "run"
    asked = ["--set", 'evaluation={"metrics": ["brightness"]}', "--set", "schedule.steps=1"]
    for number, name in ((6, "speed.json"), (4, "evaluation.json")):
        done = bench.run(out, *asked, signals=[[signal.SIGKILL, "files.py:_sync", number, 0]])
        assert done.code == -signal.SIGKILL
        left = [path for path in hidden(out) if path.endswith(".unfinished")]
        assert [path.split(".")[1:3] for path in left] == [name.split(".")], left
    assert bench.run(out, *asked).code == 0
    assert {"evaluation.json", "speed.json"} < {path.name for path in out.iterdir()}
    assert hidden(out) == [".lock"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_is_saved_and_says_how_to_resume(
    bench: Bench, tmp_path: Path, number: int, code: int
) -> None:
    out = tmp_path / "the run"
    done = bench.run(out, signals=[[number, "trainer.py:step", 7, 20]])
    assert done.code == code
    assert "Traceback" not in done.said
    *_, before, told = done.said.splitlines()
    assert before == "warning: stopping after this step; Ctrl-C again stops now"
    assert told.startswith(f"ganlab: stopped after step 7 of {STEPS}; everything is saved; resume with: ganlab run ")
    assert [p.name for p in sorted(out.glob("checkpoints/*"))] == ["step-000004", "step-000007"]
    assert len(records(out)) == 7
    done = bench.forker.run(*shlex.split(told.split("resume with: ganlab ")[1]))
    assert done.code == 0, done.said
    assert "resumes after step 7" in done.said
    same(out, bench.whole)


def test_the_command_that_resumes_keeps_what_was_set_and_drops_fresh(bench: Bench, tmp_path: Path) -> None:
    words = ["--set", "about=two words", "--fresh"]
    done = bench.run(tmp_path / "run", *words, signals=[[signal.SIGINT, "trainer.py:step", 2, 0]])
    assert done.code == 130
    asked = shlex.split(done.said.splitlines()[-1].split("resume with: ")[1])
    assert asked == ["ganlab", "run", str(bench.spec), "--set", "about=two words", "--out", str(tmp_path / "run")]


@pytest.mark.parametrize(
    ("step", "again", "kept"),
    [
        (7, ["trainer.py:loss_terms", 14, 30], "the newest checkpoint is that of step 4"),
        (7, ["checkpoint.py:_save_networks", 2, 30], "the newest checkpoint is that of step 4"),
        (3, ["trainer.py:loss_terms", 6, 30], "no step is saved"),
    ],
)
def test_a_second_interrupt_stops_at_once(bench: Bench, tmp_path: Path, step: int, again: list[Any], kept: str) -> None:
    """`loss_terms` runs twice in each step: the first interrupt is answered while its step lasts."""
    out = tmp_path / "run"
    done = bench.run(out, signals=[[signal.SIGINT, "trainer.py:step", step, 20], [signal.SIGINT, *again]])
    assert done.code == 130
    *_, before, told = done.said.splitlines()
    assert before == "warning: stopping after this step; Ctrl-C again stops now"
    assert told.startswith(f"ganlab: stopped at once; {kept}; resume with: ganlab run ")
    assert [p.name for p in out.glob("checkpoints/step-*")] == (["step-000004"] if step > 4 else [])
    assert bench.run(out).code == 0
    same(out, bench.whole)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_an_interrupt_while_images_are_read_writes_nothing(
    bench: Bench, tmp_path: Path, number: int, code: int
) -> None:
    out = tmp_path / "run"
    done = bench.run(out, signals=[[number, "dataset.py:_allocate", 2, 5]])
    assert done.code == code
    assert len(done.said.splitlines()) == (code == 130)
    assert done.said.startswith("ganlab: interrupted before training; nothing is written" if code == 130 else "")
    assert not out.exists()


@pytest.mark.parametrize(
    ("largest", "words", "sentence", "left"),
    [
        (500, [], "spec.json can't be written: File too large", []),
        (9500, [], "step 4 can't be saved to .*: .*File too large", ["checkpoints", "environment.json", "spec.json"]),
        (9500, ["--set", "checkpoints.every=100"], "run can't be written: File too large", ["environment.json"]),
    ],
)
def test_a_full_disk_is_one_sentence_and_no_harm(
    bench: Bench, tmp_path: Path, largest: int, words: list[str], sentence: str, left: list[str]
) -> None:
    out = tmp_path / "run"
    done = bench.run(out, *words, largest_file=largest)
    assert done.code == 1
    assert "Traceback" not in done.said
    told = done.said.splitlines()[-1]
    assert told.startswith("ganlab: ")
    assert re.search(sentence, told), told
    assert set(left) <= {p.name for p in out.iterdir()}
    assert not list(out.glob("checkpoints/*step-*"))
    assert not list(out.glob(".*.unfinished"))
    done = bench.run(out, *words)
    assert done.code == 0, done.said
    assert networks(out, STEPS) == networks(bench.whole, STEPS)
    assert records(out) == records(bench.whole)


def test_two_processes_do_not_train_in_one_folder(bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "run"
    pid = bench.forker.start(
        "run", str(bench.plain), "--out", str(out), signals=[[signal.SIGSTOP, "trainer.py:step", 3, 0]]
    )
    try:
        while not (out / "metrics.jsonl").exists() or len(records(out)) < 2:
            assert bench.forker.running()
        for fresh in (False, True):
            with pytest.raises(SpecError, match="run: another process is training here"):
                ganlab.run(bench.plain, out=out, fresh=fresh)
    finally:
        os.kill(pid, signal.SIGCONT)
        done = bench.forker.wait()
    assert done.code == 0, done.said
    assert [r["step"] for r in records(out)] == [1, 2, 3, 4]
    assert ganlab.run(bench.plain, out=out).finished


def test_fresh_can_be_killed_while_it_removes_the_run(bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["run", str(bench.plain), "--out", str(out)]
    assert bench.forker.run(*words).code == 0
    before = networks(out, 4)
    for after in (5, 60, 200):
        done = bench.forker.run(*words, "--fresh", signals=[[signal.SIGKILL, "folder.py:clear", 1, after]])
        assert done.code == -signal.SIGKILL
    done = bench.forker.run(*words)
    assert done.code == 0, done.said
    assert networks(out, 4) == before
    assert [r["step"] for r in records(out)] == [1, 2, 3, 4]
    assert sum(events(out).values()) == len(events(out)) > 0
    assert hidden(out) == [".lock"]
