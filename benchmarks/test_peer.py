"""Times our step and that of junyanz/pytorch-CycleGAN-and-pix2pix, the field's reference code, in turn in one process.

Protocol: the peer's defaults on noise images (peer.py). The peer computes in float32; our step is timed in float32, and
in bfloat16 where `precision: auto` chooses it. Both take one step in turn; the result is the median over rounds of the
ratio peer / ours. Peak memory is measured in float32, each system alone in a process of its own.
"""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peer import ours, peers
from systems import RandomImages

from ganlab.interfaces.networks import Domain
from ganlab.spec import devices

SETTINGS = [(8, 64), (1, 128)]
LEAST = {"float32": 1.0, "bfloat16": 1.7}
"""{precision: the smallest ratio of the peer's time to ours that passes}."""
WARM_UP, ROUNDS = 4, 8


def own_step(batch: int, size: int, precision: str = "float32") -> Callable[[], None]:
    return ours(batch, size, {"runtime": {"precision": precision}}).step


def peers_step(checkout: Path, batch: int, size: int, work: Path) -> Callable[[], None]:
    images = RandomImages(batch, {name: Domain(name, 3, size, size) for name in "ab"}, "cpu")
    draws = itertools.count()
    return peers(checkout, lambda: images(next(draws)).images, work)


def seconds(step: Callable[[], None]) -> float:
    started = time.perf_counter()
    step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


@pytest.fixture
def checkout(request: pytest.FixtureRequest) -> Path:
    given = request.config.getoption("--peer")
    if given is None:
        pytest.skip("needs --peer DIR, a checkout of junyanz/pytorch-CycleGAN-and-pix2pix")
    return Path(given).resolve()


@pytest.mark.parametrize("precision", LEAST)
@pytest.mark.parametrize(("batch", "size"), SETTINGS)
def test_step_beside_the_peers(
    batch: int, size: int, precision: str, checkout: Path, tmp_path: Path, benchmark: Any
) -> None:
    if precision not in ("float32", devices.precision("cpu")):
        pytest.skip(f"`precision: auto` does not choose {precision} on this processor")
    own, other = own_step(batch, size, precision), peers_step(checkout, batch, size, tmp_path)
    for _ in range(WARM_UP):
        own()
        other()
    pairs = [(seconds(own), seconds(other)) for _ in range(ROUNDS)]
    ratios = sorted(theirs / mine for mine, theirs in pairs)
    median = statistics.median(ratios)
    spread = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
    memory = peak_mebibytes("ours", batch, size), peak_mebibytes(str(checkout), batch, size)
    benchmark.extra_info.update(ratio=median, quartiles=spread, ours_mib=memory[0], peer_mib=memory[1])
    benchmark.pedantic(own, rounds=1)
    mine, theirs = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(
        f"\n{size} px, batch {batch}, {precision}: peer / ours = {median:.3f} (quartiles {spread[0]:.3f} to"
        f" {spread[1]:.3f}, range {ratios[0]:.3f} to {ratios[-1]:.3f}, {ROUNDS} rounds);"
        f" step {mine:.3f} s and {theirs:.3f} s; peak memory {memory[0]:.0f} and {memory[1]:.0f} MiB"
    )
    assert spread[1] >= LEAST[precision], "our step is slower than required, beyond the noise"
    assert precision != "float32" or memory[0] <= 1.02 * memory[1], "more memory than the peer"


def peak_mebibytes(who: str, batch: int, size: int) -> float:
    """Peak resident memory after six steps alone, in a new process."""
    done = subprocess.run(
        [sys.executable, __file__, who, str(batch), str(size)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent,
    )
    return float(done.stdout.split()[-1])


if __name__ == "__main__":
    import tempfile

    who, batch, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with tempfile.TemporaryDirectory() as work:
        step = own_step(batch, size) if who == "ours" else peers_step(Path(who), batch, size, Path(work))
        for _ in range(6):
            step()
    # not getrusage's: that begins with what the parent had when this process was forked
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(int(status["VmHWM"].split()[0]) / 1024)
