"""Wasserstein GAN (arXiv:1701.07875), and its gradient penalty (arXiv:1704.00028)."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

import ganlab
from ganlab import Translation, Turn


class Critic(ganlab.Discriminator):
    """The discriminator `of`, its scores read as a critic's, its weights clamped to [-clamp, clamp] from the start and
    after each update (arXiv:1701.07875, algorithm 1).

    Args:
        of: the discriminator within.
        clamp: the largest absolute value of a weight; 0 leaves them free, for a gradient penalty.
    """

    def __init__(self, of: ganlab.Discriminator, clamp: Annotated[float, Field(ge=0)] = 0.01) -> None:
        super().__init__()
        self.of = of
        self.sees = of.sees
        self.clamp = clamp
        self._clamp()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> scores (N, 1, h, w), unbounded."""
        scores: Tensor = self.of(x)
        return scores

    def after_update(self) -> None:
        self.of.after_update()
        self._clamp()

    @torch.no_grad()
    def _clamp(self) -> None:
        if self.clamp:
            for parameter in self.parameters():
                parameter.clamp_(-self.clamp, self.clamp)


class Wasserstein(ganlab.Loss):
    """The critic maximises mean f(real) - mean f(fake), the generator mean f(fake) (arXiv:1701.07875, eq. 3)."""

    def generator(self, t: Translation) -> Tensor:
        return -t.score(t.fake).mean()

    def discriminator(self, t: Translation) -> Tensor:
        return t.score(t.fake_for_discriminator).mean() - t.score(t.target).mean()


class GradientPenalty(ganlab.Loss):
    """mean (|grad f(x)| - 1)^2 at points x drawn uniformly between reals and fakes (arXiv:1704.00028, eq. 3).

    The paper's weight is 10. An image's score is the mean of its map.
    """

    def discriminator(self, t: Translation) -> Tensor:
        real, fake = t.target.detach(), t.fake_for_discriminator.detach()
        mix = t.uniform(len(real), 1, 1, 1)
        between = (mix * real + (1 - mix) * fake).requires_grad_()
        score = t.score(between).flatten(1).mean(dim=1).sum()
        (gradient,) = torch.autograd.grad(score, between, create_graph=True)
        norms: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
        return (norms - 1).square().mean()


class Wgan(ganlab.Schedule):
    """Algorithm 1 of arXiv:1701.07875: `critic_updates` of all critics, each on a batch of its own, then one of all
    generators on another; RMSprop.

    Args:
        steps: how many steps a run has: updates of the generators.
        lr: RMSprop's learning rate.
        critic_updates: updates of the critics a step.
        long_start: `long_updates` of the critics during the first 25 steps and at every 500th, as in the authors' code.
        long_updates: what is then in the place of `critic_updates`.
    """

    def __init__(
        self,
        steps: Annotated[int, Field(ge=1)] = 1000,
        lr: Annotated[float, Field(gt=0)] = 5e-5,
        critic_updates: Annotated[int, Field(ge=1)] = 5,
        long_start: bool = False,
        long_updates: Annotated[int, Field(ge=1)] = 100,
    ) -> None:
        self.steps = steps
        self.lr = lr
        self.critic_updates = critic_updates
        self.long_start = long_start
        self.long_updates = long_updates

    def turns(self, step: int) -> list[Turn]:
        long = self.long_start and (step < 25 or step % 500 == 0)
        updates = self.long_updates if long else self.critic_updates
        critic = Turn("discriminator", self.ways, fresh=True)
        return [*[critic] * updates, Turn("generator", self.ways, fresh=True)]

    def optimizer(self, player: str, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.RMSprop(parameters, lr=self.lr)


@ganlab.hookimpl
def ganlab_discriminators() -> dict[str, type[ganlab.Discriminator]]:
    return {"critic": Critic}


@ganlab.hookimpl
def ganlab_losses() -> dict[str, type[ganlab.Loss]]:
    return {"wasserstein": Wasserstein, "gradient_penalty": GradientPenalty}


@ganlab.hookimpl
def ganlab_schedules() -> dict[str, type[ganlab.Schedule]]:
    return {"wgan": Wgan}
