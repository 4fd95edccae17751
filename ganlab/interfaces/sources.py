"""The interface of image sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np


class Extra(NamedTuple):
    """A further array that a source gives with each image: a mask, landmarks drawn as a picture, a second picture.

    It has the height and width of the image, is stored beside the image, and is cut and mirrored with it.
    """

    channels: int = 1
    """The number of channels, 1 or more."""
    values: Literal["picture", "classes"] = "picture"
    """"picture": brightness, 0 to 255, which a loss reads in [-1, 1], as images. "classes": integers, 0 to 255, which a
    loss reads as they are. A source resizes a picture with antialiasing, and takes classes from the nearest pixel."""


class Source:
    """A set of images. A key, a string, names each image. Subclasses implement `keys` and `image`."""

    channels: int = 3
    """The channels of an image: 3 (RGB) or 1 (grey)."""
    classes: int = 0
    """The number of class labels; 0 if the images have none."""
    extras: Mapping[str, Extra] = {}
    """{name: what `extra` gives}. A loss reads it at `t.source_extras[name]` and `t.target_extras[name]`."""
    divided: bool = False
    """True if `is_held_out` says which images are held out of training. If False, `data.holdout` is used."""

    def keys(self, domain: str) -> list[str]:
        """Returns the images' keys in a fixed order. `domain`, "a" or "b", is the domain that uses the source."""
        raise NotImplementedError(f"{type(self).__name__} has no keys")

    def image(self, key: str, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Returns the image as (size, size, channels), 0 to 255. Several threads call it at once.

        Raises OSError or ValueError if the image cannot be read. The core then leaves the image out and reports it.
        """
        raise NotImplementedError(f"{type(self).__name__} has no image")

    def extra(self, name: str, key: str, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Returns an extra of the image as (size, size, extras[name].channels), 0 to 255. Several threads call it at
        once.

        Not called for an image that `is_held_out` names: losses see training images only. Raises OSError or ValueError
        if the extra is missing or cannot be read. The core then leaves the image out and reports it.
        """
        raise NotImplementedError(f"{type(self).__name__} has no extra")

    def is_image(self, key: str) -> bool:
        """Returns False if a quick look shows that the key names no image, or one without an extra, so that `ganlab
        check` does not count it. A file may still turn out to be damaged when it is read."""
        return True

    def is_held_out(self, key: str) -> bool:
        """Returns True for an image that is held out of training. Called only if `divided` is True."""
        raise NotImplementedError(f"{type(self).__name__} has no is_held_out")

    def label(self, key: str) -> int:
        """Returns the image's class, 0 <= label < classes. Called only if `classes` is not 0."""
        raise NotImplementedError(f"{type(self).__name__} has no label")

    def files(self, key: str) -> Sequence[Path]:
        """Returns the files that the image, its label and its extras come from; () if the image is drawn, or if they
        are not known.

        If a source names its files, the images of a large set are prepared once: their pixels and extras are written to
        disk, and later runs map them into memory instead of calling `image` and `extra`. They are prepared again if the
        path, size or modification time of a file has changed. Processes that are forked from this one call both methods
        to prepare them. So these must open the files themselves: the processes would share the position of a file that
        was open before.
        """
        return ()

    def attributes(self, key: str) -> dict[str, str]:
        """Returns what is known of the image's content, for example {"hair": "black"}."""
        return {}

    def credits(self) -> str:
        """Returns one line of plain text that names the makers and the licence of the images; "" if they are not known.

        The page of a run and the model card of a shared model show it.
        """
        return ""
