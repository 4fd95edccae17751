"""U-GAT-IT's discriminator (arXiv:1907.10830)."""

from itertools import pairwise
from typing import Annotated

from ganlab_resnet.layers import ReflectionPad
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

import ganlab
from ganlab import Domain
from ganlab_ugatit.layers import Attention


class CAMPatch(ganlab.Discriminator):
    """PatchGAN with attention by class activation maps: `layers` 4x4 convolutions of stride 2, one of stride 1, the
    attention, and a last 4x4 convolution; LeakyReLU 0.2, reflection padding.

    The activation before the scores holds the CAM logits (N, 2, 1, 1), which the loss `cam_lsgan` trains. U-GAT-IT has
    two discriminators in each domain, a local one with 3 layers and a global one with 5, each in the wrapper
    `spectral_norm`. The wrapper also normalises the attention's 1x1 convolution, which the authors' code does not, and
    the maps are multiplied by the classifiers' normalised weights, where the authors' code takes those before spectral
    norm.
    Height and width must be at least 4 * 2^layers.

    Args:
        width: channels of the first convolution. Each later one before the attention has twice as many.
        layers: the number of convolutions of stride 2.
    """

    def __init__(
        self,
        shape: Domain,
        width: Annotated[int, Field(ge=1, le=1024)] = 64,
        layers: Annotated[int, Field(ge=1, le=6)] = 3,
    ) -> None:
        super().__init__()
        if (smallest := 4 * 2**layers) > min(shape.height, shape.width):
            raise ValueError(
                f"with {layers} layers, images must be at least {smallest}x{smallest}, got {shape.height}x{shape.width}"
            )
        channels = [shape.channels, *(width * 2**layer for layer in range(layers + 1))]
        strides = [2] * layers + [1]
        self.body = nn.ModuleList(
            nn.Sequential(ReflectionPad(1), nn.Conv2d(inner, outer, 4, stride), nn.LeakyReLU(0.2))
            for (inner, outer), stride in zip(pairwise(channels), strides, strict=True)
        )
        self.attention = Attention(channels[-1])
        self.last = nn.Sequential(ReflectionPad(1), nn.Conv2d(channels[-1], 1, 4, bias=False))

    def features(self, x: Tensor) -> list[Tensor]:
        """Images (N, C, H, W) -> the activations of the convolutions, the CAM logits (N, 2, 1, 1), the unbounded scores
        (N, 1, h, w) with h = H / 2^layers - 2."""
        found = []
        for stage in self.body:
            x = stage(x)
            found.append(x)
        logits, attended = self.attention(x)
        return [*found, logits, self.last(leaky_relu(attended, 0.2))]
