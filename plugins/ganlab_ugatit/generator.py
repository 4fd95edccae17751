"""U-GAT-IT's generator (arXiv:1907.10830)."""

from typing import Annotated

from ganlab_resnet.blocks import Residual
from ganlab_resnet.layers import InstanceNorm, ReflectionPad
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import relu

import ganlab
from ganlab import Domain
from ganlab_ugatit.layers import LIN, AdaLIN, AdaptiveResidual, Attention


class Decoder(nn.Module):
    """Residual blocks with AdaLIN, then two upsamplings with LIN.

    All blocks have the same gamma and beta, which two hidden layers and one layer each compute from the embedding: from
    the mean of each channel if `light`, from all values otherwise.
    """

    def __init__(self, width: int, blocks: int, positions: int, channels: int, light: bool) -> None:
        super().__init__()
        w = 4 * width
        self.light = light
        self.shared = nn.Sequential(
            nn.Linear(w if light else w * positions, w, bias=False), nn.ReLU(), nn.Linear(w, w, bias=False), nn.ReLU()
        )
        self.gamma, self.beta = (nn.Linear(w, w, bias=False) for _ in range(2))
        self.blocks = nn.ModuleList(AdaptiveResidual(w) for _ in range(blocks))

        def up(inner: int, outer: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Upsample(scale_factor=2, mode="nearest"),
                ReflectionPad(1),
                nn.Conv2d(inner, outer, 3, bias=False),
                LIN(outer),
                nn.ReLU(),
            )

        self.upsampling = nn.Sequential(
            up(w, w // 2),
            up(w // 2, width),
            ReflectionPad(3),
            nn.Conv2d(width, channels, 7, bias=False),
            nn.Tanh(),
        )

    def forward(self, embedding: Tensor) -> Tensor:
        style = self.shared(embedding.mean(dim=(2, 3)) if self.light else embedding.flatten(1))
        gamma, beta = (layer(style)[:, :, None, None] for layer in (self.gamma, self.beta))  # (N, 4 width, 1, 1)
        x = embedding
        for block in self.blocks:
            x = block(x, gamma, beta)
        images: Tensor = self.upsampling(x)
        return images


class UGATIT(ganlab.Generator):
    """U-GAT-IT's generator: an encoder with attention by class activation maps, a decoder with AdaLIN.

    A 7x7 convolution, two of stride 2 and residual blocks make the maps that the attention reads; ReLU of the attended
    maps is the embedding (N, 4 width, H / 4, W / 4). The activation before it holds the CAM logits (N, 2, 1, 1), which
    the loss `cam` trains. Convolutions have torch's initial weights, and instance norms have no parameters, as in the
    authors' PyTorch code.

    Two things differ from that code: rho in the blocks is 1 at first, as in the paper, instead of 0.9, and the
    variances of AdaLIN and LIN are biased, as in the authors' TensorFlow code.

    As published, with width 64, 4 blocks and 256x256 pixels, it has 278,959,808 parameters; 10,589,888 if `light`.

    Args:
        width: channels of the first convolution. The blocks have four times as many.
        blocks: the number of residual blocks in the encoder, and in the decoder.
        light: if true, gamma and beta depend on the means of the embedding's channels only, as in the authors' light
            version. Otherwise the images' size is fixed and the first layer has 16 width^2 times H W / 16 weights.
    """

    def __init__(
        self,
        source: Domain,
        target: Domain,
        width: Annotated[int, Field(ge=1, le=1024)] = 64,
        blocks: Annotated[int, Field(ge=1, le=256)] = 4,
        light: bool = False,
    ) -> None:
        super().__init__()
        w = width

        def conv(inner: int, outer: int, kernel: int, stride: int) -> nn.Sequential:
            return nn.Sequential(
                ReflectionPad(kernel // 2),
                nn.Conv2d(inner, outer, kernel, stride, bias=False),
                InstanceNorm(outer),
                nn.ReLU(),
            )

        self.encoder = nn.ModuleList(
            [
                conv(source.channels, w, 7, 1),
                conv(w, 2 * w, 3, 2),
                conv(2 * w, 4 * w, 3, 2),
                *(Residual(4 * w, 3, "instance", bias=False) for _ in range(blocks)),
            ]
        )
        self.attention = Attention(4 * w)
        self.decoder = Decoder(w, blocks, (source.height // 4) * (source.width // 4), target.channels, light)

    def features(self, images: Tensor) -> list[Tensor]:
        """Images (N, C, H, W) -> the activations after each encoder stage, the CAM logits (N, 2, 1, 1), the
        embedding."""
        found, x = [], images
        for stage in self.encoder:
            x = stage(x)
            found.append(x)
        logits, attended = self.attention(x)
        return [*found, logits, relu(attended)]

    def decode(self, embedding: Tensor) -> Tensor:
        """(N, 4 width, H / 4, W / 4) -> (N, C, H, W) in [-1, 1]."""
        images: Tensor = self.decoder(embedding)
        return images

    def after_update(self) -> None:
        """Clips every rho to [0, 1]."""
        for module in self.modules():
            if isinstance(module, AdaLIN):
                module.clip()
