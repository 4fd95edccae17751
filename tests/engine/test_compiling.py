"""Compiled networks: the results, which networks are compiled, and the refusals. This module is a plugin itself."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ganlab
from ganlab import Translation
from ganlab.components.registry import Registry, installed
from ganlab.engine.trainer import Trainer
from ganlab.errors import RunError, SpecError
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from ganlab.system import compiling
from helpers.capturing import capturing, experiment
from helpers.experiments import FILES
from helpers.systems import make_trainer
from helpers.trained import assert_same, state_of

# torch's compiler reads every attribute of its inputs
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")


class Small(ganlab.Generator):
    """Has a norm over the batch, and draws random numbers."""

    stateful = True

    def __init__(self, source: ganlab.Domain, target: ganlab.Domain) -> None:
        super().__init__()
        # the norm removes a bias, and Adam would enlarge the rounding errors of its gradient
        self.down = nn.Conv2d(source.channels, 4, 1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.up = nn.Conv2d(4, target.channels, 1)

    def encode(self, images: Tensor) -> Tensor:
        x: Tensor = self.norm(self.down(images))
        # `rand_like` would draw in the order of the memory, which the compiler may choose
        return (x + 0.1 * torch.rand(x.shape, dtype=x.dtype)).relu()

    def decode(self, embedding: Tensor) -> Tensor:
        return torch.tanh(self.up(embedding))


class Clipped(ganlab.Discriminator):
    """Changes its weights in place after each update."""

    def __init__(self, domain: ganlab.Domain) -> None:
        super().__init__()
        self.layer = nn.Conv2d(domain.channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.layer(x)
        return scores

    def after_update(self) -> None:
        self.layer.weight.clamp_(-0.3, 0.3)


class Branching(Clipped):
    """Its Python depends on values, which no compiler knows."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > 0 else -x)


class Late(ganlab.Loss):
    """From the second step on, penalises the slope of the scores, or scores what has too few channels."""

    def __init__(self, how: str = "slope") -> None:
        super().__init__()
        self.how = how

    def discriminator(self, t: Translation) -> Tensor:
        x = t.target
        if t.step == 0:
            return t.score(x).mean()
        if self.how == "channels":
            return t.score(x[:, :1]).mean()
        (slope,) = torch.autograd.grad(t.score(x).sum(), x, create_graph=True)
        return slope.square().mean()


class Twice(ganlab.Loss):
    """Differentiates a network and keeps the graph. With `of`, differentiates the decoder or both networks twice."""

    def __init__(self, of: str = "") -> None:
        super().__init__()
        self.of = of

    def generator(self, t: Translation) -> Tensor:
        y = t.score(t.fake).mean() if self.of == "both" else t.fake.mean()
        (slope,) = torch.autograd.grad(y, t.embedding, create_graph=bool(self.of), retain_graph=True)
        return slope.square().mean() + y


@ganlab.hookimpl
def ganlab_generators() -> dict[str, type[ganlab.Generator]]:
    return {"small": Small}


@ganlab.hookimpl
def ganlab_discriminators() -> dict[str, type[ganlab.Discriminator]]:
    return {"clipped": Clipped, "branching": Branching}


@ganlab.hookimpl
def ganlab_losses() -> dict[str, type[ganlab.Loss]]:
    return {"late": Late, "twice": Twice}


REGISTRY = Registry([*installed(), EntryPoint("compiled", __name__, "ganlab")])

SMALL: dict[str, Any] = {
    "directions": ["ab"],
    "generator": {"type": "small"},
    "discriminators": {"image": {"type": "clipped"}},
    "losses": {"cycle": None},
    "schedule": {"pool": 6},
    "ema_halflife_images": 10,
}
COMPILED = {"runtime": {"compile": True}}


def trainer_of(patch: dict[str, Any]) -> Trainer:
    return make_trainer(merge(SMALL, patch), known=REGISTRY)


def take(trainer: Trainer, steps: int) -> Trainer:
    torch.manual_seed(1)
    for _ in range(steps):
        trainer.step()
    return trainer


def resumed(begun: Trainer, patch: dict[str, Any]) -> Trainer:
    """Returns another trainer with the state of one, and of the random generator."""
    state = copy.deepcopy(begun.state.state_dict())
    trainer = trainer_of(patch)
    trainer.state.load_state_dict(state)
    for name, module in begun.state.modules().items():
        trainer.state.modules()[name].load_state_dict(module.state_dict())
    return trainer


def assert_close(one: Trainer, other: Trainer, rtol: float = 1e-6, atol: float = 1e-8) -> None:
    for name, tensor in state_of(one).items():
        torch.testing.assert_close(state_of(other)[name], tensor, rtol=rtol, atol=atol, msg=name)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the compiler of code, which takes long: torch runs the graphs that it would be given."""
    monkeypatch.setattr(compiling, "code_generator", lambda deterministic: compiling.Compiler("aot_eager"))


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.faults)])
def test_compiled_networks_train_as_ordinary_ones_do(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64. Graphs of steps and a resume give the same bytes."""
    if backend == "aot_eager":
        monkeypatch.setattr(compiling, "code_generator", lambda deterministic: compiling.Compiler(backend))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    ordinary = take(trainer_of({}), 4)
    compiled = take(trainer_of(COMPILED), 4)
    assert_close(ordinary, compiled)
    assert compiled.networks.forwards == ordinary.networks.forwards
    captured = trainer_of(COMPILED)
    graphs, warnings = capturing(captured)
    take(captured, 4)
    assert (graphs.replays, warnings) == (3, [])
    half = take(trainer_of(COMPILED), 2)
    again = resumed(half, COMPILED)
    again.step()
    again.step()
    assert_same(compiled, captured, again)


