"""The images of one domain: decoded once, kept as uint8, split into training and held-out."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ganlab.draws import keyed
from ganlab.errors import SpecError
from ganlab.interfaces import Domain, Source

Progress = Callable[[Iterable[Any], str, int], Iterable[Any]]
"""Wraps an iterable of known length so that somebody sees it advance."""


def silent(items: Iterable[Any], what: str, total: int) -> Iterable[Any]:
    return items


@dataclass(frozen=True)
class Store:
    """`images` is (n, C, H, W) uint8; `train` and `held` index it and share no image."""

    domain: Domain
    keys: tuple[str, ...]
    images: Tensor
    labels: Tensor | None
    train: Tensor
    held: Tensor
    skipped: tuple[str, ...]
    """"key: reason" for what could not be read."""

    def facts(self) -> dict[str, Any]:
        """What tells this set from another: counts, and a hash of every image's key and pixels."""
        return {
            "images": len(self.keys),
            "held_out": len(self.held),
            "skipped": list(self.skipped),
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
        """(N,) -> (N, C, H, W) float32 in [-1, 1]."""
        return normalised(self.images[indices], torch.float32)


def normalised(images: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 0..255 -> [-1, 1]."""
    return images.to(dtype).div_(127.5).sub_(1)


def load(
    source: Source, domain: str, size: int, holdout: float, progress: Progress = silent, most: int | None = None
) -> Store:
    """Read the images of a source, or the first `most`. Raises SpecError where fewer than two can be read."""
    if source.channels not in (1, 3):
        raise SpecError(
            f"data.{domain}: the source has {source.channels} channels; 1, grey, and 3, colours, are allowed"
        )
    keys = source.keys(domain)
    total = min(len(keys), most or len(keys))
    pixels = _allocate(total, source.channels, size, domain)
    kept: list[str] = []
    skipped: list[str] = []
    for key, image in progress(_read(source, keys, size, most or 256), f"images of {domain}", total):
        if isinstance(image, Exception):
            skipped.append(f"{key}: {image}")
            continue
        if image.shape != (size, size, source.channels) or image.dtype != np.uint8:
            raise SpecError(
                f"data.{domain}: the source gives {key!r} as {image.dtype} {image.shape},"
                f" not uint8 {(size, size, source.channels)}"
            )
        pixels[len(kept)] = image.transpose(2, 0, 1)
        kept.append(key)
        if len(kept) == most:
            break
    if len(kept) < 2:
        raise SpecError(
            f"data.{domain}: {len(kept)} of {len(keys)} images can be read, and two are the least: one to train on and"
            f" one to hold out{'; ' + skipped[0] if skipped else ''}"
        )
    count = len(kept)
    # by domain and count alone, so that runs with other seeds are judged on the same images
    order = torch.from_numpy(keyed("holdout", domain, count).permutation(count))
    held = min(max(round(count * holdout), 1), count - 1)
    return Store(
        Domain(domain, source.channels, size, size, source.classes),
        tuple(kept),
        torch.from_numpy(pixels[:count]),
        _labels(source, kept, domain) if source.classes else None,
        order[held:].sort().values,
        order[:held].sort().values,
        tuple(skipped),
    )


def _allocate(count: int, channels: int, size: int, domain: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    try:
        return np.empty((count, channels, size, size), np.uint8)
    except MemoryError as error:
        need = count * channels * size * size / 2**30
        raise SpecError(f"data.{domain}: {count} images at {size} pixels need {need:.1f} GiB of memory") from error


def _read(source: Source, keys: list[str], size: int, at_once: int) -> Iterator[tuple[str, Any]]:
    def one(key: str) -> Any:
        try:
            return source.image(key, size)
        except (OSError, ValueError) as error:
            return error

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        # in pieces, so that an interrupt does not wait for all that was submitted
        for start in range(0, len(keys), at_once):
            piece = keys[start : start + at_once]
            yield from zip(piece, pool.map(one, piece), strict=True)


def _labels(source: Source, keys: list[str], domain: str) -> Tensor:
    labels = torch.tensor([source.label(key) for key in keys])
    if not (labels.min() >= 0 and labels.max() < source.classes):
        raise SpecError(f"data.{domain}: labels go from {labels.min()} to {labels.max()}; there are {source.classes}")
    return labels
