"""What a step costs: counts against closed forms, and the parts of a step against the schedule's turns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ganlab.engine import device_peak
from ganlab.engine.step_cost import Counts, count, parts_of_steps
from ganlab.engine.trainer import Trainer

CRITICS = {"image": {"type": "critic", "of": {"type": "patch", "width": 4, "layers": 1}}}
WGAN = {
    "discriminators": CRITICS,
    "losses": {"adversarial": {"type": "wasserstein"}},
    "schedule": {"type": "wgan", "critic_updates": 3},
}


def test_a_step_of_known_operators() -> None:
    """A product, its sum and the product's two gradients: 3 products of 2 * 5 * 7 * 3 operations."""
    x, w = torch.rand(5, 7), torch.rand(7, 3, requires_grad=True)
    x.requires_grad_()

    def step() -> None:
        (x @ w).sum().backward()

    found = count(step)
    assert found.flops == 3 * 2 * 5 * 7 * 3
    # mm, sum, ones_like, expand, and in the backward 2 products of transposed matrices, which are views
    products = 3 * (5 * 7 + 7 * 3 + 5 * 3)
    sums = 15 + 1 + 1 + 1
    assert found.bytes >= 4 * (products + sums)
    assert found.bytes <= 4 * (products + sums + 10)
    assert 3 + 2 <= found.operators <= 3 + 10


def test_a_step_with_a_penalty_is_counted(make_trainer: Callable[..., Trainer]) -> None:
    """torch's own counter fails at a penalty on the input of a network; without one it gives the same number."""
    plain, penalised = make_trainer(), make_trainer({"losses": {"r1": {"type": "r1"}}})
    with FlopCounterMode(display=False) as counter:
        plain.step()
    assert count(plain.step).flops == counter.get_total_flops() > 0
    assert count(penalised.step).flops > count(plain.step).flops


def test_views_and_empty_tensors_move_no_bytes() -> None:
    x = torch.rand(6)

    def step() -> None:
        x.view(2, 3).t()
        torch.empty(100)
        x.add_(1)

    assert count(step) == Counts(4, 0, 2 * 24)


@pytest.mark.parametrize(
    ("patch", "turns"),
    [
        (
            {"schedule": {"type": "alternating"}},
            {f"{p} {d}": 1 for d in ("ab", "ba") for p in ("discriminator", "generator")},
        ),
        (WGAN, {"discriminator ab+ba": 3, "generator ab+ba": 1}),
    ],
)
def test_the_parts_of_a_step_are_the_schedules_turns(
    make_trainer: Callable[..., Trainer], patch: Any, turns: dict[str, int]
) -> None:
    trainer = make_trainer(patch)
    log = trainer.log
    found = parts_of_steps(trainer, range(2))
    expected = Counter(turns) | {"average": 1}
    # the alternating schedule begins with a turn on embeddings, which has no terms here
    assert {part.part: part.times for part in found if "embeddings" not in part.part} == expected
    assert all(part.seconds > 0 for part in found)
    assert trainer.log is log
    assert trainer.state.step == 2


def test_the_peak_counts_each_operation_and_each_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: a product of 8 x 8 matrices has 8 * 8 * 8 multiplications and as many additions; a copy of 64 bytes
    reads 64 and writes 64. The clock alone is replaced."""
    monkeypatch.setattr(device_peak, "SIDE", 8)
    monkeypatch.setattr(device_peak, "COPIED", 64)
    monkeypatch.setattr(device_peak, "timed", lambda operation, rounds, device: [operation(), [4.0, 2.0, 8.0]][1])
    assert device_peak.measure_peak(torch.device("cpu"), torch.float32) == (1024 / 2, 128 / 2)
