"""The schedule that a plugin author implements: the turns of each step and the optimizers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import nn

from ganlab.interfaces.networks import Domain

PLAYERS = ("generator", "discriminator")
"""The players' names."""

SEEN_IN_TURN = ("images", "embeddings")
"""The values of `Turn.sees`."""


class Turn(NamedTuple):
    """One update of one player."""

    player: str
    """"generator" or "discriminator"."""
    directions: tuple[str, ...]
    """The directions whose terms are summed."""
    moves: tuple[str, ...] | None = None
    """The directions whose networks are updated; None means the same as `directions`."""
    losses: tuple[str, ...] | None = None
    """The names of the losses that take part; None means all."""
    new_batch: bool = False
    """If true, a new batch of both domains is drawn for this turn and for the later turns of the step. The first turn
    of a step always has a new batch."""
    sees: str | None = None
    """Limits a discriminators' turn to the discriminators that see "images", pairs included, or "embeddings".
    "embeddings" sums only the losses that use a discriminator on embeddings, "images" all others and those that use one
    on images. None for no limit."""


class Schedule:
    """Decides how many steps a run has, which turns each step has and which optimizer each player has."""

    steps: int
    """The number of steps of a run, at least 1."""
    directions: tuple[str, ...] = ("ab", "ba")
    """The directions of the spec. The core sets them before it calls any method."""
    clip: float | None = None
    """The largest norm of a turn's gradient, over all parameters that the turn updates. The core scales a larger
    gradient down to it (arXiv:1211.5063, algorithm 1). None does not clip."""
    fade_out: Mapping[str, int] = {}
    """{loss: a number of steps in which its weight falls linearly to 0}. A schedule sets it in its constructor. The
    core refuses a name that is none of the spec's losses."""

    def turns(self, step: int) -> Iterable[Turn]:
        """Returns the turns of a step. Steps are counted from 0."""
        raise NotImplementedError(f"{type(self).__name__} does not implement turns")

    def optimizer(self, player: str, parameters: list[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
        """Returns the one optimizer of a player, over all of `parameters`.

        They are (name, parameter) pairs as `named_parameters` gives them, which the classes of `torch.optim` take as
        they are. Names are "generator/ab.encoder.0.weight", "discriminator/image/b.net.0.weight" or
        "losses/cycle.head.weight"; a parameter that several networks share comes once.

        Steps can be captured as CUDA graphs with the optimizers of `torch.optim` that have the option `capturable`,
        which the core sets on CUDA devices, and with those made with `fused=True`. Both then read their learning rate
        from a tensor.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement optimizer")

    def learning_rate(self, player: str, step: int) -> float:
        """Returns the factor by which the optimizer's own learning rate is multiplied in a step."""
        return 1.0

    def weight(self, loss: str, player: str, step: int) -> float:
        """Returns the factor by which the loss's weight in the spec is multiplied in a step.

        A term is not computed if its weight is 0. By default the factor is 1 - step / N, at least 0, for a loss that
        fades out in N steps, and 1 for any other.
        """
        return max(0.0, 1 - step / self.fade_out[loss]) if loss in self.fade_out else 1.0

    def pool(self, target: Domain) -> nn.Module | None:
        """Returns a module that chooses the fakes that a discriminator sees, such as a buffer of past fakes, or None.

        The core builds one for each direction and calls `pool(fakes, draws)`: fakes (N, C, H, W), draws (N, 2) uniform
        in [0, 1). It must return (N, C, H, W). Its state must be in buffers, which checkpoints keep.
        """
        return None


class ScheduleWrapper(Schedule):
    """The base class of schedules that wrap another schedule: each method calls the wrapped schedule's.

    A subclass overrides what it changes. `steps`, `clip` and `fade_out` are the wrapped schedule's.

    Args:
        of: the wrapped schedule.
    """

    def __init__(self, of: Schedule) -> None:
        self.of = of
        self.steps = of.steps
        self.clip = of.clip
        self.fade_out = of.fade_out

    @property
    def directions(self) -> tuple[str, ...]:
        """The directions of the spec, which the wrapped schedule has too."""
        return self.of.directions

    @directions.setter
    def directions(self, directions: tuple[str, ...]) -> None:
        self.of.directions = directions

    def turns(self, step: int) -> Iterable[Turn]:
        return self.of.turns(step)

    def optimizer(self, player: str, parameters: list[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
        return self.of.optimizer(player, parameters)

    def learning_rate(self, player: str, step: int) -> float:
        return self.of.learning_rate(player, step)

    def weight(self, loss: str, player: str, step: int) -> float:
        return self.of.weight(loss, player, step)

    def pool(self, target: Domain) -> nn.Module | None:
        return self.of.pool(target)