@pytest.mark.parametrize(
    ("loss", "twice"),
    [
        ({"type": "r1"}, {"discriminator/image/b"}),
        ({"type": "twice"}, set()),
        ({"type": "twice", "of": "decoder"}, {"generator/ab"}),
        ({"type": "twice", "of": "both"}, {"generator/ab", "discriminator/image/b"}),
    ],
)
def test_networks_that_a_loss_differentiates_twice_stay_as_they_are(
    loss: dict[str, Any], twice: set[str], traced: None
) -> None:
    patch = {"losses": {"slope": loss}}
    trainer = trainer_of(patch | COMPILED)
    assert trainer.dry_run.differentiated_twice == twice
    take(trainer, 2)
    compiled = {name for name in trainer.networks.modules if (name, "features") in trainer.networks._compiled}
    assert compiled == {*trainer.networks.modules} - twice
    assert_close(take(trainer_of(patch), 2), trainer)


def refusal(call: Callable[[], object], kind: type[Exception]) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_loss_that_differentiates_twice_later_is_named(traced: None) -> None:
    trainer = take(trainer_of({"losses": {"slope": {"type": "late"}}} | COMPILED), 1)
    assert refusal(trainer.step, RunError).startswith(
        "losses.slope's discriminator term in direction ab at step 2: differentiates discriminator/image/b twice, which"
        " is compiled, so set runtime.compile to false (loss 'late' of plugin 'compiled'"
    )


def test_an_error_inside_a_compiled_network_is_told_as_without_a_compiler(traced: None) -> None:
    patch = {"losses": {"slope": {"type": "late", "how": "channels"}}}
    said = [refusal(take(trainer_of(patch | more), 1).step, RunError) for more in ({}, COMPILED)]
    assert "asks discriminator/image/b to score (4, 1, 16, 16), unlike the (N, 3, 16, 16)" in said[0]
    assert said[1] == said[0]


def test_a_network_that_can_not_be_compiled_is_named_before_training(traced: None) -> None:
    patch = {"discriminators": {"image": {"type": "branching"}}}
    trainer_of(patch)
    said = refusal(lambda: trainer_of(patch | COMPILED), SpecError)
    assert said.startswith("discriminators.image: can't score what is (3, 16, 16): can't be compiled, so set")
    assert "runtime.compile to false: " in said
    assert "(discriminator 'branching' of plugin 'compiled'" in said


@pytest.mark.faults
@pytest.mark.parametrize("name", [name for name in FILES if "/" not in name])
def test_a_shipped_experiment_is_compiled(name: str, traced: None) -> None:
    if name == "ganhacks.json":
        # its generator replaces a method of its layers for the length of a call
        said = refusal(lambda: experiment(name, COMPILED), SpecError)
        assert said.startswith("generator: can't translate images of (3, 32, 32): can't be compiled, so set")
        return
    # one step, because Adam enlarges the rounding errors of gradients that are 0
    assert_close(take(experiment(name), 1), take(experiment(name, COMPILED), 1), rtol=1e-3, atol=1e-3)


STEPS = """
import json, sys
import ganlab
spec, out, steps = sys.argv[1:]
ganlab.run(json.loads(spec), [f"schedule.steps={steps}"], out)
"""


@pytest.mark.faults
def test_a_run_that_resumes_in_a_new_process_and_compiles_again_has_the_same_bytes(tiny: Json, tmp_path: Path) -> None:
    # one direction, which takes less time to compile
    small = {"directions": ["ab"], "losses": {"cycle": None}, "generator": {"blocks": 1}}
    spec = merge(tiny, {**small, "runtime": {"compile": True}, "schedule": {"decay_from": 1.0}})
    # the process that resumes finds no compiled code
    for out, steps, cache in (("once", 4, "cache"), ("twice", 2, "cache"), ("twice", 4, "empty")):
        words = [sys.executable, "-c", STEPS, json.dumps(spec), str(tmp_path / out), str(steps)]
        subprocess.run(words, env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / cache)}, check=True)
    one, other = (
        (tmp_path / out / "checkpoints" / "step-000004" / "networks.safetensors").read_bytes()
        for out in ("once", "twice")
    )
    assert one == other


@pytest.mark.faults
def test_a_machine_without_a_cpp_compiler_is_told_before_training(tiny: Json, tmp_path: Path) -> None:
    spec = merge(tiny, {"runtime": {"compile": True}})
    words = [sys.executable, "-c", STEPS, json.dumps(spec), str(tmp_path / "run"), "4"]
    without = {"CXX": "missing", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(words, env=os.environ | without, capture_output=True, text=True, check=False)
    assert "SpecError: runtime.compile: true is not allowed here: torch can't compile for cpu: " in done.stderr
    assert not (tmp_path / "run").exists()


def test_compiled_networks_do_not_go_with_activations_that_are_computed_again() -> None:
    both = merge(COMPILED, {"runtime": {"checkpoint_activations": True}})
    assert refusal(lambda: trainer_of(both), SpecError) == (
        "spec: runtime.compile: true is not allowed with checkpoint_activations: true; a compiled network keeps what"
        " its backward pass needs"
    )
