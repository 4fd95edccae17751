"""The schedules of CycleGAN and of face2comic."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

import ganlab
from ganlab import Domain, Turn
from ganlab_cyclegan.pool import Pool

Probability = Annotated[float, Field(ge=0, lt=1)]
FadeOut = dict[str, Annotated[int, Field(ge=1, le=10**9)]]


class _Adam(ganlab.Schedule):
    """Adam with a learning rate that is constant and then falls linearly, and a pool of past fakes.

    Args:
        steps: the number of steps of a run.
        lr: Adam's learning rate.
        betas: Adam's decay rates for the means of the gradients and of their squares.
        decay_from: the fraction of all steps after which the learning rate falls linearly, to reach 0 at the end.
        pool: the number of past fakes kept for each direction and shown to its discriminator (arXiv:1612.07828). The
            paper uses 50; 0 shows new fakes only.
        clip: the largest norm of an update's gradient, over all parameters that it updates; a larger gradient is scaled
            down to it (arXiv:1211.5063, algorithm 1). null does not clip.
        fade_out: {loss: a number of steps}. In its steps the weight of the loss falls linearly to 0, where it stays.
    """

    def __init__(
        self,
        steps: Annotated[int, Field(ge=1, le=10**9)] = 1000,
        lr: Annotated[float, Field(gt=0)] = 2e-4,
        betas: tuple[Probability, Probability] = (0.5, 0.999),
        decay_from: Annotated[float, Field(ge=0, le=1)] = 1.0,
        pool: Annotated[int, Field(ge=0, le=10_000)] = 0,
        clip: Annotated[float, Field(gt=0)] | None = None,
        fade_out: FadeOut = {},  # noqa: B006  (options are read, never changed)
    ) -> None:
        self.steps = steps
        self.lr = lr
        self.betas = betas
        self.decay_from = decay_from
        self.pool_size = pool
        self.clip = clip
        self.fade_out = fade_out

    def optimizer(self, player: str, parameters: list[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=self.lr, betas=self.betas, fused=True)

    def learning_rate(self, player: str, step: int) -> float:
        """Returns 1 in the first `decay_from` of all steps, then a factor that falls linearly, to 0 after the last."""
        constant = self.decay_from * self.steps
        return min(1.0, (self.steps - step) / (self.steps - constant)) if step >= constant else 1.0

    def pool(self, target: Domain) -> nn.Module | None:
        return Pool(self.pool_size, target.channels, target.height, target.width) if self.pool_size else None


class Simultaneous(_Adam):
    """CycleGAN's step (arXiv:1703.10593, its code): one update of both generators, then one of both discriminators.

    The discriminators see the fakes from before the generators' update.
    """

    def turns(self, step: int) -> list[Turn]:
        return [Turn("generator", self.directions), Turn("discriminator", self.directions)]


class Alternating(_Adam):
    """face2comic's step: the embedding discriminator, then for each direction its discriminator and its generator.

    The embedding discriminator, if there is one, is updated on both directions' terms of eq. (3). Then, for one
    direction after the other, the image discriminator is updated on eq. (2) and the generator on eq. (1).

    Args:
        moves: "own" updates the direction's own generator, as in face2comic's equations. "both" also updates the other
            generator, through the cycle term, as in the code that face2comic was based on.
    """

    def __init__(
        self,
        steps: Annotated[int, Field(ge=1, le=10**9)] = 1000,
        lr: Annotated[float, Field(gt=0)] = 2e-4,
        betas: tuple[Probability, Probability] = (0.5, 0.999),
        decay_from: Annotated[float, Field(ge=0, le=1)] = 1.0,
        pool: Annotated[int, Field(ge=0, le=10_000)] = 0,
        clip: Annotated[float, Field(gt=0)] | None = None,
        fade_out: FadeOut = {},  # noqa: B006  (options are read, never changed)
        moves: Literal["own", "both"] = "own",
    ) -> None:
        super().__init__(steps, lr, betas, decay_from, pool, clip, fade_out)
        self.moves = moves

    def turns(self, step: int) -> list[Turn]:
        turns = [Turn("discriminator", self.directions, sees="embeddings")]
        for direction in self.directions:
            turns.append(Turn("discriminator", (direction,), sees="images"))
            turns.append(Turn("generator", (direction,), moves=self.directions if self.moves == "both" else None))
        return turns
