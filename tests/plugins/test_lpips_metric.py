"""The metric "lpips" and the features "stlpips-alex": real photographs, shipped weights, what is missing."""

from __future__ import annotations

import hashlib
import itertools
import shutil
import sys
import types
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import ganlab_lpips
import lpips
import numpy as np
import pytest
import skimage.data
import torch
from ganlab_lpips import LPIPS, LPIPSPair, ShiftTolerantAlexNet, weights
from PIL import Image, ImageFilter
from pydantic import ValidationError
from torch import Tensor, nn
from torchvision.models import AlexNet_Weights, alexnet

import ganlab
from ganlab import Estimate, Images, MetricInputs, Unavailable
from ganlab.components.options import validate
from ganlab.determinism import keyed
from ganlab.evaluation import kid
from ganlab.evaluation.features import Extractor, resized
from ganlab.evaluation.lpips import Trunk, distance

URL = weights.URL
NETWORKS = ("alex", "stlpips-alex")
NAMES = {"alex": "lpips-alex", "stlpips-alex": "stlpips-alex"}


def photographs(count: int, height: int = 64, width: int = 48) -> Images:
    """Pieces of real photographs, of different content."""
    sources = [skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea(), skimage.data.rocket()]
    places = itertools.product(range(20, 220, 50), sources)
    return Images([picture[at : at + height, at : at + width] for at, picture in itertools.islice(places, count)])


def each(images: Images, change: Any) -> Images:
    return Images([change(image) for image in images.pixels])


def blurred(images: Images, radius: float) -> Images:
    return each(images, lambda image: np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius))))


def noisy(images: Images, deviation: float) -> Images:
    noise = np.random.default_rng(0).standard_normal(images.pixels[0].shape)
    return each(images, lambda image: (image + deviation * noise).round().clip(0, 255).astype(np.uint8))


def cycle(inputs: Images, cycled: Images) -> MetricInputs:
    return MetricInputs("ab", outputs=inputs, targets=inputs, inputs=inputs, cycled=cycled)


def diversity(outputs: Images, seed: int = 0) -> MetricInputs:
    return MetricInputs("ab", outputs=outputs, targets=outputs, seed=seed)


@pytest.fixture
def stlpips(monkeypatch: pytest.MonkeyPatch) -> Iterator[nn.Module]:
    """The authors' own network with the weights that they ship."""
    for missing, name in (("IPython", "embed"), ("torchsummary", "summary")):
        stub = types.ModuleType(missing)
        setattr(stub, name, None)
        monkeypatch.setitem(sys.modules, missing, stub)
    try:
        module = import_module("stlpips_pytorch.stlpips")
        with torch.random.fork_rng():
            yield module.LPIPS(net="alex", variant="shift_tolerant", verbose=False)
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "stlpips_pytorch"]:
            del sys.modules[name]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file like torchvision's AlexNet, with random weights and without the classifier."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = alexnet().state_dict()
    unnamed = tmp_path_factory.mktemp("served") / "alexnet"
    features = {name: value for name, value in state.items() if name.startswith("features.")}
    torch.save({**features, "classifier.6.bias": state["classifier.6.bias"]}, unnamed)
    return unnamed.rename(f"{unnamed}-owt-{hashlib.sha256(unnamed.read_bytes()).hexdigest()[:8]}.pth")


