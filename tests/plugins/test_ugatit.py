"""U-GAT-IT: attention and AdaLIN by NumPy, networks by their layers' sizes, losses and training by plain PyTorch."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from ganlab_regularisers.wrappers import SpectralNorm
from ganlab_ugatit import CAM, CAMLSGAN, UGATIT, CAMPatch
from ganlab_ugatit.layers import LIN, AdaLIN, AdaptiveResidual, Attention
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, l1_loss, mse_loss

from ganlab import Domain, Translation
from ganlab.engine.trainer import Trainer
from ganlab.testing import check_loss
from helpers.one_turn import Linear, noise, number, one_turn
from helpers.plain_loop import LR, PlainLoop, adam, check_training, images, stirred_copies
from helpers.systems import DIRECTIONS, SIZE

Make = Callable[..., Trainer]

DOMAIN = Domain("a", 3, SIZE, SIZE)
PATCHES = {
    name: {"type": "spectral_norm", "of": {"type": "cam_patch", "width": 3, "layers": layers}}
    for name, layers in (("global", 2), ("local", 1))
}
SYSTEM: dict[str, Any] = {
    "generator": {"type": "ugatit", "width": 2, "blocks": 1},
    "discriminators": {"image": None, **PATCHES},
    "losses": {
        "adversarial": {"type": "cam_lsgan", "names": ["global", "local"]},
        "cycle": {"weight": 10},
        "identity": {"type": "identity", "weight": 10},
        "cam": {"type": "cam", "weight": 1000},
    },
}


def adalin(x: Tensor, rho: Tensor, gamma: Tensor, beta: Tensor) -> np.ndarray[Any, Any]:
    """Eq. (1), channel by channel of each image."""
    found = np.empty(x.shape)
    for n, image in enumerate(x.detach().numpy()):
        layer = (image - image.mean()) / np.sqrt(image.var() + 1e-5)
        for c, plane in enumerate(image):
            instance = (plane - plane.mean()) / np.sqrt(plane.var() + 1e-5)
            r = rho[c].item()
            found[n, c] = gamma[n, c].item() * (r * instance + (1 - r) * layer[c]) + beta[n, c].item()
    return found


def test_adalin_is_the_formula() -> None:
    x = 3 * noise(2, 4, 5, 6) + noise(1, 4, 1, 1, seed=1)
    gamma, beta, rho = noise(2, 4, 1, 1, seed=2), noise(2, 4, 1, 1, seed=3), torch.tensor([0.0, 0.3, 0.8, 1.0])
    norm = AdaLIN(4, rho=1.0).double()
    np.testing.assert_allclose(norm(x, gamma, beta).detach(), adalin(x, torch.ones(4), gamma, beta), atol=1e-12)
    norm.rho.data.copy_(rho[:, None, None])
    expected = adalin(x, rho, gamma, beta)
    np.testing.assert_allclose(norm(x, gamma, beta).detach(), expected, rtol=0, atol=1e-7)
    own = LIN(4).double()
    unit, nothing = torch.ones(2, 4), torch.zeros(2, 4)
    np.testing.assert_allclose(own(x).detach(), adalin(x, torch.zeros(4), unit, nothing), rtol=0, atol=1e-12)
    assert [p.shape for p in own.parameters()] == [(4, 1, 1)] * 3


def test_the_residual_block_adds_what_two_normed_convolutions_make() -> None:
    torch.manual_seed(0)
    block = AdaptiveResidual(3).double()
    x, gamma, beta = noise(2, 3, 5, 6), noise(2, 3, 1, 1, seed=1), noise(2, 3, 1, 1, seed=2)
    first, second = (layer for layer in block.modules() if isinstance(layer, nn.Conv2d))

    def normed(layer: nn.Conv2d, y: Tensor) -> Tensor:
        padded = nn.functional.pad(y, [1] * 4, mode="reflect")
        made = adalin(nn.functional.conv2d(padded, layer.weight), torch.ones(3), gamma, beta)
        return torch.from_numpy(made)

    expected = x + normed(second, normed(first, x).clamp(min=0))
    torch.testing.assert_close(block(x, gamma, beta).detach(), expected, rtol=0, atol=1e-12)


def attention(maps: Tensor, parts: Attention) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Returns logits (N, 2) and attended maps."""
    with torch.no_grad():
        by_mean, by_maximum = (layer.weight[0].numpy() for layer in (parts.by_mean, parts.by_maximum))
        mix = parts.mix.weight[:, :, 0, 0].numpy()
    assert parts.mix.bias is not None
    x = maps.numpy()
    logits = np.stack([x.mean(axis=(2, 3)) @ by_mean, x.max(axis=(2, 3)) @ by_maximum], axis=1)
    weighted = [weight[:, None, None] * x for weight in (by_mean, by_maximum)]
    mixed = np.einsum("nchw,dc->ndhw", np.concatenate(weighted, axis=1), mix)
    return logits, mixed + parts.mix.bias.detach().numpy()[:, None, None]


