"""Batches as a pure function of seed and draw number."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ganlab.data.store import Store, normalised
from ganlab.draws import keyed


class Batch(NamedTuple):
    """`images[domain]` is (N, C, H, W) in [-1, 1]; `labels[domain]` is (N,), of `classes[domain]` classes."""

    images: dict[str, Tensor]
    labels: dict[str, Tensor]
    classes: dict[str, int]


class Sampler:
    """Each domain in an order of its own, shuffled anew each time round; mirrored at random where `flip`."""

    def __init__(
        self, stores: dict[str, Store], batch: int, flip: bool, seed: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.batch, self.flip, self.seed, self.device, self.dtype = batch, flip, seed, device, dtype
        self.domains = {name: store.domain for name, store in stores.items()}
        self._classes = {name: domain.classes for name, domain in self.domains.items()}
        self._train = {name: store.train.numpy() for name, store in stores.items()}
        self._images = {name: self._place(store.images) for name, store in stores.items()}
        self._labels = {n: s.labels.to(device) for n, s in stores.items() if s.labels is not None}
        self._orders: dict[tuple[str, int], np.ndarray] = {}

    def _place(self, images: Tensor) -> Tensor:
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            if images.numel() < free // 4:
                return images.to(self.device)
        return images

    def _order(self, domain: str, epoch: int) -> np.ndarray:
        if (domain, epoch) not in self._orders:
            self._orders = {k: v for k, v in self._orders.items() if k[0] != domain or k[1] == epoch - 1}
            shuffled = keyed(self.seed, "order", domain, epoch).permutation(len(self._train[domain]))
            self._orders[domain, epoch] = self._train[domain][shuffled]
        return self._orders[domain, epoch]

    def indices(self, domain: str, draw: int) -> list[int]:
        """Which images of the store the batch number `draw` holds."""
        count = len(self._train[domain])
        places = range(draw * self.batch, (draw + 1) * self.batch)
        return [int(self._order(domain, place // count)[place % count]) for place in places]

    def __call__(self, draw: int) -> Batch:
        images, labels = {}, {}
        for domain, pixels in self._images.items():
            chosen = torch.tensor(self.indices(domain, draw))
            at = to_device(chosen, self.device)
            here = pixels.device.type == self.device.type
            batch = pixels.index_select(0, at) if here else to_device(pixels[chosen], self.device)
            if self.flip:
                mirror = torch.from_numpy(keyed(self.seed, "flip", domain, draw).random(self.batch) < 0.5)
                batch = torch.where(to_device(mirror, self.device)[:, None, None, None], batch.flip(-1), batch)
            images[domain] = normalised(batch, self.dtype)
            if domain in self._labels:
                labels[domain] = self._labels[domain][at]
        return Batch(images, labels, self._classes)


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Without making the host wait: pinned first where the device is CUDA."""
    if device.type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)
