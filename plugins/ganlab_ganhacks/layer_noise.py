"""Noise in every layer of a generator."""

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

import ganlab
from ganlab_ganhacks.around import Around


class LayerNoise(Around):
    """The generator `of` with noise in its layers (soumith/ganhacks, 13). In eval mode there is none.

    Each convolution and full layer reads x + std e in the place of x, with e ~ N(0, 1) drawn for each value at each
    use. So all that a layer gives on is noisy but the images, whose noise would tell them from reals.

    Args:
        std: the noise's standard deviation; behind an instance norm that of a channel is 1.
    """

    def __init__(self, of: ganlab.Generator, std: Annotated[float, Field(ge=0)] = 0.1) -> None:
        super().__init__(of)
        self.std = std

    def features(self, images: Tensor) -> Sequence[Tensor]:
        """(N, C, H, W) -> the activations of the generator within."""
        with self.reading(self._noisy):
            return self.of.features(images)

    def decode(self, embedding: Tensor) -> Tensor:
        """(N, E, h, w) -> the images (N, C, H, W) of the generator within."""
        with self.reading(self._noisy):
            return self.of.decode(embedding)

    def _noisy(self, x: Tensor) -> Tensor:
        return x + self.std * torch.randn(x.shape, device=x.device) if self.training else x
