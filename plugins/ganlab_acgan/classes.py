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


def check_classes(t: Translation, told: int) -> None:
    """Raises SpecError unless the target domain's discriminator, which tells `told` classes, can be asked for those of
    either domain: on CUDA a class too large would end the process."""
    if not t.classes == t.target_classes == told:
        a, b = t.name[0], t.name[1]
        raise ganlab.SpecError(
            f"domain {a} has {t.classes} classes, domain {b} {t.target_classes}, and the discriminator of {b} tells"
            f" {told}; they must be as many"
        )
