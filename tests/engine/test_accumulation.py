"""Gradients averaged over the parts of a batch, clipped gradients, named parameters, networks adjusted after updates.
This module is a plugin itself."""

from __future__ import annotations

import copy
import re
from importlib.metadata import EntryPoint
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ganlab
from ganlab import Translation
from ganlab.components.registry import Registry, installed
from ganlab.determinism import keyed
from ganlab.engine.summary import activation_bytes
from ganlab.engine.trainer import Trainer
from ganlab.errors import SpecError
from ganlab.spec.files import merge
from ganlab.spec.resolve import resolve
from ganlab.system.build import build
from ganlab.testing.simple import SimpleGenerator
from helpers.plain_loop import record_gradients
from helpers.systems import TINY, RandomImages, make_trainer, stir


class Drawn(ganlab.Loss):
    """Logs random numbers, and has a parameter of its own."""

    trains = "discriminator"

    def __init__(self, every: Any = 1) -> None:
        super().__init__()
        self.every = every
        self.head = nn.Linear(1, 1)

    def discriminator(self, t: Translation) -> Tensor:
        t.log("number", t.uniform(3)[0])
        t.log("first image", t.uniform(len(t.source), 2)[0, 0])
        t.log("images", t.normal(len(t.source), 2).mean())
        return self.head(t.score(t.target).mean()[None]).square().sum()


class Rounding(SimpleGenerator):
    """Rounds its weights to sixteenths after each update."""

    def after_update(self) -> None:
        for p in self.parameters():
            p.copy_((p * 16).round() / 16)


class Wrapping(ganlab.Generator):
    """Wraps a generator and overrides nothing but its halves."""

    def __init__(self, of: ganlab.Generator) -> None:
        super().__init__()
        self.of = of

    def encode(self, images: Tensor) -> Tensor:
        return self.of.encode(images)

    def decode(self, embedding: Tensor) -> Tensor:
        return self.of.decode(embedding)


