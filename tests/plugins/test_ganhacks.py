"""The hacks against formulas written out, closed forms, counts and a run that was saved in its middle."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from conftest import RandomImages
from ganlab_cyclegan.discriminator import Patch
from ganlab_embedding import EmbeddingDiscriminator
from ganlab_ganhacks.instance_noise import InstanceNoise
from test_losses import noise
from torch import Tensor

import ganlab
from ganlab.engine import Engine

Make = Callable[..., Engine]

PATCH = {"type": "patch", "width": 4, "layers": 1}


class Itself(ganlab.Discriminator):
    """Its scores are what it sees."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_instance_noise_is_gaussian_and_falls_linearly_to_nothing() -> None:
    noisy = InstanceNoise(Itself(), std=0.5, updates=4)
    x = noise(8, 3, 40, 40)
    torch.manual_seed(0)
    for expected in (0.5, 0.375, 0.25, 0.125, 0.0, 0.0):
        added = (noisy(x) - x).flatten()
        if expected:
            # of 38,400 numbers the deviation's own relative deviation is 1 / sqrt(2 * 38400) = 0.0036
            assert float(added.std()) == pytest.approx(expected, rel=0.02)
            assert float(added.mean()) == pytest.approx(0, abs=expected * 0.026)
            assert float((added / expected).pow(4).mean()) == pytest.approx(3, abs=0.25)
            assert float((added[1:] * added[:-1]).mean()) == pytest.approx(0, abs=expected**2 * 0.026)
        else:
            assert torch.equal(added, torch.zeros_like(added))
        noisy.after_update()


def test_instance_noise_is_the_global_generators_and_none_in_eval_mode() -> None:
    noisy = InstanceNoise(Itself(), std=0.5, updates=4)
    noisy.after_update()
    x = noise(2, 3, 4, 4).requires_grad_()
    torch.manual_seed(3)
    found = noisy(x)
    torch.manual_seed(3)
    torch.testing.assert_close(found, x + 0.375 * torch.randn(2, 3, 4, 4).double(), rtol=0, atol=1e-7)
    (gradient,) = torch.autograd.grad(found.square().sum() / 2, x)
    torch.testing.assert_close(gradient, found, rtol=0, atol=0)
    assert torch.equal(noisy.eval()(x), x)


def test_a_discriminator_with_noise_is_seen_as_what_it_wraps() -> None:
    assert InstanceNoise(EmbeddingDiscriminator(ganlab.Domain("embedding", 4, 4, 4), 2, 1)).sees == "embeddings"
    assert not InstanceNoise(Patch(RandomImages().domains["a"], 4, 2, norm="batch")).per_image
    assert InstanceNoise(Patch(RandomImages().domains["a"], 4, 1)).per_image


SYSTEMS: dict[str, dict[str, Any]] = {
    "instance_noise": {"discriminators": {"image": {"type": "instance_noise", "updates": 3, "of": PATCH}}},
}


@pytest.mark.parametrize("system", SYSTEMS)
def test_from_a_saved_state_the_next_steps_are_the_same_to_the_bit(make_engine: Make, system: str) -> None:
    patch = {"ema_halflife_images": 8, "schedule": {"lr": 2e-3}} | SYSTEMS[system]
    engine = make_engine(patch)
    for _ in range(2):
        engine.step()
    again = make_engine(patch)
    for name, module in engine.modules().items():
        again.modules()[name].load_state_dict(module.state_dict())
    state = copy.deepcopy(engine.state())
    for _ in range(2):
        engine.step()
    again.load_state(state)
    for _ in range(2):
        again.step()
    for name, module in engine.modules().items():
        torch.testing.assert_close(again.modules()[name].state_dict(), module.state_dict(), rtol=0, atol=0)
    assert all(np.isfinite(value) for record in again.read() for value in record.values())


def test_the_noise_counts_the_updates_of_its_own_discriminator(make_engine: Make) -> None:
    """Two of its players' turns a step ask each score anew, one of them updates it."""
    engine = make_engine(SYSTEMS["instance_noise"])
    for _ in range(2):
        engine.step()
    for domain in "ab":
        assert int(engine.modules()[f"discriminator/image/{domain}"].done) == 2  # type: ignore[call-overload]
        # the fake for the generator; the fake and the real for itself
        assert engine.system.networks.forwards[f"discriminator/image/{domain}.forward"] == 2 * 3
