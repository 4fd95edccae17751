"""DCGAN's two networks (arXiv:1511.06434, section 3): strided convolutions, batch norms, no fully connected layers."""

from typing import Annotated

from ganlab_resnet.layers import initialise
from pydantic import Field
from torch import Tensor, nn

import ganlab
from ganlab import Domain
from ganlab_dcgan.gaussian import BYTES, latents

Width = Annotated[int, Field(ge=1, le=1024)]


class DCGANGenerator(ganlab.Generator):
    """DCGAN's generator: a stack of 4x4 transposed convolutions.

    The first convolution makes 4x4 positions of a latent. The others have stride 2 and double the positions, up to the
    image's size. Each convolution but the last has a batch norm and ReLU after it, the last has tanh. There are no
    biases. The embedding is the latent (N, latents, 1, 1), which `ganlab_dcgan.gaussian.latents` reads from a noise
    image. With 100 latents and width 64, for 64x64 pixels and 3 channels, it has 3,576,704 parameters.

    Raises ValueError if the images are not 8, 16, 32, ... pixels high and wide, or if a noise image has too few pixels
    for the latents.

    Args:
        latents: the number of latent values; each takes 3 pixels of the noise image.
        width: channels before the last convolution. There are twice as many before each earlier one.
    """

    def __init__(
        self, source: Domain, target: Domain, latents: Annotated[int, Field(ge=1, le=16384)] = 100, width: Width = 64
    ) -> None:
        super().__init__()
        have = source.channels * source.height * source.width
        if BYTES * latents > have:
            raise ValueError(
                f"{latents} latents need {BYTES * latents} pixels, and an image of domain {source.name} has {have}"
            )
        self.latents = latents
        inner = width * 2 ** (_doublings(target) - 1)
        parts: list[nn.Module] = [nn.ConvTranspose2d(latents, inner, 4, 1, 0, bias=False)]
        while inner > width:
            parts += [
                *(nn.BatchNorm2d(inner), nn.ReLU(inplace=True)),
                nn.ConvTranspose2d(inner, inner // 2, 4, 2, 1, bias=False),
            ]
            inner //= 2
        parts += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        parts += [nn.ConvTranspose2d(width, target.channels, 4, 2, 1, bias=False), nn.Tanh()]
        self.net = nn.Sequential(*parts)
        initialise(self)

    def encode(self, images: Tensor) -> Tensor:
        """Noise images (N, C, H, W) -> (N, latents, 1, 1)."""
        return latents(images, self.latents)

    def decode(self, embedding: Tensor) -> Tensor:
        """(N, latents, 1, 1) -> (N, C, H, W) in [-1, 1]."""
        images: Tensor = self.net(embedding)
        return images


class DCGANDiscriminator(ganlab.Discriminator):
    """DCGAN's discriminator: 4x4 convolutions of stride 2 down to 4x4 positions, then one to a single score.

    LeakyReLU 0.2; a batch norm after each convolution of stride 2 but the first. There are no biases and no sigmoid,
    which belongs to the loss. With width 64, for 64x64 pixels and 3 channels, it has 2,765,568 parameters.

    Raises ValueError if the images are not 8, 16, 32, ... pixels high and wide.

    Args:
        width: channels of the first convolution. Each later one but the last has twice as many.
    """

    def __init__(self, shape: Domain, width: Width = 64) -> None:
        super().__init__()
        parts: list[nn.Module] = [
            nn.Conv2d(shape.channels, width, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        outer = width
        for _ in range(_doublings(shape) - 1):
            parts += [
                nn.Conv2d(outer, 2 * outer, 4, 2, 1, bias=False),
                *(nn.BatchNorm2d(2 * outer), nn.LeakyReLU(0.2, inplace=True)),
            ]
            outer *= 2
        parts.append(nn.Conv2d(outer, 1, 4, 1, 0, bias=False))
        self.net = nn.Sequential(*parts)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) -> unbounded scores (N, 1, 1, 1)."""
        scores: Tensor = self.net(x)
        return scores


def _doublings(images: Domain) -> int:
    """Returns the number of doublings from 4 pixels to the images' size. Raises ValueError if there is none."""
    count = (images.height // 4).bit_length() - 1
    if images.height != images.width or count < 1 or images.height != 4 * 2**count:
        raise ValueError(f"images must be 8, 16, 32, ... pixels high and wide, not {images.height}x{images.width}")
    return count
