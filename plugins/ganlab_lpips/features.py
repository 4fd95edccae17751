"""The features "stlpips-alex": the shift-tolerant AlexNet's activations, pooled on a grid."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

import ganlab
from ganlab.evaluation.lpips import unit
from ganlab_lpips.weights import stlpips_alex

GRID = 4
"""The rows and the columns of the grid on which activations are averaged."""


class ShiftTolerantAlexNet(ganlab.Features):
    """The shift-tolerant AlexNet of ShiftTolerant-LPIPS (arXiv:2207.13686). Its weights come with a package.

    It was trained to judge the similarity of pictures as people do, on patches of 64 pixels. It is no classifier, and
    it shares neither architecture nor training with `lite0`, so it can judge a generator that was trained with `lite0`.

    A vector has the parts that LPIPS compares (arXiv:1801.03924, eq. 1): the activations of all five layers, scaled to
    unit length over the channels at each position. Early layers see colours and textures, late ones shapes. Each layer
    is averaged on a grid of 4 x 4 cells: KID between the two avatar styles then has half the relative error that it has
    with means over the whole image. The scale is such that x.y / D, from which KID's kernel is made, is at most 1.

    Its results have a scale of their own and cannot be compared with results on another network.
    """

    size = 64
    shipped = True
    packages = ("stlpips-pytorch",)

    def __init__(self) -> None:
        super().__init__()
        weights = stlpips_alex()
        self._trunk, self._files = weights.trunk, weights.files

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, 64, 64) in [-1, 1] -> vectors (N, 18432): for each layer of C channels 16 C values."""
        layers = [adaptive_avg_pool2d(unit(layer), GRID).flatten(1) / GRID for layer in self._trunk(images)]
        vectors = torch.cat(layers, 1)
        return vectors * math.sqrt(vectors.shape[1] / len(layers))

    def files(self) -> Sequence[Path]:
        return self._files
