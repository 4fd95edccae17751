"""The time that the command line takes to answer, and that importing torch takes, measured alternately."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from typing import Any

ROUNDS = 5


def seconds(*words: str) -> float:
    started = time.perf_counter()
    subprocess.run(words, check=True, capture_output=True)
    return time.perf_counter() - started


def test_help_answers_in_half_the_time_of_importing_torch(benchmark: Any) -> None:
    def help_() -> float:
        return seconds(sys.executable, "-c", "from ganlab.cli.commands import main; main(['--help'])")

    def torch_() -> float:
        return seconds(sys.executable, "-c", "import torch")

    help_(), torch_()
    ratios = [help_() / torch_() for _ in range(ROUNDS)]
    benchmark.extra_info["ratio"] = statistics.median(ratios)
    benchmark.pedantic(help_, rounds=ROUNDS)
    print(f"\nganlab --help / import torch = {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    assert statistics.median(ratios) < 0.5
