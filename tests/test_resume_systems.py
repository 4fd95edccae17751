"""Every experiment, made small, killed three times: its networks are those of a run that never stopped, to the byte.

A failure can be had again: GANLAB_KILL_SEED=seed pytest tests/test_resume_systems.py -k EXPERIMENT
"""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import Forker, moments, networks, records
from small_experiments import FILES, small

from ganlab.spec import merge

# experiments/paper/ has the same systems, larger
EXPERIMENTS = [name for name in FILES if "/" not in name]
STEPS = 8
# samples are drawn where there is no checkpoint, and a checkpoint lies between two readings of the device
PATCH = {
    "schedule": {"steps": STEPS},
    "samples": {"every": 3, "count": 2},
    "checkpoints": {"every": 2},
    "evaluation": None,
    "runtime": {"log_every": 3},
}


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("specs")
    found = {name: folder / name for name in EXPERIMENTS}
    for name, path in found.items():
        path.write_text(json.dumps(merge(small(name), PATCH)))
    return found


@pytest.fixture(scope="module")
def forker(tmp_path_factory: pytest.TempPathFactory, specs: dict[str, Path]) -> Iterator[Forker]:
    forker = Forker(tmp_path_factory.mktemp("forker"), *specs.values())
    yield forker
    forker.close()


def kills(marks: list[int], seed: random.Random) -> list[dict[str, Any]]:
    """Between two steps behind a checkpoint, while one is written, and anywhere in three steps: in the seed's order.
    Each lets a process add one checkpoint at the most, so that none comes too late. `marks` counts the calls before
    each step."""
    saving = (marks[2] - marks[1]) - (marks[1] - marks[0])
    found = [
        {"signals": [[signal.SIGKILL, "engine.py:step", seed.randrange(3, 5), 0]]},
        {"signals": [[signal.SIGKILL, "checkpoint.py:save", 1, seed.randrange(saving)]]},
        {"killed_at": seed.randrange(marks[0], marks[3])},
    ]
    seed.shuffle(found)
    return found


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_killed_three_times_ends_as_one_that_was_not(
    forker: Forker, specs: dict[str, Path], tmp_path: Path, name: str
) -> None:
    whole, killed, counted = tmp_path / "whole", tmp_path / "killed", tmp_path / "marks.json"
    words = ["run", str(specs[name]), "--out"]
    done = forker.run(*words, str(whole), counted=str(counted))
    assert done.code == 0, done.said
    for job in kills(json.loads(counted.read_text()), moments()):
        done = forker.run(*words, str(killed), **job)
        print(job, done.code, sorted(path.name for path in killed.glob("checkpoints/*")))
        assert done.code == -signal.SIGKILL, done.said
    done = forker.run(*words, str(killed))
    assert done.code == 0, done.said
    assert networks(killed, STEPS) == networks(whole, STEPS)
    assert [record["step"] for record in records(killed)] == list(range(1, STEPS + 1))
    assert records(killed) == records(whole)
