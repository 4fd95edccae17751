"""DCGAN: noise that holds Gaussian latents, the published networks, and a run in one direction."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ganlab_dcgan import DCGANDiscriminator, DCGANGenerator, Gaussian
from ganlab_dcgan.gaussian import _approximate_erfinv, latents
from PIL import Image
from scipy import stats
from scipy.special import erfinv
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d, conv_transpose2d, leaky_relu, relu

import ganlab
from ganlab.data.dataset import load, normalised
from ganlab.interfaces.networks import Domain
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from helpers.systems import SIZE

NOISE, FACES = Domain("a", 1, 64, 64), Domain("b", 3, 64, 64)


def test_noise_is_the_same_for_a_key_and_another_for_each_other() -> None:
    source = Gaussian(count=3)
    keys = [*source.keys("a"), *source.keys("b")]
    images = [source.image(key, 8) for key in keys]
    assert all(image.shape == (8, 8, source.channels) and image.dtype == np.uint8 for image in images)
    assert len({image.tobytes() for image in images}) == 6
    assert [Gaussian().image(key, 8).tobytes() for key in keys] == [image.tobytes() for image in images]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_latents_are_quantiles_of_the_normal_distribution(dtype: torch.dtype) -> None:
    """Three bytes, the highest first, give the middle quantile of one of 2^24 intervals, as scipy computes it."""
    drawn = np.random.default_rng(0).integers(0, 256, (50, 3))
    triples = np.concatenate([[[0, 0, 0], [255, 255, 255], [127, 255, 255], [128, 0, 0], [0, 0, 1]], drawn])
    expected = stats.norm.ppf((triples @ [65536, 256, 1] + 0.5) / 2**24)
    # ten pixels more, which are not read
    pixels = torch.from_numpy(np.concatenate([triples.reshape(-1), np.full(10, 7)]).astype(np.uint8))
    found = latents(normalised(pixels.reshape(1, 1, 5, 35), dtype), len(triples))
    assert found.shape == (1, len(triples), 1, 1)
    assert found.dtype == dtype
    np.testing.assert_allclose(found.flatten(), expected, rtol=3e-6 if dtype == torch.float32 else 1e-12, atol=0)
    assert expected[1] == pytest.approx(5.42, abs=0.01)


@pytest.mark.parametrize("flip", [False, True])
def test_latents_of_the_source_are_standard_normal_and_independent(flip: bool) -> None:
    dataset = load(Gaussian(count=400), "a", 32, 0.5)
    images = dataset.pixels(torch.arange(400))
    z = latents(images.flip(-1) if flip else images, 100).flatten(1).double().numpy()
    assert stats.kstest(z.ravel(), "norm").pvalue > 0.01
    # 400 draws of 100 numbers: an entry of their covariance less the identity has a deviation of 1/20, or 1.4/20
    assert np.abs(z.T @ z / 400 - np.eye(100)).max() < 0.3
    assert stats.kurtosis(z.ravel()) == pytest.approx(0, abs=0.1)


def test_the_published_numbers_of_parameters() -> None:
    with torch.device("meta"):
        networks = DCGANGenerator(NOISE, FACES), DCGANDiscriminator(FACES)
    assert [sum(p.numel() for p in net.parameters()) for net in networks] == [3_576_704, 2_765_568]


def stirred(net: nn.Module) -> list[Tensor]:
    """Enlarges the weights, in float64, and returns them."""
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.double().parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=random, dtype=p.dtype))
    return list(net.parameters())


def test_the_generator_is_the_papers() -> None:
    net = DCGANGenerator(Domain("a", 1, 16, 16), Domain("b", 3, 16, 16), latents=5, width=4)
    first, g1, b1, second, g2, b2, last = stirred(net)
    noise = normalised(torch.from_numpy(np.stack([Gaussian().image(key, 16) for key in "xyz"])), torch.float64)
    x = latents(noise.permute(0, 3, 1, 2), 5)
    x = relu(batch_norm(conv_transpose2d(x, first), None, None, g1, b1, training=True))
    x = relu(batch_norm(conv_transpose2d(x, second, stride=2, padding=1), None, None, g2, b2, training=True))
    x = torch.tanh(conv_transpose2d(x, last, stride=2, padding=1))
    torch.testing.assert_close(net(noise.permute(0, 3, 1, 2)), x, rtol=0, atol=1e-12)
    assert x.shape == (3, 3, 16, 16)


def test_the_discriminator_is_the_papers() -> None:
    net = DCGANDiscriminator(Domain("b", 3, 16, 16), width=4)
    first, second, g, b, last = stirred(net)
    x = images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = leaky_relu(conv2d(x, first, stride=2, padding=1), 0.2)
    x = leaky_relu(batch_norm(conv2d(x, second, stride=2, padding=1), None, None, g, b, training=True), 0.2)
    x = conv2d(x, last)
    torch.testing.assert_close(net(images), x, rtol=0, atol=1e-12)
    assert x.shape == (3, 1, 1, 1)


def test_the_papers_initial_weights() -> None:
    for net in (DCGANGenerator(NOISE, FACES, width=16), DCGANDiscriminator(FACES, width=16)):
        weights = torch.cat([p.flatten() for p in net.parameters() if p.dim() == 4])
        assert weights.mean().item() == pytest.approx(0, abs=1e-3)
        assert weights.std().item() == pytest.approx(0.02, rel=0.02)


@pytest.mark.parametrize(("height", "width"), [(48, 48), (4, 4), (60, 60), (32, 64)])
def test_other_sizes_are_refused(height: int, width: int) -> None:
    odd = Domain("b", 3, height, width)
    for make in (lambda: DCGANGenerator(NOISE, odd), lambda: DCGANDiscriminator(odd)):
        with pytest.raises(ValueError, match=rf"8, 16, 32, \.\.\. pixels high and wide, not {height}x{width}"):
            make()


def test_more_latents_than_a_picture_holds_are_refused() -> None:
    with pytest.raises(ValueError, match="100 latents need 300 pixels, and an image of domain a has 256"):
        DCGANGenerator(Domain("a", 1, 16, 16), Domain("b", 3, 16, 16))


@pytest.fixture
def one_direction(tiny: Json) -> Json:
    """DCGAN on noise and a dozen pictures."""
    patched: Json = merge(
        tiny,
        {
            "data": {"a": {"type": "gaussian", "count": 20}, "holdout": 0.7},
            "directions": ["ab"],
            "generator": {"type": "dcgan", "latents": 8, "width": 2},
            "discriminators": {"image": {"type": "dcgan", "width": 2}},
            "losses": {"cycle": None},
            "schedule": {"type": "alternating", "steps": 6},
        },
    )
    return patched


def test_a_run_of_one_direction_trains_and_is_measured(one_direction: Json, tmp_path: Path) -> None:
    # in order: the first number for which lower or higher is better picks the best checkpoint
    metrics: list[Any] = ["embedding_space", {"type": "content", "shared": {"hair": {"attribute": "hair"}}}]
    done = ganlab.run(merge(one_direction, {"evaluation": {"metrics": metrics, "every": 2}}), out=tmp_path / "run")
    assert done.finished
    with Image.open(tmp_path / "run/samples/step-000006.png") as grid:
        # two pairs of images in one row, for one direction
        assert grid.size == (2 * (2 * (SIZE + 2) + 4) + 4, 16 + (SIZE + 2) + 4)
    assert done.evaluation is not None
    assert {(f["number"], f["direction"]) for f in done.evaluation["results"]} == {
        ("content-colour", "ab"),
        ("content-edges", "ab"),
    }
    assert [(left["metric"], left["why"]) for left in done.evaluation["left_out"]] == [
        ("content", "the images of domain a have no attributes"),
        ("embedding_space", "needs the direction ba, which `directions` leaves out"),
    ]
    assert done.evaluation["protocol"]["best_by"]["number"] == "content-colour"
    assert {name for record in done.records for name in record if name.startswith("loss/")} == {
        "loss/generator/ab/adversarial",
        "loss/discriminator/ab/adversarial/real",
        "loss/discriminator/ab/adversarial/fake",
    }


def test_a_spec_of_one_direction_can_be_checked(one_direction: Json) -> None:
    found = ganlab.experiment.check(one_direction)
    assert {(n["name"], n["input"], n["output"]) for n in found["networks"]} == {
        ("generator/ab", "1x16x16", "3x16x16"),
        ("discriminator/image/b", "3x16x16", "1x1x1"),
    }
    assert Counter(turn["player"] for turn in found["turns"]) == {"discriminator": 1, "generator": 1}


def test_the_inverse_error_function_for_onnx_is_scipys() -> None:
    # every place of a latent near the ends, and others over the whole range
    places = torch.cat([torch.arange(-(2**23), -(2**23) + 1000), torch.arange(-(2**23), 2**23, 9973)])
    u = (2 * places + 1).float() / 2**24
    expected = torch.from_numpy(erfinv(u.double().numpy()))
    found = _approximate_erfinv(u).double()
    assert ((found - expected).abs() <= 1e-5 * expected.abs() + 1e-7).all()
