"""The images of a set once they are read, and the facts about all of their pixels."""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

if TYPE_CHECKING:
    from hashlib import _Hash


class Facts(NamedTuple):
    """What a run needs to know of all pixels of a set."""

    brightest: int
    """The largest value of all images."""
    constant: bool
    """True if no image has two different colours."""
    sha256: str
    """A hash of all keys, pixels and labels."""


class Content(NamedTuple):
    """The images of a set that could be read."""

    keys: tuple[str, ...]
    """The source's keys of the n images."""
    images: Tensor
    """(n, C, H, W) uint8."""
    labels: Tensor | None
    """The classes of the images, (n,) integers; None if the source has no classes."""
    skipped: tuple[str, ...]
    """"key: reason" for each image that could not be read."""
    notes: dict[str, list[str]]
    """{warning: keys of the images that it was given for}."""
    facts: Facts | None = None
    """The facts about the images, if they are known without reading all of them."""
    mapping: mmap.mmap | None = None
    """The file that `images` is mapped from; None if the images are in memory."""


def facts_of(keys: Sequence[str], images: Tensor, labels: Tensor | None) -> Facts:
    """Reads all pixels (n, C, H, W), and returns the facts about them."""
    constant = all(bool((image == image[:, :1]).all()) for image in images.flatten(2))
    digest = begun_digest(keys, images.shape)
    for image in images:
        digest.update(image.numpy().tobytes())
    if labels is not None:
        digest.update(labels.numpy().tobytes())
    return Facts(int(images.max()), constant, digest.hexdigest())


def begun_digest(keys: Sequence[str], shape: Sequence[int]) -> _Hash:
    """Returns the hash of a set's keys and of the shape (n, C, H, W) of its images; the pixels come next."""
    return hashlib.sha256(json.dumps([[*keys], [*shape]]).encode())
