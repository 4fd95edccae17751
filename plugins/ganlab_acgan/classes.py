"""What losses share that read classes in a discriminator's scores."""

from torch import Tensor
from torch.nn.functional import cross_entropy

import ganlab
from ganlab import Translation


def classified(scores: Tensor, classes: Tensor) -> Tensor:
    """Scores (N, K, h, w) and classes (N,) -> the mean cross-entropy, over images and positions."""
    positions = scores.shape[2] * scores.shape[3]
    # as a list of rows: of maps, torch adds up in no fixed order on CUDA
    return cross_entropy(scores.movedim(1, 3).flatten(0, 2), classes[:, None].expand(-1, positions).flatten())


def check_classes(t: Translation, told: int, reals: bool) -> None:
    """Raises SpecError unless the target domain's discriminator tells as many classes, `told`, as the domain has whose
    labels it is asked for: its own for reals, that of their inputs for fakes. On CUDA a class too large would end the
    process."""
    domain, classes = (t.name[1], t.target_classes) if reals else (t.name[0], t.classes)
    if classes != told:
        raise ganlab.SpecError(
            f"domain {domain} has {classes} classes, and the discriminator of {t.name[1]} tells {told}; they must be as"
            " many"
        )
