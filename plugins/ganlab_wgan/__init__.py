"""Wasserstein GAN (arXiv:1701.07875) and its gradient penalty (arXiv:1704.00028)."""

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

import ganlab
from ganlab import Translation, Turn


class Critic(ganlab.Discriminator):
    """Makes a discriminator a critic: clamps its weights to [-clamp, clamp] (arXiv:1701.07875, algorithm 1).

    The trainable weights are clamped at the start and after each update.

    Args:
        of: the wrapped discriminator.
        clamp: the largest absolute value of a weight. 0 turns clamping off; use 0 with a gradient penalty.
    """

    def __init__(self, of: ganlab.Discriminator, clamp: Annotated[float, Field(ge=0)] = 0.01) -> None:
        super().__init__()
        self.of = of
        self.sees = of.sees
        self.clamp = clamp
        self._clamp()

    def features(self, x: Tensor) -> Sequence[Tensor]:
        """Images (N, C, H, W) -> the activations of the wrapped discriminator, the last of them unbounded scores."""
        return self.of.features(x)

    def after_update(self) -> None:
        self.of.after_update()
        self._clamp()

    @torch.no_grad()
    def _clamp(self) -> None:
        if self.clamp:
            for parameter in self.parameters():
                # a pretrained network inside the discriminator keeps its weights
                if parameter.requires_grad:
                    parameter.clamp_(-self.clamp, self.clamp)


class Wasserstein(ganlab.Loss):
    """Wasserstein distance (arXiv:1701.07875, eq. 3).

    The critic maximises mean f(real) - mean f(fake). The generator maximises mean f(fake).
    """

    def generator(self, t: Translation) -> Tensor:
        return -t.score(t.fake).mean()

    def discriminator(self, t: Translation) -> Tensor:
        return t.score(t.fake_for_discriminator).mean() - t.score(t.target).mean()


class GradientPenalty(ganlab.Loss):
    """The mean of (|grad f(x)| - 1)^2 at points x between real images and fakes (arXiv:1704.00028, eq. 3).

    The points are drawn uniformly on lines from a real image to a fake. f(x) is the mean of an image's scores. The
    paper's weight is 10.

    Args:
        every: the number of steps from one with the penalty to the next. The penalty is multiplied by it
            (arXiv:1912.04958, section 3.1).
    """

    def __init__(self, every: Annotated[int, Field(ge=1, le=1000)] = 1) -> None:
        super().__init__()
        self.every = every

    def discriminator(self, t: Translation) -> Tensor:
        real, fake = t.target.detach(), t.fake_for_discriminator.detach()
        mix = t.uniform(len(real), 1, 1, 1)
        between = (mix * real + (1 - mix) * fake).requires_grad_()
        score = t.score(between).flatten(1).mean(dim=1).sum()
        (gradient,) = torch.autograd.grad(score, between, create_graph=True)
        norms: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
        return (norms - 1).square().mean()


class Wgan(ganlab.Schedule):
    """Algorithm 1 of arXiv:1701.07875: several updates of all critics, then one of all generators, with RMSprop.

    Each update has its own batch.

    Args:
        steps: the number of steps of a run. Each has one update of the generators.
        lr: RMSprop's learning rate.
        critic_updates: the number of updates of the critics in each step.
        long_start: if true, the first 25 steps and every 500th step have `long_updates` updates of the critics, as in
            the authors' code.
        long_updates: the number of updates of the critics in the steps that `long_start` names.
        clip: the largest norm of an update's gradient, over all parameters that it updates; a larger gradient is scaled
            down to it (arXiv:1211.5063, algorithm 1). null does not clip.
        fade_out: {loss: a number of steps}. In its steps the weight of the loss falls linearly to 0, where it stays.
    """

    def __init__(
        self,
        steps: Annotated[int, Field(ge=1, le=10**9)] = 1000,
        lr: Annotated[float, Field(gt=0)] = 5e-5,
        critic_updates: Annotated[int, Field(ge=1, le=1000)] = 5,
        long_start: bool = False,
        long_updates: Annotated[int, Field(ge=1, le=1000)] = 100,
        clip: Annotated[float, Field(gt=0)] | None = None,
        fade_out: dict[str, Annotated[int, Field(ge=1, le=10**9)]] = {},  # noqa: B006  (options are read, never changed)
    ) -> None:
        self.steps = steps
        self.lr = lr
        self.critic_updates = critic_updates
        self.long_start = long_start
        self.long_updates = long_updates
        self.clip = clip
        self.fade_out = fade_out

    def turns(self, step: int) -> list[Turn]:
        long = self.long_start and (step < 25 or step % 500 == 0)
        updates = self.long_updates if long else self.critic_updates
        critic = Turn("discriminator", self.directions, new_batch=True)
        return [*[critic] * updates, Turn("generator", self.directions, new_batch=True)]

    def optimizer(self, player: str, parameters: list[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
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
