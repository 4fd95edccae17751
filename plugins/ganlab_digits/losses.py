"""The losses of yunjey/mnist-svhn-transfer. What concerns reals and what concerns fakes stand apart, since its step
updates the discriminators on each by itself. Scalars; means run over images and scores.
"""

from ganlab_acgan.classes import check_classes, classified
from torch import Tensor

import ganlab
from ganlab import Translation


class LSGANReal(ganlab.Loss):
    """mean (D_b(x_b) - 1)^2, the discriminators' (arXiv:1611.04076)."""

    def discriminator(self, t: Translation) -> Tensor:
        return (t.score(t.target) - 1).square().mean()


class LSGANFake(ganlab.Loss):
    """mean D_b(G_ab(x_a))^2, the discriminators'; mean (D_b(G_ab(x_a)) - 1)^2, the generators' (arXiv:1611.04076)."""

    def generator(self, t: Translation) -> Tensor:
        return (t.score(t.fake) - 1).square().mean()

    def discriminator(self, t: Translation) -> Tensor:
        return t.score(t.fake_for_discriminator).square().mean()


class ClassReal(ganlab.Loss):
    """With labels: cross-entropy of D_b(x_b) and the class of x_b, the discriminators'."""

    def discriminator(self, t: Translation) -> Tensor:
        return classified(_scores(t, t.target, reals=True), t.target_labels)


class ClassFake(ganlab.Loss):
    """With labels: cross-entropy of D_b(G_ab(x_a)) and, for the discriminators, the class "fake", which comes after the
    others; for the generators, the class of x_a."""

    def generator(self, t: Translation) -> Tensor:
        return classified(_scores(t, t.fake, reals=False), t.labels)

    def discriminator(self, t: Translation) -> Tensor:
        scores = _scores(t, t.fake_for_discriminator, reals=False)
        return classified(scores, t.labels.new_full((len(scores),), scores.shape[1] - 1))


def _scores(t: Translation, images: Tensor, reals: bool) -> Tensor:
    """Logits of the classes and of being a fake."""
    scores = t.score(images)
    check_classes(t, scores.shape[1] - 1, reals)
    return scores
