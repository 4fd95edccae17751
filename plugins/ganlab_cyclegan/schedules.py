"""CycleGAN's schedule, and the seed's."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

import ganlab
from ganlab import Domain, Turn
from ganlab_cyclegan.pool import Pool

Probability = Annotated[float, Field(ge=0, lt=1)]


class _Adam(ganlab.Schedule):
    """What both schedules share: Adam, a constant then linearly falling learning rate, a pool.

    Args:
        steps: how many steps a run has.
        lr: Adam's learning rate.
        betas: Adam's decay rates, of the gradients' mean and of their squares'.
        decay_from: the part of all steps after which the learning rate falls, linearly, to reach 0 after the last.
        pool: how many past fakes of each way are kept to be shown to its discriminator (arXiv:1612.07828), 50 in the
            paper; with 0 it sees new ones only.
    """

    def __init__(
        self,
        steps: Annotated[int, Field(ge=1)] = 1000,
        lr: Annotated[float, Field(gt=0)] = 2e-4,
        betas: tuple[Probability, Probability] = (0.5, 0.999),
        decay_from: Annotated[float, Field(ge=0, le=1)] = 1.0,
        pool: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        self.steps = steps
        self.lr = lr
        self.betas = betas
        self.decay_from = decay_from
        self.pool_size = pool

    def optimizer(self, player: str, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=self.lr, betas=self.betas, fused=True)

    def learning_rate(self, player: str, step: int) -> float:
        """1 for the first `decay_from` of all steps, then linearly down, to reach 0 after the last."""
        constant = self.decay_from * self.steps
        return min(1.0, (self.steps - step) / (self.steps - constant)) if step >= constant else 1.0

    def pool(self, target: Domain) -> nn.Module | None:
        return Pool(self.pool_size, target.channels, target.height, target.width) if self.pool_size else None


class Simultaneous(_Adam):
    """CycleGAN's step (arXiv:1703.10593, its code): both generators on both ways' terms, then both discriminators,
    which see the fakes from before the generators' update.
    """

    def turns(self, step: int) -> list[Turn]:
        return [Turn("generator", self.ways), Turn("discriminator", self.ways)]


class Alternating(_Adam):
    """The seed's step. D_emb, if there is one, moves on both ways' terms of eq. (3); then for each way in turn D_b
    moves on eq. (2), then the generator on eq. (1).

    Args:
        moves: "own" moves the way's own generator, as printed; "both" moves the other as well, by the cycle term, as
            the code that the seed was based on does.
    """

    def __init__(
        self,
        steps: Annotated[int, Field(ge=1)] = 1000,
        lr: Annotated[float, Field(gt=0)] = 2e-4,
        betas: tuple[Probability, Probability] = (0.5, 0.999),
        decay_from: Annotated[float, Field(ge=0, le=1)] = 1.0,
        pool: Annotated[int, Field(ge=0)] = 0,
        moves: Literal["own", "both"] = "own",
    ) -> None:
        super().__init__(steps, lr, betas, decay_from, pool)
        self.moves = moves

    def turns(self, step: int) -> list[Turn]:
        turns = [Turn("discriminator", self.ways, sees="embeddings")]
        for way in self.ways:
            turns.append(Turn("discriminator", (way,), sees="images"))
            turns.append(Turn("generator", (way,), moves=self.ways if self.moves == "both" else None))
        return turns
