"""CycleGAN's three losses (arXiv:1703.10593). Scalars; means run over images, scores and pixels."""

from typing import Literal

from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss

import ganlab
from ganlab import Translation


class LSGAN(ganlab.Loss):
    """Least squares (arXiv:1611.04076): D answers 1 to reals and 0 to fakes, G wants 1.

    CycleGAN's code halves the discriminator's term: a weight of 0.5 for that player.
    """

    def generator(self, t: Translation) -> Tensor:
        return (t.score(t.fake) - 1).square().mean()

    def discriminator(self, t: Translation) -> dict[str, Tensor]:
        return {
            "real": (t.score(t.target) - 1).square().mean(),
            "fake": t.score(t.fake_for_discriminator).square().mean(),
        }


class Cycle(ganlab.Loss):
    """Cycle consistency, eq. (2): mean |x - G_ba(G_ab(x))|, or its square.

    Args:
        norm: "l1", as published, or "l2", the square.
    """

    def __init__(self, norm: Literal["l1", "l2"] = "l1") -> None:
        super().__init__()
        self.distance = l1_loss if norm == "l1" else mse_loss

    def generator(self, t: Translation) -> Tensor:
        return self.distance(t.cycled, t.real)


class Identity(ganlab.Loss):
    """Identity mapping, section 5.2: mean |G_ab(y) - y| for images y of the target domain."""

    def generator(self, t: Translation) -> Tensor:
        return l1_loss(t.identity, t.target)
