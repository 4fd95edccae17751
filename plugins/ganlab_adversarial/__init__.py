"""Adversarial losses: on scores that are logits Goodfellow's two (arXiv:1406.2661) and relativistic pairing
(arXiv:2501.05441), on unbounded ones the hinge loss (arXiv:1705.02894). Scalars; means run over images and scores.
softplus(-s) is -log sigmoid(s)."""

from typing import Annotated

from pydantic import Field
from torch import Tensor
from torch.nn.functional import relu, softplus

import ganlab
from ganlab import Translation


class _Logistic(ganlab.Loss):
    """The discriminator of arXiv:1406.2661, eq. (1): it maximises log D(x) + log(1 - D(G(z)))."""

    def discriminator(self, t: Translation) -> dict[str, Tensor]:
        return {
            "real": softplus(-t.score(t.target)).mean(),
            "fake": softplus(t.score(t.fake_for_discriminator)).mean(),
        }


class Minimax(_Logistic):
    """arXiv:1406.2661, eq. (1): G minimises log(1 - D(G(z))), whose gradient fades where D is sure of fakes."""

    def generator(self, t: Translation) -> Tensor:
        return -softplus(t.score(t.fake)).mean()


class NonSaturating(_Logistic):
    """arXiv:1406.2661, end of section 3: G maximises log D(G(z)) instead, whose gradient is strong there."""

    def generator(self, t: Translation) -> Tensor:
        return softplus(-t.score(t.fake)).mean()


class Relativistic(ganlab.Loss):
    """Relativistic pairing (arXiv:2501.05441, eq. 2): each real is paired with the fake at its place in the batch. D
    minimises softplus(D(fake) - D(real)), G softplus(D(real) - D(fake)).

    The paper trains it with "r1" and "r2".
    """

    def generator(self, t: Translation) -> Tensor:
        return softplus(t.score(t.target) - t.score(t.fake)).mean()

    def discriminator(self, t: Translation) -> Tensor:
        return softplus(t.score(t.fake_for_discriminator) - t.score(t.target)).mean()


class Hinge(ganlab.Loss):
    """The hinge loss (arXiv:1705.02894): D minimises max(0, margin - D(x)) + max(0, margin + D(G(z))), G maximises
    D(G(z)).

    Args:
        margin: How far on its own side of 0 a score has to be for D to be content with it. The paper's is 1.
    """

    def __init__(self, margin: Annotated[float, Field(gt=0)] = 1.0) -> None:
        super().__init__()
        self.margin = margin

    def generator(self, t: Translation) -> Tensor:
        return -t.score(t.fake).mean()

    def discriminator(self, t: Translation) -> dict[str, Tensor]:
        return {
            "real": relu(self.margin - t.score(t.target)).mean(),
            "fake": relu(self.margin + t.score(t.fake_for_discriminator)).mean(),
        }


@ganlab.hookimpl
def ganlab_losses() -> dict[str, type[ganlab.Loss]]:
    # not "hinge": that is the name of the README's example
    return {"minimax": Minimax, "non_saturating": NonSaturating, "relativistic": Relativistic, "hinge_gan": Hinge}
