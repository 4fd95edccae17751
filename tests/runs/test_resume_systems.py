"""Experiments, made small, are killed and resumed. Their networks equal those of runs that never stopped.

`averaging` is the plain system with clipped gradients that are averaged over two parts of the batch.

`make faults` kills every experiment three times. The printed seed repeats a failure:
GANLAB_KILL_SEED=SEED pytest tests/runs/test_resume_systems.py -m '' -k EXPERIMENT
"""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ganlab.spec.files import merge
from helpers.experiments import FILES, small
from helpers.processes import Forker, moments, networks, records

# experiments/paper/ has the same systems, larger
# own.json names no images
EXPERIMENTS = [name for name in FILES if "/" not in name and name not in ("own.json", "photos.json")]
AVERAGING = {
    "schedule": {"clip": 0.5},
    "losses": {"adversarial": {"type": "noisy_lsgan"}},
    "runtime": {"accumulate": 2},
}
SYSTEMS = [*EXPERIMENTS, "averaging"]
QUICK = (
    "best",
    "cut",
    "dcgan",
    "digits_labels",
    "ganhacks",
    "labels",
    "projected",
    "ugatit",
    "wgan",
    "xgan",
    "zhu2017",
)
"""Between them and `averaging` they have every kind of state; `make faults` kills the others too."""

# some samples fall on a step without a checkpoint, and some checkpoints between two readings of the log
PATCH = {
    "samples": {"every": 3, "count": 2},
    "checkpoints": {"every": 2},
    "evaluation": None,
    "runtime": {"log_every": 3},
}


@pytest.fixture(scope="module")
def specs(forker: Forker, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("specs")
    found = {name: folder / name for name in SYSTEMS}
    for name, path in found.items():
        system = merge(small("cyclegan.json"), AVERAGING) if name == "averaging" else small(name)
        path.write_text(json.dumps(merge(system, PATCH)))
    forker.read_images(*found.values())
    return found


def kills(marks: list[int], seed: random.Random) -> list[dict[str, Any]]:
    """Returns three kills in a random order: between two steps after a checkpoint, during the writing of a checkpoint,
    and anywhere in three steps. A process adds at most one checkpoint before its kill, so no kill comes too late.
    `marks` is the number of calls before each step."""
    saving = (marks[2] - marks[1]) - (marks[1] - marks[0])
    found = [
        {"signals": [[signal.SIGKILL, "trainer.py:step", seed.randrange(3, 5), 0]]},
        {"signals": [[signal.SIGKILL, "checkpoint.py:save", 1, seed.randrange(saving)]]},
        {"at": [signal.SIGKILL, seed.randrange(marks[0], marks[3])]},
    ]
    seed.shuffle(found)
    return found


def check(
    forker: Forker, spec: Path, folder: Path, steps: int, jobs: Callable[[], list[dict[str, Any]]], **whole_job: str
) -> None:
    whole, killed = folder / "whole", folder / "killed"
    words = ["run", str(spec), "--set", f"schedule.steps={steps}", "--out"]
    done = forker.run(*words, str(whole), **whole_job)
    assert done.code == 0, done.said
    for job in jobs():
        done = forker.run(*words, str(killed), **job)
        print(job, done.code, sorted(path.name for path in killed.glob("checkpoints/*")))
        assert done.code == -signal.SIGKILL, done.said
    done = forker.run(*words, str(killed))
    assert done.code == 0, done.said
    assert networks(killed, steps) == networks(whole, steps)
    assert [record["step"] for record in records(killed)] == list(range(1, steps + 1))
    assert records(killed) == records(whole)


@pytest.mark.parametrize("name", [*(f"{name}.json" for name in QUICK), "averaging"])
def test_a_killed_experiment_ends_as_one_that_was_not(
    forker: Forker, specs: dict[str, Path], tmp_path: Path, name: str
) -> None:
    """Kills the run in a step after the first checkpoint."""
    seed = moments()
    job = {"signals": [[signal.SIGKILL, "trainer.py:step", seed.randrange(3, 5), seed.randrange(2000)]]}
    check(forker, specs[name], tmp_path, 5, lambda: [job])


@pytest.mark.faults
@pytest.mark.parametrize("name", SYSTEMS)
def test_an_experiment_killed_three_times_ends_as_one_that_was_not(
    forker: Forker, specs: dict[str, Path], tmp_path: Path, name: str
) -> None:
    marks = tmp_path / "marks.json"
    check(forker, specs[name], tmp_path, 8, lambda: kills(json.loads(marks.read_text()), moments()), counted=str(marks))
