"""The losses of yunjey/mnist-svhn-transfer.

The terms for real images and for fakes are separate losses, because the schedule updates the discriminators on each
separately. Means run over images and scores.
"""

from ganlab_acgan.classes import check_classes, classified
from torch import Tensor

import ganlab
from ganlab import Translation


class LSGANReal(ganlab.Loss):
    """Least squares on real images (arXiv:1611.04076): the discriminators minimise the mean of (D_b(x_b) - 1)^2."""

    def discriminator(self, t: Translation) -> Tensor:
        return (t.score(t.target) - 1).square().mean()


class LSGANFake(ganlab.Loss):
    """Least squares on fakes (arXiv:1611.04076).

    The discriminators minimise the mean of D_b(G_ab(x_a))^2. The generators minimise the mean of
    (D_b(G_ab(x_a)) - 1)^2.
    """

    def generator(self, t: Translation) -> Tensor:
        return (t.score(t.fake) - 1).square().mean()

    def discriminator(self, t: Translation) -> Tensor:
        return t.score(t.fake_for_discriminator).square().mean()


class ClassReal(ganlab.Loss):
    """Cross-entropy of D_b(x_b) and the class of x_b, which the discriminators minimise. Needs labels."""

    def discriminator(self, t: Translation) -> Tensor:
        return classified(_scores(t, t.target, reals=True), t.target_labels)


class ClassFake(ganlab.Loss):
    """Cross-entropy of D_b(G_ab(x_a)) and a class. Needs labels.

    The class is "fake", which comes after all others, in the discriminators' term, and the class of x_a in the
    generators'.
    """

    def generator(self, t: Translation) -> Tensor:
        return classified(_scores(t, t.fake, reals=False), t.source_labels)

    def discriminator(self, t: Translation) -> Tensor:
        scores = _scores(t, t.fake_for_discriminator, reals=False)
        return classified(scores, t.source_labels.new_full((len(scores),), scores.shape[1] - 1))


def _scores(t: Translation, images: Tensor, reals: bool) -> Tensor:
    """Returns the logits of the classes and, last, of "fake"."""
    scores = t.score(images)
    check_classes(t, scores.shape[1] - 1, reals)
    return scores
