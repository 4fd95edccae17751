"""AC-GAN (arXiv:1610.09585): the discriminator also tells the classes that both domains share, and translations are to
show their input's.
"""

from typing import Any, cast

from ganlab_cyclegan.discriminator import Patch
from torch import Tensor

import ganlab
from ganlab import Domain, Translation
from ganlab.interfaces import Term
from ganlab_acgan.classes import check_classes, classified


class ClassifyingPatch(Patch):
    """PatchGAN's layers with more outputs: (N, 1 + classes, h, w), whether a patch is real, then the logits of the
    domain's classes. Raises ValueError where the domain has none."""

    def outputs(self, shape: Domain) -> int:
        if not shape.classes:
            raise ValueError(f"the images of domain {shape.name} have no classes; its source needs labels")
        return 1 + shape.classes


class Source(ganlab.Loss):
    """L_S, section 3: the adversarial loss `of`, which sees nothing of the scores but whether an image is real.

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
    """L_C, section 3: -log P(C = c | x), over images and patches, of reals x and their class, and of fakes and their
    input's. The discriminators minimise both, the generators that of fakes.

    Args:
        fakes: whether the discriminators learn classes from fakes, too. From reals alone (arXiv:1711.09020, eq. 2
            and 3) they can't come to read what only generators write.
    """

    def __init__(self, fakes: bool = True) -> None:
        super().__init__()
        self.fakes = fakes

    def generator(self, t: Translation) -> Tensor:
        return classified(_logits(t, t.fake, reals=False), t.labels)

    def discriminator(self, t: Translation) -> dict[str, Tensor]:
        terms = {"real": classified(_logits(t, t.target, reals=True), t.target_labels)}
        if self.fakes:
            # not those of a pool, whose classes are not known
            terms["fake"] = classified(_logits(t, t.fake, reals=False), t.labels)
        return terms


def _logits(t: Translation, images: Tensor, reals: bool) -> Tensor:
    logits = t.score(images)[:, 1:]
    check_classes(t, logits.shape[1], reals)
    return logits


class _RealOrFake:
    """A translation whose discriminators say one thing."""

    def __init__(self, t: Translation) -> None:
        self._t = t

    def score(self, images: Tensor, name: str | None = None) -> Tensor:
        return self._t.score(images, name)[:, :1]

    @property
    def back(self) -> Translation:
        return _real_or_fake(self._t.back)

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
