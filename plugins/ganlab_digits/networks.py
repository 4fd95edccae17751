"""The networks of yunjey/mnist-svhn-transfer for 32x32 pixels: no biases, LeakyReLU 0.05, PyTorch's default weights."""

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

import ganlab
from ganlab import Domain

Width = Annotated[int, Field(ge=1, le=1024)]


def _normed(layer: nn.Module, channels: int) -> nn.Sequential:
    return nn.Sequential(layer, nn.BatchNorm2d(channels), nn.LeakyReLU(0.05, inplace=True))


class DigitGenerator(ganlab.Generator):
    """The generator: two 4x4 convolutions of stride 2, two of 3x3, two transposed 4x4 convolutions of stride 2, tanh.

    The embedding (N, 2 width, H / 4, W / 4) lies between the 3x3 convolutions. With width 64, from 1 channel to 3 or
    from 3 to 1, it has 562,176 parameters.

    Args:
        width: channels of the first convolution. The next three have twice as many.
    """

    def __init__(self, source: Domain, target: Domain, width: Width = 64) -> None:
        super().__init__()

        def middle() -> nn.Module:
            return _normed(nn.Conv2d(2 * width, 2 * width, 3, 1, 1, bias=False), 2 * width)

        self.encoder = nn.ModuleList(
            [
                _normed(nn.Conv2d(source.channels, width, 4, 2, 1, bias=False), width),
                _normed(nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False), 2 * width),
                middle(),
            ]
        )
        self.decoder = nn.Sequential(
            middle(),
            _normed(nn.ConvTranspose2d(2 * width, width, 4, 2, 1, bias=False), width),
            nn.ConvTranspose2d(width, target.channels, 4, 2, 1, bias=False),
            nn.Tanh(),
        )

    def features(self, images: Tensor) -> list[Tensor]:
        """Images (N, C, H, W) -> the activations after each of the encoder's three layers."""
        found, x = [], images
        for stage in self.encoder:
            x = stage(x)
            found.append(x)
        return found

    def decode(self, embedding: Tensor) -> Tensor:
        """(N, 2 width, H / 4, W / 4) -> (N, C, H, W) in [-1, 1]."""
        images: Tensor = self.decoder(embedding)
        return images


class DigitDiscriminator(ganlab.Discriminator):
    """The discriminator: three 4x4 convolutions of stride 2 and one 4x4 convolution over the positions that remain.

    The second and third have a batch norm. With width 64 it has 661,248 parameters for 1 channel, 663,296 for 3.

    Raises ValueError if `labels` is true and the domain has no classes.

    Args:
        width: channels of the first convolution. The second and third each double them.
        labels: if true, the scores are logits of the domain's classes and, last, of "fake".
    """

    def __init__(self, shape: Domain, width: Width = 64, labels: bool = False) -> None:
        super().__init__()
        if labels and not shape.classes:
            raise ValueError(f"labels is true, and the source of domain {shape.name} has no labels")
        outputs = shape.classes + 1 if labels else 1
        self.net = nn.Sequential(
            nn.Conv2d(shape.channels, width, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.05, inplace=True),
            _normed(nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False), 2 * width),
            _normed(nn.Conv2d(2 * width, 4 * width, 4, 2, 1, bias=False), 4 * width),
            nn.Conv2d(4 * width, outputs, 4, 1, 0, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) -> unbounded scores (N, 1 or classes + 1, H / 8 - 3, W / 8 - 3)."""
        scores: Tensor = self.net(x)
        return scores
