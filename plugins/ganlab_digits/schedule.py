"""The step of yunjey/mnist-svhn-transfer."""

from typing import Annotated

import torch
from pydantic import Field
from torch import nn

import ganlab
from ganlab import Turn

Probability = Annotated[float, Field(ge=0, lt=1)]


class FourUpdates(ganlab.Schedule):
    """Both discriminators on reals; both on fakes; then, for each way in turn, both generators on its terms. One Adam
    over the generators, one over the discriminators.

    Args:
        steps: how many steps a run has.
        lr: Adam's learning rate.
        betas: Adam's decay rates, of the gradients' mean and of their squares'.
        reals: the names of the losses of the discriminators' first update.
        fakes: the names of those of their second.
    """

    def __init__(
        self,
        steps: Annotated[int, Field(ge=1)] = 1000,
        lr: Annotated[float, Field(gt=0)] = 2e-4,
        betas: tuple[Probability, Probability] = (0.5, 0.999),
        reals: tuple[str, ...] = ("real",),
        fakes: tuple[str, ...] = ("fake",),
    ) -> None:
        self.steps = steps
        self.lr = lr
        self.betas = betas
        self.reals = reals
        self.fakes = fakes

    def turns(self, step: int) -> list[Turn]:
        return [
            Turn("discriminator", self.ways, losses=self.reals),
            Turn("discriminator", self.ways, losses=self.fakes),
            *(Turn("generator", (way,), moves=self.ways) for way in self.ways),
        ]

    def optimizer(self, player: str, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=self.lr, betas=self.betas, fused=True)