class Rates(ganlab.ScheduleWrapper):
    """Gives the norms' parameters no weight decay, and the discriminators other rates by their names."""

    seen: dict[str, list[str]]

    def __init__(self, of: ganlab.Schedule, largest: Any = None) -> None:
        super().__init__(of)
        self.seen = {}
        self.clip = of.clip if largest is None else largest

    def optimizer(self, player: str, parameters: list[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
        self.seen[player] = [name for name, _ in parameters]
        if player == "generator":
            return super().optimizer(player, parameters)
        biases = [(name, p) for name, p in parameters if name.endswith(".bias")]
        others = [(name, p) for name, p in parameters if not name.endswith(".bias")]
        return torch.optim.AdamW([{"params": others}, {"params": biases, "weight_decay": 0.0}], lr=1e-3)


class Computed(ganlab.ScheduleWrapper):
    """Fails when it is asked for its largest norm."""

    clip = property(lambda self: 1 / 0, lambda self, value: None)  # type: ignore[assignment]


@ganlab.hookimpl
def ganlab_losses() -> dict[str, type[ganlab.Loss]]:
    return {"drawn": Drawn}


@ganlab.hookimpl
def ganlab_generators() -> dict[str, type[ganlab.Generator]]:
    return {"rounding": Rounding, "wrapping": Wrapping}


@ganlab.hookimpl
def ganlab_schedules() -> dict[str, type[ganlab.Schedule]]:
    return {"rates": Rates, "computed": Computed}


REGISTRY = Registry([*installed(), EntryPoint("probes", __name__, "ganlab")])


def trained(patch: dict[str, Any], count: int, steps: int = 3) -> tuple[Trainer, list[dict[str, float]]]:
    """Trains TINY in float64 on batches of 8 in `count` parts, over which it averages."""
    base = merge(TINY, {"data": {"batch": 8}, "ema_halflife_images": 0.4})
    parts = {"runtime": {"precision": "float64", "accumulate": count}}
    spec = resolve(merge(merge(base, patch), parts), registry=REGISTRY)
    images = RandomImages(8)
    trainer = Trainer(build(spec, images.domains), images)
    stir(trainer)
    for _ in range(steps):
        trainer.step()
    return trainer, trainer.log.read(trainer.state)


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize(
    "patch",
    [
        {"schedule": {"pool": 5}, "losses": {"adversarial": {"type": "noisy_lsgan", "flip": 0.2}}},
        {"schedule": {"type": "alternating", "clip": 0.3}, "losses": {"identity": {"type": "identity", "weight": 5}}},
    ],
)
def test_averaging_over_parts_of_a_batch_equals_the_whole_batch(patch: dict[str, Any], count: int) -> None:
    (one, whole), (other, parts) = trained(patch, 1), trained(patch, count)
    for name, module in one.state.modules().items():
        torch.testing.assert_close(other.state.modules()[name].state_dict(), module.state_dict(), rtol=0, atol=1e-10)
    for mine, theirs in zip(whole, parts, strict=True):
        assert {**mine, "seconds": 0} == pytest.approx({**theirs, "seconds": 0}, rel=0, abs=1e-10)
    assert one.state.draws == other.state.draws == 3
    for direction, pool in one.state.pools.items():
        torch.testing.assert_close(other.state.pools[direction].state_dict(), pool.state_dict(), rtol=0, atol=1e-10)


def test_each_image_keeps_its_random_numbers_and_the_parts_share_the_others() -> None:
    """A loss logs the mean over the parts; numbers of the first image of each part are a mean of two images'."""
    logged = {}
    for count in (1, 2):
        _, (record,) = trained({"losses": {"drawn": {"type": "drawn"}}}, count, steps=1)
        logged[count] = {
            name: record[f"log/discriminator/ab/drawn/{name}"] for name in ("number", "first image", "images")
        }
    assert logged[2]["number"] == logged[1]["number"]
    assert logged[2]["images"] == pytest.approx(logged[1]["images"], rel=0, abs=1e-15)
    fifth = keyed(0, "draw", 0, 1, "ab", 1).random((8, 2))[4, 0]
    assert 2 * logged[2]["first image"] - logged[1]["first image"] == pytest.approx(fifth, rel=0, abs=1e-15)


@pytest.mark.parametrize("count", [3, 16])
def test_a_batch_without_equal_parts_is_refused(count: int) -> None:
    sentence = f"{count} is not allowed: data.batch, 8 images, can't be divided into {count} equal parts"
    with pytest.raises(SpecError, match=f"^{re.escape(f'spec: runtime.accumulate: {sentence}')}$"):
        trained({}, count)


@pytest.mark.parametrize("clip", [0.1, 1e9])
def test_clipping_is_torchs(clip: float) -> None:
    """The gradients that the optimizer sees, and the recorded norm before clipping."""
    clipped, free = (make_trainer({"schedule": {"clip": value}}) for value in (clip, None))
    for trainer in (clipped, free):
        stir(trainer)
    seen, raw = record_gradients(clipped), record_gradients(free)
    for trainer in (clipped, free):
        trainer.step()
    # the discriminators see the same fakes in the first step, so their gradients are those of the free system
    for mine, theirs in zip(seen, raw, strict=True):
        parameters = [nn.Parameter(torch.zeros_like(gradient)) for gradient in theirs.values()]
        for parameter, gradient in zip(parameters, theirs.values(), strict=True):
            parameter.grad = gradient.clone()
        nn.utils.clip_grad_norm_(parameters, clip)
        for parameter, gradient in zip(parameters, mine.values(), strict=True):
            torch.testing.assert_close(gradient, parameter.grad, rtol=0, atol=1e-14)
        assert all(torch.equal(*pair) for pair in zip(mine.values(), theirs.values(), strict=True)) == (clip > 1)
    one, other = (trainer.log.read(trainer.state)[0] for trainer in (clipped, free))
    for player in ("generator", "discriminator"):
        name = f"gradient/{player}/ab+ba"
        assert one[name] == other[name] > 0.1


@pytest.mark.parametrize(
    "schedule",
    [
        {"type": "alternating", "clip": 0.1},
        {"type": "wgan", "clip": 0.1},
        {"type": "four_updates", "reals": ["adversarial"], "fakes": ["adversarial"], "clip": 0.1},
        {"type": "sgd_discriminator", "of": {"type": "simultaneous", "clip": 0.1}, "steps": None},
    ],
)
def test_every_shipped_schedule_clips(schedule: dict[str, Any]) -> None:
    trainer = make_trainer({"schedule": schedule})
    stir(trainer)
    seen = record_gradients(trainer)
    trainer.step()
    norms = [torch.cat([gradient.flatten() for gradient in each.values()]).norm().item() for each in seen if each]
    assert norms == pytest.approx([0.1] * len(norms), rel=1e-4)
    (record,) = trainer.log.read(trainer.state)
    assert all(value > 0.1 for name, value in record.items() if name.startswith("gradient/"))


@pytest.mark.parametrize("clip", [0, -1.0, "1"])
def test_a_clip_that_is_no_norm_is_refused(clip: Any) -> None:
    schedule = {"type": "rates", "of": {"type": "simultaneous"}, "steps": None, "largest": clip}
    with pytest.raises(SpecError, match=f"schedule: 'rates' has clip {clip!r}, not a number above 0 or None"):
        make_trainer({"schedule": schedule}, known=REGISTRY)


def test_a_clip_that_fails_names_the_schedule() -> None:
    schedule = {"type": "computed", "of": {"type": "simultaneous"}, "steps": None}
    with pytest.raises(SpecError, match=r"schedule: schedule 'computed' of plugin 'probes' .*division by zero"):
        make_trainer({"schedule": schedule}, known=REGISTRY)


@pytest.mark.parametrize("every", [0, True, 1.5])
def test_a_loss_with_an_every_that_is_no_number_is_refused(every: Any) -> None:
    with pytest.raises(SpecError, match=f"losses.drawn: its `every` is {every}, not a number from 1 up"):
        make_trainer({"losses": {"drawn": {"type": "drawn", "every": every}}}, known=REGISTRY)


def test_a_nested_loss_is_not_left_out_of_steps() -> None:
    nested = {"type": "acgan_source", "of": {"type": "r1", "every": 2}}
    with pytest.raises(SpecError, match="a loss nested in it has `every` 2, which is not allowed"):
        make_trainer({"losses": {"drawn": nested}}, known=REGISTRY)


def test_parameters_come_with_names() -> None:
    patch = {
        "schedule": {"type": "rates", "of": {"type": "simultaneous", "steps": 6}, "steps": None},
        "losses": {"drawn": {"type": "drawn"}},
    }
    trainer = make_trainer(patch, known=REGISTRY)
    schedule = trainer.schedule
    assert isinstance(schedule, Rates)
    for player, names in schedule.seen.items():
        modules = {name: m for name, m in trainer.networks.modules.items() if name.startswith(player)}
        modules |= {"losses/drawn": trainer.system.losses["drawn"]} if player == "discriminator" else {}
        assert names == [f"{name}.{part}" for name, m in modules.items() for part, _ in m.named_parameters()]
    assert {"discriminator/image/b.net.0.weight", "losses/drawn.head.bias"} <= set(schedule.seen["discriminator"])
    groups = trainer.state.optimizers["discriminator"].param_groups
    assert [group["weight_decay"] for group in groups] == [0.01, 0.0]
    assert all(name.endswith(".bias") for name in groups[1]["param_names"])
    assert schedule.directions == schedule.of.directions == ("ab", "ba")
    trainer.step()


def test_a_wrapper_asks_the_schedule_that_it_wraps() -> None:
    registry = REGISTRY
    of = {"type": "simultaneous", "steps": 7, "decay_from": 0.5, "pool": 3, "clip": 0.5}
    made = registry.find("schedule", "simultaneous", "here").cls(**{k: v for k, v in of.items() if k != "type"})
    wrapper = Rates(made)
    assert (wrapper.steps, wrapper.clip) == (7, 0.5)
    wrapper.directions = ("ba",)
    assert list(wrapper.turns(3)) == list(made.turns(3))
    assert [wrapper.learning_rate("generator", step) for step in range(7)] == [
        made.learning_rate("generator", step) for step in range(7)
    ]
    assert wrapper.weight("cycle", "generator", 2) == made.weight("cycle", "generator", 2)
    pool = wrapper.pool(ganlab.Domain("b", 3, 4, 4))
    assert pool is not None
    assert pool.state_dict()["images"].shape == (3, 3, 4, 4)


@pytest.mark.parametrize("wrapped", [False, True])
def test_generators_are_adjusted_after_their_updates(wrapped: bool) -> None:
    inner = {"type": "rounding", "width": None, "blocks": None}
    patch = {
        "generator": {"type": "wrapping", "of": {"type": "rounding"}, "width": None, "blocks": None}
        if wrapped
        else inner,
        "schedule": {"type": "alternating", "lr": 0.05},
    }
    trainer = make_trainer(patch, known=REGISTRY)
    before = copy.deepcopy(trainer.networks.modules)
    trainer.step()
    for direction in ("ab", "ba"):
        moved = 0.0
        for p, q in zip(
            trainer.networks.generator(direction).parameters(),
            before[f"generator/{direction}"].parameters(),
            strict=True,
        ):
            assert torch.equal(p * 16, (p * 16).round())
            assert not torch.equal(q * 16, (q * 16).round())
            moved += float((p - q).detach().abs().sum())
        assert moved > 0


class Held:
    """A tensor that autograd keeps for a gradient. `now` and `most` count the bytes of all that are kept."""

    now = most = 0

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.bytes = tensor.detach(), 0 if isinstance(tensor, nn.Parameter) else tensor.nbytes
        Held.now += self.bytes
        Held.most = max(Held.most, Held.now)

    def __del__(self) -> None:
        Held.now -= self.bytes


@pytest.mark.parametrize(("schedule", "factor"), [("simultaneous", 3), ("alternating", 1)])
def test_parts_save_memory_if_the_generators_turn_is_first(schedule: str, factor: int) -> None:
    """The estimate of the memory shrinks as much as what autograd keeps."""
    kept, estimated = [], []
    for parts in (1, 3):
        patch = {"data": {"batch": 6}, "schedule": {"type": schedule}, "runtime": {"accumulate": parts}}
        trainer = make_trainer(patch, batch=6)
        Held.now = Held.most = 0
        with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
            trainer.step()
        kept.append(Held.most)
        estimated.append(activation_bytes(trainer, 6, parts))
    assert estimated[0] / estimated[1] == factor
    assert factor / 1.3 < kept[0] / kept[1] < factor / 0.6
