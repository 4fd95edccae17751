"""A comparison's trials are real processes: they are interrupted, continued, and fail alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

import ganlab
from ganlab.cli.commands import app
from ganlab.comparison.processes import LocalProcess
from ganlab.runs.folder import RunFolder
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from helpers.processes import ENVIRONMENT, Forker, networks

STEPS = 40
WORDS = ["compare", "plain.json", "broken.json", "--seeds", "1", "--out", "both"]


@pytest.fixture
def here(tiny: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory with a spec that trains and one whose terms stop being finite."""
    monkeypatch.chdir(tmp_path)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    patch = {
        "name": None,
        "evaluation": {"metrics": ["content"]},
        "schedule": {"steps": STEPS},
        "data": {"holdout": 0.7},
    }
    (tmp_path / "plain.json").write_text(json.dumps(merge(tiny, patch)))
    (tmp_path / "broken.json").write_text(json.dumps({"extends": "plain.json", "schedule": {"lr": 1e30}}))
    return tmp_path


def await_training(running: Callable[[], bool]) -> None:
    """Returns in the moment when the plain system trains."""
    metrics = Path("both/plain/seed-1/metrics.jsonl")
    while running() and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.02)


@contextmanager
def comparing(words: Sequence[str] = WORDS) -> Iterator[subprocess.Popen[str]]:
    """A comparison in a process of its own, in the moment when the plain system trains."""
    process = subprocess.Popen([sys.executable, "-m", "ganlab", *words], text=True, stderr=subprocess.PIPE)
    try:
        await_training(lambda: process.poll() is None)
        with process:
            yield process
    finally:
        process.kill()


def test_a_comparison_that_is_interrupted_continues_and_failures_stay_alone(forker: Forker, here: Path) -> None:
    pid = forker.start(*WORDS, folder=str(here))
    await_training(forker.running)
    os.kill(pid, signal.SIGINT)
    stopped = forker.wait()
    assert stopped.code == 130, stopped.said
    assert "0 of 2 trials are finished, the others are saved; the same command continues" in stopped.said
    done = CliRunner().invoke(app, [*WORDS, "--jobs", "2"])
    assert done.exit_code == 1, done.output
    assert "1 of 2 trials failed; both/logs has what they printed" in " ".join(done.stderr.split())
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("failed: ")]
    assert line.startswith("failed: broken, seed 1: ")
    kept = json.loads(Path("both/comparison.json").read_text())
    assert [trial["state"] for trial in kept["trials"]] == ["finished", "failed"]
    assert " became " in kept["trials"][1]["why"]
    assert kept["jobs"] == 2
    assert "seconds" not in kept["systems"][0]["cost"]
    # stopped and continued, it is the run that one call would have made
    alone = ganlab.run("plain.json", ["seed=1"], "alone").folder
    assert networks(Path("both/plain/seed-1"), STEPS) == networks(alone, STEPS)


@pytest.mark.faults
def test_a_second_signal_leaves_no_process_behind(here: Path) -> None:
    with comparing() as process:
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert process.returncode == 130
    # would be refused while another process trains there
    assert ganlab.run("plain.json", ["seed=1"], "both/plain/seed-1").finished


@pytest.mark.faults
def test_the_trials_of_a_killed_comparison_end_with_it(here: Path) -> None:
    with comparing(["compare", "plain.json", "--seeds", "1", "--steps", "2000", "--out", "both"]) as process:
        process.kill()
    folder = RunFolder("both/plain/seed-1")
    while folder.busy:
        time.sleep(0.02)
    # a trial that trains on would have ended only now
    assert folder.steps[-1:] != [2000]


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="the system does not show a process's environment")
def test_a_trial_computes_with_its_own_number_of_threads(tmp_path: Path) -> None:
    with LocalProcess(["--version"], tmp_path / "log", tmp_path, threads=3)._process as process:
        environment = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
    assert b"OMP_NUM_THREADS=3" in environment