@pytest.fixture(autouse=True)
def checkpoints(tmp_path: Path, served: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for trunks; nothing can be downloaded until `serve` allows it."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(weights, "URL", (tmp_path / "nowhere" / served.name).as_uri())
    return tmp_path / "torch" / "hub" / "checkpoints"


def serve(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setattr(weights, "URL", path.as_uri())


def put(served: Path, checkpoints: Path) -> Path:
    checkpoints.mkdir(parents=True)
    return Path(shutil.copy(served, checkpoints))


@pytest.fixture
def metric(request: pytest.FixtureRequest, served: Path, checkpoints: Path) -> LPIPS:
    put(served, checkpoints)
    return LPIPS(request.param)


both = pytest.mark.parametrize("metric", NETWORKS, indirect=True)


def value(metric: LPIPS, data: MetricInputs, what: str) -> ganlab.Estimate:
    (name,) = [name for name in metric.numbers if name.endswith(what)]
    return metric.measure(data)[name]


@pytest.mark.parametrize("size", [(21, 21), (64, 48), (71, 90)])
def test_shift_tolerant_as_its_package(size: tuple[int, int], stlpips: nn.Module) -> None:
    read = weights.stlpips_alex()
    images = photographs(6, *size).tensor().double()
    stlpips.double()
    read.trunk.double()
    with torch.no_grad():
        expected = stlpips(images[:3], images[3:]).flatten()
        seen = [read.trunk(half) for half in (images[:3], images[3:])]
    found = distance(seen[0], seen[1], [layer.double() for layer in read.layers])
    assert expected.min() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=0)


def test_constants_are_those_of_its_file() -> None:
    read = weights.stlpips_alex().trunk
    with torch.random.fork_rng():
        constants = dict(Trunk(shift_tolerant=True).named_buffers())
    assert len(constants) == 5
    for name, constant in constants.items():
        assert torch.equal(constant, read.get_buffer(name))


@pytest.mark.filterwarnings("ignore:The parameter 'pretrained' is deprecated")
@pytest.mark.filterwarnings("ignore:Arguments other than a weight enum")
@pytest.mark.parametrize("metric", ["alex"], indirect=True)
def test_alex_as_the_package(metric: LPIPS, served: Path) -> None:
    with torch.random.fork_rng():
        reference = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    state: dict[str, Tensor] = torch.load(served, weights_only=True)
    for part in ("slice1.0", "slice2.3", "slice3.6", "slice4.8", "slice5.10"):
        number = part.partition(".")[2]
        own = {name: state[f"features.{number}.{name}"] for name in ("weight", "bias")}
        reference.net.get_submodule(part).load_state_dict(own)
    # one full batch and an incomplete one
    inputs = photographs(13)
    cycled = blurred(inputs, 2)
    with torch.no_grad():
        expected = reference(inputs.tensor(), cycled.tensor()).flatten().double()
    found = value(metric, cycle(inputs, cycled), "cycle")
    assert found.value == pytest.approx(expected.mean().item(), rel=1e-4)
    # Student's t with 12 degrees of freedom
    half = 2.178813 * expected.std().item() / 13**0.5
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), rel=1e-4)
    assert found.counts == {"pairs": 13}


def test_shift_tolerant_cycle_is_its_packages_mean(stlpips: nn.Module) -> None:
    inputs = photographs(13)
    cycled = noisy(inputs, 20)
    with torch.no_grad():
        expected = stlpips(inputs.tensor(), cycled.tensor()).mean().item()
    assert value(LPIPS("stlpips-alex"), cycle(inputs, cycled), "cycle").value == pytest.approx(expected, rel=1e-5)


@both
def test_what_comes_back_unchanged_is_at_0(metric: LPIPS) -> None:
    images = photographs(9)
    found = value(metric, cycle(images, Images([image.copy() for image in images.pixels])), "cycle")
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_grows_with_blur_and_noise() -> None:
    metric, images = LPIPS("stlpips-alex"), photographs(8)
    for change, strengths in ((blurred, (0.5, 1, 2, 4)), (noisy, (4, 10, 25, 60))):
        found = [value(metric, cycle(images, change(images, strength)), "cycle") for strength in strengths]
        assert all(less.value < more.value for less, more in itertools.pairwise(found))
        assert found[0].high < found[-1].low
    # different pictures are farther apart than a picture and its blurred copy
    assert found[0].value < value(metric, diversity(photographs(16)), "diversity").value


def test_shift_tolerant_minds_a_shift_less_than_a_blur() -> None:
    """The claim of arXiv:2207.13686: a shift by one pixel is not visible and should hardly count."""
    large = photographs(8, 66, 66)
    images = each(large, lambda image: image[:64, :64])
    shifted = each(large, lambda image: image[1:65, :64])
    metric = LPIPS("stlpips-alex")
    changes = [value(metric, cycle(images, changed), "cycle").value for changed in (shifted, blurred(images, 2))]
    assert changes[0] < changes[1]


@both
def test_diversity_of_the_same_output_is_0(metric: LPIPS) -> None:
    found = value(metric, diversity(Images([*photographs(1).pixels] * 9)), "diversity")
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_diversity_is_of_disjoint_pairs() -> None:
    metric, four = LPIPS("stlpips-alex"), photographs(4)

    def between(a: int, b: int) -> float:
        return value(metric, cycle(four.take([a] * 4), four.take([b] * 4)), "cycle").value

    matchings = [(between(a, b) + between(c, d)) / 2 for a, b, c, d in ((0, 1, 2, 3), (0, 2, 1, 3), (0, 3, 1, 2))]
    met = set()
    for seed in range(12):
        found = value(metric, diversity(four, seed), "diversity")
        assert found.counts == {"pairs": 2}
        (which,) = [place for place, matching in enumerate(matchings) if found.value == pytest.approx(matching, 1e-5)]
        met.add(which)
    assert met == {0, 1, 2}
    assert value(metric, diversity(photographs(5)), "diversity").counts == {"pairs": 2}


