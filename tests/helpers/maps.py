"""A small feature network with maps."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

import ganlab


class Maps(ganlab.Features):
    """Maps of strides 2, 4 and 8 with 4, 5 and 6 channels, and the means of the last."""

    size = 24

    def __init__(self) -> None:
        super().__init__()
        channels = (3, 4, 5, 6)
        self.stages = nn.ModuleList(nn.Conv2d(inner, outer, 3, 2, 1) for inner, outer in pairwise(channels))
        self.requires_grad_(False)

    def maps(self, images: Tensor) -> list[Tensor]:
        found, x = [], images
        for stage in self.stages:
            x = stage(x).tanh()
            found.append(x)
        return found

    def forward(self, images: Tensor) -> Tensor:
        return self.maps(images)[-1].mean(dim=(2, 3))
