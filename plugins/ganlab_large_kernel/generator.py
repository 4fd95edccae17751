"""CycleGAN's generator with larger kernels in its residual blocks."""

from typing import Annotated, Literal

from ganlab_resnet.blocks import Bottleneck, Residual
from ganlab_resnet.generator import Backbone
from ganlab_resnet.layers import ReflectionPad, norm_layer
from pydantic import Field
from torch import Tensor, nn

from ganlab import Domain


class Depthwise(nn.Module):
    """x + norm(pointwise(gelu(pointwise(norm(depthwise(x)))))).

    One filter for each channel, then two pointwise convolutions with `expansion` times as many channels between them
    (ConvNeXt, arXiv:2201.03545; RepLKNet, arXiv:2203.06717).
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
    """The residual generator with larger kernels in its residual blocks, by default 7x7 instead of 3x3.

    face2comic says neither which kernels are larger nor how large they are. The table is for width 64, 9 blocks and one
    image of 256x256 pixels; multiplications and additions count separately.

    | blocks         | parameters | operations   |
    |----------------|------------|--------------|
    | resnet, 3x3    | 11,378,179 | 99.1 * 10^9  |
    | dense, 7x7     | 58,564,099 | 485.7 * 10^9 |
    | depthwise, 7x7 | 5,602,051  | 51.7 * 10^9  |

    Args:
        kernel: height and width of the larger kernels.
        form: "dense" enlarges the block's two convolutions, as face2comic did. "depthwise" has one depthwise
            convolution of that size and two pointwise convolutions (arXiv:2201.03545, 2203.06717). "bottleneck" has one
            convolution of that size, of half of the channels, between two pointwise convolutions (arXiv:1512.03385).
        expansion: the channels between the pointwise convolutions, as a multiple of the block's; for "depthwise".
    """

    def __init__(
        self,
        source: Domain,
        target: Domain,
        width: Annotated[int, Field(ge=1, le=1024)] = 64,
        blocks: Annotated[int, Field(ge=0, le=256)] = 9,
        norm: Literal["instance", "batch", "none"] = "instance",
        kernel: Literal[5, 7, 9, 11, 13, 15, 31] = 7,
        upsampling: Literal["transposed", "resize"] = "transposed",
        ends: Literal["convolutions", "folded"] = "convolutions",
        form: Literal["dense", "depthwise", "bottleneck"] = "dense",
        expansion: Annotated[int, Field(ge=1, le=16)] = 4,
    ) -> None:
        def block(channels: int) -> nn.Module:
            if form == "depthwise":
                return Depthwise(channels, kernel, expansion, norm)
            return {"dense": Residual, "bottleneck": Bottleneck}[form](channels, kernel, norm, bias=norm != "batch")

        super().__init__(source, target, width, blocks, norm, upsampling, "strided", ends, block)
