"""The metrics of paired data against other libraries, and the references and sentences that they have in a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from ganlab_lpips import LPIPS, LPIPSPair
from ganlab_pairs import L1, PSNR, SSIM
from PIL import Image
from skimage import metrics as skimage_metrics

import ganlab
from ganlab import Estimate, Images, MetricInputs, Unavailable, testing
from ganlab.evaluation.evaluator import UNPAIRED, Evaluator
from ganlab.experiment import check
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from helpers.callbacks import Recording

METRICS: dict[str, type[ganlab.Metric]] = {"l1-pair": L1, "psnr": PSNR, "ssim": SSIM, "lpips-pair": LPIPSPair}


def crops(count: int, noise: float = 0.0, first: int = 0) -> Images:
    """Pieces of a photograph, 32x40, with noise."""
    random, whole = np.random.default_rng(first), skimage.data.astronaut()
    pieces = [whole[at : at + 32, 2 * at : 2 * at + 40] for at in range(first, first + 7 * count, 7)]
    changed = [piece + noise * random.standard_normal(piece.shape) for piece in pieces]
    return Images([piece.round().clip(0, 255).astype(np.uint8) for piece in changed])


@pytest.fixture
def noisy() -> MetricInputs:
    return MetricInputs("ab", crops(5, 20.0), targets=crops(5, 0, 60), inputs=crops(5, 50.0), partners=crops(5))


def value(metric: ganlab.Metric, data: MetricInputs) -> float:
    (found,) = metric.measure(data).values()
    assert isinstance(found, Estimate)
    assert dict(found.counts) == {"pairs": len(data.outputs)}
    return found.value


def each_pair(data: MetricInputs) -> list[tuple[Any, Any]]:
    assert data.partners is not None
    return [(x.astype(float), y.astype(float)) for x, y in zip(data.outputs.pixels, data.partners.pixels, strict=True)]


def test_the_values_are_those_of_scikit_image_and_of_numpy(noisy: MetricInputs) -> None:
    pairs = each_pair(noisy)
    # pixels from 0 to 255 are pixels in [-1, 1], times 127.5
    expected = np.mean([np.abs(x - y).mean() / 127.5 for x, y in pairs])
    assert value(L1(), noisy) == pytest.approx(expected, rel=1e-6)
    expected = np.mean([skimage_metrics.peak_signal_noise_ratio(x, y, data_range=255) for x, y in pairs])
    assert value(PSNR(), noisy) == pytest.approx(expected, rel=1e-6)
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    each = [
        skimage_metrics.structural_similarity(x, y, data_range=255, channel_axis=2, **gaussian)  # type: ignore[no-untyped-call]
        for x, y in pairs
    ]
    assert value(SSIM(), noisy) == pytest.approx(np.mean(each), rel=1e-5)


def test_black_and_white_have_the_values_of_the_scale() -> None:
    black, white = (Images([np.full((16, 16, 3), level, np.uint8)] * 3) for level in (0, 255))
    data = MetricInputs("ab", black, targets=white, partners=white)
    assert value(L1(), data) == pytest.approx(2)
    assert value(PSNR(), data) == pytest.approx(0, abs=1e-6)


def test_lpips_is_the_distance_that_cycles_have(noisy: MetricInputs) -> None:
    """tests/plugins/test_lpips_metric.py compares that one with the authors' packages."""
    expected = LPIPS("stlpips-alex").measure(replace(noisy, inputs=noisy.partners, cycled=noisy.outputs))
    cycle = expected["stlpips-alex-cycle"]
    assert isinstance(cycle, Estimate)
    assert value(LPIPSPair("stlpips-alex"), noisy) == pytest.approx(cycle.value, rel=1e-6)
    few = LPIPSPair("stlpips-alex", pairs=4).measure(noisy)["stlpips-alex-pair"]
    assert few.counts == {"pairs": 4}