@pytest.mark.parametrize("normalised", [False, True])
def test_attention_weighs_maps_by_the_classifiers_weights(normalised: bool) -> None:
    """With spectral norm, both logits and maps have the normalised weights."""
    torch.manual_seed(0)
    parts = Attention(5).double()
    if normalised:
        for layer in (parts.by_mean, parts.by_maximum, parts.mix):
            nn.utils.parametrizations.spectral_norm(layer)
    maps = noise(3, 5, 4, 6)
    for _ in range(2):
        logits, attended = parts(maps)
        parts.eval()
        expected = attention(maps, parts)
        parts.train()
        np.testing.assert_allclose(logits.detach()[:, :, 0, 0], expected[0], rtol=0, atol=1e-12)
        np.testing.assert_allclose(attended.detach(), expected[1], rtol=0, atol=1e-12)
    assert logits.shape == (3, 2, 1, 1)
    assert attended.shape == maps.shape


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameters() -> None:
    """The paper's layers as (inputs, outputs, kernel side), convolutions without biases but in the 1x1 convolution."""
    encoder = [(3, 64, 7), (64, 128, 3), (128, 256, 3), *[(256, 256, 3)] * 8]
    decoder = [*[(256, 256, 3)] * 8, (256, 128, 3), (128, 64, 3), (64, 3, 7)]
    weights = sum(i * o * k * k for i, o, k in encoder + decoder)
    attention = 2 * 256 + 512 * 256 + 256
    # rho of 8 AdaLIN; rho, gamma and beta of two LIN; the second hidden layer, gamma and beta
    norms, style = 8 * 256 + 3 * (128 + 64), 3 * 256 * 256
    text = re.sub(r"\s+", " ", inspect.getdoc(UGATIT) or "")
    for light, first in ((False, 64 * 64 * 256 * 256), (True, 256 * 256)):
        expected = weights + attention + norms + style + first
        with torch.device("meta"):
            network = UGATIT(Domain("a", 3, 256, 256), Domain("b", 3, 256, 256), light=light)
        assert count(network) == expected
        assert f"{expected:,}" in text


def test_shapes_and_initial_values() -> None:
    torch.manual_seed(0)
    g = UGATIT(Domain("a", 1, 16, 24), DOMAIN, 2, 2)
    x = noise(3, 1, 16, 24).float()
    shapes = [(2, 16, 24), (4, 8, 12), *[(8, 4, 6)] * 3, (2, 1, 1), (8, 4, 6)]
    assert [tuple(f.shape[1:]) for f in g.features(x)] == shapes
    assert (g.features(x)[-1] >= 0).all()
    assert g(x).shape == (3, 3, 16, 24)
    assert g(x).std() > 0.05
    rho = {name: p.unique().tolist() for name, p in g.named_parameters() if name.endswith("rho")}
    assert {name.split(".")[1]: value for name, value in rho.items()} == {"blocks": [1.0], "upsampling": [0.0]}
    assert len(rho) == 6


