"""Noise on what a discriminator sees, which fades."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

import ganlab


class InstanceNoise(ganlab.Discriminator):
    """The discriminator `of`, shown images with Gaussian noise that fades (arXiv:1610.04490, 1701.04862): where reals
    and fakes have no image in common, their noisy ones do. In eval mode there is none.

    It sees x + s e in the place of x, with e ~ N(0, 1) drawn for each value at each use, in both players' turns; after
    n of its updates s = std max(0, 1 - n / updates).

    Args:
        of: the discriminator within.
        std: the noise's standard deviation at the beginning; images are in [-1, 1].
        updates: after how many updates of the discriminator it is gone.
    """

    stateful = True
    done: Tensor

    def __init__(
        self,
        of: ganlab.Discriminator,
        std: Annotated[float, Field(ge=0)] = 0.1,
        updates: Annotated[int, Field(ge=1)] = 1000,
    ) -> None:
        super().__init__()
        self.of = of
        self.sees = of.sees
        self.std = std
        self.updates = updates
        self.register_buffer("done", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the scores of the noisy images."""
        if self.training:
            # on the device, where the count is: reading it would make the host wait
            strength = self.std * (1 - self.done / self.updates).clamp(min=0)
            x = x + strength * torch.randn(x.shape, device=x.device)
        scores: Tensor = self.of(x)
        return scores

    def after_update(self) -> None:
        super().after_update()
        self.done += 1