@pytest.mark.parametrize("name", METRICS)
def test_equal_images_are_best_and_order_matters(name: str, noisy: MetricInputs) -> None:
    metric, partners = METRICS[name](), noisy.partners
    assert partners is not None
    (info,) = metric.numbers.values()
    exact = replace(noisy, outputs=partners)
    shifted = replace(noisy, partners=partners.take([1, 2, 3, 4, 0]))
    own, other = value(metric, noisy), value(metric, shifted)
    assert own < other if info.better == "lower" else own > other
    if name == "psnr":
        with pytest.raises(Unavailable, match=r"^is infinite for an output that equals its partner"):
            metric.measure(exact)
    else:
        assert value(metric, exact) == pytest.approx(1 if name == "ssim" else 0, abs=1e-6)


def test_images_that_cannot_be_compared_are_refused(noisy: MetricInputs) -> None:
    other_size = Images([np.zeros((32, 41, 3), np.uint8)] * 5)
    small = Images([np.full((10, 40, 3), level, np.uint8) for level in range(5)])
    for metric, data, sentence in (
        (L1(), replace(noisy, partners=other_size), "needs images of one size, and they go from 32x40 to 32x41 pixels"),
        (
            SSIM(),
            replace(noisy, outputs=small, partners=small),
            "needs images of at least 11x11 pixels; they are 10x40",
        ),
        (PSNR(), replace(noisy, outputs=noisy.outputs.take([0])), "needs at least 2 images (pairs), and there is 1"),
    ):
        with pytest.raises(Unavailable) as raised:
            metric.measure(data)
        assert str(raised.value) == sentence


