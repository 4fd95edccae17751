"""Dropout in a generator, during and after training."""

import itertools
from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

import ganlab
from ganlab_ganhacks.around import Around


class Dropout(Around):
    """Adds dropout to a generator, in eval mode too (arXiv:1611.07004; soumith/ganhacks, 17).

    The dropout is the noise that gives one input different outputs. The first `layers` convolutions and linear layers
    of `decode` read x m / (1 - p) instead of x. m is 0 with probability p, otherwise 1, drawn for each value at each
    use.

    Args:
        p: the probability of dropping a value.
        layers: the number of layers of `decode` that read dropped values, from the first; all if it has fewer. pix2pix
            has 3.
    """

    def __init__(
        self,
        of: ganlab.Generator,
        p: Annotated[float, Field(ge=0, lt=1)] = 0.5,
        layers: Annotated[int, Field(ge=1, le=256)] = 3,
    ) -> None:
        super().__init__(of)
        self.p = p
        self.layers = layers

    def features(self, images: Tensor) -> Sequence[Tensor]:
        """Images (N, C, H, W) -> the activations of the wrapped generator."""
        return self.of.features(images)

    def decode(self, embedding: Tensor) -> Tensor:
        """Embedding (N, E, h, w) -> the images (N, C, H, W) of the wrapped generator with dropout."""
        place = itertools.count()

        def dropped(x: Tensor) -> Tensor:
            return (
                x * (torch.rand(x.shape, device=x.device) >= self.p) / (1 - self.p) if next(place) < self.layers else x
            )

        with self.reading(dropped):
            return self.of.decode(embedding)
