"""Reads the images of one domain once, keeps them as uint8 and divides them into training and held-out images."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ganlab.data.reading import describe, noting_warnings, read_all, without_partner
from ganlab.determinism import keyed
from ganlab.errors import SpecError
from ganlab.interfaces.networks import Domain
from ganlab.interfaces.sources import Source

Progress = Callable[[Iterable[Any], str, int], Iterable[Any]]
"""(items, a name for them, their number) -> the items. Shows the progress of an iteration over the items."""


def silent(items: Iterable[Any], what: str, total: int) -> Iterable[Any]:
    """Returns the items without showing progress."""
    return items


@dataclass(frozen=True)
class Dataset:
    """The images of one domain in memory, divided into training and held-out images."""

    domain: Domain
    source: Source
    """The source that the images were read from."""
    keys: tuple[str, ...]
    """The source's keys of the n images."""
    images: Tensor
    """(n, C, H, W) uint8."""
    labels: Tensor | None
    """The classes of the images, (n,) integers; None if the source has no classes."""
    train: Tensor
    """The indices of the training images, ascending."""
    holdout: Tensor
    """The indices of the held-out images, ascending. No index is in both `train` and `holdout`."""
    skipped: tuple[str, ...]
    """"key: reason" for each image that could not be read."""
    notes: dict[str, list[str]] = field(default_factory=dict)
    """{warning: keys of the images that it was given for}."""
    ordered_as: str = ""
    """The domain whose random order, flips and divisions the images follow: "a" for both domains of paired data; "" for
    the own domain's."""
    alone: tuple[str, ...] = ()
    """The keys of images of the source that paired data leave out, because they have no readable partner."""

    @property
    def order(self) -> str:
        """The name of the domain that keys all random choices among the images."""
        return self.ordered_as or self.domain.name

    def warnings(self) -> list[str]:
        """Returns sentences that a person should read before the images are used."""
        colours = self.images.flatten(2)
        constant = all(bool((image == image[:, :1]).all()) for image in colours)
        brightest = int(self.images.max())
        where = f"data.{self.domain.name}"
        alone = [without_partner(where, self.alone)] if self.alone else []
        return [*alone, *describe(where, self.keys, self.skipped, self.notes, brightest, constant)]

    def fingerprint(self) -> dict[str, Any]:
        """Returns {"images", "held_out", "skipped", "sha256"}: counts, and a hash of all keys, pixels and labels."""
        return {
            "images": len(self.keys),
            "held_out": len(self.holdout),
            "skipped": [*self.skipped, *(f"{key}: no partner" for key in self.alone)],
            "sha256": self._digest,
        }

    @functools.cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256(json.dumps([self.keys, list(self.images.shape)]).encode())
        for image in self.images:
            digest.update(image.numpy().tobytes())
        if self.labels is not None:
            digest.update(self.labels.numpy().tobytes())
        return digest.hexdigest()

    def pixels(self, indices: Tensor) -> Tensor:
        """Indices (N,) -> images (N, C, H, W) float32 in [-1, 1]."""
        return normalised(self.images[indices], torch.float32)


def normalised(images: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8, 0 to 255 -> `dtype`, [-1, 1]."""
    return images.to(dtype).div_(127.5).sub_(1)


def load(
    source: Source,
    domain: str,
    size: int,
    holdout: float,
    progress: Progress = silent,
    most: int | None = None,
    ordered_as: str = "",
    keys: Sequence[str] | None = None,
) -> Dataset:
    """Reads the images of a source at `size` x `size` pixels: all, or the first `most` that can be read.

    `holdout` is the fraction of held-out images; at least one image is held out and at least one is trained on.
    `ordered_as` is the domain whose division into training and held-out images is used, "" for the own one. `keys` are
    those to read, by default all of the source's. Raises SpecError if fewer than two images can be read, if they do not
    fit into memory, or if an image or a label differs from what the source declares.
    """
    if source.channels not in (1, 3):
        raise SpecError(f"data.{domain}: the source has {source.channels} channels; 1 (grey) and 3 (RGB) are allowed")
    keys = source.keys(domain) if keys is None else keys
    total = min(len(keys), most or len(keys))
    pixels = _allocate(total, source.channels, size, domain)
    kept: list[str] = []
    skipped: list[str] = []
    notes: dict[str, list[str]] = {}
    # closed before the warnings go elsewhere: images beyond `most` are being read
    with noting_warnings(), closing(read_all(lambda key: source.image(key, size), keys)) as images:
        for key, image, noted in progress(images, f"images of {domain}", total):
            if isinstance(image, Exception):
                skipped.append(f"{key}: {image}")
                continue
            if image.shape != (size, size, source.channels) or image.dtype != np.uint8:
                raise SpecError(
                    f"data.{domain}: image {key!r} of the source: expected uint8 {(size, size, source.channels)},"
                    f" got {image.dtype} {image.shape}"
                )
            for note in dict.fromkeys(noted):
                notes.setdefault(note, []).append(key)
            pixels[len(kept)] = image.transpose(2, 0, 1)
            kept.append(key)
            if len(kept) == most:
                break
    if len(kept) < 2:
        raise SpecError(
            f"data.{domain}: {len(kept)} of {len(keys)} images can be read; at least two are needed, one to train on"
            f" and one to hold out{'; ' + skipped[0] if skipped else ''}"
        )
    count = len(kept)
    # depends on domain and count alone, so that runs with different random seeds are measured on the same images
    order = torch.from_numpy(keyed("holdout", ordered_as or domain, count).permutation(count))
    held = held_out(count, holdout)
    return Dataset(
        Domain(domain, source.channels, size, size, source.classes),
        source,
        tuple(kept),
        torch.from_numpy(pixels[:count]),
        _labels(source, kept, domain) if source.classes else None,
        order[held:].sort().values,
        order[:held].sort().values,
        tuple(skipped),
        notes,
        ordered_as,
    )


def held_out(count: int, holdout: float) -> int:
    """Returns how many of `count` images are held out of training."""
    return min(max(round(count * holdout), 1), count - 1)


def _allocate(count: int, channels: int, size: int, domain: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    try:
        return np.empty((count, channels, size, size), np.uint8)
    except MemoryError as error:
        need = count * channels * size * size / 2**30
        raise SpecError(f"data.{domain}: {count} images at {size} pixels need {need:.1f} GiB of memory") from error


def _labels(source: Source, keys: list[str], domain: str) -> Tensor:
    labels = torch.tensor([source.label(key) for key in keys])
    if not (labels.min() >= 0 and labels.max() < source.classes):
        raise SpecError(
            f"data.{domain}: labels go from {labels.min()} to {labels.max()}; 0 to {source.classes - 1} are allowed"
        )
    return labels
