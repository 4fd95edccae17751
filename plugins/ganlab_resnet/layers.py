"""Layers and initial weights that CycleGAN's networks share (arXiv:1703.10593)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import group_norm, pad


class InstanceNorm(nn.Module):
    """Scales each channel of each image to mean 0 and variance 1 (arXiv:1607.08022). No parameters; eps is 1e-5.

    Computed as a group norm with one group for each channel, which gives the same values.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return group_norm(x, self.channels)


class ReflectionPad(nn.Module):
    """Mirrors `width` pixels at each border."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_cuda:
            return pad(x, [self.width] * 4, mode="reflect")
        # on CUDA, the backward of torch's padding sums in no fixed order; the backward of slices has a fixed order
        return mirrored(x, self.width)


def mirrored(x: Tensor, width: int) -> Tensor:
    """Pads (N, C, H, W) by reflection to (N, C, H + 2 width, W + 2 width), with slices."""
    for dim in (2, 3):
        size = x.shape[dim]
        before, after = x.narrow(dim, 1, width).flip(dim), x.narrow(dim, size - 1 - width, width).flip(dim)
        x = torch.cat([before, x, after], dim)
    return x


def norm_layer(norm: str, channels: int) -> nn.Module:
    """Returns the norm layer "instance", "batch" or "none"."""
    layers: dict[str, Callable[[int], nn.Module]]
    layers = {"instance": InstanceNorm, "batch": nn.BatchNorm2d, "none": nn.Identity}
    return layers[norm](channels)


def initialise(network: nn.Module) -> None:
    """Draws initial weights: N(0, 0.02) for convolutions, N(1, 0.02) for batch norms; biases are 0.

    arXiv:1703.10593, appendix 7.1.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
