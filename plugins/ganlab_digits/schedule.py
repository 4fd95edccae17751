"""The schedule of yunjey/mnist-svhn-transfer."""

from typing import Annotated

import torch
from pydantic import Field
from torch import nn

import ganlab
from ganlab import Turn

Probability = Annotated[float, Field(ge=0, lt=1)]


class FourUpdates(ganlab.Schedule):
    """Four updates a step: both discriminators on real images, both on fakes, then both generators twice.

    The generators are updated on the terms of each direction in turn. Each player has one Adam.

    Args:
        steps: the number of steps of a run.
        lr: Adam's learning rate.
        betas: Adam's decay rates for the means of the gradients and of their squares.
        reals: the names of the losses in the discriminators' first update.
        fakes: the names of the losses in the discriminators' second update.
        clip: the largest norm of an update's gradient, over all parameters that it updates; a larger gradient is scaled
            down to it (arXiv:1211.5063, algorithm 1). null does not clip.
    """

    def __init__(
        self,
        steps: Annotated[int, Field(ge=1, le=10**9)] = 1000,
        lr: Annotated[float, Field(gt=0)] = 2e-4,
        betas: tuple[Probability, Probability] = (0.5, 0.999),
        reals: tuple[str, ...] = ("real",),
        fakes: tuple[str, ...] = ("fake",),
        clip: Annotated[float, Field(gt=0)] | None = None,
    ) -> None:
        self.steps = steps
        self.lr = lr
        self.betas = betas
        self.reals = reals
        self.fakes = fakes
        self.clip = clip

    def turns(self, step: int) -> list[Turn]:
        return [
            Turn("discriminator", self.directions, losses=self.reals),
            Turn("discriminator", self.directions, losses=self.fakes),
            *(Turn("generator", (direction,), moves=self.directions) for direction in self.directions),
        ]

    def optimizer(self, player: str, parameters: list[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=self.lr, betas=self.betas, fused=True)