@pytest.mark.parametrize("network", NETWORKS)
def test_measures_what_there_is(network: Any, served: Path, checkpoints: Path) -> None:
    put(served, checkpoints)
    metric, images = LPIPS(network), photographs(4)
    names = [f"{NAMES[network]}-cycle", f"{NAMES[network]}-diversity"]
    assert list(metric.numbers) == names
    assert [number.better for number in metric.numbers.values()] == ["lower", ""]
    data = cycle(images, blurred(images, 1))
    assert list(metric.measure(data)) == names
    for without in (replace(data, cycled=None), replace(data, inputs=None)):
        missing, found = metric.measure(without).values()
        assert str(missing) == "needs images that were translated back"
        assert isinstance(found, Estimate)


@both
def test_twice_the_same_and_no_draw_from_the_global_generator(metric: LPIPS) -> None:
    images = photographs(11)
    data = cycle(images, noisy(images, 10))
    before = torch.random.get_rng_state()
    first = metric.measure(data)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert LPIPS(metric.network).measure(data) == metric.measure(data) == first


@both
def test_files_are_those_read(metric: LPIPS, checkpoints: Path) -> None:
    assert metric.files() == ()
    metric.measure(diversity(photographs(4)))
    trunk, weights = "alex_shift_tolerant.pth", "alex.pth"
    expected = [trunk] if metric.network == "stlpips-alex" else [next(checkpoints.iterdir()).name, weights]
    assert [path.name for path in metric.files()] == expected
    assert all(path.is_file() for path in metric.files())


def test_its_package_is_not_imported() -> None:
    LPIPS("stlpips-alex").measure(diversity(photographs(4)))
    assert not [name for name in sys.modules if name.partition(".")[0] == "stlpips_pytorch"]


