"""Adversarial losses: Goodfellow's two (arXiv:1406.2661), relativistic pairing (arXiv:2501.05441) and the hinge loss
(arXiv:1705.02894).

Each term is a mean over images and scores. All but the hinge loss read the scores as logits; softplus(-s) is
-log sigmoid(s).
"""

from typing import Annotated

from pydantic import Field
from torch import Tensor
from torch.nn.functional import relu, softplus

import ganlab
from ganlab import Translation


class _Logistic(ganlab.Loss):
    """The discriminator's term of arXiv:1406.2661, eq. (1): it maximises log D(x) + log(1 - D(G(z)))."""

    def discriminator(self, t: Translation) -> dict[str, Tensor]:
        return {
            "real": softplus(-t.score(t.target)).mean(),
            "fake": softplus(t.score(t.fake_for_discriminator)).mean(),
        }


class Minimax(_Logistic):
    """The minimax loss (arXiv:1406.2661, eq. 1): G minimises log(1 - D(G(z))).

    Its gradient vanishes when D recognises the fakes with certainty.
    """

    def generator(self, t: Translation) -> Tensor:
        return -softplus(t.score(t.fake)).mean()


class NonSaturating(_Logistic):
    """The non-saturating loss (arXiv:1406.2661, end of section 3): G maximises log D(G(z)).

    Its gradient stays large when D recognises the fakes with certainty.
    """

    def generator(self, t: Translation) -> Tensor:
        return softplus(-t.score(t.fake)).mean()


class Relativistic(ganlab.Loss):
    """Relativistic pairing (arXiv:2501.05441, eq. 2).

    D minimises softplus(D(fake) - D(real)), G minimises softplus(D(real) - D(fake)). Each real image is paired with the
    fake at its index in the batch. The paper adds the losses "r1" and "r2".
    """

    def generator(self, t: Translation) -> Tensor:
        return softplus(t.score(t.target) - t.score(t.fake)).mean()

    def discriminator(self, t: Translation) -> Tensor:
        return softplus(t.score(t.fake_for_discriminator) - t.score(t.target)).mean()


class Hinge(ganlab.Loss):
    """The hinge loss (arXiv:1705.02894) on unbounded scores.

    D minimises max(0, margin - D(x)) + max(0, margin + D(G(z))), G maximises D(G(z)).

    Args:
        margin: the distance of a score from 0, on its correct side, beyond which D's term is 0. The paper uses 1.
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
    # not "hinge", which is the name of the README's example
    return {"minimax": Minimax, "non_saturating": NonSaturating, "relativistic": Relativistic, "hinge_gan": Hinge}
