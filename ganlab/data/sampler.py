"""Draws batches as a pure function of random seed and draw number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ganlab.data.dataset import Dataset, normalised
from ganlab.determinism import keyed
from ganlab.interfaces.networks import Domain
from ganlab.interfaces.sources import Extra
from ganlab.parts import WHOLE, Part

RELEASED = 64 * 2**20
"""The bytes of drawn images after which a sampler releases the pages of mapped images. Otherwise the pages that
an evaluation has read would stay in memory."""


class Batch(NamedTuple):
    """One batch of images of each domain."""

    images: dict[str, Tensor]
    """{domain: (N, C, H, W) in [-1, 1]}."""
    labels: dict[str, Tensor]
    """{domain: (N,) integers} for the domains that have class labels."""
    classes: dict[str, int]
    """{domain: number of classes}; 0 without labels."""
    extras: Mapping[str, Mapping[str, Tensor]] = {}
    """{domain: {name: (N, C, H, W)}} for the domains that have extras. Pictures are in [-1, 1], classes integers."""


def first_images(batch: Batch, count: int) -> Batch:
    """Returns the first `count` images of a batch, with their labels and extras."""
    images, labels = ({k: v[:count] for k, v in values.items()} for values in (batch.images, batch.labels))
    extras = {domain: {k: v[:count] for k, v in values.items()} for domain, values in batch.extras.items()}
    return batch._replace(images=images, labels=labels, extras=extras)


class BatchSource(Protocol):
    """Returns a batch for every draw number, or a part of it."""

    @property
    def batch(self) -> int:
        """The number of images of each domain in a batch."""

    @property
    def domains(self) -> dict[str, Domain]:
        """{name: domain} of both domains."""

    def __call__(self, draw: int, part: Part = WHOLE) -> Batch:
        """Returns a part of batch number `draw`, counted from 0. The same number always gives the same batch."""


class Sampler:
    """Draws batches of `batch` training images of each domain.

    Each domain has its own order, which is shuffled again in every epoch. Images of a dataset that has `larger` ones
    are cut out of these at random. With `flip`, images are mirrored at random. Extras are cut and mirrored with their
    image. The domains of paired data have one order, the same cuts and the same flips.
    """

    def __init__(
        self, datasets: dict[str, Dataset], batch: int, flip: bool, seed: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.batch, self.flip, self.seed, self.device, self.dtype = batch, flip, seed, device, dtype
        self.domains = {name: dataset.domain for name, dataset in datasets.items()}
        self._order_of = {name: dataset.order for name, dataset in datasets.items()}
        self._classes = {name: domain.classes for name, domain in self.domains.items()}
        self._train = {name: dataset.train.numpy() for name, dataset in datasets.items()}
        self._drawn_from = {name: dataset.larger or dataset for name, dataset in datasets.items()}
        self._on_device = {name: self._copied(dataset) for name, dataset in self._drawn_from.items()}
        self._extras = {name: dataset.source.extras for name, dataset in datasets.items() if dataset.source.extras}
        self._labels = {name: d.labels.to(device) for name, d in datasets.items() if d.labels is not None}
        self._orders: dict[tuple[str, int], np.ndarray] = {}
        self._datasets = [*datasets.values()]
        self._drawn = 0

    def _copied(self, dataset: Dataset) -> Tensor | None:
        """Returns the layers of a dataset on the GPU, if it has room for them."""
        if self.device.type != "cuda" or dataset.layers.numel() >= torch.cuda.mem_get_info(self.device)[0] // 4:
            return None
        return dataset.layers.to(self.device)

    def _order(self, domain: str, epoch: int) -> np.ndarray:
        if (domain, epoch) not in self._orders:
            self._orders = {k: v for k, v in self._orders.items() if k[0] != domain or k[1] == epoch - 1}
            shuffled = keyed(self.seed, "order", self._order_of[domain], epoch).permutation(len(self._train[domain]))
            self._orders[domain, epoch] = self._train[domain][shuffled]
        return self._orders[domain, epoch]

    def indices(self, domain: str, draw: int) -> list[int]:
        """Returns the indices, in the dataset of `domain`, of the images in batch number `draw`."""
        count = len(self._train[domain])
        places = range(draw * self.batch, (draw + 1) * self.batch)
        return [int(self._order(domain, place // count)[place % count]) for place in places]

    def _release(self, drawn: int) -> None:
        self._drawn += drawn
        if self._drawn > RELEASED:
            self._drawn = 0
            for dataset in self._datasets:
                dataset.release()

    def __call__(self, draw: int, part: Part = WHOLE) -> Batch:
        """Returns a part of batch number `draw`, counted from 0."""
        images, labels, extras = {}, {}, {}
        # the random choices are the whole batch's, whatever its parts are
        rows = part.rows(self.batch // part.parts)
        for domain, on_device in self._on_device.items():
            chosen = self.indices(domain, draw)[rows]
            if on_device is None:
                batch = to_device(self._drawn_from[domain].read(chosen), self.device)
            else:
                batch = on_device.index_select(0, to_device(torch.tensor(chosen), self.device))
            size = self.domains[domain].width
            if (width := batch.shape[-1]) > size:
                random = keyed(self.seed, "crop", self._order_of[domain], draw)
                batch = cut(batch, random.integers(0, width - size + 1, (self.batch, 2))[rows], size)
            if self.flip:
                random = keyed(self.seed, "flip", self._order_of[domain], draw)
                batch = mirrored(batch, random.random(self.batch)[rows] < 0.5)
            images[domain] = normalised(batch[:, : self.domains[domain].channels], self.dtype)
            if domain in self._extras:
                extras[domain] = self._values(batch[:, self.domains[domain].channels :], self._extras[domain])
            if domain in self._labels:
                labels[domain] = self._labels[domain][to_device(torch.tensor(chosen), self.device)]
            self._release(batch.numel())
        return Batch(images, labels, self._classes, extras)

    def _values(self, layers: Tensor, extras: Mapping[str, Extra]) -> dict[str, Tensor]:
        """The layers (N, L, H, W) of all extras -> {name: (N, C, H, W)}, as a loss reads them."""
        parts = torch.split(layers, [extra.channels for extra in extras.values()], dim=1)
        return {
            name: normalised(part, self.dtype) if extra.values == "picture" else part.long()
            for (name, extra), part in zip(extras.items(), parts, strict=True)
        }


def cut(images: Tensor, corners: np.ndarray, size: int) -> Tensor:
    """Returns a square of each image, (N, C, size, size).

    Args:
        images: (N, C, H, W).
        corners: (N, 2) integers, the row and the column of each square's upper left corner.
        size: The height and width of the squares.
    """
    if images.device.type != "cpu":
        return cut_at_once(images, to_device(torch.from_numpy(corners), images.device), size)
    # on the CPU slices take an eighth of the time
    places = zip(images, corners.tolist(), strict=True)
    return torch.stack([image[:, row : row + size, column : column + size] for image, (row, column) in places])


def mirrored(images: Tensor, which: np.ndarray) -> Tensor:
    """Returns the images (N, C, H, W), those mirrored for which `which`, (N,), is true."""
    # index_select: an assignment to images[which] takes several times as long on a CPU
    places = np.arange(len(which)) + len(which) * which
    return torch.cat([images, images.flip(-1)]).index_select(0, to_device(torch.from_numpy(places), images.device))


def cut_at_once(images: Tensor, corners: Tensor, size: int) -> Tensor:
    """Returns what `cut` does, by one operation for all images. `corners` are on the device of the images."""
    squares = images.unfold(2, size, 1).unfold(3, size, 1)  # (N, C, rows, columns, size, size), a view
    return squares[torch.arange(len(images), device=images.device), :, corners[:, 0], corners[:, 1]]


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Copies `values` to `device`; to CUDA from pinned memory, so that the host does not wait."""
    if device.type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)
