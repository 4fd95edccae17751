"""DCGAN's two networks (arXiv:1511.06434, section 3): strided convolutions, batch norms, no fully connected layers."""

from typing import Annotated

from ganlab_resnet.layers import initialise
from pydantic import Field
from torch import Tensor, nn

import ganlab
from ganlab import Domain
from ganlab_dcgan.gaussian import BYTES, latents

Width = Annotated[int, Field(ge=1)]


class DCGANGenerator(ganlab.Generator):
    """A 4x4 convolution from a latent to 4x4 positions, then 4x4 transposed convolutions of stride 2 to the image's
    size; each with a batch norm and ReLU, the last with tanh. No biases.

    The embedding is the latent, (N, latents, 1, 1), that `ganlab_dcgan.gaussian.latents` reads from a picture of noise.
    With 100 latents and width 64, of 64x64 pixels in 3 channels, it has 3,576,704 parameters.

    Raises ValueError where images are not 8, 16, 32, ... pixels, or have too few for so many latents.

    Args:
        latents: numbers of the latent; each takes 3 pixels of the noise.
        width: channels before the last convolution; before each earlier one there are twice as many.
    """

    def __init__(
        self, source: Domain, target: Domain, latents: Annotated[int, Field(ge=1)] = 100, width: Width = 64
    ) -> None:
        super().__init__()
        have = source.channels * source.height * source.width
        if BYTES * latents > have:
            raise ValueError(
                f"{latents} latents need {BYTES * latents} pixels, and a picture of {source.name} has {have}"
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
        """Noise (N, C, H, W) -> (N, latents, 1, 1)."""
        return latents(images, self.latents)

    def decode(self, embedding: Tensor) -> Tensor:
        """(N, latents, 1, 1) -> (N, C, H, W) in [-1, 1]."""
        images: Tensor = self.net(embedding)
        return images


class DCGANDiscriminator(ganlab.Discriminator):
    """4x4 convolutions of stride 2 down to 4x4 positions, each but the first with a batch norm, LeakyReLU 0.2; then a
    4x4 convolution to one score. No biases; no sigmoid, which belongs to a loss.

    With width 64, of 64x64 pixels in 3 channels, it has 2,765,568 parameters. Raises ValueError where images are not 8,
    16, 32, ... pixels.

    Args:
        width: channels of the first convolution; each but the last has twice those before.
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
        """(N, C, H, W) -> scores (N, 1, 1, 1), unbounded."""
        scores: Tensor = self.net(x)
        return scores


def _doublings(images: Domain) -> int:
    """How often 4 is doubled to make the images' size."""
    count = (images.height // 4).bit_length() - 1
    if images.height != images.width or count < 1 or images.height != 4 * 2**count:
        raise ValueError(f"images have to be 8, 16, 32, ... pixels high and wide, not {images.height}x{images.width}")
    return count
