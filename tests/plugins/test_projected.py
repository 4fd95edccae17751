"""Projected discriminators: projections in plain PyTorch, scores by a loop over scales, frozen parts in training."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from ganlab_cyclegan.losses import LSGAN
from ganlab_projected.discriminator import Projected
from ganlab_projected.projections import RandomProjections
from ganlab_regularisers.wrappers import SpectralNorm
from ganlab_wgan import Critic
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, leaky_relu

from ganlab import Domain, Translation
from ganlab.engine.trainer import Trainer
from ganlab.system.module_state import load_own_state, own_state
from ganlab.testing import check_discriminator
from helpers.maps import Maps
from helpers.one_turn import noise, number, one_turn
from helpers.synchronisation import no_synchronisation
from helpers.systems import SIZE

Make = Callable[..., Trainer]

DOMAIN = Domain("a", 3, SIZE, SIZE)


def make(**options: Any) -> Projected:
    torch.manual_seed(0)
    return Projected(DOMAIN, Maps(), **{"width": 2, "norm": "none", **options}).double()


def test_maps_are_mixed_across_channels_and_scales() -> None:
    """The coarsest map is mixed across channels; each finer one also gets the coarser one, convolved and enlarged."""
    torch.manual_seed(0)
    projections = RandomProjections([4, 5, 6], width=2).double()
    maps = [noise(3, 4, 12, 10), noise(3, 5, 6, 5), noise(3, 6, 3, 2)]
    weights = {name: p.detach() for name, p in projections.named_parameters()}
    mixed = [
        torch.einsum("nchw,dc->ndhw", m, weights[f"across_channels.{k}.weight"][:, :, 0, 0]) for k, m in enumerate(maps)
    ]
    expected = [mixed[2]]
    for scale in (1, 0):
        coarse = conv2d(expected[0], weights[f"across_scales.{scale}.weight"], padding=1)
        larger = interpolate(coarse, mixed[scale].shape[2:], mode="bilinear", align_corners=False)
        expected.insert(0, mixed[scale] + larger)
    assert [x.shape for x in expected] == [(3, 2, 12, 10), (3, 4, 6, 5), (3, 8, 3, 2)]
    assert all(float(x.std()) > 0.1 for x in expected)
    torch.testing.assert_close(projections(maps), expected, rtol=0, atol=1e-12)


def test_random_weights_keep_the_size_of_maps() -> None:
    """A convolution followed by no ReLU gives a mean square of 2 for inputs from N(0, 1) (arXiv:1502.01852)."""
    torch.manual_seed(0)
    projections = RandomProjections([64, 64], width=64).double()
    for layer, channels in ((projections.across_channels[1], 64), (projections.across_scales[0], 128)):
        y = layer(noise(4, channels, 16, 16))[..., 2:-2, 2:-2]
        assert number(y.square().mean()) == pytest.approx(2, rel=0.1)


def resized(images: Tensor, size: int) -> Tensor:
    return interpolate(images, (size, size), mode="bicubic", antialias=True).clamp(-1, 1)


@pytest.mark.parametrize("size", [None, 32, 16])
def test_the_scores_of_all_scales_are_stacked(size: int | None) -> None:
    """A discriminator of k convolutions of stride 2 for the k-th coarsest map, with weights of largest singular value
    1; images of SIZE pixels are resized."""
    network = make(size=size)
    x = noise(2, 3, SIZE, SIZE).tanh()
    # each reading of a weight is one power iteration
    for layer in (m for m in network.scales.modules() if isinstance(m, nn.Conv2d)):
        for _ in range(300):
            _ = layer.weight
    network.eval()
    side = size or Maps.size
    projected = network.projections(network.pretrained.maps(resized(x, side)))
    expected = []
    for scale, maps in enumerate(projected):
        layers = [m for m in network.scales[scale].modules() if isinstance(m, nn.Conv2d)]
        assert [layer.stride for layer in layers] == [(2, 2)] * (3 - scale) + [(1, 1)]
        y = maps
        for layer in layers:
            original: Any = layer.parametrizations
            weight = original.weight.original
            weight = weight / torch.linalg.matrix_norm(weight.flatten(1), 2)
            y = conv2d(y, weight, layer.bias, layer.stride, layer.padding)
            y = y if layer is layers[-1] else leaky_relu(y, 0.2)
        expected.append(y)
    score = side // 16
    assert {y.shape for y in expected} == {(2, 1, score, score)}
    torch.testing.assert_close(network(x), torch.cat(expected, dim=1), rtol=0, atol=1e-6)


def test_a_mean_of_scores_is_the_mean_over_the_discriminators() -> None:
    network = make()
    t = Translation("ab", one_turn(network.eval(), "discriminator"))
    real, fake = network(t.target), network(t.fake)
    squares = [(real[:, k] - 1).square().mean() + fake[:, k].square().mean() for k in range(3)]
    found = LSGAN().discriminator(t)
    assert number(found["real"] + found["fake"]) == pytest.approx(number(sum(squares) / 3), rel=1e-12)


def test_grey_images_are_repeated_and_others_refused() -> None:
    grey = noise(2, 1, SIZE, SIZE).tanh()
    network = make().eval()
    torch.testing.assert_close(network(grey), network(grey.expand(-1, 3, -1, -1)), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="expected images of 1 or 3 channels, got 4"):
        Projected(Domain("a", 4, SIZE, SIZE), Maps())


@pytest.mark.parametrize(("size", "sides"), [(8, [4, 2, 1]), (30, [15, 8, 4])])
def test_maps_that_do_not_halve_are_refused(size: int, sides: list[int]) -> None:
    with pytest.raises(
        ValueError, match=f"down to at least 2, got {re.escape(str(sides))} for images of {size} pixels"
    ):
        make(size=size)


def test_the_projections_are_kept_and_the_feature_network_is_not() -> None:
    """The own state has both kinds of random weights; with it, another network gives the same scores."""
    first, other = make(), Projected(DOMAIN, Maps(), width=2, norm="none").double()
    other.pretrained.load_state_dict(first.pretrained.state_dict())
    x = noise(2, 3, SIZE, SIZE)
    assert not torch.allclose(first(x), other(x))
    state = own_state(first)
    assert not [name for name in state if name.startswith("pretrained.")]
    assert {name.split(".")[1] for name in state if name.startswith("projections.")} == {
        "across_channels",
        "across_scales",
    }
    load_own_state(other, state)
    torch.testing.assert_close(first.eval()(x), other.eval()(x), rtol=0, atol=0)


def test_only_the_small_discriminators_are_trained(make_trainer: Make) -> None:
    """EfficientNet-Lite0 at 64 pixels gives four scales. The gradients reach the generators."""
    projected = {"type": "projected", "features": {"type": "lite0"}, "size": 64, "width": 2}
    losses = {"adversarial": {"type": "hinge_gan"}, "cycle": None}
    trainer = make_trainer({"directions": ["ab"], "discriminators": {"image": projected}, "losses": losses}, batch=2)
    before = copy.deepcopy(trainer.system.networks.modules)
    trainer.step()
    name = "discriminator/image/b"
    now, then = (dict(modules[name].named_parameters()) for modules in (trainer.system.networks.modules, before))
    assert {key.split(".")[0] for key in now} == {"pretrained", "projections", "scales"}
    assert {key.split(".")[0] for key, value in now.items() if not torch.equal(value, then[key])} == {"scales"}
    assert {key.split(".")[0] for key, value in now.items() if value.requires_grad} == {"scales"}
    assert trainer.system.networks.score(name, noise(2, 3, SIZE, SIZE)).shape == (2, 4, 1, 1)
    (record,) = trainer.log.read(trainer.state)
    assert record["gradient/generator/ab"] > 0


def test_wrappers_leave_the_feature_network_as_it_is() -> None:
    network = make()
    before = copy.deepcopy(network.pretrained.state_dict())
    Critic(network, clamp=1e-3).after_update()
    torch.testing.assert_close(network.pretrained.state_dict(), before, rtol=0, atol=0)
    assert max(float(p.detach().abs().max()) for p in network.scales.parameters()) == 1e-3
    wrapped = SpectralNorm(make())
    assert [name for name in wrapped.state_dict() if "parametrizations" in name and ".scales." not in name] == []


def test_a_forward_never_waits_for_the_device() -> None:
    network = make(norm="batch")
    x = noise(2, 3, SIZE, SIZE).requires_grad_()
    with no_synchronisation():
        network(x).mean().backward()


def test_the_conformance_kit() -> None:
    check_discriminator(Projected, features=Maps, width=2, size=16, images=Domain("grey", 1, 12, 20))
