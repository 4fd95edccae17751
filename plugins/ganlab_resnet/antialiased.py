"""Halving of the resolution without aliasing (Zhang 2019, arXiv:1904.11486)."""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from ganlab_resnet.layers import ReflectionPad


class BlurredHalving(nn.Module):
    """Blurs each channel with the binomial filter (1, 2, 1) / 4, in both directions, and keeps every second pixel.

    (N, C, H, W) -> (N, C, ceil(H / 2), ceil(W / 2)). Borders are mirrored. No parameters.
    """

    filter: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pad = ReflectionPad(1)
        row = torch.tensor([0.25, 0.5, 0.25])
        filters = torch.outer(row, row).repeat(channels, 1, 1, 1)  # (C, 1, 3, 3)
        self.register_buffer("filter", filters, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return conv2d(self.pad(x), self.filter, stride=2, groups=x.shape[1])
