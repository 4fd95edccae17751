"""PatchGAN (arXiv:1611.07004, section 3.2.2): a score for each overlapping patch of an image."""

from typing import Annotated, Literal

from ganlab_resnet.layers import initialise, norm_layer
from pydantic import Field
from torch import Tensor, nn

import ganlab
from ganlab import Domain


class Patch(ganlab.Discriminator):
    """4x4 convolutions, `layers` of stride 2 and two of stride 1, LeakyReLU 0.2.

    With 3 layers of width 64, for 3 channels, it has 2,764,737 parameters. Scores are (N, 1, h, w) with
    h = H / 2^layers - 2.

    Args:
        width: channels of the first convolution; each but the last has twice those before, at most 8 `width`.
        layers: how many convolutions of stride 2; with 3 a score sees a 70x70 patch.
        norm: the norm behind each convolution but the first and the last.
    """

    def __init__(
        self,
        shape: Domain,
        width: Annotated[int, Field(ge=1)] = 64,
        layers: Annotated[int, Field(ge=1, le=6)] = 3,
        norm: Literal["instance", "batch", "none"] = "instance",
    ) -> None:
        super().__init__()
        # a bias before an instance norm has no effect; CycleGAN's networks have it there, and not before a batch norm
        bias = norm != "batch"
        parts: list[nn.Module] = [nn.Conv2d(shape.channels, width, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
        inner = width
        for layer in range(1, layers + 1):
            outer = width * min(2**layer, 8)
            stride = 2 if layer < layers else 1
            parts += [
                nn.Conv2d(inner, outer, 4, stride, 1, bias=bias),
                norm_layer(norm, outer),
                nn.LeakyReLU(0.2, inplace=True),
            ]
            inner = outer
        parts.append(nn.Conv2d(inner, self.outputs(shape), 4, 1, 1))
        self.net = nn.Sequential(*parts)
        initialise(self)

    def outputs(self, shape: Domain) -> int:
        """How many scores a patch is given."""
        return 1

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> scores (N, 1, h, w), unbounded."""
        scores: Tensor = self.net(x)
        return scores
