"""Times our step and that of junyanz/pytorch-CycleGAN-and-pix2pix, the field's reference code, in turn in one process.

Protocol: the peer's defaults (resnet of width 64, six blocks, 3-layer PatchGAN of width 64, LSGAN, cycle 10, identity
5, pool of 50), noise images. The peer computes in float32; our step is timed in float32, and in bfloat16 where
`precision: auto` chooses it. Both take one step in turn; the result is the median over rounds of the ratio peer / ours.
Peak memory is measured in float32, each system alone in a process of its own.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from systems import RandomImages, make_trainer

from ganlab.interfaces.networks import Domain
from ganlab.spec import devices

SETTINGS = [(8, 64), (1, 128)]
LEAST = {"float32": 1.0, "bfloat16": 1.7}
"""{precision: the smallest ratio of the peer's time to ours that passes}."""
WARM_UP, ROUNDS = 4, 8


def ours(batch: int, size: int, precision: str = "float32") -> Callable[[], None]:
    trainer = make_trainer(
        "zhu2017.json",
        {
            "data": {"size": size, "batch": batch},
            "generator": {"width": 64, "blocks": 6, "kernel": 3, "upsampling": "transposed"},
            "discriminators": {"image": {"type": "patch", "width": 64, "layers": 3}},
            "ema_halflife_images": None,
            "runtime": {"precision": precision},
        },
    )
    return trainer.step


def peers(checkout: Path, batch: int, size: int, work: Path) -> Callable[[], None]:
    # its packages have the names `models` and `util`
    sys.path.insert(0, str(checkout))
    from models.cycle_gan_model import CycleGANModel

    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    options = SimpleNamespace(
        gpu_ids=[0] if device.type == "cuda" else [],
        device=device,
        isTrain=True,
        checkpoints_dir=str(work),
        name="peer",
        preprocess="none",
        input_nc=3,
        output_nc=3,
        ngf=64,
        netG="resnet_6blocks",
        ndf=64,
        netD="basic",
        n_layers_D=3,
        norm="instance",
        no_dropout=True,
        init_type="normal",
        init_gain=0.02,
        gan_mode="lsgan",
        lambda_identity=0.5,
        lambda_A=10.0,
        lambda_B=10.0,
        pool_size=50,
        lr=2e-4,
        beta1=0.5,
        direction="AtoB",
    )
    model = CycleGANModel(options)
    images = RandomImages(batch, {name: Domain(name, 3, size, size) for name in "ab"}, "cpu")
    draws = iter(range(10**9))

    def step() -> None:
        drawn = images(next(draws)).images
        model.set_input({"A": drawn["a"], "B": drawn["b"], "A_paths": [], "B_paths": []})
        model.optimize_parameters()

    return step


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
    own, other = ours(batch, size, precision), peers(checkout, batch, size, tmp_path)
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
        step = ours(batch, size) if who == "ours" else peers(Path(who), batch, size, Path(work))
        for _ in range(6):
            step()
    # not getrusage's: that begins with what the parent had when this process was forked
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(int(status["VmHWM"].split()[0]) / 1024)
