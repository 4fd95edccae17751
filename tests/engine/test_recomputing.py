"""Activations that the backward computes again: the same bytes, and less memory. This module is a plugin itself."""

from __future__ import annotations

import weakref
from importlib.metadata import EntryPoint
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import ganlab
from ganlab import Translation
from ganlab.components.registry import Registry, installed
from ganlab.engine.summary import activation_bytes
from ganlab.engine.trainer import Trainer
from ganlab.spec.files import merge
from helpers.systems import make_trainer, stir

PATCH = {"type": "patch", "width": 4, "layers": 1}
IDENTITY = {"identity": {"type": "identity"}}


class FeatureMatching(ganlab.Loss):
    """The distance of all activations of a fake and of a real image, in the discriminator and in the generator."""

    def generator(self, t: Translation) -> Tensor:
        pairs = [*zip(t.activations(t.fake), t.activations(t.target), strict=True)]
        pairs += zip(t.features("fake"), t.features("target"), strict=True)
        return torch.stack([(one - other).abs().mean() for one, other in pairs]).sum()


class Drawing(ganlab.Generator):
    """Draws random numbers, has batch norm, and counts its forwards in a buffer that its output depends on."""

    stateful = True
    uses: Tensor

    def __init__(self, source: ganlab.Domain, target: ganlab.Domain) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(source.channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Dropout(0.3))
        self.up = nn.Conv2d(8, target.channels, 3, padding=1)
        self.register_buffer("uses", torch.zeros((), dtype=torch.float64))

    def encode(self, images: Tensor) -> Tensor:
        self.uses += 1
        down: Tensor = self.down(images)
        return (down + 0.01 * self.uses + torch.rand_like(down)).relu()

    def decode(self, embedding: Tensor) -> Tensor:
        return torch.tanh(self.up(embedding))


@ganlab.hookimpl
def ganlab_losses() -> dict[str, type[ganlab.Loss]]:
    return {"matching": FeatureMatching}


@ganlab.hookimpl
def ganlab_generators() -> dict[str, type[ganlab.Generator]]:
    return {"drawing": Drawing}


REGISTRY = Registry([*installed(), EntryPoint("probes", __name__, "ganlab")])

SYSTEMS: dict[str, dict[str, Any]] = {
    "face2comic": {
        "discriminators": {"embedding": {"type": "embedding", "width": 4, "layers": 1}},
        "losses": IDENTITY | {"adversarial": {"type": "noisy_lsgan"}, "embedding": {"type": "embedding_lsgan"}},
        "schedule": {"type": "alternating", "moves": "both"},
        "ema_halflife_images": 10,
    },
    "pool": {"schedule": {"pool": 6}, "losses": IDENTITY},
    "augmented": {
        "discriminators": {"image": {"type": "diff_augment", "of": PATCH}},
        "losses": {"r1": {"type": "r1"}, "r2": {"type": "r2"}},
    },
    "spectral": {"discriminators": {"image": {"type": "spectral_norm", "of": PATCH}}, "losses": {"r1": {"type": "r1"}}},
    "wgan": {
        "discriminators": {"image": {"type": "critic", "of": PATCH, "clamp": 0}},
        "losses": {"adversarial": {"type": "wasserstein"}, "penalty": {"type": "gradient_penalty"}},
        "schedule": {"type": "wgan", "critic_updates": 2},
    },
    "matching": {"losses": {"matching": {"type": "matching"}}},
    "drawing": {"generator": {"type": "drawing", "width": None, "blocks": None}, "losses": IDENTITY},
}


def trainer_of(patch: dict[str, Any], recomputes: bool) -> Trainer:
    patch = merge(patch, {"runtime": {"checkpoint_activations": recomputes}})
    trainer = make_trainer(patch, known=REGISTRY)
    stir(trainer)
    return trainer


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_bytes_are_those_of_kept_activations(system: str) -> None:
    kept, again = (trainer_of(SYSTEMS[system], recomputes) for recomputes in (False, True))
    uses = []
    for trainer in (kept, again):
        torch.manual_seed(1)
        for _ in range(3):
            trainer.step()
        uses.append(dict(trainer.networks.forwards))
    for name, module in kept.state.modules().items():
        torch.testing.assert_close(again.state.modules()[name].state_dict(), module.state_dict(), rtol=0, atol=0)
    records = [[record | {"seconds": 0} for record in t.log.read(t.state)] for t in (kept, again)]
    assert records[0] == records[1]
    assert uses[0] == uses[1]


class Live(TorchDispatchMode):
    """Counts the bytes of the tensors that operators made and that are still there."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and (storage := tensor.untyped_storage())._cdata not in self._known:
                self._known.add(storage._cdata)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())
        self.most = max(self.most, self.now)
        return made

    def _freed(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def test_a_step_takes_less_memory_and_the_estimate_knows() -> None:
    # what is inside of a deep generator outweighs its outputs
    deep = merge(SYSTEMS["pool"], {"generator": {"blocks": 12}})
    most, estimated = [], []
    for recomputes in (False, True):
        trainer = trainer_of(deep, recomputes)
        trainer.step()
        with Live() as live:
            trainer.step()
        most.append(live.most)
        estimated.append(activation_bytes(trainer, 4, 1))
    assert most[1] < 0.6 * most[0]
    assert estimated[1] < 0.6 * estimated[0]
    # gradients are not part of the estimate
    assert all(0.9 < peak / activations < 1.7 for peak, activations in zip(most, estimated, strict=True))
