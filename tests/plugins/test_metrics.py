"""KID, FID and PRDC as metrics: their values on real pictures, and the sentences if they can't measure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from ganlab_avatars import Avatars
from ganlab_lite0 import Lite0
from ganlab_metrics import FID, KID, PRDC
from PIL import Image, ImageFilter
from pydantic import ValidationError

import ganlab
from ganlab import Estimate, Images, MetricInputs, Unavailable
from ganlab.components.options import validate
from ganlab.components.registry import registry
from ganlab.evaluation import fid as frechet
from ganlab.evaluation import kid as kernel
from ganlab.evaluation import prdc
from ganlab.evaluation.features import Extractor
from ganlab.interfaces.metrics import Vectors

# its fixtures are made once if one worker has all its tests
pytestmark = pytest.mark.xdist_group("metrics")

COUNT = 32
BLUR = {"blur 0.5": 0.5, "blur 1": 1.0, "blur 2": 2.0}
"""{name: radius in pixels}, for images of 64 x 64 pixels."""
NOISE = {"noise 8": 8.0, "noise 16": 16.0, "noise 32": 32.0}
"""{name: standard deviation in grey levels}, of 256."""


def avatars(style: str, domain: str, first: int = 0) -> Images:
    source = Avatars(style, count=2 * COUNT)
    return Images([source.image(key, 64) for key in source.keys(domain)[first : first + COUNT]])


def blurred(images: Images, radius: float) -> Images:
    blur = ImageFilter.GaussianBlur(radius)
    return Images([np.asarray(Image.fromarray(image).filter(blur)) for image in images.pixels])


def noisy(images: Images, deviation: float) -> Images:
    random = np.random.default_rng(0)
    return Images(
        [
            (image + deviation * random.standard_normal(image.shape)).round().clip(0, 255).astype(np.uint8)
            for image in images.pixels
        ]
    )


@pytest.fixture(scope="module")
def results() -> Mapping[str, Mapping[str, Estimate]]:
    """{change of avatars: {number: estimate against other avatars of their style}}, with the features lite0."""
    ears = avatars("big-ears", "b")
    data = MetricInputs(
        "ab",
        outputs=ears,
        targets=avatars("big-ears", "b", COUNT),
        vectors=Extractor(Lite0(), "lite0", torch.device("cpu")),
    )
    outputs = {
        "nothing": ears,
        **{name: blurred(ears, radius) for name, radius in BLUR.items()},
        **{name: noisy(ears, deviation) for name, deviation in NOISE.items()},
        "foreign": avatars("pixel-art", "b"),
    }
    return {
        name: {**FID().measure(seen), **PRDC().measure(seen)}
        for name, seen in ((name, replace(data, outputs=images)) for name, images in outputs.items())
    }


def test_disjoint_halves_of_a_style(results: Mapping[str, Mapping[str, Estimate]]) -> None:
    halves = results["nothing"]
    assert halves["kid"].low < 0 < halves["kid"].high
    assert min(halves[number].value for number in ("precision", "recall", "coverage")) > 0.8


@pytest.mark.parametrize("number", ["kid", "fid"])
@pytest.mark.parametrize("strengths", [BLUR, NOISE], ids=["blur", "noise"])
def test_grows_with_the_strength(
    results: Mapping[str, Mapping[str, Estimate]], strengths: Mapping[str, float], number: str
) -> None:
    values = [results[name][number].value for name in ("nothing", *strengths)]
    assert values == sorted(values)
    assert results["nothing"][number].high < results[[*strengths][-1]][number].low


@pytest.mark.parametrize("number", ["kid", "fid"])
def test_a_foreign_style_is_farther(results: Mapping[str, Mapping[str, Estimate]], number: str) -> None:
    """Another style is farther than moderate blur and moderate noise, beyond both intervals."""
    for name in ("blur 1", "noise 16"):
        assert results["foreign"][number].low > results[name][number].high


def test_precision_and_coverage_fall(results: Mapping[str, Mapping[str, Estimate]]) -> None:
    for number in ("precision", "recall", "density", "coverage"):
        for name in ("blur 2", "noise 32", "foreign"):
            assert results[name][number].high < results["nothing"][number].value


def colours(images: Images) -> Vectors:
    """Returns the values of the pixels as vectors, (N, 12)."""
    return np.stack([image.reshape(-1) for image in images.pixels]).astype(np.float64)


def small(outputs: int, real: int) -> MetricInputs:
    """Images of 2 x 2 random pixels; outputs are darker."""
    random = np.random.default_rng(1)
    pixels = [random.integers(0, top, (count, 2, 2, 3), np.uint8) for count, top in ((outputs, 200), (real, 256))]
    return MetricInputs("ab", outputs=Images(list(pixels[0])), targets=Images(list(pixels[1])), vectors=colours, seed=4)


def test_what_they_measure() -> None:
    """Each metric compares the vectors of the outputs with those of the targets, with the random seed of `data`."""
    data = small(50, 60)
    x, y = colours(data.outputs), colours(data.targets)
    assert KID().measure(data) == {"kid": kernel.estimate(x, y, 4)}
    assert PRDC(k=3).measure(data) == prdc.estimate(x, y, 3, 4)
    assert PRDC().measure(data) == prdc.estimate(x, y, 5, 4)
    assert FID().measure(data)["fid"]._replace(note="") == frechet.estimate(x, y)


def test_few_images_bias_fid() -> None:
    """With fewer than 2,048 images on one side KID comes first, and FID has a note."""
    few = small(2047, 2048)
    measured = FID().measure(few)
    assert list(measured) == ["kid", "fid"]
    assert measured["kid"] == KID().measure(few)["kid"]
    assert measured["fid"].note == "biased by the sample size: 2,047 images, fewer than 2,048"
    assert measured["fid"].counts == {"outputs": 2047, "real": 2048}
    enough = FID().measure(small(2048, 2048))
    assert list(enough) == ["fid", "kid"]
    assert enough["fid"].note == ""


@pytest.mark.parametrize("metric", [KID(), FID(), PRDC()])
def test_too_few_images(metric: ganlab.Metric) -> None:
    """The metric refuses in one sentence, before the network computes a vector."""

    def asked(images: Images) -> Vectors:
        raise AssertionError

    for outputs, real, what in (
        (1, 30, r"\(outputs\), and there is 1"),
        (30, 3, r"\(real\), and there are 3"),
        (0, 30, r"\(outputs\), and there are 0"),
    ):
        with pytest.raises(Unavailable, match=rf"^needs at least 4 images {what}$"):
            metric.measure(replace(small(outputs, real), vectors=asked))
    with pytest.raises(Unavailable, match="needs a feature network"):
        metric.measure(MetricInputs("ab", outputs=small(9, 9).outputs, targets=small(9, 9).targets))


def test_the_neighbours_option() -> None:
    assert validate(PRDC, {}).model_dump() == {"k": 5}
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        validate(PRDC, {"k": 0})
    assert (PRDC(k=38).fewest, PRDC().fewest, PRDC(k=1).fewest) == (42, 7, 4)
    with pytest.raises(Unavailable, match=r"at least 42 images \(outputs\) for k = 38 neighbours, and there are 41"):
        PRDC(k=38).measure(small(41, 60))


@pytest.mark.parametrize("name", ["kid", "fid", "prdc"])
def test_registered(name: str) -> None:
    """Its entry point is found, and it explains every number that it gives."""
    assert name in registry().names("metric")
    metric = {"kid": KID, "fid": FID, "prdc": PRDC}[name]()
    assert metric.on_features
    assert set(metric.measure(small(20, 20))) == set(metric.numbers)
    assert all(number.about.endswith(".") for number in metric.numbers.values())
