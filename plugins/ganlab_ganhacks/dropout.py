"""Dropout in a generator, in training and afterwards."""

import itertools
from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

import ganlab
from ganlab_ganhacks.around import Around


class Dropout(Around):
    """The generator `of` with dropout, in eval mode too (arXiv:1611.07004; soumith/ganhacks, 17): the noise by which
    the same input has another output each time.

    The first `layers` convolutions and full layers of `decode` read x m / (1 - p) in the place of x, with m 0 with the
    probability p, else 1, drawn for each value at each use.

    Args:
        p: the probability with which a value is dropped.
        layers: so many layers of `decode`, in their order, read dropped values; all where it has no more. 3 in pix2pix.
    """

    def __init__(
        self,
        of: ganlab.Generator,
        p: Annotated[float, Field(ge=0, lt=1)] = 0.5,
        layers: Annotated[int, Field(ge=1)] = 3,
    ) -> None:
        super().__init__(of)
        self.p = p
        self.layers = layers

    def features(self, images: Tensor) -> Sequence[Tensor]:
        """(N, C, H, W) -> the activations of the generator within."""
        return self.of.features(images)

    def decode(self, embedding: Tensor) -> Tensor:
        """(N, E, h, w) -> the images (N, C, H, W) of the generator within, less what is dropped."""
        place = itertools.count()

        def dropped(x: Tensor) -> Tensor:
            return (
                x * (torch.rand(x.shape, device=x.device) >= self.p) / (1 - self.p) if next(place) < self.layers else x
            )

        with self.reading(dropped):
            return self.of.decode(embedding)
