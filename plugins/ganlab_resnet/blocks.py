"""Residual blocks of two dense convolutions, and of one between two pointwise convolutions."""

from torch import Tensor, nn

from ganlab_resnet.layers import ReflectionPad, norm_layer


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
    """x + pointwise(relu(norm(conv(relu(norm(pointwise(x))))))), with half as many channels inside (arXiv:1512.03385).

    The convolution is `kernel` wide, with reflection padding. No norm follows the last layer, so a block with small
    initial weights adds little to x.
    """

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
            nn.Conv2d(inner, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.body(x)
        return result
