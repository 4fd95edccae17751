"""Reads or maps the images of one domain, as uint8, and divides them into training and held-out images."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ganlab.data import store
from ganlab.data.blocks import Pixels
from ganlab.data.content import Content, Facts, facts_of, layers_of
from ganlab.data.pixel_file import PixelFile
from ganlab.data.reading import Progress, describe, noting_warnings, read_all, silent, without_partner
from ganlab.determinism import keyed
from ganlab.errors import SpecError
from ganlab.interfaces.networks import Domain
from ganlab.interfaces.sources import Source


@dataclass(frozen=True)
class Dataset:
    """The images of one domain, divided into training and held-out images."""

    domain: Domain
    source: Source
    """The source that the images were read from."""
    keys: tuple[str, ...]
    """The source's keys of the n images."""
    layers: Tensor
    """(n, L, H, W) uint8: the channels of each image, then those of its extras in the order of `source.extras`."""
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
    recorded: Facts | None = None
    """The facts about all pixels, which prepared images have; None if they are not known without reading all pixels."""
    file: PixelFile | None = None
    """The file that `layers` is mapped from; None for images in memory."""
    ordered_as: str = ""
    """The domain that keys the random order, cuts, flips and division of the images: "a" for both domains of paired
    data; "" for the images' own domain."""
    larger: Dataset | None = None
    """The same images at a larger size, out of which training images are cut at random; None if nothing is cut."""
    alone: tuple[str, ...] = ()
    """The keys of images of the source that paired data leave out, because they have no readable partner."""

    @property
    def images(self) -> Tensor:
        """The images without their extras, (n, C, H, W) uint8."""
        return self.layers[:, : self.domain.channels]

    @property
    def order(self) -> str:
        """The name of the domain that keys all random choices among the images."""
        return self.ordered_as or self.domain.name

    @property
    def sha256(self) -> str:
        """A hash of all keys, pixels, extras and labels, without those of `larger` images."""
        return self._facts.sha256

    def warnings(self) -> list[str]:
        """Returns sentences that a person should read before the images are used."""
        where, facts = f"data.{self.domain.name}", self._facts
        alone = [without_partner(where, self.alone)] if self.alone else []
        return [*alone, *describe(where, self.keys, self.skipped, self.notes, facts.brightest, facts.constant)]

    def fingerprint(self) -> dict[str, Any]:
        """Returns {"images", "held_out", "skipped", "sha256"}: counts, and a hash of all keys, pixels, extras and
        labels, those of `larger` images too."""
        return {
            "images": len(self.keys),
            "held_out": len(self.holdout),
            "skipped": [*self.skipped, *(f"{key}: no partner" for key in self.alone)],
            "sha256": self._sha256,
        }

    @functools.cached_property
    def _facts(self) -> Facts:
        return self.recorded or facts_of(self.source, self.keys, self.layers, self.labels)

    @property
    def _sha256(self) -> str:
        if self.larger is None:
            return self._facts.sha256
        return hashlib.sha256(f"{self._facts.sha256} {self.larger._sha256}".encode()).hexdigest()

    def release(self) -> None:
        """Gives the pages of mapped images back to the system, which keeps them in its cache as long as it has room."""
        if self.file is not None:
            self.file.release()
        if self.larger is not None:
            self.larger.release()

    def read(self, indices: Sequence[int]) -> Tensor:
        """Returns a copy of the layers at `indices`, (N, L, H, W) uint8."""
        if self.file is not None:
            return self.file.read(indices)
        return self.layers.index_select(0, torch.tensor(indices))

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
    identity: str | None = None,
    keys: Sequence[str] | None = None,
) -> Dataset:
    """Reads the images of a source at `size` x `size` pixels: all, or the first `most` that can be read.

    `holdout` is the fraction of held-out images of a source that is not `divided`; at least one image is held out and
    at least one is trained on. `ordered_as` is the domain that keys the division into training and held-out images, ""
    for `domain` itself. Images of a large set are prepared once and then mapped from a file (`ganlab.data.store`) if
    `identity`, the JSON of the source in a spec, is known. `keys` are those to read, by default all of the source's.
    Raises SpecError if fewer than two images can be read, if no training or no held-out image can, if they do not fit
    into memory or on the disk, or if an image, an extra or a label differs from what the source declares.
    """
    if source.channels not in (1, 3):
        raise SpecError(f"data.{domain}: the source has {source.channels} channels; 1 (grey) and 3 (RGB) are allowed")
    keys = source.keys(domain) if keys is None else keys
    one = functools.partial(read_layers, source, domain, size)
    labels = functools.partial(_labels, source, domain)
    prepared = None if most else store.find(source, f"data.{domain}", keys, size, one, labels, identity)
    if prepared is None:
        shape = (layers_of(source), size, size)
        found = _read(one, labels, keys, min(len(keys), most or len(keys)), shape, domain, progress)
    else:
        found = prepared.content(progress)
    count = len(found.keys)
    if count < 2:
        raise SpecError(
            f"data.{domain}: {count} of {len(keys)} images can be read; at least two are needed, one to train on"
            f" and one to hold out{_first(found.skipped)}"
        )
    train, held = _division(source, found.keys, holdout, ordered_as or domain)
    # of pairs, those that are left decide
    if most is None and not ordered_as and not (len(train) and len(held)):
        which = "held-out" if len(train) else "training"
        raise SpecError(
            f"data.{domain}: none of the {which} images can be read, and {count} of the others{_first(found.skipped)}"
        )
    return Dataset(
        Domain(domain, source.channels, size, size, source.classes),
        source,
        found.keys,
        found.layers,
        found.labels,
        train,
        held,
        found.skipped,
        found.notes,
        found.facts,
        found.file,
        ordered_as,
    )


