"""The images that a run is measured on, and what its generators make of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ganlab.build import System
from ganlab.data.pictures import to_uint8
from ganlab.data.sampler import to_device
from ganlab.data.store import Store
from ganlab.draws import keyed
from ganlab.errors import Unavailable
from ganlab.evaluation.evidence import Images, Pixels
from ganlab.interfaces import Generator, Source
from ganlab.modules import evaluating
from ganlab.networks import full
from ganlab.rehearsal import untouched_randomness

BATCH = 32
"""Images a forward. It belongs to the last bits of what comes out, so it is always the same."""


class Split(NamedTuple):
    """The images of a run's domains, by what an evaluation does with them; no image is in two parts."""

    choosing: dict[str, Images]
    """Held-out images that choose the best checkpoint; and real images to hold real ones against."""
    measured: dict[str, Images]
    """Held-out images that the figures are from: as many of each domain as of those that choose."""
    learning: dict[str, Images]
    """The training images."""


def split(stores: Mapping[str, Store], sources: Mapping[str, Source]) -> Split:
    """Deal the held-out images in two halves of one size for both domains, by domain and count alone: so that runs
    with other seeds are judged on the same images.

    Raises Unavailable where a domain has fewer than two.
    """
    fewest = min(stores, key=lambda domain: len(stores[domain].held))
    half = len(stores[fewest].held) // 2
    if half == 0:
        raise Unavailable(
            f"an evaluation needs two held-out images of each domain, and {fewest} has {len(stores[fewest].held)};"
            " raise data.holdout"
        )
    parts: tuple[dict[str, Images], ...] = ({}, {}, {})
    for domain, store in stores.items():
        dealt = torch.from_numpy(keyed("halves", domain, len(store.held)).permutation(len(store.held)))
        members = (store.held[dealt[:half]], store.held[dealt[half : 2 * half]], store.train)
        for part, indices in zip(parts, members, strict=True):
            part[domain] = _images(store, sources[domain], indices.sort().values)
    return Split(*parts)


def _images(store: Store, source: Source, indices: Tensor) -> Images:
    knows = type(source).attributes is not Source.attributes or store.labels is not None
    known = _Attributes(store, source, indices) if knows else None
    return Images(_Pixels(store.images, indices), store.domain.name, known, real=True)


class _Pixels(Sequence[Pixels]):
    """Images of a store, none of them copied."""

    def __init__(self, images: Tensor, indices: Tensor) -> None:
        # what a metric does to them is not to reach the training data
        self._images, self._indices = images.numpy().view(), indices.tolist()
        self._images.setflags(write=False)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, place: Any) -> Any:
        chw = self._images[self._indices[place]]
        return np.broadcast_to(chw, (3, *chw.shape[1:])).transpose(1, 2, 0)


class _Attributes(Sequence[Mapping[str, str]]):
    """What a source knows of each image, asked when it is first wanted: some sources have to draw it for that."""

    def __init__(self, store: Store, source: Source, indices: Tensor) -> None:
        self._store, self._source, self._indices = store, source, indices.tolist()

    @functools.cached_property
    def _known(self) -> list[Mapping[str, str]]:
        return [self._of(index) for index in self._indices]

    def _of(self, index: int) -> Mapping[str, str]:
        label = {} if self._store.labels is None else {"label": str(int(self._store.labels[index]))}
        return {**label, **self._source.attributes(self._store.keys[index])}

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, place: Any) -> Any:
        return self._known[place]


class Translators:
    """A run's generators, {way: generator}, as one checkpoint has them: images in, 8-bit images out.

    `channels` is {domain: channels}, those of the images that the generators take.
    """

    def __init__(self, system: System, generators: Mapping[str, Generator], channels: Mapping[str, int]) -> None:
        self._system, self._generators, self._channels = system, generators, channels

    def translate(self, way: str, inputs: Images) -> tuple[Images, Images | None]:
        """What `inputs` become, and what becomes of that on the way back, if there is one.

        Rounded to 8 bits in between too: a CycleGAN can hide its input in less than that (arXiv:1712.02950), where
        nobody sees it.
        """
        outputs = self._translated(way, inputs)
        return outputs, self._translated(back, outputs) if (back := way[::-1]) in self._generators else None

    def _translated(self, way: str, images: Images) -> Images:
        generator = self._generators[way]
        made = to_uint8(self._each_batch(generator, generator, way, images))
        made.setflags(write=False)
        return Images(list(made), way[1])

    def encode(self, way: str, images: Images) -> Tensor:
        """Their embeddings on this way, (N, E, h, w), float32 on the CPU. Raises Unavailable where there is no such
        way."""
        if way not in self._generators:
            raise Unavailable(f"needs the way {way}, which `translations` leaves out")
        generator = self._generators[way]
        return self._each_batch(generator, generator.encode, way, images)

    def _each_batch(
        self, generator: Generator, compute: Callable[[Tensor], Tensor], way: str, images: Images
    ) -> Tensor:
        system = self._system
        made = []
        with torch.no_grad(), untouched_randomness(system.device), evaluating(nn.ModuleDict(self._generators)):
            # a generator may draw in eval mode too: the same whatever was drawn before, and not there as back
            torch.manual_seed(int(keyed("translations", way).integers(2**63)))
            for start in range(0, len(images), BATCH):
                piece = images.take(range(start, min(start + BATCH, len(images)))).tensor()[:, : self._channels[way[0]]]
                with system.networks.computing():
                    computed = full(generator, compute(to_device(piece, system.device).to(system.dtype)))
                made.append(computed.float().cpu())
        return torch.cat(made)
