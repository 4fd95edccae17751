"""CycleGAN's generator with larger kernels in its residual blocks."""

from typing import Annotated, Literal

from ganlab_resnet.generator import Backbone, Residual
from ganlab_resnet.layers import ReflectionPad, norm_layer
from pydantic import Field
from torch import Tensor, nn

from ganlab import Domain


class Depthwise(nn.Module):
    """x + norm(pointwise(gelu(pointwise(norm(depthwise(x)))))): one `kernel` wide filter a channel, then mixing of the
    channels through `expansion` times as many (ConvNeXt, arXiv:2201.03545; RepLKNet, arXiv:2203.06717).
    """

    def __init__(self, channels: int, kernel: int, expansion: int, norm: str) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ReflectionPad(kernel // 2),
            nn.Conv2d(channels, channels, kernel, groups=channels),
            norm_layer(norm, channels),
            nn.Conv2d(channels, expansion * channels, 1),
            nn.GELU(),
            nn.Conv2d(expansion * channels, channels, 1),
            norm_layer(norm, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.body(x)
        return result


class LargeKernel(Backbone):
    """The residual generator with larger kernels. The seed says neither whose nor how large: here it is the
    generators' residual blocks, 7x7 by default instead of 3x3.

    Width 64, 9 blocks, and a forward of one image of 256 pixels, a multiplication and an addition counted apart:

    | blocks         | parameters | operations   |
    |----------------|------------|--------------|
    | resnet, 3x3    | 11,378,179 | 99.1 * 10^9  |
    | dense, 7x7     | 58,564,099 | 485.7 * 10^9 |
    | depthwise, 7x7 | 5,602,051  | 51.7 * 10^9  |

    Args:
        kernel: height and width of the larger kernels.
        form: "dense" raises the size of the block's two convolutions, as the seed did; "depthwise" has one depthwise
            convolution of that size and two pointwise ones (arXiv:2201.03545, 2203.06717).
        expansion: how many times the block's channels lie between the pointwise convolutions; of "depthwise".
    """

    def __init__(
        self,
        source: Domain,
        target: Domain,
        width: Annotated[int, Field(ge=1)] = 64,
        blocks: Annotated[int, Field(ge=0)] = 9,
        norm: Literal["instance", "batch", "none"] = "instance",
        kernel: Literal[5, 7, 9, 11, 13, 15, 31] = 7,
        upsampling: Literal["transposed", "resize"] = "transposed",
        form: Literal["dense", "depthwise"] = "dense",
        expansion: Annotated[int, Field(ge=1)] = 4,
    ) -> None:
        def block(channels: int) -> nn.Module:
            if form == "depthwise":
                return Depthwise(channels, kernel, expansion, norm)
            return Residual(channels, kernel, norm, bias=norm != "batch")

        super().__init__(source, target, width, blocks, norm, upsampling, block)
