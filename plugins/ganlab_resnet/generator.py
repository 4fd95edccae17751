"""The residual generator (arXiv:1603.08155; arXiv:1703.10593, appendix 7.2)."""

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

import ganlab
from ganlab import Domain
from ganlab_resnet.layers import ReflectionPad, initialise, norm_layer


class Residual(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))); both convolutions are `kernel` wide, with reflection padding."""

    def __init__(self, channels: int, kernel: int, norm: str, bias: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ReflectionPad(kernel // 2),
            nn.Conv2d(channels, channels, kernel, bias=bias),
            norm_layer(norm, channels),
            nn.ReLU(inplace=True),
            ReflectionPad(kernel // 2),
            nn.Conv2d(channels, channels, kernel, bias=bias),
            norm_layer(norm, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.body(x)
        return result


class Bottleneck(nn.Module):
    """x + norm(pointwise(relu(norm(conv(relu(norm(pointwise(x)))))))), with half the channels between."""

    def __init__(self, channels: int, kernel: int, norm: str, bias: bool) -> None:
        super().__init__()
        inner = channels // 2
        self.body = nn.Sequential(
            nn.Conv2d(channels, inner, 1, bias=bias),
            norm_layer(norm, inner),
            nn.ReLU(inplace=True),
            ReflectionPad(kernel // 2),
            nn.Conv2d(inner, inner, kernel, bias=bias),
            norm_layer(norm, inner),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, channels, 1, bias=bias),
            norm_layer(norm, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.body(x)
        return result


class Backbone(ganlab.Generator):
    """A 7x7 convolution, two of stride 2, residual blocks, two upsamplings, a 7x7 convolution and tanh.

    The embedding (N, 4 width, H / 4, W / 4) is taken after half of the blocks.

    Args:
        width: channels of the first convolution. The blocks have four times as many.
        blocks: the number of residual blocks.
        norm: the norm after the convolutions.
        upsampling: "transposed" is a transposed convolution. "resize" is nearest-neighbour upsampling and a
            convolution, without the checkerboard patterns of a transposed one (Odena et al., Distill 2016,
            doi:10.23915/distill.00003).
    """

    def __init__(
        self,
        source: Domain,
        target: Domain,
        width: int,
        blocks: int,
        norm: str,
        upsampling: str,
        block: Callable[[int], nn.Module],
        stem: str = "convolutions",
        ends: str = "normed",
    ) -> None:
        super().__init__()
        bias = norm != "batch"
        deep = 4 * width

        def conv(inner: int, outer: int, kernel: int, stride: int = 1) -> list[nn.Module]:
            border: list[nn.Module] = [ReflectionPad(kernel // 2)] if stride == 1 else []
            padding = 0 if stride == 1 else kernel // 2
            return [*border, nn.Conv2d(inner, outer, kernel, stride, padding, bias=bias)]

        def up(inner: int, outer: int) -> list[nn.Module]:
            if upsampling == "shuffle":
                return [*conv(inner, 4 * outer, 3), nn.PixelShuffle(2)]
            if upsampling == "transposed":
                return [nn.ConvTranspose2d(inner, outer, 3, 2, 1, output_padding=1, bias=bias)]
            return [nn.Upsample(scale_factor=2, mode="nearest"), *conv(inner, outer, 3)]

        def normed(layers: list[nn.Module], channels: int) -> nn.Sequential:
            if ends == "plain":
                return nn.Sequential(*layers, nn.LeakyReLU(0.2, inplace=True))
            if ends == "linear":
                return nn.Sequential(*layers)
            return nn.Sequential(*layers, norm_layer(norm, channels), nn.ReLU(inplace=True))

        before = blocks // 2
        if stem == "unshuffle":
            stages = [normed([nn.PixelUnshuffle(4), *conv(16 * source.channels, deep, 3)], deep)]
        else:
            stages = [
                normed(conv(source.channels, width, 7), width),
                normed(conv(width, 2 * width, 3, 2), 2 * width),
                normed(conv(2 * width, deep, 3, 2), deep),
            ]
        if upsampling == "shuffle":
            head = [normed(up(deep, width), width), *up(width, target.channels), nn.Tanh()]
        else:
            head = [
                normed(up(deep, 2 * width), 2 * width),
                normed(up(2 * width, width), width),
                *conv(width, target.channels, 7),
                nn.Tanh(),
            ]
        self.encoder = nn.ModuleList([*stages, *(block(deep) for _ in range(before))])
        self.decoder = nn.Sequential(*(block(deep) for _ in range(blocks - before)), *head)
        initialise(self)

    def features(self, images: Tensor) -> list[Tensor]:
        """Images (N, C, H, W) -> the activations after each encoder stage and each block before the embedding."""
        found, x = [], images
        for stage in self.encoder:
            x = stage(x)
            found.append(x)
        return found

    def decode(self, embedding: Tensor) -> Tensor:
        """(N, 4 width, H / 4, W / 4) -> (N, C, H, W) in [-1, 1]."""
        images: Tensor = self.decoder(embedding)
        return images


class Resnet(Backbone):
    """CycleGAN's generator, with residual blocks of two 3x3 convolutions.

    With width 64 it has 11,378,179 parameters for 9 blocks, 7,837,699 for 6.

    Args:
        kernel: height and width of the blocks' kernels.
    """

    def __init__(
        self,
        source: Domain,
        target: Domain,
        width: Annotated[int, Field(ge=1, le=1024)] = 64,
        blocks: Annotated[int, Field(ge=0, le=256)] = 9,
        norm: Literal["instance", "batch", "none"] = "instance",
        kernel: Literal[1, 3, 5, 7, 9, 11, 13] = 3,
        upsampling: Literal["transposed", "resize", "shuffle"] = "transposed",
        stem: Literal["convolutions", "unshuffle"] = "convolutions",
        ends: Literal["normed", "plain", "linear"] = "normed",
        form: Literal["dense", "bottleneck"] = "dense",
    ) -> None:
        def block(channels: int) -> nn.Module:
            if form == "bottleneck":
                return Bottleneck(channels, kernel, norm, bias=norm != "batch")
            return Residual(channels, kernel, norm, bias=norm != "batch")

        super().__init__(source, target, width, blocks, norm, upsampling, block, stem, ends)