def held_out(source: Source, keys: Sequence[str], holdout: float) -> int:
    """Returns how many of a source's images are held out of training."""
    if source.divided:
        return sum(map(source.is_held_out, keys))
    return min(max(round(len(keys) * holdout), 1), len(keys) - 1)


def _division(source: Source, keys: Sequence[str], holdout: float, order: str) -> tuple[Tensor, Tensor]:
    """Returns the indices of the training images and those of the held-out images, both ascending."""
    if source.divided:
        is_held = torch.tensor([source.is_held_out(key) for key in keys])
        return (~is_held).nonzero().flatten(), is_held.nonzero().flatten()
    # depends on domain and count alone, so that runs with different random seeds are measured on the same images
    shuffled = torch.from_numpy(keyed("holdout", order, len(keys)).permutation(len(keys)))
    held = held_out(source, keys, holdout)
    return shuffled[held:].sort().values, shuffled[:held].sort().values


def _first(skipped: Sequence[str]) -> str:
    return f"; {skipped[0]}" if skipped else ""


def read_layers(source: Source, domain: str, size: int, key: str) -> Pixels:
    """Returns an image and its extras as (L, H, W). Extras of a held-out image are 0, because no loss reads them.

    Raises OSError or ValueError if one can't be read, SpecError if it differs from what the source declares.
    """

    def checked(array: Pixels, channels: int, what: str) -> Pixels:
        if array.shape != (size, size, channels) or array.dtype != np.uint8:
            raise SpecError(
                f"data.{domain}: {what} {key!r} of the source: expected uint8 {(size, size, channels)},"
                f" got {array.dtype} {array.shape}"
            )
        return array.transpose(2, 0, 1)

    image = checked(source.image(key, size), source.channels, "image")
    if not source.extras:
        return image
    found = np.zeros((layers_of(source), size, size), np.uint8)
    found[: source.channels], end = image, source.channels
    for name, extra in source.extras.items():
        start, end = end, end + extra.channels
        if not (source.divided and source.is_held_out(key)):
            found[start:end] = checked(source.extra(name, key, size), extra.channels, f"the extra {name!r} of image")
    return found


def _read(
    one: Callable[[str], Pixels],
    labels: Callable[[Sequence[str]], Tensor | None],
    keys: Sequence[str],
    most: int,
    shape: tuple[int, int, int],
    domain: str,
    progress: Progress,
) -> Content:
    """Reads the layers (L, H, W) of the first `most` images that can be read into memory."""
    pixels = _allocate(most, shape, domain)
    kept: list[str] = []
    skipped: list[str] = []
    notes: dict[str, list[str]] = {}
    # closed before the warnings go elsewhere: images beyond `most` are being read
    with noting_warnings(), closing(read_all(one, keys)) as images:
        for key, found, noted in progress(images, f"images of {domain}", most):
            if isinstance(found, Exception):
                skipped.append(f"{key}: {found}")
                continue
            for note in dict.fromkeys(noted):
                notes.setdefault(note, []).append(key)
            pixels[len(kept)] = found
            kept.append(key)
            if len(kept) == most:
                break
    return Content(tuple(kept), torch.from_numpy(pixels[: len(kept)]), labels(kept), tuple(skipped), notes)


def _allocate(count: int, shape: tuple[int, int, int], domain: str) -> Pixels:
    try:
        return np.empty((count, *shape), np.uint8)
    except MemoryError as error:
        need = count * math.prod(shape) / 2**30
        raise SpecError(f"data.{domain}: {count} images at {shape[-1]} pixels need {need:.1f} GiB of memory") from error


def _labels(source: Source, domain: str, keys: Sequence[str]) -> Tensor | None:
    """Returns the classes of the images, (n,) integers; None if the source has no classes, or for no images."""
    if not source.classes or not keys:
        return None
    labels = torch.tensor([source.label(key) for key in keys], dtype=torch.long)
    if not (labels.min() >= 0 and labels.max() < source.classes):
        raise SpecError(
            f"data.{domain}: labels go from {labels.min()} to {labels.max()}; 0 to {source.classes - 1} are allowed"
        )
    return labels
