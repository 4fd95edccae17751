"""Every file of a run, damaged in every way: success with the same bytes, or one sentence; `make faults` tries all."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import pytest

import ganlab
from ganlab.components.registry import registry
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from helpers.damage import DAMAGES
from helpers.folders import draw
from helpers.paths import INSTALLED
from helpers.processes import networks
from helpers.systems import TINY

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="damages of POSIX")

NEWEST = "checkpoints/step-000004"
FILES = (
    ".lock",
    "spec.json",
    "environment.json",
    "metrics.jsonl",
    "events",
    "samples/step-000003.png",
    "evaluation.json",
    "speed.json",
    f"{NEWEST}/manifest.json",
    f"{NEWEST}/networks.safetensors",
    f"{NEWEST}/state.pt",
)
SHORT = (
    ("spec.json", "a value is a list"),
    ("environment.json", "missing"),
    ("environment.json", "a pipe"),
    ("metrics.jsonl", "a line of noise"),
    ("metrics.jsonl", "a pipe"),
    ("evaluation.json", "a value is text"),
    (f"{NEWEST}/manifest.json", "another run's"),
    (f"{NEWEST}/networks.safetensors", "flipped"),
    (f"{NEWEST}/state.pt", "a pipe"),
)


class Runs(NamedTuple):
    """A run that stopped after step 4 but has been measured, one of another random seed, and the whole run."""

    spec: Json
    half: Path
    other: Path
    whole: Path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(INSTALLED))
        patch.setenv("GANLAB_CACHE", str(folder / "cache"))
        registry.cache_clear()
        data = {domain: {"path": str(path)} for domain, path in draw(folder).items()}
        spec: Json = merge(TINY, {"data": data, "evaluation": {"metrics": ["brightness"]}})
        ganlab.run(spec, out=folder / "whole")
        ganlab.run(spec, ["seed=1"], out=folder / "other")
        for name in ("whole", "other"):
            (events,) = (folder / name).glob("events.*")
            events.rename(events.with_name("events.out.tfevents.1"))
        shutil.copytree(folder / "whole", folder / "half")
        shutil.rmtree(folder / "half/checkpoints/step-000006")
        (folder / "half/samples/step-000006.png").unlink()
        yield Runs(spec, folder / "half", folder / "other", folder / "whole")
    registry.cache_clear()


def at_most(seconds: int) -> None:
    def late(number: int, frame: FrameType | None) -> None:
        pytest.fail(f"still waiting after {seconds} seconds")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)


@pytest.mark.parametrize(
    ("name", "how", "number"),
    [
        *((name, how, 0) for name, how in SHORT),
        *(pytest.param(name, how, 1, marks=pytest.mark.faults) for name in FILES for how in DAMAGES),
    ],
)
def test_a_damaged_file_is_one_sentence_or_no_harm(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, how: str, number: int
) -> None:
    file = "events.out.tfevents.1" if name == "events" else name
    monkeypatch.chdir(tmp_path)
    calls: dict[str, Any] = {
        "run": lambda out: ganlab.run(runs.spec, out=out),
        "evaluate": ganlab.evaluate,
        "load_run": lambda out: ganlab.load_run(out).records,
    }
    for call, do in calls.items():
        out = tmp_path / call
        # finished runs are measured
        shutil.copytree(runs.half if call == "run" or "step-000004" in file else runs.whole, out)
        DAMAGES[how](out / file, runs.other / file, random.Random(f"{name} {how} {number}"))
        at_most(300)
        try:
            do(out)
            refused = ""
        except ganlab.GanlabError as error:
            refused = str(error)
        finally:
            signal.alarm(0)
        assert "\n" not in refused
        if refused:
            print(f"{call}: {refused}")
        elif call == "run" and (name, how) != ("evaluation.json", "a folder"):
            assert networks(out, 6) == networks(runs.whole, 6)
            steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
            assert steps[-2:] == [5, 6]
            assert "brightness" in (out / "evaluation.json").read_text()
    # nothing beside the runs
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(calls)
