"""A training step of each experiment beside one of cyclegan.json, alternately in one process, on noise images."""

from __future__ import annotations

import statistics
import time
from typing import Any

import pytest
from systems import EXPERIMENTS, make_trainer

from ganlab.engine.trainer import Trainer

WARM_UP, ROUNDS = 2, 5


def seconds(trainer: Trainer) -> float:
    started = time.perf_counter()
    trainer.step()
    # reading the records waits for the device
    trainer.log.read(trainer.state)
    return time.perf_counter() - started


@pytest.mark.parametrize("name", sorted(path.name for path in EXPERIMENTS.glob("*.json")))
def test_step(name: str, benchmark: Any) -> None:
    plain, trainer = make_trainer("cyclegan.json", {}), make_trainer(name, {})
    for _ in range(WARM_UP):
        seconds(plain), seconds(trainer)
    ratios = []

    def beside() -> tuple[tuple[()], dict[str, Any]]:
        ratios.append(seconds(trainer) / seconds(plain))
        return (), {}

    benchmark.pedantic(lambda: seconds(trainer), setup=beside, rounds=ROUNDS)
    ratio = statistics.median(ratios)
    batch = trainer.batches.batch
    median = benchmark.stats.stats.median
    benchmark.extra_info.update(ratio=ratio, images_a_second=batch / median)
    print(
        f"\n{name}: {median * 1000:.0f} ms, {batch / median:.0f} image pairs"
        f" a second; {ratio:.2f} of cyclegan.json's step ({min(ratios):.2f} to {max(ratios):.2f})"
    )
