"""pix2pix: its networks layer by layer, edges against scikit-image, L1 to the partner, a run on pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ganlab_avatars import Avatars
from ganlab_pix2pix import ConditionalPatch, Edges, L1Pair, UNet
from PIL import Image
from skimage import color, filters
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, instance_norm, leaky_relu, relu

import ganlab
from ganlab import Domain, Translation
from ganlab.errors import SpecError
from ganlab.experiment import check
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from ganlab.spec.resolve import resolve
from ganlab.system.build import build, build_data
from helpers.one_turn import Constant, number, one_turn
from helpers.systems import SIZE, TINY, RandomImages

PARTS = {"train": "train", "holdout": "test"}
"""{part of a dataset: the folder of its images}."""

# networks


def parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def test_the_published_numbers_of_parameters() -> None:
    """Those that the authors' PyTorch code prints for unet_256 and basic, 54.414 and 2.769 million."""
    with torch.device("meta"):
        large = Domain("a", 3, 256, 256)
        generator = UNet(large, large, norm="batch")
        discriminator = ConditionalPatch(large._replace(channels=6), norm="batch")
    assert (parameters(generator), parameters(discriminator)) == (54_413_955, 2_768_705)


def test_the_generator_is_the_papers() -> None:
    """Four layers down and four up; each up reads the layer before it and the layer of its size (skip connections)."""
    torch.manual_seed(0)
    net = UNet(Domain("a", 1, 16, 16), Domain("b", 3, 16, 16), width=2).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    weights = list(net.parameters())
    down, up = [weights[at : at + 2] for at in range(0, 8, 2)], [weights[at : at + 2] for at in range(8, 16, 2)]
    images = x = torch.randn(3, 1, 16, 16, dtype=torch.float64)
    skips: list[Tensor] = []
    for layer, (weight, bias) in enumerate(down):
        x = conv2d(x, weight, bias, 2, 1)
        x = leaky_relu(instance_norm(x) if 0 < layer < 3 else x, 0.2)
        skips.append(x)
    assert [skip.shape[1:] for skip in skips] == [(2, 8, 8), (4, 4, 4), (8, 2, 2), (16, 1, 1)]
    for layer, (weight, bias) in enumerate(up):
        x = x if layer == 0 else torch.cat([x, skips[3 - layer]], 1)
        x = conv_transpose2d(x, weight, bias, 2, 1)
        x = torch.tanh(x) if layer == 3 else relu(instance_norm(x))
    torch.testing.assert_close(net(images), x, rtol=0, atol=1e-12)
    features = net.features(images)
    for found, skip in zip(features, skips[:3], strict=False):
        torch.testing.assert_close(found, skip, rtol=0, atol=1e-12)
    assert features[-1].shape == (3, 2 * 64 + 4 * 16 + 8 * 4 + 16, 1, 1)


def test_a_larger_image_is_translated_too() -> None:
    domain = Domain("a", 3, 16, 16)
    assert UNet(domain, domain, width=2)(torch.zeros(1, 3, 32, 48)).shape == (1, 3, 32, 48)


def test_other_sizes_are_refused() -> None:
    spec = resolve(merge(TINY, {"data": {"size": 48}, "generator": {"type": "unet", "width": 2}}))
    with pytest.raises(SpecError) as refused:
        build(spec, RandomImages(size=48).domains)
    assert str(refused.value) == (
        "generator: generator 'unet' of plugin 'pix2pix' of ganlab 0.1.0: halves images down to one pixel, so their"
        " height and width are one power of two from 4 up, and they are 48x48"
    )
    for height, width in ((2, 2), (16, 32)):
        domain = Domain("a", 3, height, width)
        with pytest.raises(ValueError, match=f"one power of two from 4 up, and they are {height}x{width}"):
            UNet(domain, domain)


# pairs


def test_edges_are_those_of_scikit_image() -> None:
    of = Avatars("big-ears", count=4)
    edges = Edges(of)
    # a has the edges of b's pictures, and b those of a's
    assert (edges.keys("a"), edges.keys("b")) == (of.keys("b"), of.keys("a"))
    for key in edges.keys("a"):
        found = edges.image(key, 48)
        assert found.shape == (48, 48, 1)
        luminance = color.rgb2ycbcr(of.image(key, 48))[..., 0]  # type: ignore[no-untyped-call]
        # scikit-image's Y goes from 16 to 235, and its gradient is divided by the root of two
        strength = filters.sobel((luminance - 16) / 219, mode="nearest") * 2**0.5  # type: ignore[no-untyped-call]
        np.testing.assert_allclose(found[..., 0], 255 * (1 - strength.clip(0, 1)), rtol=0, atol=0.51)
        assert (edges.attributes(key), edges.credits()) == (of.attributes(key), of.credits())


