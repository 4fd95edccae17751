"""`check_schedule` and each requirement that a schedule can fail."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ganlab
from ganlab import Domain, Turn, testing
from ganlab.testing import schedules
from helpers.broken import Broken, names_of, verify_every_condition_fails, verify_sentence


class Valid(ganlab.Schedule):
    """Passes the check; the broken ones derive from it."""

    steps = 30

    def turns(self, step: int) -> Iterable[Turn]:
        return [Turn("generator", self.directions), Turn("discriminator", self.directions)]

    def optimizer(self, player: str, parameters: list[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters)


class NoSteps(Valid):
    steps = 0


class OwnDirections(Valid):
    def turns(self, step: int) -> Iterable[Turn]:
        return [Turn("generator", ("ab", "ba"))]


class CountsSteps(Valid):
    def __init__(self) -> None:
        self.asked = 0

    def turns(self, step: int) -> Iterable[Turn]:
        self.asked += 1
        return [Turn("generator" if self.asked % 3 else "discriminator", self.directions)]


class Negative(Valid):
    def learning_rate(self, player: str, step: int) -> float:
        return 1 - step / 10


class Half(Valid):
    def optimizer(self, player: str, parameters: list[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters[:1])


class NoOptimizer(Valid):
    def optimizer(self, player: str, parameters: list[tuple[str, nn.Parameter]]) -> Any:
        return parameters


class Explodes(Valid):
    def optimizer(self, player: str, parameters: list[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=float("inf"))


class ForgetfulSGD(torch.optim.SGD):
    """Has momentum that is not in its state."""

    def step(self, closure: Any = None) -> None:
        self.count = getattr(self, "count", 0) + 1
        for group in self.param_groups:
            group["lr"] = 0.1 / self.count
        super().step()


class Forgets(Valid):
    def optimizer(self, player: str, parameters: list[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
        return ForgetfulSGD(parameters, lr=0.1)


class _Pool(nn.Module):
    last: Tensor | None = None

    def __init__(self, keep: bool) -> None:
        super().__init__()
        self.keep = keep

    def forward(self, fakes: Tensor, draws: Tensor) -> Tensor:
        before, self.last = self.last, fakes
        return fakes[:1] if not self.keep else fakes if before is None else before


class OneFake(Valid):
    def pool(self, target: Domain) -> nn.Module:
        return _Pool(keep=False)


class _Spoiling(nn.Module):
    def forward(self, fakes: Tensor, draws: Tensor) -> Tensor:
        return fakes.mul_(0.5)


class SpoiltFakes(Valid):
    def pool(self, target: Domain) -> nn.Module:
        return _Spoiling()


class LostFakes(Valid):
    def pool(self, target: Domain) -> nn.Module:
        return _Pool(keep=True)


BROKEN: list[Broken] = [
    (testing.check_schedule, NoSteps, "has steps.* steps is 0"),
    (
        testing.check_schedule,
        OwnDirections,
        r"directions that the core has set.* the directions \('ab',\) step 0 has Turn",
    ),
    (testing.check_schedule, CountsSteps, "on the step alone.* step [02] is"),
    (testing.check_schedule, Negative, "factors.* they are .-"),
    (testing.check_schedule, Half, "one optimizer.* holds 1 of 2 parameters"),
    (testing.check_schedule, NoOptimizer, "one optimizer.* the generator's is .*tensor of shape"),
    (testing.check_schedule, Explodes, "saved and loaded.* the generator's parameters become .*nan"),
    (testing.check_schedule, Forgets, "saved and loaded.* differ by up to"),
    (testing.check_schedule, OneFake, r"as many images.* it gives \(1, 3, 16, 16\)"),
    (testing.check_schedule, SpoiltFakes, "pool.* it changes the fakes in place"),
    (testing.check_schedule, LostFakes, "buffers.* the images differ by up to"),
]


@pytest.mark.parametrize(("check", "cls", "sentence"), BROKEN, ids=names_of)
def test_a_failed_requirement_is_named(check: Callable[..., None], cls: type, sentence: str) -> None:
    verify_sentence(check, cls, sentence)


def test_every_requirement_and_condition_fails_for_one_of_them() -> None:
    verify_every_condition_fails([schedules], BROKEN)


def test_the_schedule_that_they_derive_from_passes() -> None:
    before = torch.manual_seed(99).get_state()
    testing.check_schedule(Valid)
    # the check leaves torch's global generator as it was
    assert torch.equal(torch.get_rng_state(), before)
