"""Cross-entropy on a discriminator's class scores, and the check that the classes match."""

from torch import Tensor
from torch.nn.functional import cross_entropy

import ganlab
from ganlab import Translation


def classified(scores: Tensor, classes: Tensor) -> Tensor:
    """Returns the mean cross-entropy of scores (N, K, h, w) and classes (N,), over images and positions."""
    positions = scores.shape[2] * scores.shape[3]
    # flattened to rows: on CUDA, torch sums the loss of maps in no fixed order
    return cross_entropy(scores.movedim(1, 3).flatten(0, 2), classes[:, None].expand(-1, positions).flatten())


def check_classes(t: Translation, predicted: int, reals: bool) -> None:
    """Raises SpecError unless the discriminator predicts as many classes as the labels have.

    `predicted` is the number of classes of the target domain's discriminator. The labels are the target domain's for
    real images (`reals`), and the source domain's for fakes.
    """
    # on CUDA a label that is too large ends the process
    domain, classes = (t.direction[1], t.target_classes) if reals else (t.direction[0], t.source_classes)
    if classes != predicted:
        raise ganlab.SpecError(
            f"domain {domain} has {classes} classes, and the discriminator of {t.direction[1]} predicts {predicted};"
            " the numbers must be equal"
        )
