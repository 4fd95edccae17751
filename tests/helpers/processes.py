"""Runs ganlab's command line in other processes, which may receive real signals, and reads what they leave."""

from __future__ import annotations

import json
import os
import random
import select
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from helpers.paths import INSTALLED, TESTS

PATH = os.pathsep.join([str(INSTALLED), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
# passive: waiting threads leave the processor to working threads
ENVIRONMENT = os.environ | {"PYTHONPATH": PATH, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


class Outcome(NamedTuple):
    code: int
    said: str
    """stdout, and stderr if it went there."""
    errors: str = ""


class Forker:
    """Starts `ganlab ...` in forks, one at a time; forker.py has what a job may contain."""

    def __init__(self, folder: Path) -> None:
        if not hasattr(os, "fork"):
            pytest.skip("this system has no os.fork, with which these processes are started")
        self.log, self.errors = folder / "log", folder / "errors"
        self._server = subprocess.Popen(
            [sys.executable, str(TESTS / "helpers" / "forker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=ENVIRONMENT,
        )
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self._server.stdout is not None
        return self._server.stdout.readline().decode().strip()

    def _ask(self, what: Any) -> str:
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(what).encode() + b"\n")
        return self._line()

    def read_images(self, *specs: Path) -> None:
        """Every source of the specs reads an image, so that no fork has to."""
        assert self._ask({"images": [*map(str, specs)]}) == "ready"

    def start(self, *words: str, **job: Any) -> int:
        self.log.write_text("")
        self.errors.write_text("")
        return int(self._ask({"words": words, "log": str(self.log), **job}))

    def running(self) -> bool:
        return not select.select([self._server.stdout], [], [], 0)[0]

    def wait(self) -> Outcome:
        code = int(self._line())
        return Outcome(code, self.log.read_text(), self.errors.read_text())

    def run(self, *words: str, **job: Any) -> Outcome:
        self.start(*words, **job)
        return self.wait()

    def close(self) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()


def moments() -> random.Random:
    """Returns the generator that chooses the moments of kills. GANLAB_KILL_SEED=SEED, which it prints, repeats them."""
    number = int(os.environ.get("GANLAB_KILL_SEED") or random.SystemRandom().randrange(2**32))
    print(f"GANLAB_KILL_SEED={number}")
    return random.Random(number)


def networks(run: Path, step: int) -> bytes:
    return (run / f"checkpoints/step-{step:06d}/networks.safetensors").read_bytes()


def records(run: Path) -> list[dict[str, float]]:
    """The records of metrics.jsonl without their seconds, which differ in every run, and without an unfinished line."""
    lines = (run / "metrics.jsonl").read_text().split("\n")[:-1]
    found = [json.loads(line) for line in lines]
    for record in found:
        assert record.pop("seconds") > 0
    return found