def test_a_step_from_black_to_white_is_black() -> None:
    class Half(ganlab.Source):
        channels = 1

        def keys(self, domain: str) -> list[str]:
            return [f"{domain}-0"]

        def image(self, key: str, size: int) -> Any:
            pixels = np.zeros((size, size, 1), np.uint8)
            pixels[:, size // 2 :] = 255
            return pixels

    row = Edges(Half()).image("b-0", 8)[3, :, 0]
    assert row.tolist() == [255, 255, 255, 0, 0, 255, 255, 255]


def test_edges_and_their_pictures_are_pairs() -> None:
    avatars = {"type": "avatars", "style": "big-ears", "count": 6}
    asked = merge(TINY, {"data": {"a": {"type": "edges", "of": avatars}, "b": avatars, "paired": True}})
    datasets = build_data(resolve(asked))
    assert datasets["a"].keys == datasets["b"].keys
    assert [dataset.domain.channels for dataset in datasets.values()] == [1, 3]
    assert [dataset.alone for dataset in datasets.values()] == [(), ()]


def test_edges_of_files_have_the_split_and_the_files_of_their_pictures(tmp_path: Path) -> None:
    places = {"train": ("0.png", "1.png"), "test": ("2.png", "3.png")}
    for folder, names in places.items():
        (tmp_path / folder).mkdir()
        for name in names:
            Image.new("RGB", (SIZE, SIZE), "red").save(tmp_path / folder / name)
    pictures = {"type": "folder", "path": str(tmp_path / "train"), "held_out": str(tmp_path / "test")}
    asked = merge(TINY, {"data": {"a": {"type": "edges", "of": pictures}, "b": pictures, "paired": True}})
    for dataset in build_data(resolve(asked)).values():
        files = {part: [dataset.source.files(dataset.keys[i])[0] for i in getattr(dataset, part)] for part in PARTS}
        assert files == {part: [tmp_path / at / name for name in places[at]] for part, at in PARTS.items()}


# the loss


def test_the_loss_on_data_that_are_not_paired_is_refused(tiny: Json) -> None:
    with pytest.raises(SpecError) as refused:
        check(merge(tiny, {"losses": {"l1": {"type": "l1_pair"}}}))
    assert str(refused.value) == (
        "losses.l1: 'l1_pair' compares each translation with its partner, and the data are not paired; set data.paired"
        " to true, or remove the loss"
    )
    assert L1Pair.on_pairs
    assert not ganlab.Loss.on_pairs


def test_the_loss_is_the_mean_distance_of_each_fake_from_its_own_partner() -> None:
    t = Translation("ab", one_turn(Constant(0.0), "generator"))
    apart = [abs(fake - target).mean().item() for fake, target in zip(t.fake, t.target, strict=True)]
    assert number(L1Pair().generator(t)) == pytest.approx(sum(apart) / 4, rel=1e-12)


def test_a_run_on_pairs_learns_them(tmp_path: Path) -> None:
    """Eighty tiny steps from edges to pictures beat the identity baseline on held-out pairs."""
    avatars = {"type": "avatars", "style": "big-ears", "count": 24}
    asked = {
        "name": "pix2pix",
        "data": {"a": {"type": "edges", "of": avatars}, "b": avatars, "paired": True, "size": 16, "holdout": 0.5},
        "directions": ["ab"],
        "generator": {"type": "unet", "width": 4, "norm": "batch"},
        "discriminators": {"image": {"type": "conditional_patch", "width": 4, "layers": 1}},
        "losses": {"adversarial": {"type": "non_saturating"}, "l1": {"type": "l1_pair", "weight": 100}},
        "schedule": {"type": "alternating", "steps": 80, "lr": 2e-3},
        "samples": {"every": 80},
        "checkpoints": {"every": 80},
        "evaluation": {"metrics": ["l1-pair", "psnr"]},
        "runtime": {"device": "cpu", "precision": "float32", "threads": 1},
    }
    evaluation = ganlab.run(asked, out=tmp_path / "run").evaluation
    assert evaluation is not None
    results = {result["number"]: result for result in evaluation["results"]}
    assert results["l1-pair"]["value"] < results["l1-pair"]["references"]["identity"]["value"] / 1.5
    assert results["psnr"]["value"] > results["psnr"]["references"]["identity"]["value"]
