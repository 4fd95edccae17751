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


class Plateau(Valid):
    """Lowers the rate after many questions."""

    asked = 0

    def learning_rate(self, player: str, step: int) -> float:
        self.asked += 1
        return 0.1 if self.asked > 10_000 else 1.0


class Lookahead(torch.optim.SGD):
    """Returns half of the way to the weights of the first step after every fifth (after arXiv:1907.08610)."""

    slow: list[Tensor] | None = None

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        parameters = self.param_groups[0]["params"]
        self.slow = self.slow or [parameter.clone() for parameter in parameters]
        super().step()
        for parameter, slow in zip(parameters, self.slow, strict=True):
            count = self.state[parameter]["count"] = self.state[parameter].get("count", 0) + 1
            if count % 5 == 0:
                parameter.lerp_(slow, 0.5)


class LooksAhead(Valid):
    def optimizer(self, player: str, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return Lookahead(parameters, lr=0.1)


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


class _CountingPool(nn.Module):
    count = 0

    def forward(self, fakes: Tensor, draws: Tensor) -> Tensor:
        self.count += 1
        return fakes if self.count < 1000 else fakes.flip(0)


class LatePool(Valid):
    def pool(self, target: Domain) -> nn.Module:
        return _CountingPool()


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
    (testing.check_schedule, Plateau, r"on the step alone.* each use changes 'asked' \(84, then 126\).* use the step"),
    (testing.check_schedule, Forgets, r"saved and loaded.* each step of the generator's changes 'count' \(1, then 2\)"),
    (testing.check_schedule, LooksAhead, "saved and loaded.* differ by up to"),
    (testing.check_schedule, OneFake, r"as many images.* it gives \(1, 3, 16, 16\)"),
    (testing.check_schedule, SpoiltFakes, "pool.* it changes the fakes in place"),
    (testing.check_schedule, LatePool, r"pool.* each use changes 'count' \(4, then 5\)"),
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


class Warmup(ganlab.ScheduleWrapper):
    """Lets the learning rate of another schedule rise."""

    def __init__(self, of: ganlab.Schedule, over: int = 5) -> None:
        super().__init__(of)
        self.over = over

    def learning_rate(self, player: str, step: int) -> float:
        return super().learning_rate(player, step) * min(1, (step + 1) / self.over)


def test_a_wrapper_passes_around_any_schedule() -> None:
    testing.check_schedule(Warmup)
    testing.check_schedule(Warmup, of=(Warmup, {"over": 3, "of": Valid}))
    with pytest.raises(AssertionError, match=r"^Warmup failed .* each use changes 'of\.asked' "):
        testing.check_schedule(Warmup, of=Plateau)


class Grouped(Valid):
    """Decays weights, but no biases."""

    def optimizer(self, player: str, parameters: list[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
        decaying = [(name, parameter) for name, parameter in parameters if name.endswith("0.weight")]
        others = [(name, parameter) for name, parameter in parameters if not name.endswith("0.weight")]
        return torch.optim.AdamW([{"params": decaying}, {"params": others, "weight_decay": 0.0}])


def test_parameters_have_names() -> None:
    testing.check_schedule(Grouped)
