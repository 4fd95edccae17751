"""Translates sets of images with the generators of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ganlab.data.image_files import to_uint8
from ganlab.data.sampler import to_device
from ganlab.determinism import keyed, untouched_randomness
from ganlab.errors import Unavailable
from ganlab.interfaces.metrics import Images
from ganlab.interfaces.networks import Generator
from ganlab.system.build import System
from ganlab.torch_utils import as_float, evaluating

BATCH = 32
"""The number of images in a forward. It is fixed, because the last bits of the outputs depend on it."""


class Translators:
    """The generators of one checkpoint, which translate sets of images to 8-bit images.

    `generators` is {direction: generator}. `channels` is {domain: channels of the images that the generators take}.
    """

    def __init__(self, system: System, generators: Mapping[str, Generator], channels: Mapping[str, int]) -> None:
        self._system, self._generators, self._channels = system, generators, channels

    def translate(self, direction: str, inputs: Images) -> tuple[Images, Images | None]:
        """Returns the translations of `inputs`, and the translations translated back or None without that direction.

        Translations are rounded to 8 bits before they are translated back, because a CycleGAN can hide its input in
        smaller, invisible differences (arXiv:1712.02950).
        """
        outputs = self._translated(direction, inputs)
        reverse = direction[::-1]
        return outputs, self._translated(reverse, outputs) if reverse in self._generators else None

    def _translated(self, direction: str, images: Images) -> Images:
        generator = self._generators[direction]
        pixels = to_uint8(self._each_batch(generator, generator, direction, images))
        pixels.setflags(write=False)
        return Images(list(pixels), direction[1])

    def encode(self, direction: str, images: Images) -> Tensor:
        """Returns the embeddings of `images` by the generator of `direction`, (N, E, h, w), float32 on the CPU.

        Raises Unavailable if there is no such direction.
        """
        if direction not in self._generators:
            raise Unavailable(f"needs the direction {direction}, which `directions` leaves out")
        generator = self._generators[direction]
        return self._each_batch(generator, generator.encode, direction, images)

    def _each_batch(
        self, generator: Generator, compute: Callable[[Tensor], Tensor], direction: str, images: Images
    ) -> Tensor:
        system = self._system
        results = []
        with torch.no_grad(), untouched_randomness(system.device), evaluating(nn.ModuleDict(self._generators)):
            # a generator may draw in eval mode too; each direction has its own seed, independent of earlier draws
            torch.manual_seed(int(keyed("translations", direction).integers(2**63)))
            for start in range(0, len(images), BATCH):
                piece = images.take(range(start, min(start + BATCH, len(images)))).tensor()[
                    :, : self._channels[direction[0]]
                ]
                with system.networks.computing():
                    computed = as_float(generator, compute(to_device(piece, system.device).to(system.dtype)))
                results.append(computed.float().cpu())
        return torch.cat(results)
