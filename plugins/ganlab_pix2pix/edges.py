"""Pairs from single pictures: the edges of the pictures of another source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import ganlab

LUMA = (0.299, 0.587, 0.114)
"""The weights of red, green and blue (ITU-R BT.601)."""


class Edges(ganlab.Source):
    """The edges of another source's images: black lines on white, one channel.

    A line is as dark as its edge is strong. The strength is the length of the gradient of the luminance by Sobel's
    operator (Sobel and Feldman, 1968), with pixels of the border repeated. A strength of 0 is white. A strength of 1,
    that of a step from black to white, is black, and so are larger ones.

    The edges in one domain belong to the images that `of` gives the other domain, and have their keys. So `edges` of a
    source in one domain and the same source in the other are pairs. They have the extras of the images too.

    Args:
        of: the source of the images.
    """

    channels = 1

    def __init__(self, of: ganlab.Source) -> None:
        self._of = of
        self.classes = of.classes
        self.divided = of.divided
        self.extras = of.extras

    def keys(self, domain: str) -> list[str]:
        """Returns the keys that `of` has in the other domain."""
        return self._of.keys("b" if domain == "a" else "a")

    def image(self, key: str, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Returns the edges of the image as (size, size, 1) uint8: 255 without an edge, 0 at the strongest."""
        strength = sobel(luminance(self._of.image(key, size)))
        grey: np.ndarray[Any, np.dtype[np.uint8]] = np.rint(255 * (1 - strength.clip(max=1))).astype(np.uint8)
        return grey[..., None]

    def extra(self, name: str, key: str, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Returns the extra of the image."""
        return self._of.extra(name, key, size)

    def is_image(self, key: str) -> bool:
        return self._of.is_image(key)

    def is_held_out(self, key: str) -> bool:
        return self._of.is_held_out(key)

    def files(self, key: str) -> Sequence[Path]:
        """Returns the files of the image."""
        return self._of.files(key)

    def label(self, key: str) -> int:
        """Returns the class of the image."""
        return self._of.label(key)

    def attributes(self, key: str) -> dict[str, str]:
        """Returns the attributes of the image."""
        return self._of.attributes(key)

    def credits(self) -> str:
        """Returns the credits of the images."""
        return self._of.credits()


def luminance(image: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Returns (H, W) in [0, 1] for an image (H, W, C), 0 to 255, of 1 or 3 channels."""
    weights = np.array(LUMA if image.shape[2] == 3 else (1.0,)) / 255
    found: np.ndarray[Any, np.dtype[np.float64]] = image @ weights
    return found


def sobel(values: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Returns the length of the gradient (H, W) of values (H, W). A step of height 1 along an axis has length 1."""
    padded = np.pad(values, 1, "edge")

    def slope(along: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Returns the slope along the second axis, smoothed by 1, 2, 1 along the first."""
        step = along[:, 2:] - along[:, :-2]
        smooth: np.ndarray[Any, np.dtype[np.float64]] = (step[:-2] + 2 * step[1:-1] + step[2:]) / 4
        return smooth

    length: np.ndarray[Any, np.dtype[np.float64]] = np.hypot(slope(padded), slope(padded.T).T)
    return length
