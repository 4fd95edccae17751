"""Tests that need a CUDA device."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

import ganlab
from ganlab.data.sampler import Batch
from ganlab.engine.step_log import Record
from ganlab.engine.trainer import Trainer
from ganlab.parts import WHOLE, Part
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from ganlab.spec.resolve import resolve
from ganlab.system.build import build
from helpers.systems import TINY, RandomImages

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
        return batch._replace(images={k: v.cuda() for k, v in batch.images.items()})


def trainer_on(device: str, patch: Json) -> Trainer:
    spec = resolve(merge(merge(TINY, {"runtime": {"device": device}}), patch))
    images = (OnCuda if device == "cuda" else RandomImages)(4, 16, torch.float64)
    return Trainer(build(spec, images.domains), images)


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_a_step_never_waits_for_the_device(precision: str) -> None:
    spec = resolve(merge(merge(TINY, {"runtime": {"device": "cuda", "precision": precision}}), EVERYTHING))
    images = OnCuda(4, 16, torch.float32)
    trainer = Trainer(build(spec, images.domains), images)
    trainer.step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.batches(7)
        trainer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert trainer.log.read(trainer.state)


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
