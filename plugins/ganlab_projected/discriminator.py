"""The projected discriminator (arXiv:2111.01007)."""

from itertools import pairwise
from typing import Annotated, Literal

import torch
from ganlab_regularisers.losses import resize
from ganlab_resnet.layers import norm_layer
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

import ganlab
from ganlab import Domain
from ganlab_projected.projections import RandomProjections


class Projected(ganlab.Discriminator):
    """Small discriminators on random projections of a pretrained network's maps, one for each scale.

    The maps and the projections are frozen. The discriminator of scale k, counted from the coarsest, has k 4x4
    convolutions of stride 2, each with a norm and LeakyReLU 0.2, and a last 3x3 convolution; spectral norm divides all
    of them. So the scores of all scales have half of the size of the coarsest map, and are stacked as channels:
    (N, K, h, w) for K scales. A loss that averages scores, such as `hinge_gan` (the paper's) or `lsgan`, is then 1/K of
    the paper's sum over discriminators, as in the authors' code.

    Grey images are repeated to three channels. Differentiable augmentation, which the paper uses, is the wrapper
    `diff_augment`.

    The authors' code differs: its last convolutions are 4x4, without padding and bias; its discriminators have up to
    512 channels, as a table by the size of the map gives them; and it enlarges images with a bilinear filter, here a
    bicubic one.

    Args:
        features: the feature network. It must have maps, as `lite0` has.
        size: height and width to which images are resized before the feature network, or null for the network's own.
            The time of a forward grows with its square. Another size than the network's own needs a network that takes
            any size, as `lite0` does (multiples of 32). The paper's code resizes images of less than 224 pixels to 224
            and leaves larger ones as they are.
        width: channels of the finest projected map. Each coarser map has twice as many.
        norm: the norm after each convolution but the last.
    """

    def __init__(
        self,
        shape: Domain,
        features: ganlab.Features,
        size: Annotated[int, Field(ge=8, le=1024)] | None = None,
        width: Annotated[int, Field(ge=1, le=1024)] = 64,
        norm: Literal["batch", "none"] = "batch",
    ) -> None:
        super().__init__()
        if shape.channels not in (1, 3):
            raise ValueError(f"expected images of 1 or 3 channels, got {shape.channels}")
        self.pretrained = features
        self.size = size or features.size
        with torch.no_grad():
            maps = features.maps(torch.zeros(1, 3, self.size, self.size))
        sides = [one.shape[2] for one in maps]
        if any(fine != 2 * coarse for fine, coarse in pairwise(sides)) or sides[-1] < 2:
            raise ValueError(
                f"expected maps with sides that halve, down to at least 2, got {sides} for images of {self.size} pixels"
            )
        self.projections = RandomProjections([one.shape[1] for one in maps], width)
        channels = self.projections.channels
        self.scales = nn.ModuleList(_scale(channels[scale:], norm) for scale in range(len(channels)))

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) -> unbounded scores (N, K, h, w), from the finest scale to the coarsest."""
        images = resize(x.expand(-1, 3, -1, -1), (self.size, self.size)).clamp(-1, 1)
        projected = self.projections(self.pretrained.maps(images))
        scores = [scale(maps) for scale, maps in zip(self.scales, projected, strict=True)]
        return torch.cat(scores, dim=1)


def _scale(channels: list[int], norm: str) -> nn.Sequential:
    """Returns the discriminator of one scale, for maps with channels[0] channels. Each convolution of stride 2 gives as
    many channels as the projected map of the same size has."""
    parts: list[nn.Module] = []
    for inner, outer in zip(channels, [*channels[1:], channels[-1]], strict=True):
        parts += [
            spectral_norm(nn.Conv2d(inner, outer, 4, 2, 1)),
            norm_layer(norm, outer),
            nn.LeakyReLU(0.2, inplace=True),
        ]
    return nn.Sequential(*parts, spectral_norm(nn.Conv2d(channels[-1], 1, 3, padding=1)))
