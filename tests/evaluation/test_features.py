"""Feature extraction: clean-fid's resize bit for bit; vectors are kept until something that they depend on changes."""

from __future__ import annotations

import gc
import hashlib
import io
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from cleanfid.resize import build_resizer
from torch import Tensor, nn

import ganlab
from ganlab import Images
from ganlab.determinism import keyed
from ganlab.evaluation.features import Extractor, cache_folder, resized
from ganlab.files import hashes

SIZE = 8
CPU = torch.device("cpu")


def noise(*shape: int, key: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return keyed("test", key).integers(0, 256, shape, np.uint8)


def pictures(count: int, real: bool = True) -> Images:
    """Pictures of three sizes."""
    return Images([noise(SIZE + i % 3, SIZE, 3, key=i) for i in range(count)], real=real)


class Small(ganlab.Features):
    """A convolution of known weights and an average; counts the images of each forward."""

    size = SIZE

    def __init__(self, scale: float = 1.0, weights: Sequence[Path] = ()) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 5, 3)
        with torch.no_grad():
            for p in self.convolution.parameters():
                p.copy_(scale * torch.from_numpy(keyed("weights").standard_normal(p.shape)))
        self.weights = weights
        self.batches: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.batches.append(len(images))
        return self.convolution(images).relu().mean(dim=(2, 3))

    def files(self) -> Sequence[Path]:
        return self.weights


@pytest.mark.parametrize(
    "image",
    [
        *(noise(*shape, 3) for shape in [(1, 1), (1, 7), (2, 3), (64, 64), (298, 300), (299, 299), (401, 37)]),
        skimage.data.chelsea(),
        skimage.data.astronaut(),
        skimage.data.chelsea()[:40, ::2],
        np.full((5, 5, 3), 255, np.uint8),
    ],
    ids=lambda image: "x".join(map(str, image.shape[:2])),
)
def test_resize_is_clean_fids_bit_for_bit(image: np.ndarray) -> None:
    wanted, found = build_resizer("clean")(image), resized(image, 299)
    assert found.dtype == wanted.dtype == np.float32
    assert found.shape == (299, 299, 3)
    assert found.tobytes() == wanted.tobytes()


def test_an_image_of_the_right_size_is_unchanged() -> None:
    for size in (1, SIZE, 299):
        image = noise(size, size, 3)
        np.testing.assert_array_equal(resized(image, size), image)


def test_vectors_are_those_of_the_network() -> None:
    """Compared with one image at a time in float64; a set is cut into batches of 32."""
    network, images = Small(), pictures(70, real=False)
    found = Extractor(network, "small", CPU)(images)
    assert sorted(network.batches) == [6, 32, 32]
    assert found.dtype == np.float64
    exact = Small().double()
    with torch.no_grad():
        for image, vector in zip(images.pixels, found, strict=True):
            pixels = torch.from_numpy(resized(image, SIZE)).double().permute(2, 0, 1)[None]
            np.testing.assert_allclose(vector, exact(pixels / 127.5 - 1)[0], rtol=0, atol=1e-5)


def test_progress_is_told_of_every_image() -> None:
    seen: list[tuple[int, int]] = []

    def progress(items: Iterable[Any], what: str, total: int) -> Iterable[Any]:
        items = list(items)
        seen.append((len(items), total))
        return items

    Extractor(Small(), "small", CPU, progress=progress)(pictures(33))
    assert seen == [(33, 33)]


def test_a_set_and_its_parts_are_computed_once_while_it_lives() -> None:
    network = Small()
    extract, images = Extractor(network, "small", CPU), pictures(40)
    found = extract(images)
    assert extract(images) is found
    part = extract(images.take([39, 0, 7, 7]))
    assert part.tobytes() == found[[39, 0, 7, 7]].tobytes()
    assert sorted(network.batches) == [8, 32]
    other = pictures(40)
    other.pixels[3][0, 0, 0] ^= 1
    assert not np.array_equal(extract(other)[3], found[3])
    assert sorted(network.batches) == [8, 8, 32, 32]
    del images, other
    gc.collect()
    extract(pictures(40))
    assert sum(network.batches) == 120


