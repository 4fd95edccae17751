"""ganlab's command line in processes of their own that are given real signals, and what they leave behind."""

from __future__ import annotations

import json
import os
import random
import select
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
PATH = os.pathsep.join([str(HERE / "installed"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
# passive: threads that wait don't take the processor from those that work
ENVIRONMENT = os.environ | {"PYTHONPATH": PATH, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


class Outcome(NamedTuple):
    code: int
    said: str


class Forker:
    """Starts `ganlab ...` in processes of their own, one at a time; see forker.py. `specs` are read beforehand."""

    def __init__(self, folder: Path, *specs: Path) -> None:
        self.log = folder / "log"
        self._server = subprocess.Popen(
            [sys.executable, str(HERE / "forker.py"), *map(str, specs)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=ENVIRONMENT,
        )
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self._server.stdout is not None
        return self._server.stdout.readline().decode().strip()

    def start(self, *words: str, **job: Any) -> int:
        assert self._server.stdin is not None
        self.log.write_text("")
        line = json.dumps({"words": words, "log": str(self.log), **job})
        self._server.stdin.write(line.encode() + b"\n")
        return int(self._line())

    def running(self) -> bool:
        return not select.select([self._server.stdout], [], [], 0)[0]

    def wait(self) -> Outcome:
        code = int(self._line())
        return Outcome(code, self.log.read_text())

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
    """When to kill. A failure can be had again with the seed that this prints: GANLAB_KILL_SEED=seed pytest ..."""
    number = int(os.environ.get("GANLAB_KILL_SEED") or random.SystemRandom().randrange(2**32))
    print(f"GANLAB_KILL_SEED={number}")
    return random.Random(number)


def networks(run: Path, step: int) -> bytes:
    return (run / f"checkpoints/step-{step:06d}/networks.safetensors").read_bytes()


def records(run: Path) -> list[dict[str, float]]:
    """What metrics.jsonl holds, without the seconds, which no two runs share; a line that is being written is left."""
    lines = (run / "metrics.jsonl").read_text().split("\n")[:-1]
    found = [json.loads(line) for line in lines]
    for record in found:
        assert record.pop("seconds") > 0
    return found
