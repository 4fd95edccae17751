"""CycleGAN's three losses (arXiv:1703.10593). Means run over images and over scores or pixels."""

from typing import Literal

from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss

import ganlab
from ganlab import Translation


class LSGAN(ganlab.Loss):
    """Least squares (arXiv:1611.04076): D learns to score real images 1 and fakes 0; G minimises (D(fake) - 1)^2.

    CycleGAN's code halves the discriminator's term. To do the same, set the discriminator's weight to 0.5.
    """

    def generator(self, t: Translation) -> Tensor:
        return (t.score(t.fake) - 1).square().mean()

    def discriminator(self, t: Translation) -> dict[str, Tensor]:
        return {
            "real": (t.score(t.target) - 1).square().mean(),
            "fake": t.score(t.fake_for_discriminator).square().mean(),
        }


class Cycle(ganlab.Loss):
    """Cycle consistency, eq. (2): the mean of |x - G_ba(G_ab(x))|, or of its square.

    Args:
        norm: "l1" (as published) or "l2" (the square).
    """

    def __init__(self, norm: Literal["l1", "l2"] = "l1") -> None:
        super().__init__()
        self.distance = l1_loss if norm == "l1" else mse_loss

    def generator(self, t: Translation) -> Tensor:
        return self.distance(t.cycled, t.source)


class Identity(ganlab.Loss):
    """Identity mapping, section 5.2: the mean of |G_ab(y) - y| for images y of the target domain."""

    def generator(self, t: Translation) -> Tensor:
        return l1_loss(t.identity, t.target)
