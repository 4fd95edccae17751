"""AC-GAN (arXiv:1610.09585): the discriminators also predict class labels, and a translation must keep its input's
class.

Both domains have the same classes.
"""

from typing import Any, cast

from ganlab_cyclegan.discriminator import Patch
from torch import Tensor

import ganlab
from ganlab import Domain, Translation
from ganlab.interfaces.losses import Term
from ganlab_acgan.classes import check_classes, classified


class ClassifyingPatch(Patch):
    """PatchGAN with class logits: scores (N, 1 + classes, h, w). The first score says if a patch is real.

    Raises ValueError if the domain has no classes.
    """

    def outputs(self, shape: Domain) -> int:
        if not shape.classes:
            raise ValueError(f"the images of domain {shape.name} have no classes; its source needs labels")
        return 1 + shape.classes


class Source(ganlab.Loss):
    """L_S, section 3: the adversarial loss `of`, applied to the first score alone.

    Args:
        of: the adversarial loss.
    """

    def __init__(self, of: ganlab.Loss) -> None:
        super().__init__()
        self.of = of
        self.trains = of.trains

    def prepare(self, t: Translation) -> None:
        self.of.prepare(_real_or_fake(t))

    def generator(self, t: Translation) -> Term:
        return self.of.generator(_real_or_fake(t))

    def discriminator(self, t: Translation) -> Term:
        return self.of.discriminator(_real_or_fake(t))


class Class(ganlab.Loss):
    """L_C, section 3: the cross-entropy -log P(C = c | x), averaged over images and patches.

    For a real image c is its own class, for a fake the class of its input. The discriminators minimise both terms. The
    generators minimise the term of the fakes.

    Args:
        fakes: if true, the discriminators learn classes from fakes too. If false, they learn from real images alone
            (arXiv:1711.09020, eq. 2 and 3), and cannot learn class features that appear only in fakes.
    """

    def __init__(self, fakes: bool = True) -> None:
        super().__init__()
        self.fakes = fakes

    def generator(self, t: Translation) -> Tensor:
        return classified(_logits(t, t.fake, reals=False), t.source_labels)

    def discriminator(self, t: Translation) -> dict[str, Tensor]:
        terms = {"real": classified(_logits(t, t.target, reals=True), t.target_labels)}
        if self.fakes:
            # not t.fake_for_discriminator: a pool does not keep the classes of its fakes
            terms["fake"] = classified(_logits(t, t.fake, reals=False), t.source_labels)
        return terms


def _logits(t: Translation, images: Tensor, reals: bool) -> Tensor:
    logits = t.score(images)[:, 1:]
    check_classes(t, logits.shape[1], reals)
    return logits


class _RealOrFake:
    """A `Translation` that gives the first score alone."""

    def __init__(self, t: Translation) -> None:
        self._t = t

    def score(self, images: Tensor, name: str | None = None) -> Tensor:
        return self._t.score(images, name)[:, :1]

    def activations(self, images: Tensor, name: str | None = None) -> list[Tensor]:
        *inner, scores = self._t.activations(images, name)
        return [*inner, scores[:, :1]]

    @property
    def reverse(self) -> Translation:
        return _real_or_fake(self._t.reverse)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._t, name)


def _real_or_fake(t: Translation) -> Translation:
    return cast(Translation, _RealOrFake(t))


@ganlab.hookimpl
def ganlab_discriminators() -> dict[str, type[ganlab.Discriminator]]:
    return {"acgan": ClassifyingPatch}


@ganlab.hookimpl
def ganlab_losses() -> dict[str, type[ganlab.Loss]]:
    return {"acgan_source": Source, "acgan_class": Class}