@pytest.mark.parametrize("light", [False, True])
def test_gamma_and_beta_are_computed_from_the_embedding(light: bool) -> None:
    """Four linear layers in float64. The light form sees the channels' means only."""
    torch.manual_seed(0)
    decoder = UGATIT(DOMAIN, DOMAIN, 2, 1, light).double().decoder
    seen: list[Any] = []
    decoder.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append([x.detach() for x in inputs]))
    e = noise(3, 8, 4, 4).abs()
    for embedding in (e, e.flip(3)):
        decoder(embedding)
    w = [p.detach() for name, p in decoder.named_parameters() if name.split(".")[0] in ("shared", "gamma", "beta")]
    assert len(w) == 4
    hidden = (e.mean(dim=(2, 3)) if light else e.flatten(1)) @ w[0].T
    hidden = (hidden.clamp(min=0) @ w[1].T).clamp(min=0)
    for found, weight, mirrored in zip(seen[0][1:], w[2:], seen[1][1:], strict=True):
        assert found.abs().max() > 1e-3
        torch.testing.assert_close(found[:, :, 0, 0], hidden @ weight.T, rtol=0, atol=1e-12)
        assert torch.allclose(found, mirrored) == light


@pytest.mark.parametrize(("layers", "side"), [(1, 6), (2, 2)])
def test_the_discriminator(layers: int, side: int) -> None:
    """Each stage halves the sides; the last two shorten them by one each."""
    d = CAMPatch(DOMAIN, 3, layers)
    x = noise(2, 3, SIZE, SIZE).float()
    found = d.features(x)
    sides = [SIZE // 2**k for k in range(1, layers + 1)]
    channels = [3 * 2**k for k in range(layers + 1)]
    shapes = list(zip(channels, [*sides, sides[-1] - 1], strict=True))
    assert [tuple(f.shape) for f in found] == [(2, c, s, s) for c, s in shapes] + [(2, 2, 1, 1), (2, 1, side, side)]
    torch.testing.assert_close(d(x), found[-1], rtol=0, atol=0)


def test_images_that_are_too_small_are_refused() -> None:
    CAMPatch(Domain("a", 3, 16, 20), 3, 2)
    with pytest.raises(ValueError, match="with 2 layers, images must be at least 16x16, got 20x15"):
        CAMPatch(Domain("a", 3, 20, 15), 3, 2)


def test_rho_stays_between_0_and_1(make_trainer: Make) -> None:
    """Updates of about 0.4 would leave the interval at both ends."""
    trainer = make_trainer(SYSTEM | {"schedule": {"lr": 0.4}})
    generators = [trainer.system.networks.modules[f"generator/{direction}"] for direction in DIRECTIONS]
    rhos = [p for g in generators for name, p in g.named_parameters() if name.endswith("rho")]
    seen: list[Tensor] = []
    for _ in range(3):
        trainer.step()
        seen += [rho.detach().clone() for rho in rhos]
    values = torch.cat([rho.flatten() for rho in seen])
    assert values.min() == 0
    assert values.max() == 1
    assert ((values > 0) & (values < 1)).any()


def test_the_cam_loss_is_a_cross_entropy(make_trainer: Make) -> None:
    """The logits of a source image have the label 1, of a target image 0."""
    trainer = make_trainer(SYSTEM | {"schedule": {"lr": 1e-30}})
    nets, x = stirred_copies(trainer), images(0)
    trainer.step()
    (record,) = trainer.log.read(trainer.state)
    for direction in DIRECTIONS:
        g: Any = nets[f"generator/{direction}"]
        source, target = (g.features(x[domain])[-2] for domain in direction)
        assert source.shape == target.shape == (4, 2, 1, 1)
        expected = binary_cross_entropy_with_logits(source, torch.ones_like(source))
        expected = expected + binary_cross_entropy_with_logits(target, torch.zeros_like(target))
        assert record[f"loss/generator/{direction}/cam"] == pytest.approx(number(expected), rel=1e-12)


def test_a_network_without_cam_logits_is_refused() -> None:
    t = Translation("ab", one_turn(Linear(noise(1, 3, SIZE, SIZE)), "generator"))
    for loss in (CAM(), CAMLSGAN()):
        with pytest.raises(ValueError, match=r"expected CAM logits \(N, 2, 1, 1\) as the second to last"):
            loss.generator(t)


def test_training_is_that_of_a_plain_loop(make_trainer: Make) -> None:
    """Both generators, then both pairs of discriminators. `spectral_norm` is left out, because its norms depend on the
    number of forwards."""
    bare = {name: patch["of"] for name, patch in PATCHES.items()}
    trainer = make_trainer(SYSTEM | {"discriminators": {"image": None, **bare}, "schedule": {"lr": LR}})
    nets = stirred_copies(trainer)
    with torch.no_grad():
        # not at the ends of the interval, where clipping would hide a difference
        for modules in (nets, trainer.system.networks.modules):
            for direction in DIRECTIONS:
                for name, p in modules[f"generator/{direction}"].named_parameters():
                    if name.endswith("rho"):
                        p.copy_(torch.linspace(0.2, 0.9, len(p), dtype=p.dtype)[:, None, None])
    plain = PlainLoop(
        nets, adam, [[name for name in nets if name.startswith(player)] for player in ("generator", "discriminator")]
    )

    def squares(d: Any, x: Tensor, label: float) -> Tensor:
        *_, logits, scores = d.features(x)
        return mse_loss(scores, torch.full_like(scores, label)) + mse_loss(logits, torch.full_like(logits, label))

    def step(index: int) -> None:
        x = images(index)
        fakes = {
            direction: plain.modules[f"generator/{direction}"](x[direction[0]]).detach() for direction in DIRECTIONS
        }

        def generators() -> Tensor:
            total = torch.zeros((), dtype=torch.float64)
            for direction in DIRECTIONS:
                a, b = x[direction[0]], x[direction[1]]
                g: Any = nets[f"generator/{direction}"]
                fake = g(a)
                for name in PATCHES:
                    total = total + squares(nets[f"discriminator/{name}/{direction[1]}"], fake, 1)
                total = total + 10 * l1_loss(nets[f"generator/{direction[::-1]}"](fake), a) + 10 * l1_loss(g(b), b)
                source, target = g.features(a)[-2], g.features(b)[-2]
                entropy = -torch.log(torch.sigmoid(source)).mean() - torch.log(1 - torch.sigmoid(target)).mean()
                total = total + 1000 * entropy
            return total

        def discriminators() -> Tensor:
            total = torch.zeros((), dtype=torch.float64)
            for direction in DIRECTIONS:
                for name in PATCHES:
                    d = nets[f"discriminator/{name}/{direction[1]}"]
                    total = total + squares(d, x[direction[1]], 1) + squares(d, fakes[direction], 0)
            return total

        plain.update_player("generator", generators)
        plain.update_player("discriminator", discriminators)

    check_training(trainer, plain, step, steps=2, rtol=1e-7)


def test_the_two_discriminators_are_wrapped_and_read_by_name(make_trainer: Make) -> None:
    """The terms of a step are those of copies, with the norms of the same number of forwards."""
    trainer = make_trainer(SYSTEM | {"schedule": {"lr": 1e-30}})
    assert isinstance(trainer.system.networks.modules["discriminator/global/a"], SpectralNorm)
    nets, x = copy.deepcopy(trainer.system.networks.modules), images(0)
    trainer.step()
    (record,) = trainer.log.read(trainer.state)
    for direction in DIRECTIONS:
        fake = nets[f"generator/{direction}"](x[direction[0]])
        for name in PATCHES:
            d: Any = nets[f"discriminator/{name}/{direction[1]}"]
            *_, logits, scores = d.features(fake)
            expected = number((scores - 1).square().mean() + (logits - 1).square().mean())
            assert record[f"loss/generator/{direction}/adversarial/{name}"] == pytest.approx(expected, rel=1e-12)


def test_the_conformance_kit_with_the_whole_system() -> None:
    generator = (UGATIT, {"width": 2, "blocks": 1})
    patches = {name: (SpectralNorm, {"of": (CAMPatch, {"width": 3, "layers": 1})}) for name in PATCHES}
    check_loss(CAMLSGAN, generator=generator, discriminators=patches, names=tuple(PATCHES))
