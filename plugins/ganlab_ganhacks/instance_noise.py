"""Noise on a discriminator's input that fades during training."""

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

import ganlab


class InstanceNoise(ganlab.Discriminator):
    """Adds fading Gaussian noise to a discriminator's input (arXiv:1610.04490, 1701.04862).

    The distributions of real images and fakes may not overlap; with noise they do. The discriminator sees x + s e
    instead of x, in both players' turns. e ~ N(0, 1) is drawn for each value at each use. After n updates of the
    discriminator, s = std max(0, 1 - n / updates). There is no noise in eval mode.

    Args:
        of: the wrapped discriminator.
        std: the initial standard deviation of the noise; images are in [-1, 1].
        updates: the number of updates of the discriminator after which the noise is 0.
    """

    stateful = True
    done: Tensor

    def __init__(
        self,
        of: ganlab.Discriminator,
        std: Annotated[float, Field(ge=0)] = 0.1,
        updates: Annotated[int, Field(ge=1, le=10**9)] = 1000,
    ) -> None:
        super().__init__()
        self.of = of
        self.sees = of.sees
        self.std = std
        self.updates = updates
        self.register_buffer("done", torch.zeros((), dtype=torch.int64))

    def features(self, x: Tensor) -> Sequence[Tensor]:
        """Images (N, C, H, W) -> the activations of the wrapped discriminator for the noisy images."""
        if self.training:
            # computed on the device: reading the count would make the host wait
            strength = self.std * (1 - self.done / self.updates).clamp(min=0)
            x = x + strength * torch.randn(x.shape, device=x.device)
        return self.of.features(x)

    def after_update(self) -> None:
        super().after_update()
        self.done += 1
