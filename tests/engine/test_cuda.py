"""Tests that need a CUDA device."""

from __future__ import annotations

import copy
import hashlib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from torch import Tensor

import ganlab
from ganlab.components.registry import Registry, installed
from ganlab.data.sampler import Batch, to_device
from ganlab.engine.step_log import Record
from ganlab.engine.trainer import Trainer
from ganlab.interfaces.losses import Translation
from ganlab.parts import WHOLE, Part
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from ganlab.spec.resolve import resolve
from ganlab.system.build import build
from helpers.systems import TINY, RandomImages
from helpers.trained import assert_same

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; torch sees none here")

EVERYTHING: Json = {
    "discriminators": {"embedding": {"type": "embedding", "width": 4}},
    "losses": {
        "adversarial": {"type": "noisy_lsgan"},
        "embedding": {"type": "embedding_lsgan"},
        "identity": {"type": "identity"},
    },
    "schedule": {"pool": 6},
    "ema_halflife_images": 10,
}


class OnCuda(RandomImages):
    def __call__(self, draw: int, part: Part = WHOLE) -> Batch:
        batch = super().__call__(draw, part)
        return batch._replace(images={k: to_device(v, torch.device("cuda")) for k, v in batch.images.items()})


def trainer_on(device: str, patch: Json) -> Trainer:
    spec = resolve(merge(merge(TINY, {"runtime": {"device": device}}), patch))
    images = (OnCuda if device == "cuda" else RandomImages)(4, 16, torch.float64)
    return Trainer(build(spec, images.domains), images)


def trained(patch: Json, capture: bool, steps: int, begun: Trainer | None = None) -> tuple[Trainer, list[str]]:
    """Trains on CUDA, from the state of another trainer if there is one. Returns the trainer and its warnings."""
    asked = merge(TINY, {"runtime": {"device": "cuda", "capture": capture}})
    spec = resolve(merge(asked, patch), registry=REGISTRY)
    images, warnings = OnCuda(4, 16, torch.float32), list[str]()
    trainer = Trainer(build(spec, images.domains), images, warnings.append)
    if begun is not None:
        trainer.state.load_state_dict(copy.deepcopy(begun.state.state_dict()))
        for name, module in begun.state.modules().items():
            trainer.state.modules()[name].load_state_dict(module.state_dict())
    for _ in range(steps):
        trainer.step()
    return trainer, warnings


KINDS: dict[str, Json] = {
    "a pool, noise, an average and a loss that fades out": merge(
        EVERYTHING, {"schedule": {"fade_out": {"cycle": 12}, "decay_from": 0.5, "steps": 32}}
    ),
    "steps with more turns, and RMSprop": {
        "discriminators": {"image": {"type": "critic", "of": {"type": "patch", "width": 4, "layers": 1}}},
        "losses": {"adversarial": {"type": "wasserstein"}, "penalty": {"type": "gradient_penalty"}},
        "schedule": {"type": "wgan", "critic_updates": 1, "long_start": True, "long_updates": 2, "steps": 32},
    },
    "networks that draw, SGD and a clipped gradient": {
        "generator": {"type": "dropout", "of": {"type": "resnet", "width": 4, "blocks": 2}},
        "discriminators": {"image": {"type": "diff_augment", "of": {"type": "patch", "width": 4, "layers": 1}}},
        "schedule": {"type": "sgd_discriminator", "of": {"type": "simultaneous", "steps": 32, "clip": 1.0}},
    },
}


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("what", KINDS)
def test_captured_steps_have_the_bytes_of_ordinary_steps(what: str, precision: str) -> None:
    """Also after a resume in the middle, and where the kind of the step changes."""
    patch = merge(KINDS[what], {"runtime": {"precision": precision}})
    ordinary, _ = trained(patch, False, 32)
    captured, warnings = trained(patch, True, 32)
    half, _ = trained(patch, True, 15)
    resumed, _ = trained(patch, True, 17, half)
    assert warnings == []
    assert captured.capture is not None
    assert captured.capture.possible
    assert_same(ordinary, captured, resumed)


@pytest.mark.parametrize("capture", [False, True])
@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_a_step_never_waits_for_the_device(precision: str, capture: bool) -> None:
    # the first step is taken as usual, and the second one captured, before which all else has to be done
    trainer, warnings = trained(merge(EVERYTHING, {"runtime": {"precision": precision}}), capture, 2)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.batches(7)
        trainer.step()
        trainer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert warnings == []
    assert trainer.log.read(trainer.state)