Make = Callable[..., tuple[Small, Extractor]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A network and its extractor with the folder tmp_path/cache."""

    def make(identity: str = "small", **options: Any) -> tuple[Small, Extractor]:
        network = Small(**options)
        return network, Extractor(network, identity, CPU, tmp_path / "cache")

    return make


def test_vectors_of_real_sets_are_kept_on_disk(make: Make, tmp_path: Path) -> None:
    first, second = make(), make()
    found = first[1](pictures(40))
    assert second[1](pictures(40)).tobytes() == found.tobytes()
    # one image: the second extractor checks that it computes the same vector as the first
    assert second[0].batches == [1]
    assert len(list((tmp_path / "cache").iterdir())) == 1
    # a file as NumPy writes it
    (file,) = (tmp_path / "cache").iterdir()
    np.testing.assert_array_equal(np.load(file, allow_pickle=False), found)


def test_what_a_killed_process_left_is_removed(make: Make, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/.vectors.npy.17.unfinished").touch()
    make()[1](pictures(3))
    (file,) = (tmp_path / "cache").iterdir()
    assert file.suffix == ".npy"


def test_translated_sets_are_not_kept(make: Make, tmp_path: Path) -> None:
    make()[1](pictures(3, real=False))
    assert not (tmp_path / "cache").exists()


def test_what_vectors_depend_on_is_noticed(make: Make, tmp_path: Path) -> None:
    """Vectors depend on pixels, the order and shapes of images, options, weights and code."""
    make()[1](pictures(9))
    changed, turned, cut = pictures(9), pictures(9), pictures(9)
    changed.pixels[8][-1, -1, -1] ^= 1
    flat = [*pictures(9).pixels[:8], pictures(9).pixels[8].reshape(-1, 2, 3)]
    for images in (changed, Images(turned.pixels[::-1], real=True), cut.take(range(8)), Images(flat, real=True)):
        network, extract = make()
        assert extract(images).tobytes() == Extractor(Small(), "small", CPU)(images).tobytes()
        assert sum(network.batches) == len(images) + 1
    weights = tmp_path / "weights"
    for content in (b"one", b"two"):
        weights.write_bytes(content)
        network, extract = make(weights=[weights])
        extract(pictures(9))
        assert network.batches == [1, 9]
    network, extract = make('{"type": "small", "option": 1}')
    extract(pictures(9))
    assert network.batches == [1, 9]
    network, extract = make(scale=2.0)
    np.testing.assert_allclose(extract(pictures(9)), 2 * make()[1](pictures(9)), rtol=1e-5)
    assert network.batches == [1, 9]


class Exact(Small):
    """Notes the number of threads with which an operation is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[int] = set()

    def forward(self, images: Tensor) -> Tensor:
        self.threads.add(torch.get_num_threads())
        return super().forward(images)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_vectors_do_not_depend_on_the_number_of_threads(threads: int) -> None:
    """Each thread computes batches of its own with one thread, and the vectors stay in the order of the images."""
    before = torch.get_num_threads()
    wanted = Extractor(Small(), "small", CPU)(pictures(200))
    network = Exact()
    try:
        torch.set_num_threads(threads)
        found = Extractor(network, "small", CPU)(pictures(200))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert found.tobytes() == wanted.tobytes()
    assert network.threads == {1}


@pytest.mark.parametrize(("size", "batch"), [(8, 32), (80, 31), (112, 16), (224, 4), (299, 2), (500, 1)])
def test_larger_images_come_in_smaller_batches(size: int, batch: int) -> None:
    network = Small()
    network.size = size
    Extractor(network, "small", CPU)(pictures(batch + 1))
    assert sorted(network.batches) == [1, batch]


def pickled() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"not": "numbers"}], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def sealed(vectors: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, vectors)
    return buffer.getvalue() + hashlib.sha256(buffer.getvalue()).digest()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: content[:200],
        lambda content: content[:-40] + bytes([content[-40] ^ 1]) + content[-39:],
        lambda content: b"something else entirely",
        lambda content: pickled(),
        lambda content: sealed(np.zeros((40, 4), np.float32)),
        lambda content: sealed(np.zeros((39, 5), np.float32)),
        lambda content: sealed(np.zeros(200, np.float32)),
    ],
    ids=["empty", "end", "half", "bit", "text", "pickle", "columns", "rows", "flat"],
)
def test_a_damaged_file_is_made_anew(make: Make, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    found = make()[1](pictures(40))
    (file,) = (tmp_path / "cache").iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert make()[1](pictures(40)).tobytes() == found.tobytes()
    assert file.read_bytes() == whole
    assert list((tmp_path / "cache").iterdir()) == [file]


def test_an_unusable_folder_costs_time_alone(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        found = Extractor(Small(), "small", CPU, folder)(pictures(3))
        assert found.tobytes() == Extractor(Small(), "small", CPU)(pictures(3)).tobytes()
    # a folder has the name of the vectors' file
    extract = Extractor(Small(), "small", CPU, tmp_path / "cache")
    extract(pictures(3))
    (file,) = (tmp_path / "cache").iterdir()
    file.unlink()
    file.mkdir()
    assert Extractor(Small(), "small", CPU, tmp_path / "cache")(pictures(3)).tobytes() == found.tobytes()
    assert list((tmp_path / "cache").iterdir()) == [file]


class Random(Small):
    """Draws from torch's global generator, and applies dropout in train mode."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(images), 0.5, self.training) + 0 * torch.rand(1)


def test_extraction_leaves_everything_as_it_was() -> None:
    network = Random().train()
    network.convolution.bias.requires_grad_(False)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            found = Extractor(network, "random", CPU)(pictures(5))
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(precision)
    assert torch.equal(torch.get_rng_state(), before)
    assert network.training
    assert network.convolution.weight.requires_grad
    assert not network.convolution.bias.requires_grad
    # no dropout, and float32 although autocast is on
    assert found.tobytes() == Extractor(Small(), "small", CPU)(pictures(5)).tobytes()


@pytest.mark.parametrize("end", [lambda x: x[:, :, None, None], lambda x: x.flatten(), lambda x: x[:1]])
def test_what_gives_no_vectors_is_refused(end: Callable[[Tensor], Tensor]) -> None:
    class Wrong(Small):
        def forward(self, images: Tensor) -> Tensor:
            return end(super().forward(images))

    with pytest.raises(ganlab.SpecError, match=r"features wrong: 2 images gave \(.*\), not \(N, D\) vectors"):
        Extractor(Wrong(), "wrong", CPU)(pictures(2))


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(ganlab.Unavailable, match="needs images, and there are none"):
        Extractor(Small(), "small", CPU)(Images([]))


def test_hashes_follow_the_files(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"1")
    two.write_bytes(b"2" * 3_000_000)
    wanted = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in (one, two)}
    assert hashes([one, two]) == wanted
    one.write_bytes(b"3")
    os.utime(one, ns=(1, 1))
    assert hashes([one]) == {"one": hashlib.sha256(b"3").hexdigest()}


def test_the_cache_can_be_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path / "features"
    monkeypatch.delenv("GANLAB_CACHE")
    folder = cache_folder()
    assert folder is not None
    assert folder.parent.name == "ganlab"


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = [tmp_path / folder / "weights.pt" for folder in ("x", "y", "z/y")]
    for path in paths:
        path.parent.mkdir(parents=True)
        path.write_text(str(path))
    found = hashes([*paths, paths[0]])
    assert list(found) == ["weights.pt", "y/weights.pt", "z/y/weights.pt"]
    assert list(found.values()) == [hashlib.sha256(str(path).encode()).hexdigest() for path in paths]


def test_no_metric_can_change_what_the_next_one_sees() -> None:
    vectors = Extractor(Small(), "small", CPU)(pictures(4))
    with pytest.raises(ValueError, match="read-only"):
        vectors -= 1


class Failing(Small):
    def forward(self, images: Tensor) -> Tensor:
        raise RuntimeError("out of luck")


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (Failing(), "features failing: RuntimeError: out of luck"),
        (Small(float("nan")), "features failing are not finite"),
    ],
)
def test_a_network_that_fails_is_named(network: ganlab.Features, said: str) -> None:
    with pytest.raises(ganlab.Unavailable, match=said):
        Extractor(network, "failing", CPU)(pictures(4))


def test_a_user_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> Path:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.delenv("GANLAB_CACHE", raising=False)
    monkeypatch.setattr("platformdirs.user_cache_path", unknown)
    assert cache_folder() is None
