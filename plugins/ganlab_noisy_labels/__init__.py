"""Least squares with soft and noisy labels: face2comic's eq. (2), and soumith/ganhacks."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

import ganlab
from ganlab import Translation

Interval = tuple[float, float]


class NoisyLSGAN(ganlab.Loss):
    """Least squares with random target scores for the discriminators.

    The target of each image is drawn at every update, uniformly from the interval `fake` or `real`. The generators
    minimise (D_b(fake) - 1)^2. Raises ValueError if an interval's lower end is above its upper end.

    Args:
        fake: [low, high], the interval of the targets of fakes. Eq. (2) has U(0, 0.2).
        real: [low, high], the interval of the targets of real images. Eq. (2) has 1.
        flip: the probability that an image's target is drawn from the other interval.
    """

    def __init__(
        self,
        fake: Interval = (0.0, 0.2),
        real: Interval = (1.0, 1.0),
        flip: Annotated[float, Field(ge=0, le=1)] = 0.0,
    ) -> None:
        super().__init__()
        for name, (low, high) in (("fake", fake), ("real", real)):
            if low > high:
                raise ValueError(f"{name} is [{low}, {high}]; the lower end must not be above the upper end")
        self.fake = fake
        self.real = real
        self.flip = flip

    def generator(self, t: Translation) -> Tensor:
        return (t.score(t.fake) - 1).square().mean()

    def discriminator(self, t: Translation) -> dict[str, Tensor]:
        real, fake = t.score(t.target), t.score(t.fake_for_discriminator)
        return {
            "real": (real - self._targets(t, len(real), self.real, self.fake)).square().mean(),
            "fake": (fake - self._targets(t, len(fake), self.fake, self.real)).square().mean(),
        }

    def _targets(self, t: Translation, count: int, own: Interval, other: Interval) -> Tensor:
        where = t.uniform(count, 1, 1, 1)
        targets = own[0] + (own[1] - own[0]) * where
        if self.flip:
            flipped = other[0] + (other[1] - other[0]) * where
            targets = torch.where(t.uniform(count, 1, 1, 1) < self.flip, flipped, targets)
        return targets


@ganlab.hookimpl
def ganlab_losses() -> dict[str, type[ganlab.Loss]]:
    return {"noisy_lsgan": NoisyLSGAN}