@pytest.mark.parametrize("name", ["psnr", "ssim"])
def test_without_torchmetrics_the_install_is_named(
    name: str, noisy: MetricInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ganlab_pairs.find_spec", lambda package: None)
    metric = METRICS[name]()
    assert metric.missing({}) == {name: "needs torchmetrics: pip install 'ganlab[pairs]'"}
    with pytest.raises(Unavailable, match=r"^needs torchmetrics: pip install 'ganlab\[pairs\]'$"):
        metric.measure(noisy)


def test_references(noisy: MetricInputs) -> None:
    """The identity baseline compares the inputs with the partners; other real images have no partners."""
    evaluator = Evaluator({name: metric() for name, metric in METRICS.items()})
    assert noisy.inputs is not None
    assert evaluator.real(noisy, noisy.targets) == {}
    identity = evaluator.identity(noisy, noisy.inputs)
    assert set(identity) == set(evaluator.numbers)
    assert identity["l1-pair"].estimate.value == value(L1(), replace(noisy, outputs=noisy.inputs))
    fewer = evaluator.measure_fewer(noisy, 3)
    pairs = [float(np.abs(x - y).mean() / 127.5) for x, y in each_pair(noisy)]
    means = [
        np.mean([pairs[i] for i in chosen])
        for chosen in ([a, b, c] for a in range(5) for b in range(a) for c in range(b))
    ]
    assert min(abs(fewer["l1-pair"].estimate.value - mean) for mean in means) < 1e-6


def test_data_that_are_not_paired_have_one_sentence_for_all(noisy: MetricInputs) -> None:
    evaluator = Evaluator({name: metric() for name, metric in METRICS.items()})
    missing = evaluator.missing({}, paired=False)
    assert set(missing) == set(evaluator.numbers)
    assert set(missing.values()) == {f"{UNPAIRED} (data.paired)"}
    assert evaluator.missing({}, paired=True) == {}
    assert evaluator.measure(replace(noisy, partners=None)) == {}
    assert set(evaluator.left_out.values()) == {UNPAIRED}


@pytest.fixture
def paired(tiny: Json) -> Json:
    """TINY from the pictures of a to brighter ones, in one direction, measured by L1."""
    for picture in Path(tiny["data"]["a"]["path"]).iterdir():
        brighter = np.asarray(Image.open(picture).convert("RGB")) // 2 + 100
        Image.fromarray(brighter.astype(np.uint8)).save(Path(tiny["data"]["b"]["path"]) / picture.name)
    patched: Json = merge(
        tiny, {"data": {"paired": True, "holdout": 0.5}, "evaluation": {"metrics": ["l1-pair"], "every": 3}}
    )
    return patched


def test_a_run_measures_held_out_pairs(paired: Json, tmp_path: Path) -> None:
    run = ganlab.run(paired, out=tmp_path / "run", callback=Recording())
    assert run.evaluation is not None
    results: list[Mapping[str, Any]] = run.evaluation["results"]
    assert {result["direction"] for result in results} == {"ab", "ba"}
    pictures = {
        domain: {path.name: np.asarray(Image.open(path).convert("RGB")) / 127.5 for path in folder.iterdir()}
        for domain, folder in ((domain, Path(paired["data"][domain]["path"])) for domain in "ab")
    }
    names = sorted(pictures["a"])
    apart = {name: np.abs(pictures["a"][name] - pictures["b"][name]).mean() for name in names}
    (identity,) = {result["references"]["identity"]["value"] for result in results}
    assert set(results[0]["references"]) == {"identity"}
    # the mean of three of the twelve pairs, whichever were held out for the test
    assert min(apart.values()) <= identity <= max(apart.values())
    across = [np.abs(pictures["a"][x] - pictures["b"][y]).mean() for x in names for y in names if x != y]
    assert max(apart.values()) < min(across)
    during = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert any("evaluation/ab/l1-pair" in record for record in during)


def test_a_run_says_before_it_trains_that_the_data_are_not_paired(paired: Json) -> None:
    told = Recording()
    asked = {"data": {"paired": False}, "evaluation": {"metrics": ["l1-pair", "ssim", "kid"], "features": "lite0"}}
    check(merge(paired, asked), callback=told)
    assert told.warned[0] == f"l1-pair, ssim can't be measured on these images: {UNPAIRED} (data.paired)"


def test_folders_are_compared_by_their_names(tmp_path: Path, noisy: MetricInputs) -> None:
    for folder, images in (("made", noisy.outputs), ("real", noisy.partners)):
        (tmp_path / folder).mkdir()
        assert images is not None
        for number, pixels in enumerate(images.pixels):
            Image.fromarray(pixels).save(tmp_path / folder / f"{number}.{'png' if folder == 'made' else 'bmp'}")
    told = Recording()
    folders = (tmp_path / "made", tmp_path / "real")
    found = ganlab.evaluate(images=folders, metrics=["l1-pair"], callback=told)
    (result,) = found["results"]
    assert (result["value"], result["references"]) == (pytest.approx(value(L1(), noisy)), {})
    (tmp_path / "real" / "3.bmp").unlink()
    with pytest.raises(Unavailable, match=f"^nothing could be measured: l1-pair {UNPAIRED}$"):
        ganlab.evaluate(images=folders, metrics=["l1-pair"], callback=told)
    assert told.warned[-1].endswith(
        f"real has no readable '3.png', with this suffix or another, and each image of {tmp_path / 'made'} needs its"
        " partner there (1 of 5 have none)"
    )


class Absolute(ganlab.Metric):
    """A third party's metric of pairs."""

    on_pairs = True
    numbers: Mapping[str, ganlab.MetricInfo] = {"absolute": ganlab.MetricInfo("how far an output is from its partner")}

    def measure(self, data: MetricInputs) -> dict[str, Estimate]:
        assert data.partners is not None
        apart = float((data.outputs.tensor() - data.partners.tensor()[: len(data.outputs)]).abs().mean())
        return {"absolute": Estimate(apart, apart, apart, {"pairs": len(data.outputs)})}


def test_the_kit_gives_partners() -> None:
    testing.check_metric(Absolute)