def test_downloads_the_trunk(
    served: Path, checkpoints: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    serve(monkeypatch, served)
    metric = LPIPS("alex")
    assert not checkpoints.exists()
    metric.measure(diversity(photographs(4)))
    (path,) = checkpoints.iterdir()
    assert (path.name, path.read_bytes()) == (served.name, served.read_bytes())
    assert capfd.readouterr() == ("", "")


def test_a_torn_download_leaves_nothing(
    served: Path, checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torn = tmp_path / served.name
    torn.write_bytes(served.read_bytes()[:-1])
    serve(monkeypatch, torn)
    metric = LPIPS("alex")
    with pytest.raises(Unavailable, match=r"downloading it failed .the server sent another file, or only a part of it"):
        metric.measure(diversity(photographs(4)))
    assert not checkpoints.exists()
    assert metric.files() == ()


def test_without_the_trunk_says_what_to_do(served: Path, checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metric, data = LPIPS("alex"), diversity(photographs(4))
    with pytest.raises(Unavailable) as refusal:
        metric.measure(data)
    for said in (weights.URL, str(checkpoints / served.name), "stlpips-alex", "'ganlab[stlpips]'"):
        assert said in str(refusal.value)
    assert not checkpoints.exists()
    # the download is not tried again at each measurement, but in the next evaluation
    serve(monkeypatch, served)
    with pytest.raises(Unavailable, match="downloading it failed"):
        metric.measure(data)
    assert LPIPS("alex").measure(data)


def test_a_torn_trunk_is_not_read(served: Path, checkpoints: Path) -> None:
    path = put(served, checkpoints)
    path.write_bytes(served.read_bytes()[:-1])
    with pytest.raises(Unavailable, match=rf"{served.name} is not the complete file of .*; delete it"):
        LPIPS("alex").measure(diversity(photographs(4)))


def test_the_trunk_is_torchvisions_file() -> None:
    assert AlexNet_Weights.IMAGENET1K_V1.url == URL


def test_auto_takes_what_is_there(served: Path, checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, served)
    data = diversity(photographs(4))
    assert list(LPIPS().measure(data)) == ["stlpips-alex-cycle", "stlpips-alex-diversity"]
    assert not checkpoints.exists()
    put(served, checkpoints)
    assert list(LPIPS().measure(data)) == ["lpips-alex-cycle", "lpips-alex-diversity"]


def test_auto_without_any_weights_names_both_places(
    served: Path, checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, served)
    # Python then raises ImportError, as if the package did not exist
    monkeypatch.setitem(sys.modules, "stlpips_pytorch", None)
    for metric in (LPIPS(), LPIPS("stlpips-alex")):
        with pytest.raises(Unavailable) as refusal:
            metric.measure(diversity(photographs(4)))
        for said in ("'ganlab[stlpips]'", weights.URL, str(checkpoints / served.name)):
            assert said in str(refusal.value)
    assert not checkpoints.exists()


@pytest.mark.parametrize(("network", "least"), [("alex", 31), ("stlpips-alex", 21)])
def test_refuses_images_too_small_for_the_trunk(network: Any, least: int, served: Path, checkpoints: Path) -> None:
    put(served, checkpoints)
    sentence = f"{NAMES[network]} needs images of at least {least}x{least} pixels; they are 40x{least - 1}"
    with pytest.raises(Unavailable, match=f"^{sentence}$"):
        LPIPS(network).measure(diversity(photographs(4, 40, least - 1)))
    assert LPIPS(network).measure(diversity(photographs(4, least, least)))


def test_refuses_several_sizes_and_too_few() -> None:
    metric, images = LPIPS("stlpips-alex"), photographs(4)
    with pytest.raises(Unavailable, match="from 64x48 to 65x48"):
        metric.measure(cycle(images, photographs(4, 65)))
    with pytest.raises(Unavailable, match=r"at least 4 images \(outputs\), and there are 3"):
        metric.measure(diversity(photographs(3)))


def test_is_a_component() -> None:
    assert ganlab_lpips.ganlab_metrics() == {"lpips": LPIPS, "lpips-pair": LPIPSPair}
    assert validate(LPIPS, {}).model_dump() == {"network": "auto", "pairs": None}
    with pytest.raises(ValidationError, match="'auto', 'alex' or 'stlpips-alex'"):
        validate(LPIPS, {"network": "vgg"})


def test_fewer_pairs_are_some_of_all_pairs() -> None:
    """The distances of a few cycles are those of as many images, each with its own reconstruction."""
    inputs = photographs(12)
    cycled = blurred(inputs, 2)
    found = LPIPS("stlpips-alex", pairs=5).measure(cycle(inputs, cycled))
    assert [estimate.counts for estimate in found.values() if isinstance(estimate, Estimate)] == [{"pairs": 5}] * 2
    chosen = [int(i) for i in keyed("fewer", 0, 12).permutation(12)[:5]]
    some = cycle(inputs.take(chosen), cycled.take(chosen))
    wanted = value(LPIPS("stlpips-alex"), some, "cycle").value
    assert value(LPIPS("stlpips-alex", pairs=5), cycle(inputs, cycled), "cycle").value == pytest.approx(
        wanted, rel=1e-5
    )


def pooled(network: nn.Module, images: Images) -> np.ndarray:
    """The vectors of "stlpips-alex" from the authors' own network, in float64: at each position unit length, the mean
    over 4 x 4 cells, each layer's squared length at most 1, D times the mean over the layers."""
    stacked = np.stack([resized(image, 64) for image in images.pixels]).transpose(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        activations = network.net(network.scaling_layer(torch.from_numpy(stacked)))  # type: ignore[operator, union-attr]
    parts = []
    for layer in activations:
        a = layer.numpy()
        a = a / np.maximum(np.sqrt(np.square(a).sum(1, keepdims=True)), 1e-10)
        size = a.shape[2]
        # as torch's adaptive pooling: cell i from floor(i size / 4) to ceil((i + 1) size / 4)
        edges = [(i * size // 4, -(-(i + 1) * size // 4)) for i in range(4)]
        cells = [[a[:, :, t:b, left:r].mean((2, 3)) for left, r in edges] for t, b in edges]
        parts.append(np.array(cells).transpose(2, 3, 0, 1).reshape(len(a), -1) / 4)
    vectors: np.ndarray = np.concatenate(parts, 1)
    return vectors * np.sqrt(vectors.shape[1] / 5)


def test_the_features_are_the_packages_activations_on_a_grid(stlpips: nn.Module) -> None:
    """The vectors, and KID from the plain formula: a mean over all pairs of different images, in one double loop."""
    sharp, soft = photographs(12, 64, 64), blurred(photographs(12, 80, 80), 1)
    wanted = [pooled(stlpips.double(), images) for images in (sharp, soft)]
    assert wanted[0].shape == (12, 18432)
    assert max(np.square(vectors).sum(1).max() / vectors.shape[1] for vectors in wanted) <= 1
    extract = Extractor(ShiftTolerantAlexNet(), "stlpips-alex", torch.device("cpu"))
    found = [extract(images) for images in (sharp, soft)]
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-4)

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / len(x) + 1) ** 3)

    within = [np.mean([kernel(s[i], s[j]) for i in range(12) for j in range(12) if i != j]) for s in wanted]
    between = np.mean([kernel(x, y) for x in wanted[0] for y in wanted[1]])
    assert kid.estimate(*found, 0).value == pytest.approx(sum(within) - 2 * between, rel=1e-3)


def test_the_features_need_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ganlab_lpips.ganlab_features() == {"stlpips-alex": ShiftTolerantAlexNet}
    (file,) = ShiftTolerantAlexNet().files()
    assert file.name == "alex_shift_tolerant.pth"
    monkeypatch.setitem(sys.modules, "stlpips_pytorch", None)
    with pytest.raises(Unavailable, match=r"'ganlab\[stlpips\]'"):
        ShiftTolerantAlexNet()
