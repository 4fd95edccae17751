"""SGD for the discriminators alone."""

from typing import Annotated

import torch
from pydantic import Field
from torch import nn

import ganlab


class SGDDiscriminator(ganlab.ScheduleWrapper):
    """Replaces a schedule's optimizer of the discriminators by SGD (soumith/ganhacks, 9).

    The wrapped schedule's factors on learning rates and its option `clip` still apply.

    Args:
        of: the wrapped schedule.
        lr: the discriminators' learning rate.
        momentum: SGD's momentum.
    """

    def __init__(
        self,
        of: ganlab.Schedule,
        lr: Annotated[float, Field(gt=0)] = 1e-2,
        momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ) -> None:
        super().__init__(of)
        self.lr = lr
        self.momentum = momentum

    def optimizer(self, player: str, parameters: list[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
        if player == "discriminator":
            # torch's fused SGD can't begin with a part of its momentum buffers, as if one turn updates fewer networks
            fused = None if self.momentum else True
            return torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum, fused=fused)
        return super().optimizer(player, parameters)
