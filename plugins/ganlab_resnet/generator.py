"""The residual generator (arXiv:1603.08155; arXiv:1703.10593, appendix 7.2)."""

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

import ganlab
from ganlab import Domain
from ganlab_resnet.antialiased import BlurredHalving
from ganlab_resnet.blocks import Bottleneck, Residual
from ganlab_resnet.folded import folding, pass_through, unfolding
from ganlab_resnet.layers import ReflectionPad, initialise, norm_layer


class Backbone(ganlab.Generator):
    """An encoder, residual blocks and a decoder. The embedding (N, 4 width, H / 4, W / 4) is taken after half of the
    blocks.

    Args:
        width: a quarter of the blocks' channels. The first convolution of "convolutions" has `width` channels.
        blocks: the number of residual blocks.
        norm: the norm after the convolutions.
        upsampling: for "convolutions". "transposed" is a transposed convolution. "resize" is nearest-neighbour
            upsampling and a convolution, without the checkerboard patterns of a transposed one (Odena et al., Distill
            2016, doi:10.23915/distill.00003).
        ends: the layers before and after the blocks. "convolutions" are a 7x7 convolution, two of stride 2, two
            upsamplings, a 7x7 convolution and tanh. "folded" folds 4x4 pixels into channels and back, with 3x3
            convolutions and no norms: cheaper, and the network starts near the identity if the blocks are bottlenecks.
            Height and width must be multiples of 4.
    """

    def __init__(
        self,
        source: Domain,
        target: Domain,
        width: int,
        blocks: int,
        norm: str,
        upsampling: str,
        downsampling: str,
        ends: str,
        block: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        deep, before = 4 * width, blocks // 2
        if ends == "folded":
            first, last = folding(source.channels, deep), unfolding(deep, target.channels)
            self.encoder = nn.ModuleList([first, *(block(deep) for _ in range(before))])
            self.decoder = nn.Sequential(*(block(deep) for _ in range(blocks - before)), last)
            initialise(self)
            pass_through(first, last)
            return
        bias = norm != "batch"

        def conv(inner: int, outer: int, kernel: int, stride: int = 1) -> list[nn.Module]:
            border: list[nn.Module] = [ReflectionPad(kernel // 2)] if stride == 1 else []
            padding = 0 if stride == 1 else kernel // 2
            return [*border, nn.Conv2d(inner, outer, kernel, stride, padding, bias=bias)]

        def down(inner: int, outer: int) -> nn.Sequential:
            if downsampling == "strided":
                return normed(conv(inner, outer, 3, 2), outer)
            same = nn.Conv2d(inner, outer, 3, padding=1, bias=bias)
            return nn.Sequential(*normed([same], outer), BlurredHalving(outer))

        def up(inner: int, outer: int) -> list[nn.Module]:
            if upsampling == "transposed":
                return [nn.ConvTranspose2d(inner, outer, 3, 2, 1, output_padding=1, bias=bias)]
            if upsampling == "blurred":
                bilinear = nn.Upsample(scale_factor=2, mode="bilinear")
                return [bilinear, nn.Conv2d(inner, outer, 3, padding=1, bias=bias)]
            return [nn.Upsample(scale_factor=2, mode="nearest"), *conv(inner, outer, 3)]

        def normed(layers: list[nn.Module], channels: int) -> nn.Sequential:
            return nn.Sequential(*layers, norm_layer(norm, channels), nn.ReLU(inplace=True))

        self.encoder = nn.ModuleList(
            [
                normed(conv(source.channels, width, 7), width),
                down(width, 2 * width),
                down(2 * width, deep),
                *(block(deep) for _ in range(before)),
            ]
        )
        self.decoder = nn.Sequential(
            *(block(deep) for _ in range(blocks - before)),
            normed(up(deep, 2 * width), 2 * width),
            normed(up(2 * width, width), width),
            ReflectionPad(3),
            nn.Conv2d(width, target.channels, 7),
            nn.Tanh(),
        )
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
    """CycleGAN's generator, by default with residual blocks of two 3x3 convolutions.

    With width 64 it has 11,378,179 parameters for 9 blocks, 7,837,699 for 6.

    `upsampling` "blurred" is bilinear upsampling and a convolution with zeros at the border, as CUT has it
    (arXiv:2007.15651).

    Args:
        kernel: height and width of the blocks' kernels.
        downsampling: for "convolutions". "strided" are convolutions of stride 2. "blurred" are convolutions of stride
            1, each followed by a blur of stride 2, against aliasing (arXiv:1904.11486), as CUT has it.
        form: "dense" blocks have two convolutions of all channels. "bottleneck" blocks have one of half of the
            channels, between pointwise convolutions (arXiv:1512.03385).
    """

    def __init__(
        self,
        source: Domain,
        target: Domain,
        width: Annotated[int, Field(ge=1, le=1024)] = 64,
        blocks: Annotated[int, Field(ge=0, le=256)] = 9,
        norm: Literal["instance", "batch", "none"] = "instance",
        kernel: Literal[1, 3, 5, 7, 9, 11, 13] = 3,
        upsampling: Literal["transposed", "resize", "blurred"] = "transposed",
        downsampling: Literal["strided", "blurred"] = "strided",
        ends: Literal["convolutions", "folded"] = "convolutions",
        form: Literal["dense", "bottleneck"] = "dense",
    ) -> None:
        def block(channels: int) -> nn.Module:
            return {"dense": Residual, "bottleneck": Bottleneck}[form](channels, kernel, norm, bias=norm != "batch")

        super().__init__(source, target, width, blocks, norm, upsampling, downsampling, ends, block)