class Waits(ganlab.Loss):
    """Waits for the device: by reading a value, or by a call that no operation shows."""

    def __init__(self, how: str = "item") -> None:
        super().__init__()
        self.how = how

    def generator(self, t: Translation) -> Tensor:
        value = t.score(t.fake).mean()
        if self.how == "item":
            return value * value.detach().abs().item()
        torch.cuda.synchronize()
        return value


@ganlab.hookimpl
def ganlab_losses() -> dict[str, type[ganlab.Loss]]:
    return {"waits": Waits}


REGISTRY = Registry([*installed(), EntryPoint("waiting", __name__, "ganlab")])


@pytest.mark.parametrize("how", ["item", "synchronize"])
def test_a_component_that_waits_is_named_and_the_run_continues(how: str) -> None:
    # after a capture that failed, the network must still be able to draw random numbers
    generator = KINDS["networks that draw, SGD and a clipped gradient"]["generator"]
    patch = {"generator": generator, "losses": {"waiting": {"type": "waits", "how": how}}}
    ordinary, nothing = trained(patch, False, 5)
    captured, warnings = trained(patch, True, 5)
    assert nothing == []
    (warning,) = warnings
    assert warning.startswith("losses.waiting: ")
    assert "the steps are not captured as CUDA graphs" in warning
    assert_same(ordinary, captured)


def test_cuda_computes_what_the_cpu_does_in_float64() -> None:
    patch = merge(EVERYTHING, {"runtime": {"precision": "float64"}})
    records: dict[str, list[Record]] = {}
    for device in ("cpu", "cuda"):
        trainer = trainer_on(device, patch)
        for _ in range(3):
            trainer.step()
        records[device] = trainer.log.read(trainer.state)
    for cpu, cuda in zip(records["cpu"], records["cuda"], strict=True):
        assert cuda == pytest.approx(cpu | {"seconds": cuda["seconds"]}, rel=1e-8, abs=1e-10)


@pytest.mark.parametrize("upsampling", ["transposed", "resize"])
def test_the_same_spec_twice_gives_the_same_bytes(tiny: Json, tmp_path: Path, upsampling: str) -> None:
    spec = merge(tiny, {"runtime": {"device": "cuda"}, "generator": {"upsampling": upsampling}})
    runs = [ganlab.run(merge(spec, EVERYTHING), out=tmp_path / name) for name in ("one", "two")]
    one, two = (hash_of(run.folder / "checkpoints" / f"step-{run.step:06d}" / "networks.safetensors") for run in runs)
    assert one == two


def test_an_evaluation_gives_the_same_bytes_again_and_the_cpus_results(
    tiny: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path / "cache"))
    evaluation = {"metrics": ["kid", "fid", "embedding_space"], "features": "lite0", "every": 3}
    asked = {"runtime": {"device": "cuda", "precision": "float32"}, "data": {"holdout": 0.8}, "evaluation": evaluation}
    done = ganlab.run(merge(tiny, asked), out=tmp_path / "run")
    assert done.evaluation is not None
    assert ganlab.evaluate(tmp_path / "run") == done.evaluation
    kept = tmp_path / "run" / "spec.json"
    kept.write_text(kept.read_text().replace('"device": "cuda"', '"device": "cpu"'))
    for cpu, cuda in zip(ganlab.evaluate(tmp_path / "run")["results"], done.evaluation["results"], strict=True):
        assert cuda["value"] == pytest.approx(cpu["value"], rel=0.02, abs=1e-3), cuda["number"]


def hash_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_compiled_networks_train_as_ordinary_ones_do_and_give_the_same_bytes_again() -> None:
    """Also from CUDA graphs and after a resume. The last test of the file, because it takes long."""
    patch = merge(EVERYTHING, {"schedule": {"steps": 8}, "runtime": {"precision": "float32"}})
    compiled = merge(patch, {"runtime": {"compile": True}})
    ordinary, _ = trained(patch, True, 6)
    captured, warnings = trained(compiled, True, 6)
    half, _ = trained(compiled, True, 3)
    assert (len(warnings), captured.capture is not None and captured.capture.possible) == (1, True)
    assert_same(captured, trained(compiled, False, 6)[0], trained(compiled, True, 3, half)[0])
    for name, module in ordinary.state.modules().items():
        for key, tensor in module.state_dict().items():
            torch.testing.assert_close(captured.state.modules()[name].state_dict()[key], tensor, rtol=1e-2, atol=1e-3)
