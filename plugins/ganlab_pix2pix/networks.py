"""pix2pix's networks (arXiv:1611.07004, section 3.2 and appendix 6.1)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from ganlab_cyclegan.discriminator import Patch
from ganlab_resnet.layers import initialise, norm_layer
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

import ganlab
from ganlab import Domain


class UNet(ganlab.Generator):
    """pix2pix's U-Net: 4x4 convolutions of stride 2 down to 1x1, and as many transposed ones up again.

    Each layer on the way up also reads the activations of its size on the way down (skip connections). LeakyReLU 0.2 on
    the way down, ReLU on the way up, a norm in all layers but the outer ones and the one that gives 1x1. The height and
    width are equal, a power of two and at least 4; otherwise the constructor raises ValueError.

    The embedding is (N, E, 1, 1): the activations of every layer on the way down, folded to 1x1, because `decode` reads
    nothing else. With width 64, batch norm, 3 channels and 256x256 pixels it has 54,413,955 parameters.

    pix2pix adds dropout to the first three layers on the way up, as its only noise: wrap the generator in `dropout`.

    Args:
        width: channels of the first convolution. Each later one has twice as many, at most 8 `width`.
        norm: the norm after each convolution but those named above.
    """

    def __init__(
        self,
        source: Domain,
        target: Domain,
        width: Annotated[int, Field(ge=1, le=1024)] = 64,
        norm: Literal["instance", "batch", "none"] = "instance",
    ) -> None:
        super().__init__()
        size = source.height
        if size != source.width or size < 4 or size & (size - 1):
            raise ValueError(
                "halves images down to one pixel, so their height and width are one power of two from 4 up, and they"
                f" are {size}x{source.width}"
            )
        depth = size.bit_length() - 1
        self.widths = [width * min(2**layer, 8) for layer in range(depth)]
        # a bias before a batch norm has no effect
        bias = norm != "batch"

        def down(layer: int) -> nn.Sequential:
            inner, outer = [source.channels, *self.widths][layer : layer + 2]
            normed = [norm_layer(norm, outer)] if 0 < layer < depth - 1 else []
            return nn.Sequential(nn.Conv2d(inner, outer, 4, 2, 1, bias=bias), *normed, nn.LeakyReLU(0.2))

        def up(layer: int) -> nn.Sequential:
            # the deepest layer has no skip connection
            inner = self.widths[layer] * (1 if layer == depth - 1 else 2)
            if layer == 0:
                return nn.Sequential(nn.ConvTranspose2d(inner, target.channels, 4, 2, 1), nn.Tanh())
            outer = self.widths[layer - 1]
            return nn.Sequential(
                nn.ConvTranspose2d(inner, outer, 4, 2, 1, bias=bias), norm_layer(norm, outer), nn.ReLU()
            )

        self.encoder = nn.ModuleList(down(layer) for layer in range(depth))
        self.decoder = nn.ModuleList(up(layer) for layer in reversed(range(depth)))
        initialise(self)

    def features(self, images: Tensor) -> list[Tensor]:
        """Images (N, C, H, W) -> the activations (N, c, H / 2, W / 2), ... of the layers on the way down but the last,
        then the embedding."""
        found, x = [], images
        for layer in self.encoder:
            x = layer(x)
            found.append(x)
        folded = [pixel_unshuffle(skip, skip.shape[2] // x.shape[2]) for skip in found]
        return [*found[:-1], torch.cat(folded, 1)]

    def decode(self, embedding: Tensor) -> Tensor:
        """Embedding (N, E, 1, 1) -> images (N, C, H, W) in [-1, 1]."""
        depth = len(self.widths)
        factors = [2 ** (depth - 1 - layer) for layer in range(depth)]
        folded = torch.split(embedding, [w * factor**2 for w, factor in zip(self.widths, factors, strict=True)], 1)
        *skips, x = [pixel_shuffle(skip, factor) for skip, factor in zip(folded, factors, strict=True)]
        images: Tensor = self.decoder[0](x)
        for layer, skip in zip(self.decoder[1:], reversed(skips), strict=True):
            images = layer(torch.cat([images, skip], 1))
        return images


class ConditionalPatch(Patch):
    """pix2pix's conditional discriminator: PatchGAN on an image together with its source.

    Layers and options are those of `patch`. With batch norm, width 64 and 3 channels in each domain it has 2,768,705
    parameters.
    """

    sees = "pairs"
