"""The images of a set and their extras once they are read, and the facts about all of their pixels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from ganlab.data.pixel_file import PixelFile
from ganlab.interfaces.sources import Extra, Source

if TYPE_CHECKING:
    from hashlib import _Hash


class Facts(NamedTuple):
    """What a run needs to know of all pixels of a set."""

    brightest: int
    """The largest value of all images."""
    constant: bool
    """True if no image has two different colours."""
    sha256: str
    """A hash of all keys, pixels, extras and labels."""


class Content(NamedTuple):
    """The images of a set that could be read."""

    keys: tuple[str, ...]
    """The source's keys of the n images."""
    layers: Tensor
    """(n, L, H, W) uint8: the channels of each image, then those of its extras in their order."""
    labels: Tensor | None
    """The classes of the images, (n,) integers; None if the source has no classes."""
    skipped: tuple[str, ...]
    """"key: reason" for each image that could not be read."""
    notes: dict[str, list[str]]
    """{warning: keys of the images that it was given for}."""
    facts: Facts | None = None
    """The facts about the images, if they are known without reading all of them."""
    file: PixelFile | None = None
    """The file that `layers` is mapped from; None if the images are in memory."""


def layers_of(source: Source) -> int:
    """Returns the number of channels of an image and its extras."""
    return source.channels + sum(extra.channels for extra in source.extras.values())


def facts_of(source: Source, keys: Sequence[str], layers: Tensor, labels: Tensor | None) -> Facts:
    """Reads all images and extras of a source, (n, L, H, W), and returns the facts about them."""
    images = layers[:, : source.channels]
    constant = all(bool((image == image[:, :1]).all()) for image in images.flatten(2))
    digest = begun_digest(keys, layers.shape, source.extras)
    for each in layers:
        digest.update(each.numpy().tobytes())
    if labels is not None:
        digest.update(labels.numpy().tobytes())
    return Facts(int(images.max()), constant, digest.hexdigest())


def begun_digest(keys: Sequence[str], shape: Sequence[int], extras: Mapping[str, Extra]) -> _Hash:
    """Returns the hash of a set's keys, the shape (n, L, H, W) of its layers, and the names and kinds of its extras.
    The caller adds the layers."""
    declared = [[[*extras], [*extras.values()]]] if extras else []
    return hashlib.sha256(json.dumps([[*keys], [*shape], *declared]).encode())
