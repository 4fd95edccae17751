"""Draws batches as a pure function of random seed and draw number."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ganlab.data.dataset import Dataset, normalised
from ganlab.determinism import keyed
from ganlab.interfaces.networks import Domain
from ganlab.parts import WHOLE, Part

RELEASED = 64 * 2**20
"""The bytes of drawn images after which a sampler releases the pages of mapped images. Otherwise memory would grow
until it holds all images."""


class Batch(NamedTuple):
    """One batch of images of each domain."""

    images: dict[str, Tensor]
    """{domain: (N, C, H, W) in [-1, 1]}."""
    labels: dict[str, Tensor]
    """{domain: (N,) integers} for the domains that have class labels."""
    classes: dict[str, int]
    """{domain: number of classes}; 0 without labels."""


def first_images(batch: Batch, count: int) -> Batch:
    """Returns the first `count` images of a batch, with their labels."""
    images, labels = ({k: v[:count] for k, v in values.items()} for values in (batch.images, batch.labels))
    return batch._replace(images=images, labels=labels)


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
    are cut out of these at random. With `flip`, images are mirrored at random. The domains of paired data have one
    order, the same cuts and the same flips.
    """

    def __init__(
        self, datasets: dict[str, Dataset], batch: int, flip: bool, seed: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.batch, self.flip, self.seed, self.device, self.dtype = batch, flip, seed, device, dtype
        self.domains = {name: dataset.domain for name, dataset in datasets.items()}
        self._order_of = {name: dataset.order for name, dataset in datasets.items()}
        self._classes = {name: domain.classes for name, domain in self.domains.items()}
        self._train = {name: dataset.train.numpy() for name, dataset in datasets.items()}
        self._images = {name: self._place((dataset.larger or dataset).images) for name, dataset in datasets.items()}
        self._labels = {name: d.labels.to(device) for name, d in datasets.items() if d.labels is not None}
        self._orders: dict[tuple[str, int], np.ndarray] = {}
        self._datasets = [*datasets.values()]
        self._drawn = 0

    def _place(self, images: Tensor) -> Tensor:
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            if images.numel() < free // 4:
                return images.to(self.device)
        return images

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
        images, labels = {}, {}
        # the random choices are the whole batch's, whatever its parts are
        count = self.batch // part.parts
        rows = part.rows(count)
        for domain, pixels in self._images.items():
            chosen = torch.tensor(self.indices(domain, draw)[rows])
            at = to_device(chosen, self.device)
            here = pixels.device.type == self.device.type
            # index_select: indexing with [] and torch.where take several times as long (benchmarks/test_store.py)
            batch = pixels.index_select(0, at) if here else to_device(pixels.index_select(0, chosen), self.device)
            size = self.domains[domain].width
            if (width := batch.shape[-1]) > size:
                random = keyed(self.seed, "crop", self._order_of[domain], draw)
                batch = cut(batch, random.integers(0, width - size + 1, (self.batch, 2))[rows], size)
            if self.flip:
                random = keyed(self.seed, "flip", self._order_of[domain], draw)
                mirrored = torch.from_numpy(np.arange(count) + count * (random.random(self.batch)[rows] < 0.5))
                both = torch.cat([batch, batch.flip(-1)])
                batch = both.index_select(0, to_device(mirrored, self.device))
            images[domain] = normalised(batch, self.dtype)
            if domain in self._labels:
                labels[domain] = self._labels[domain][at]
            self._release(batch.numel())
        return Batch(images, labels, self._classes)


def cut(images: Tensor, corners: np.ndarray, size: int) -> Tensor:
    """Returns a square of each image, (N, C, size, size).

    Args:
        images: (N, C, H, W).
        corners: (N, 2) integers, the row and the column of each square's upper left corner.
        size: The height and width of the squares.
    """
    places = zip(images, corners.tolist(), strict=True)
    return torch.stack([image[:, row : row + size, column : column + size] for image, (row, column) in places])


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Copies `values` to `device`; to CUDA from pinned memory, so that the host does not wait."""
    if device.type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)
