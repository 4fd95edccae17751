"""The images that a run is measured on, and what its generators make of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ganlab.build import System
from ganlab.data.pictures import to_uint8
from ganlab.data.sampler import to_device
from ganlab.data.store import Store
from ganlab.draws import keyed
from ganlab.errors import Unavailable
from ganlab.evaluation.evidence import Images
from ganlab.interfaces import Generator, Source
from ganlab.networks import evaluating
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
    pixels = store.images[indices].expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
    attributes = []
    for index in indices.tolist():
        known = source.attributes(store.keys[index])
        label = {} if store.labels is None else {"label": str(int(store.labels[index]))}
        attributes.append({**label, **known})
    return Images(list(pixels), store.domain.name, attributes if any(attributes) else None, real=True)


class Translators:
    """A run's generators, {way: generator}, as one checkpoint has them: images in, 8-bit images out.

    `channels` is {domain: channels}, those of the images that the generators take.
    """

    def __init__(self, system: System, generators: Mapping[str, Generator], channels: Mapping[str, int]) -> None:
        self._system, self._generators, self._channels = system, generators, channels

    def translate(self, way: str, inputs: Images) -> tuple[Images, Images | None]:
        """What `inputs` become, and what becomes of that on the way back, if there is one."""
        back = way[::-1]

        def both(images: Tensor) -> list[Tensor]:
            fake = self._generators[way](images)
            return [fake, self._generators[back](fake)] if back in self._generators else [fake]

        made = self._each_batch(both, way, inputs)
        sets = [Images(list(to_uint8(pixels)), way[1 - place]) for place, pixels in enumerate(made)]
        return sets[0], sets[1] if len(sets) == 2 else None

    def encode(self, way: str, images: Images) -> Tensor:
        """Their embeddings on this way, (N, E, h, w), float32 on the CPU. Raises Unavailable where there is no such
        way."""
        if way not in self._generators:
            raise Unavailable(f"needs the way {way}, which `translations` leaves out")
        return self._each_batch(lambda batch: [self._generators[way].encode(batch)], way, images)[0]

    def _each_batch(self, compute: Callable[[Tensor], list[Tensor]], way: str, images: Images) -> list[Tensor]:
        system = self._system
        pieces: list[list[Tensor]] = []
        with torch.no_grad(), untouched_randomness(system.device), evaluating(nn.ModuleDict(self._generators)):
            for start in range(0, len(images), BATCH):
                piece = images.take(range(start, min(start + BATCH, len(images)))).tensor()[:, : self._channels[way[0]]]
                with system.networks.computing():
                    made = compute(to_device(piece, system.device).to(system.dtype))
                pieces.append([part.float().cpu() for part in made])
        return [torch.cat(parts) for parts in zip(*pieces, strict=True)]
