"""PatchGAN (arXiv:1611.07004, section 3.2.2): one score for each overlapping patch of an image."""

from typing import Annotated, Literal

from ganlab_resnet.layers import initialise, norm_layer
from pydantic import Field
from torch import Tensor, nn

import ganlab
from ganlab import Domain


class Patch(ganlab.Discriminator):
    """PatchGAN: `layers` 4x4 convolutions of stride 2 and two of stride 1, LeakyReLU 0.2.

    Scores are (N, 1, h, w) with h = H / 2^layers - 2. With 3 layers of width 64, for 3 channels, it has 2,764,737
    parameters.

    Args:
        width: channels of the first convolution. Each later one but the last has twice as many, at most 8 `width`.
        layers: the number of convolutions of stride 2; with 3 a score sees a 70x70 patch.
        norm: the norm after each convolution but the first and the last.
    """

    def __init__(
        self,
        shape: Domain,
        width: Annotated[int, Field(ge=1, le=1024)] = 64,
        layers: Annotated[int, Field(ge=1, le=6)] = 3,
        norm: Literal["instance", "batch", "none"] = "instance",
    ) -> None:
        super().__init__()
        # as in CycleGAN's networks, though a bias before an instance norm has no effect
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
        """Returns the number of scores for each patch. A subclass may override it."""
        return 1

    def features(self, x: Tensor) -> list[Tensor]:
        """Images (N, C, H, W) -> the activations after each LeakyReLU, then unbounded scores (N, 1, h, w)."""
        found = []
        for part in self.net:
            x = part(x)
            if isinstance(part, nn.LeakyReLU):
                found.append(x)
        return [*found, x]
