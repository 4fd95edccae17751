"""Steps from graphs, without a GPU: a graph is replaced by the step's function, which reads nothing but the buffers."""

from __future__ import annotations

import copy
import random
import re
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from ganlab_wgan import Wgan
from torch import Tensor, nn

import ganlab
from ganlab import Turn
from ganlab.components.registry import Registry, installed
from ganlab.data.sampler import Batch
from ganlab.engine.capture import StepCapture
from ganlab.engine.trainer import Trainer
from ganlab.interfaces.losses import Translation
from ganlab.parts import WHOLE, Part
from ganlab.spec.models import Json
from ganlab.system.build import System, build
from ganlab.system.forward_cache import ForwardCache
from ganlab.system.host_inputs import StaticInputs
from ganlab.system.host_reads import HostReads
from helpers.capturing import Again, Replay, capturing, experiment
from helpers.experiments import FILES
from helpers.systems import RandomImages, make_trainer
from helpers.trained import assert_same


def take(trainer: Trainer, steps: int) -> None:
    for _ in range(steps):
        trainer.step()


class OnMeta(RandomImages):
    def __call__(self, draw: int, part: Part = WHOLE) -> Batch:
        batch = super().__call__(draw, part)
        return batch._replace(
            images={name: images.to("meta") for name, images in batch.images.items()},
            labels={name: labels.to("meta") for name, labels in batch.labels.items()},
        )


