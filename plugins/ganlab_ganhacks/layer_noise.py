"""Noise on the input of every layer of a generator."""

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

import ganlab
from ganlab_ganhacks.around import Around


class LayerNoise(Around):
    """Adds Gaussian noise to the inputs of a generator's layers (soumith/ganhacks, 13).

    Each convolution and linear layer reads x + std e instead of x, with e ~ N(0, 1) drawn for each value at each use.
    The output images are not noisy: noise would distinguish them from real images. There is no noise in eval mode.

    Args:
        std: the standard deviation of the noise. After an instance norm, a channel's own standard deviation is 1.
    """

    def __init__(self, of: ganlab.Generator, std: Annotated[float, Field(ge=0)] = 0.1) -> None:
        super().__init__(of)
        self.std = std

    def features(self, images: Tensor) -> Sequence[Tensor]:
        """Images (N, C, H, W) -> the activations of the wrapped generator."""
        with self.reading(self._noisy):
            return self.of.features(images)

    def decode(self, embedding: Tensor) -> Tensor:
        """Embedding (N, E, h, w) -> the images (N, C, H, W) of the wrapped generator."""
        with self.reading(self._noisy):
            return self.of.decode(embedding)

    def _noisy(self, x: Tensor) -> Tensor:
        return x + self.std * torch.randn(x.shape, device=x.device) if self.training else x
