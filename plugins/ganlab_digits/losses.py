"""The losses of yunjey/mnist-svhn-transfer. What concerns reals and what concerns fakes stand apart, since its step
updates the discriminators on each by itself. Scalars; means run over images and scores.
"""

from torch import Tensor
from torch.nn.functional import cross_entropy

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
        return classified(t.score(t.target), t.target_labels)


class ClassFake(ganlab.Loss):
    """With labels: cross-entropy of D_b(G_ab(x_a)) and, for the discriminators, the class "fake", which comes after the
    others; for the generators, the class of x_a."""

    def generator(self, t: Translation) -> Tensor:
        return classified(t.score(t.fake), t.labels)

    def discriminator(self, t: Translation) -> Tensor:
        scores = t.score(t.fake_for_discriminator)
        return classified(scores, t.labels.new_full((len(scores),), scores.shape[1] - 1))


def classified(scores: Tensor, classes: Tensor) -> Tensor:
    """Scores (N, K, h, w) and classes (N,) -> the mean cross-entropy, over images and positions."""
    positions = scores.shape[2] * scores.shape[3]
    # as a list of rows: of maps, torch adds up in no fixed order on CUDA
    return cross_entropy(scores.movedim(1, 3).flatten(0, 2), classes[:, None].expand(-1, positions).flatten())
