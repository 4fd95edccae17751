"""SGD for the discriminators alone."""

from collections.abc import Iterable
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

import ganlab
from ganlab import Domain, Turn


class SGDDiscriminator(ganlab.Schedule):
    """Replaces a schedule's optimizer of the discriminators by SGD (soumith/ganhacks, 9).

    The wrapped schedule's factors on learning rates still apply.

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
        self.of = of
        self.steps = of.steps
        self.fade_out = of.fade_out
        self.lr = lr
        self.momentum = momentum

    @property
    def directions(self) -> tuple[str, ...]:
        return self.of.directions

    @directions.setter
    def directions(self, directions: tuple[str, ...]) -> None:
        self.of.directions = directions

    def turns(self, step: int) -> Iterable[Turn]:
        return self.of.turns(step)

    def optimizer(self, player: str, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        if player == "discriminator":
            return torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum)
        return self.of.optimizer(player, parameters)

    def learning_rate(self, player: str, step: int) -> float:
        return self.of.learning_rate(player, step)

    def weight(self, loss: str, player: str, step: int) -> float:
        return self.of.weight(loss, player, step)

    def pool(self, target: Domain) -> nn.Module | None:
        return self.of.pool(target)