def on_meta(ordinary: Trainer, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    """Returns a trainer of the same system on the device "meta", where tensors have no values."""

    def prepare(system: System, batch: Batch) -> None:
        for loss in system.losses.values():
            for direction in system.schedule.directions:
                loss.prepare(Translation(direction, ForwardCache(system.networks, batch, {}, 0)))
            loss.to("meta")

    monkeypatch.setattr("ganlab.engine.trainer.prepare_losses", prepare)
    monkeypatch.setattr("ganlab.engine.trainer.dry_run", lambda *_: ordinary.dry_run)
    runtime = ordinary.system.spec.runtime.model_copy(update={"device": "meta"})
    images = ordinary.batches
    assert isinstance(images, RandomImages)
    images.__class__ = OnMeta
    system = build(ordinary.system.spec.model_copy(update={"runtime": runtime}), images.domains)
    # torch's fused kernels know no device "meta"
    monkeypatch.setattr(system.schedule, "optimizer", lambda _, parameters: torch.optim.SGD(parameters))
    return Trainer(system, images)


def reads_of_a_step(trainer: Trainer) -> tuple[str, str] | None:
    """Returns what `HostReads` finds in a step."""
    reads = HostReads(trainer.system.device, trainer.system.components, trainer.position)
    turns = trainer.plan(0, trainer.position)
    trainer.set_numbers(turns)
    with reads:
        trainer.take(turns, StaticInputs(reads))
    return reads.found


IN_SHORT = ("cut", "dcgan", "emb", "ganhacks", "labels", "paired", "r3gan", "wgan", "xgan")
"""The experiments that the short form tries: together they have most losses, networks and schedules."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if Path(name).stem in IN_SHORT else pytest.mark.faults)
        for name in FILES
        if "/" not in name
    ],
)
def test_a_shipped_experiment_is_captured(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps from graphs have the bytes of ordinary steps, and no operation reads the device or a tensor of the host."""
    ordinary = experiment(name)
    take(ordinary, 3)
    captured = experiment(name)
    graphs, warnings = capturing(captured)
    take(captured, 3)
    assert warnings == []
    assert graphs.replays == 2
    assert_same(ordinary, captured)
    assert reads_of_a_step(on_meta(captured, monkeypatch)) is None


# -- kinds of steps

KINDS: dict[str, tuple[Json, int]] = {
    "a pool, noise and an average": (
        {
            "losses": {"adversarial": {"type": "noisy_lsgan"}, "identity": {"type": "identity"}},
            "schedule": {"pool": 6, "decay_from": 0.2},
            "ema_halflife_images": 10,
        },
        1,
    ),
    "a loss that fades out": ({"schedule": {"fade_out": {"cycle": 3}}}, 2),
    "a batch in parts": ({"runtime": {"accumulate": 2}, "losses": {"adversarial": {"type": "noisy_lsgan"}}}, 1),
    "steps with more turns": (
        {
            "discriminators": {"image": {"type": "critic", "of": {"type": "patch", "width": 4, "layers": 1}}},
            "losses": {"adversarial": {"type": "wasserstein"}, "penalty": {"type": "gradient_penalty"}},
            "schedule": {"type": "counted", "steps": 6},
        },
        2,
    ),
}
"""{what it has: (the patch to TINY, the number of kinds of steps)}."""


class Counted(Wgan):
    """One update of the critics in the first step of three, else two."""

    def __init__(self, steps: int = 6) -> None:
        super().__init__(steps=steps, critic_updates=2)

    def turns(self, step: int) -> list[Turn]:
        return super().turns(step)[int(step % 3 == 0) :]


@pytest.mark.parametrize("what", KINDS)
def test_each_kind_of_step_has_its_graph_also_after_a_resume(what: str) -> None:
    patch, kinds = KINDS[what]
    ordinary = make_trainer(patch, known=REGISTRY)
    take(ordinary, 6)
    first, second = make_trainer(patch, known=REGISTRY), make_trainer(patch, known=REGISTRY)
    graphs, warnings = capturing(first)
    take(first, 6)
    assert warnings == []
    assert graphs.replays == 6 - kinds
    early = make_trainer(patch, known=REGISTRY)
    take(early, 2)
    second.state.load_state_dict(copy.deepcopy(early.state.state_dict()))
    for name, module in early.state.modules().items():
        second.state.modules()[name].load_state_dict(module.state_dict())
    capturing(second)
    take(second, 4)
    assert_same(ordinary, first, second)


# -- what can't be captured


class Spoils(ganlab.Loss):
    """Does what no graph can repeat, by its name."""

    kept: Tensor

    def __init__(self, how: str = "item") -> None:
        super().__init__()
        self.how, self.calls = how, 0
        self.register_buffer("kept", torch.zeros(()))

    def generator(self, t: Translation) -> Tensor:
        value = t.score(t.fake).mean()
        if self.how == "item":
            value = value * value.detach().abs().item()
        elif self.how == "branch":
            value = value if value > 0 else -value
        elif self.how == "mask":
            value = t.fake[t.fake > 0].mean()
        elif self.how == "step":
            value = value * (1 + t.step)
        elif self.how == "buffer":
            self.kept = self.kept + value.detach()
        elif self.how == "attribute":
            self.calls += 1
            value = value * self.calls
        elif self.how == "random":
            value = value * random.random()
        elif self.how == "drawn":
            value = value * torch.rand(2)[0].item()
        elif self.how == "host":
            value = value * torch.tensor(0.5)
        elif self.how == "numbers":
            # the operation with which `torch.tensor` ends on a CUDA device; the device "meta" hides it
            value = value * torch.ops.aten.lift_fresh(torch.ones(2, device=value.device)).mean()
        elif self.how == "copy":
            value = value + torch.ones(2).to(value.device).mean()
        return value


class Lion(torch.optim.Optimizer):
    """The signs of the gradients, without momentum (arXiv:2302.06675)."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.sub_(group["lr"] * parameter.grad.sign())


class WithLion(ganlab.ScheduleWrapper):
    def optimizer(self, player: str, parameters: list[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
        return Lion(parameters, 1e-3)


class LookAhead(torch.optim.Adam):
    """Adam that takes back half of every five steps, which it counts itself (arXiv:1907.08610)."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, fused=True)
        self.taken = 0
        self.slow = [p.detach().clone() for group in self.param_groups for p in group["params"]]

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step(closure)
        self.taken += 1
        if self.taken % 5 == 0:
            for slow, fast in zip(self.slow, self.param_groups[0]["params"], strict=True):
                slow.lerp_(fast, 0.5)
                fast.copy_(slow)


class WithLookAhead(ganlab.ScheduleWrapper):
    def optimizer(self, player: str, parameters: list[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
        return LookAhead(parameters)


@ganlab.hookimpl
def ganlab_losses() -> dict[str, type[ganlab.Loss]]:
    return {"spoils": Spoils}


@ganlab.hookimpl
def ganlab_schedules() -> dict[str, type[ganlab.Schedule]]:
    return {"counted": Counted, "with_lion": WithLion, "with_look_ahead": WithLookAhead}


REGISTRY = Registry([*installed(), EntryPoint("kinds", __name__, "ganlab")])
FAULTS = {
    "item": r"losses\.spoiled: reads values of the device \(aten::_local_scalar_dense\), so",
    "branch": r"losses\.spoiled: reads values of the device",
    "mask": r"losses\.spoiled: reads values of the device \(aten::index",
    "step": r"losses\.spoiled: reads t\.step, so",
    "buffer": r"losses\.spoiled: replaces its tensor 'kept' instead of changing it in place, so",
    "random": r"losses\.spoiled: draws from Python's random, and a graph repeats the number, so",
    "attribute": r"losses\.spoiled: changes 'calls' \(\d+, then \d+\), which a graph does not repeat, so",
}


@pytest.mark.parametrize("how", FAULTS)
def test_a_loss_that_no_graph_repeats_is_named_once_and_the_run_continues(how: str) -> None:
    patch = {"losses": {"spoiled": {"type": "spoils", "how": how}}}
    ordinary, captured = (make_trainer(patch, known=REGISTRY) for _ in range(2))
    graphs, warnings = capturing(captured)
    for trainer in (ordinary, captured):
        random.seed(1)
        take(trainer, 3)
    (warning,) = warnings
    assert re.match(FAULTS[how], warning)
    assert "the steps are not captured as CUDA graphs" in warning
    assert "(loss 'spoils'" in warning
    assert graphs.replays == 0
    assert_same(ordinary, captured)


@pytest.mark.parametrize(
    ("how", "fault"),
    [
        ("host", r"uses a tensor of the host beside tensors of the device \(aten::mul.Tensor\)"),
        ("numbers", r"makes a tensor on the device from Python numbers"),
        ("drawn", r"draws random numbers on the host \(aten::rand\)"),
        ("copy", r"copies a tensor between the host and the device \(aten::_to_copy\)"),
    ],
)
def test_tensors_of_the_host_are_found(how: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    patch = {"losses": {"spoiled": {"type": "spoils", "how": how}}}
    trainer = on_meta(make_trainer(patch, known=REGISTRY), monkeypatch)
    assert (found := reads_of_a_step(trainer)) is not None
    assert found[0] == "losses.spoiled"
    assert re.fullmatch(fault, found[1])


def test_an_optimizer_that_reads_its_rate_from_the_host_is_named() -> None:
    schedule = {"type": "with_lion", "of": {"type": "simultaneous", "steps": 6}}
    captured = make_trainer({"schedule": schedule}, known=REGISTRY)
    _, warnings = capturing(captured)
    take(captured, 2)
    (warning,) = warnings
    assert warning.startswith("schedule: the generator's optimizer, Lion, reads its learning rate from the host, so")
    assert "(schedule 'with_lion'" in warning


def test_an_optimizer_that_counts_its_steps_is_named() -> None:
    schedule = {"type": "with_look_ahead", "of": {"type": "simultaneous", "steps": 6}}
    captured = make_trainer({"schedule": schedule}, known=REGISTRY)
    graphs, warnings = capturing(captured)
    take(captured, 3)
    (warning,) = warnings
    assert warning.startswith("schedule: changes 'taken' (0, then 1), which a graph does not repeat, so the steps are")
    assert "(schedule 'with_look_ahead'" in warning
    assert graphs.replays == 0


class Breaks(Again):
    """A capture that fails in the middle of a step."""

    def capture(self, step: Replay) -> Replay:
        def fail(*_: Any, **__: Any) -> None:
            raise RuntimeError("operation not permitted when stream is capturing")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("torch.autograd.backward", fail)
            try:
                step()
            finally:
                # as `torch.cuda.graph` does when it is left
                raise RuntimeError("operation failed due to a previous error during capture")


def test_a_capture_that_fails_is_reported_once_and_the_step_is_taken() -> None:
    ordinary, captured = make_trainer(), make_trainer()
    warnings: list[str] = []
    graphs = Breaks(captured)
    captured.capture = StepCapture(captured.system, captured.state, captured.position, graphs, warnings.append)
    take(ordinary, 4)
    take(captured, 4)
    assert warnings == [
        "the generator's gradients of adversarial+cycle in direction ab+ba: operation not permitted when stream is"
        " capturing, so the steps are not captured as CUDA graphs"
    ]
    assert_same(ordinary, captured)
