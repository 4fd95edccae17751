"""U-GAT-IT's losses on CAM logits (arXiv:1907.10830, section 2.2). Means run over images, logits and scores."""

from typing import Annotated

from pydantic import Field
from torch import Tensor
from torch.nn.functional import softplus

import ganlab
from ganlab import Translation


class CAM(ganlab.Loss):
    """The generator's CAM loss, eq. (5): the cross-entropy of its classifiers of the source's and the target's domain.

    The generator's second to last activation must hold the CAM logits (N, 2, 1, 1), as in `ugatit`.
    """

    def generator(self, t: Translation) -> Tensor:
        of_source, of_target = (cam_logits(t.features(of)) for of in ("source", "target"))
        return softplus(-of_source).mean() + softplus(of_target).mean()


class CAMLSGAN(ganlab.Loss):
    """Least squares on the scores and on the CAM logits of discriminators, eq. (2) and (6): D learns 1 for real images
    and 0 for fakes; G minimises the squared distance of both outputs from 1 for its fakes.

    A discriminator's second to last activation must hold the CAM logits (N, 2, 1, 1), as in `cam_patch`.

    Args:
        names: the names of the discriminators, or null for the only one.
    """

    def __init__(self, names: Annotated[tuple[str, ...], Field(min_length=1)] | None = None) -> None:
        super().__init__()
        self.names: tuple[str | None, ...] = names or (None,)

    def generator(self, t: Translation) -> dict[str, Tensor]:
        return {name or "": self._squares(t.activations(t.fake, name), 1) for name in self.names}

    def discriminator(self, t: Translation) -> dict[str, Tensor]:
        terms = {}
        for name in self.names:
            real, fake = t.activations(t.target, name), t.activations(t.fake_for_discriminator, name)
            terms[name or ""] = self._squares(real, 1) + self._squares(fake, 0)
        return terms

    @staticmethod
    def _squares(activations: list[Tensor], label: int) -> Tensor:
        """Returns the mean square of the scores' distance from `label`, plus that of the CAM logits."""
        scores, cam = activations[-1], cam_logits(activations)
        return (scores - label).square().mean() + (cam - label).square().mean()


def cam_logits(activations: list[Tensor]) -> Tensor:
    """Returns the second to last activation, (N, 2, 1, 1). Raises ValueError if it has another shape."""
    shapes = [tuple(one.shape[1:]) for one in activations]
    if shapes[-2:-1] != [(2, 1, 1)]:
        raise ValueError(f"expected CAM logits (N, 2, 1, 1) as the second to last activation, got shapes {shapes}")
    return activations[-2]
