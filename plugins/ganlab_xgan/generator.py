"""XGAN's encoders and decoders (arXiv:1711.05139)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import normalize

import ganlab
from ganlab import Domain


class _Unit(nn.Module):
    """Scales each image's embedding (N, E, 1, 1) to mean square 1.

    Otherwise the generators could reduce the losses on embeddings by making embeddings smaller.
    """

    def forward(self, x: Tensor) -> Tensor:
        unit: Tensor = normalize(x, dim=1) * x.shape[1] ** 0.5
        return unit


class XGAN(ganlab.Generator):
    """XGAN's generator: four convolutions of stride 2, two fully connected layers, five transposed convolutions.

    The embedding is (N, `embedding`, 1, 1). The directions share every layer from the third of the encoder to the
    second of the decoder. LeakyReLU 0.2, no norms, initial weights as in arXiv:1502.01852. Height and width must be
    multiples of 16.

    The sizes are the paper's: with width 32, an embedding of 1024 and 64x64 pixels it has 17,080,227 parameters, and
    16,387,200 of them are shared.

    Args:
        width: channels of the encoder's first convolution. Each later one of stride 2 has twice as many.
        embedding: the length of the embedding.
    """

    def __init__(
        self,
        source: Domain,
        target: Domain,
        width: Annotated[int, Field(ge=1, le=1024)] = 32,
        embedding: Annotated[int, Field(ge=1, le=16384)] = 1024,
    ) -> None:
        super().__init__()
        w = width
        small = (source.height // 16, source.width // 16)

        def conv(inner: int, outer: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(inner, outer, 4, 2, 1), nn.LeakyReLU(0.2))

        def up(inner: int, outer: int) -> nn.Sequential:
            return nn.Sequential(nn.ConvTranspose2d(inner, outer, 4, 2, 1), nn.LeakyReLU(0.2))

        self.encoder = nn.Sequential(conv(source.channels, w), conv(w, 2 * w))
        self.inner_encoder = nn.Sequential(
            conv(2 * w, 4 * w),
            conv(4 * w, 8 * w),
            nn.Sequential(nn.Conv2d(8 * w, embedding, small), nn.LeakyReLU(0.2)),
            nn.Sequential(nn.Conv2d(embedding, embedding, 1), _Unit()),
        )
        self.inner_decoder = nn.Sequential(
            nn.ConvTranspose2d(embedding, 16 * w, small, small), nn.LeakyReLU(0.2), up(16 * w, 8 * w)
        )
        self.decoder = nn.Sequential(
            up(8 * w, 4 * w),
            up(4 * w, 2 * w),
            nn.ConvTranspose2d(2 * w, target.channels, 4, 2, 1),
            nn.Tanh(),
        )
        _initialise(self)

    @classmethod
    def pair(
        cls, domains: Mapping[str, Domain], directions: Sequence[str], **options: Any
    ) -> dict[str, ganlab.Generator]:
        """Builds {direction: generator}. All use the inner layers of the first."""
        made = super().pair(domains, directions, **options)
        first = made[directions[0]]
        for generator in made.values():
            generator.inner_encoder, generator.inner_decoder = first.inner_encoder, first.inner_decoder
        return made

    def features(self, images: Tensor) -> list[Tensor]:
        """Images (N, C, H, W) -> the activations after each of the encoder's six layers."""
        found, x = [], images
        for layer in (*self.encoder, *self.inner_encoder):
            x = layer(x)
            found.append(x)
        return found

    def decode(self, embedding: Tensor) -> Tensor:
        """Embedding (N, E, 1, 1) -> images (N, C, H, W) in [-1, 1]."""
        images: Tensor = self.decoder(self.inner_decoder(embedding))
        return images


def _initialise(network: nn.Module) -> None:
    """Draws weights from N(0, 2 / inputs of an output), which keeps the scale of activations; biases are 0
    (arXiv:1502.01852)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            inputs = module.in_channels * module.kernel_size[0] * module.kernel_size[1]
            if isinstance(module, nn.ConvTranspose2d):
                inputs //= module.stride[0] * module.stride[1]
            nn.init.normal_(module.weight, 0.0, (2 / inputs) ** 0.5)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
