"""Translates sets of images with the generators of a run."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ganlab import workers
from ganlab.data.image_files import as_uint8
from ganlab.data.sampler import to_device
from ganlab.determinism import keyed, untouched_randomness
from ganlab.errors import Unavailable
from ganlab.interfaces.metrics import Images, LazyPixels, Pixels
from ganlab.interfaces.networks import Generator
from ganlab.system.build import System
from ganlab.system.module_state import own_state
from ganlab.torch_utils import as_float, evaluating

BATCH = 32
"""The number of images in a forward. It is fixed, because the last bits of the outputs depend on it."""


class Given(NamedTuple):
    """What the workers need to translate as rank 0 does."""

    weights: dict[str, dict[str, Tensor]]
    """{direction: the generator's own state, on the CPU}."""
    channels: dict[str, int]


class Task(NamedTuple):
    """Asks for translations or embeddings of batches of images."""

    given: int
    """The number under which the workers have the weights of the generators."""
    direction: str
    embeds: bool
    """True for embeddings, False for 8-bit translations."""


class Batch(NamedTuple):
    """Images of one size, and the place of the first of them in their set."""

    start: int
    pixels: Sequence[Pixels]


class Translators:
    """The generators of one checkpoint, which translate sets of images to 8-bit images.

    `generators` is {direction: generator}. `channels` is {domain: channels of the images that the generators take}. The
    weights of the generators must not change while this object is used, because the workers get a copy now.
    """

    def __init__(self, system: System, generators: Mapping[str, Generator], channels: Mapping[str, int]) -> None:
        self._system, self._generators, self._channels = system, generators, channels
        self._given = workers.give(lambda: Given(_weights(generators), dict(channels)))

    def translate(self, direction: str, inputs: Images) -> tuple[Images, Images | None]:
        """Returns the translations of `inputs`, and the translations translated back or None without that direction.

        Translations are rounded to 8 bits before they are translated back, because a CycleGAN can hide its input in
        smaller, invisible differences (arXiv:1712.02950).
        """
        outputs = self._translated(direction, inputs)
        reverse = direction[::-1]
        return outputs, self._translated(reverse, outputs) if reverse in self._generators else None

    def _translated(self, direction: str, images: Images) -> Images:
        outputs = self._each_batch(Task(self._given, direction, embeds=False), images)
        count, _, height, width = outputs.shape
        # a read-only view: metrics share the images
        pixels = np.broadcast_to(outputs, (count, 3, height, width)).transpose(0, 2, 3, 1)
        return Images(list(pixels), direction[1])

    def encode(self, direction: str, images: Images) -> Tensor:
        """Returns the embeddings of `images` by the generator of `direction`, (N, E, h, w), float32 on the CPU.

        Raises Unavailable if there is no such direction.
        """
        if direction not in self._generators:
            raise Unavailable(f"needs the direction {direction}, which `directions` leaves out")
        return torch.from_numpy(self._each_batch(Task(self._given, direction, embeds=True), images))

    def _each_batch(self, task: Task, images: Images) -> np.ndarray[Any, Any]:
        places = (range(start, min(start + BATCH, len(images))) for start in range(0, len(images), BATCH))
        batches = (Batch(part.start, LazyPixels(images.pixels.__getitem__, part)) for part in places)
        return np.concatenate([*workers.each(task, partial(self.results, task), batches)])

    def results(self, task: Task, batches: Iterable[Batch]) -> Iterator[np.ndarray[Any, Any]]:
        """Yields the translations of each batch, (N, C, H, W) uint8, or its embeddings, (N, E, h, w) float32."""
        system, direction = self._system, task.direction
        generator = self._generators[direction]
        with torch.no_grad(), untouched_randomness(system.device), evaluating(nn.ModuleDict(self._generators)):
            for start, pixels in batches:
                # a generator may draw in eval mode too: the same numbers after any other draws, and in any process
                torch.manual_seed(int(keyed("translations", direction, start).integers(2**63)))
                images = Images(pixels).tensor()[:, : self._channels[direction[0]]]
                # in one layout, because the last bits depend on it; pickling may change it
                images = to_device(images.contiguous(), system.device).to(system.dtype)
                with system.networks.computing():
                    computed = as_float(generator, generator.encode(images) if task.embeds else generator(images))
                computed = computed.float() if task.embeds else as_uint8(computed)
                yield computed.cpu().contiguous().numpy()


def copied_generators(system: System) -> dict[str, Generator]:
    """Returns {direction: a copy of its generator}."""
    # copied together, because they may share layers
    return copy.deepcopy({direction: system.networks.generator(direction) for direction in system.spec.directions})


def _weights(generators: Mapping[str, Generator]) -> dict[str, dict[str, Tensor]]:
    return {
        direction: {name: value.cpu() for name, value in own_state(generator).items()}
        for direction, generator in generators.items()
    }
