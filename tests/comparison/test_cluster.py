"""Trials as tasks of a real Ray cluster of two nodes, one of which is killed."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

import ganlab
from ganlab import Comparison, Interrupted, Trial, TrialCallback
from ganlab.comparison import cluster
from ganlab.runs.folder import RunFolder
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from helpers.callbacks import interrupt
from helpers.paths import TESTS
from helpers.processes import ENVIRONMENT, networks

# Ray gives a node 30 seconds to start, which a busy machine may not
pytestmark = pytest.mark.faults

STEPS = 200

PATIENT = {"RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": "300"}
"""The cluster starts a process for each connection, and a busy machine needs longer for it than Ray's 30 seconds."""


class Nodes:
    """A cluster of two nodes, which listen on the loopback address only; see helpers/ray_nodes.py."""

    def __init__(self, folder: str) -> None:
        port = free_port()
        self.address = f"ray://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [sys.executable, str(TESTS / "helpers/ray_nodes.py"), str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**ENVIRONMENT, **cluster.ENVIRONMENT, "RAY_TMPDIR": folder, **PATIENT},
        )
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            self._process.communicate()
            raise ChildProcessError
        names = json.loads(answer)
        self.head, self.other = names["head"], names["other"]
        self.whole = True

    def kill_other(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.whole = False
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "killed\n"

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    # sockets in it have short names
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        for _ in range(3):
            # Ray gives a node 30 seconds to start, which a busy machine may not
            with suppress(ChildProcessError):
                found = Nodes(folder)
                break
        else:
            pytest.skip("Ray did not start, three times: this machine is too busy")
        yield found
        found.close()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture
def here(tiny: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory with a spec."""
    monkeypatch.chdir(tmp_path)
    patch = {
        "name": None,
        "evaluation": {"metrics": ["content"]},
        "schedule": {"steps": STEPS},
        "checkpoints": {"every": 10},
        "data": {"holdout": 0.7},
    }
    (tmp_path / "plain.json").write_text(json.dumps(merge(tiny, patch)))
    return tmp_path


class Interrupting(TrialCallback):
    """Presses Ctrl-C when a trial has saved a checkpoint."""

    pressed = False

    def running(self, said: Mapping[Trial, str]) -> None:
        if not self.pressed and any(RunFolder(trial.folder).steps for trial in said):
            self.pressed = True
            interrupt()


class Killing(TrialCallback):
    """Kills a node when the trial there has saved a checkpoint."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self.lost: Trial | None = None
        """The trial that ran on the killed node."""
        self.outcomes: dict[Trial, str] = {}

    def running(self, said: Mapping[Trial, str]) -> None:
        for trial in said:
            if self._nodes.whole and self._nodes.other in trial.log.read_text() and RunFolder(trial.folder).steps:
                self._nodes.kill_other()
                self.lost = trial

    def ended(self, trial: Trial, outcome: str, seconds: float) -> None:
        self.outcomes[trial] = outcome


def test_trials_are_stopped_and_those_of_a_lost_machine_resume_on_another(nodes: Nodes, here: Path) -> None:
    with pytest.raises(Interrupted, match="0 of 1 trials are finished, the others are saved"):
        ganlab.compare(Comparison(["plain.json"], [0], on=nodes.address, out="both"), Interrupting())
    assert "everything is saved" in Path("both/logs/plain-seed-0.log").read_text()
    killing = Killing(nodes)
    found = ganlab.compare(Comparison(["plain.json"], [0, 1], on=nodes.address, out="both"), killing)
    assert [trial["state"] for trial in found["trials"]] == ["finished", "finished"]
    assert killing.outcomes == dict.fromkeys(killing.outcomes, "finished")
    assert killing.lost is not None
    log = killing.lost.log.read_text()
    assert log.count("runs on ") == 2, log
    assert log.index(nodes.other) < log.index(nodes.head)
    assert "plain resumes after step " in log.partition(nodes.head)[2]
    # it is the run that this machine makes
    seed = killing.lost.seed
    alone = ganlab.run("plain.json", [f"seed={seed}"], "alone").folder
    assert networks(Path(killing.lost.folder), STEPS) == networks(alone, STEPS)


def test_a_machine_without_the_storage_of_the_others_says_so(tmp_path: Path) -> None:
    log = tmp_path / "trial.log"
    for content in (None, "waits for room in another cluster\n"):
        if content is not None:
            log.write_text(content)
        end = cluster.run_here("node", ["run", "plain.json"], str(log), str(tmp_path), "run", "waits for room\n")
        assert "trials on Ray need storage that all machines share, under the same path" in end.why
        assert end.lost


@pytest.mark.faults
def test_a_cluster_on_this_machine_ends_with_the_comparison(here: Path) -> None:
    pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    words = ["compare", "plain.json", "--seeds", "3", "--steps", "4", "--on", "ray", "--out", "both"]
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        environment = {**ENVIRONMENT, "TMPDIR": folder}
        done = subprocess.run([sys.executable, "-m", "ganlab", *words], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert [path.name for path in Path(folder).iterdir() if path.name.startswith("ray")] == []
    assert "1 trial, 0 of them finished already, on ray" in done.stderr
    alone = ganlab.run("plain.json", ["schedule.steps=4", "seed=3"], "alone").folder
    assert networks(Path("both/plain/seed-3"), 4) == networks(alone, 4)


@pytest.mark.faults
def test_a_search_on_ray_makes_the_trials_that_this_machine_makes(here: Path) -> None:
    pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    words = ["compare", "plain.json", "--search", "trials=2", "losses.cycle.weight=int(1,9)", "--steps", "4"]
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        environment = {**ENVIRONMENT, "TMPDIR": folder}
        for places in (["--on", "ray", "--jobs", "1", "--out", "there"], ["--out", "alone"]):
            command = [sys.executable, "-m", "ganlab", *words, *places]
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
    there, alone = (json.loads(Path(out, "search.json").read_text()) for out in ("there", "alone"))
    assert [trial["parameters"] for trial in there["trials"]] == [trial["parameters"] for trial in alone["trials"]]
    for number in range(2):
        run = f"plain-{number}/seed-0"
        assert networks(Path("there", run), 4) == networks(Path("alone", run), 4)
