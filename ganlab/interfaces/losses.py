"""The loss that a plugin author implements, and `t`, the translation that every loss method receives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor, nn

from ganlab.interfaces.networks import Discriminator
from ganlab.torch_utils import shown

Term = Tensor | Mapping[str, Tensor] | None
"""The return value of a loss method: a scalar, {part: scalar} to log parts apart, or None for no term."""


class Loss(nn.Module):
    """A term that the players minimise.

    The core makes one instance for each loss that the spec names. It calls the methods once for each direction; each
    method is written for one direction, `t`. A term is a mean over the images of the batch: if the batch is divided
    into parts (`runtime.accumulate`, several processes), an update follows the mean over the parts. A term whose weight
    is 0 is not computed. Before the first step the core calls each method once more, on two images, to find errors
    early. It then restores the loss's buffers; a plain attribute that the method has set stays set.
    """

    trains = "generator"
    """The player, "generator" or "discriminator", whose optimizer updates this loss's own parameters, if any."""

    on_pairs = False
    """True if the loss compares `t.fake` with `t.target`, its partner. A spec whose data are not paired is refused."""

    every = 1
    """At least 1. The loss is computed only in the first step and in every `every`-th step after it, for the players
    that have a turn in that step. Its weight is multiplied by this number, so that the mean over steps stays the same.
    A penalty that changes slowly then costs less (lazy regularisation, arXiv:1912.04958, section 3.1)."""

    def prepare(self, t: Translation) -> None:
        """Called once for each direction of the spec with an example batch, before the optimizers exist. Create
        parameters whose shape depends on the data here; keep them by `t.direction`, because one instance of the loss
        serves both directions."""

    def generator(self, t: Translation) -> Term:
        """The term that the generators minimise in direction `t`: a scalar, {part: scalar}, or None."""
        return None

    def discriminator(self, t: Translation) -> Term:
        """The term that the discriminators minimise in direction `t`: a scalar, {part: scalar}, or None."""
        return None


class Translation:
    """One batch, translated in one direction, as a loss sees it.

    Images are (N, C, H, W) in [-1, 1]. Every value is computed when a loss first reads it, and again only if a network
    that made it has been updated since. In a discriminators' turn images and embeddings are detached and take
    gradients, so no gradient reaches a generator; they may come from before the last update of a generator.

    `encode`, `decode`, `translate`, `features`, `score` and `activations` take any tensors. They remember a tensor by
    its identity until the turn ends: pass the same tensor, not an equal one.
    """

    direction: str
    """"ab" or "ba"."""

    def __init__(self, direction: str, values: TranslationValues) -> None:
        self.direction = direction
        self._values = values
        self._source, self._target = direction[0], direction[1]

    @property
    def reverse(self) -> Translation:
        """The same batch in the other direction: `t.reverse.source` is `t.target`."""
        return Translation(self.direction[::-1], self._values)

    @property
    def source(self) -> Tensor:
        """A batch of real images of the source domain, (N, C, H, W)."""
        return self._values.images(self._source)

    @property
    def target(self) -> Tensor:
        """A batch of real images of the target domain, (N, C, H, W). Image i is the pair of `source`'s image i if the
        spec's `data.paired` is true; otherwise they are not paired."""
        return self._values.images(self._target)

    @property
    def source_labels(self) -> Tensor:
        """The class labels of `source`, (N,) integers. Raises SpecError if the domain has none."""
        return self._values.labels(self._source)

    @property
    def target_labels(self) -> Tensor:
        """The class labels of `target`, (N,) integers. Raises SpecError if the domain has none."""
        return self._values.labels(self._target)

    @property
    def source_extras(self) -> Mapping[str, Tensor]:
        """{name: extra} of the images in `source`: `t.source_extras["mask"]`. The domain's image source declares the
        names.

        Each is (N, C, H, W) with the height and width of the images. A picture is in [-1, 1], a mask of classes has
        integers. Raises SpecError for a name that the source does not declare.
        """
        return self._values.extras(self._source)

    @property
    def target_extras(self) -> Mapping[str, Tensor]:
        """{name: extra} of the images in `target`; otherwise the same as `source_extras`."""
        return self._values.extras(self._target)

    @property
    def source_classes(self) -> int:
        """The number of classes of the source domain; 0 if it has no labels."""
        return self._values.classes(self._source)

    @property
    def target_classes(self) -> int:
        """The number of classes of the target domain; 0 if it has no labels."""
        return self._values.classes(self._target)

    @property
    def embedding(self) -> Tensor:
        """The generator's embedding of `source`, (N, E, h, w)."""
        return self._values.translated(self.direction, "features")[-1]

    @property
    def fake(self) -> Tensor:
        """The translation of `source` into the target domain, (N, C, H, W)."""
        return self._values.translated(self.direction, "fake")[-1]

    @property
    def identity(self) -> Tensor:
        """The generator's output for `target`, which is in its target domain already, (N, C, H, W)."""
        return self._values.translated(self.direction, "identity")[-1]

    @property
    def fake_embedding(self) -> Tensor:
        """The embedding of `fake` by the generator of the reverse direction, (N, E, h, w)."""
        return self._values.translated(self.direction, "fake_embedding")[-1]

    @property
    def cycled(self) -> Tensor:
        """`fake` translated back into the source domain, (N, C, H, W)."""
        return self._values.translated(self.direction, "cycled")[-1]

    @property
    def reconstructed(self) -> Tensor:
        """`embedding` decoded by the generator of the reverse direction: images of the source domain, (N, C, H, W)."""
        return self._values.translated(self.direction, "reconstructed")[-1]

    @property
    def fake_for_discriminator(self) -> Tensor:
        """`fake` as a discriminator learns from it, (N, C, H, W): without history, and from the schedule's pool of past
        fakes if the schedule has one."""
        return self._values.fake_for_discriminator(self.direction)

    def features(self, of: str | Tensor = "source") -> list[Tensor]:
        """The activations of this direction's generator for images; the last is the embedding.

        `of` is "source", "fake", "target" or a tensor of images (N, C, H, W). For "fake" the last is not
        `fake_embedding`, which the generator of the reverse direction makes.
        """
        if isinstance(of, Tensor):
            return self._values.encoded(self.direction, of)
        values = {"source": "features", "fake": "fake_features", "target": "target_features"}
        if not isinstance(of, str) or of not in values:
            raise ValueError(
                f"features of {shown(of)}: known are {', '.join(map(repr, values))}, and a tensor of images"
            )
        return self._values.translated(self.direction, values[of])

    def encode(self, images: Tensor) -> Tensor:
        """The embedding of any images (N, C, H, W) by this direction's generator, (N, E, h, w).

        A value of `t` is not computed again: `t.encode(t.source)` is `t.embedding`, `t.reverse.encode(t.fake)` is
        `t.fake_embedding`. Any other tensor is encoded once in a turn.
        """
        return self._values.encoded(self.direction, images)[-1]

    def decode(self, embedding: Tensor) -> Tensor:
        """The images (N, C, H, W) that this direction's generator decodes from any embedding (N, E, h, w).

        `t.decode(t.embedding)` is `t.fake`. Any other tensor is decoded once in a turn.
        """
        return self._values.decoded(self.direction, embedding)

    def translate(self, images: Tensor) -> Tensor:
        """The translation of any images (N, C, H, W) by this direction's generator: `t.decode(t.encode(images))`.

        `t.translate(t.source)` is `t.fake`, `t.translate(t.target)` is `t.identity`, `t.reverse.translate(t.fake)` is
        `t.cycled`.
        """
        return self.decode(self.encode(images))

    def score(self, images: Tensor, name: str | None = None) -> Tensor:
        """The scores of `images` by the target domain's discriminator, (N, K, h, w).

        `name` chooses among several discriminators. Raises SpecError for an image that is known to be of the source
        domain, such as `t.source` or `t.cycled`: `t.reverse.score` judges those.
        """
        return self._values.score(self.direction, "images", name, images)

    def activations(self, images: Tensor, name: str | None = None) -> list[Tensor]:
        """The activations of the target domain's discriminator for `images`, in order; the last is `t.score(images)`.

        Scores and activations share one forward. `name` chooses among several discriminators. Raises SpecError for
        images of the source domain, as `score` does.
        """
        return self._values.activations(self.direction, name, images)

    def score_embedding(self, embedding: Tensor, name: str | None = None) -> Tensor:
        """The embedding discriminator's scores of an embedding, (N, K, h, w). `name` chooses among several."""
        return self._values.score(self.direction, "embeddings", name, embedding)

    def discriminator(self, name: str | None = None) -> Discriminator:
        """The network that scores images of the target domain. `name` chooses among several."""
        return self._values.discriminator(self.direction, name)

    @property
    def step(self) -> int:
        """The step, counted from 0; also 0 in the calls before the first step. If a loss reads it, the run's steps
        are not captured as CUDA graphs."""
        return self._values.step

    def log(self, name: str, value: Tensor | float) -> None:
        """Records a scalar that nothing minimises: "log/PLAYER/DIRECTION/LABEL/NAME" in the records of the run.

        If a step logs a name several times, its record holds the mean. A value that is not finite stops the run, as a
        term does. Does not synchronise with the device. Raises SpecError if `value` is neither a number nor a tensor
        with one element.
        """
        self._values.log(self.direction, name, value)

    def uniform(self, *size: int) -> Tensor:
        """Uniform random numbers in [0, 1) of shape `size`.

        They depend only on the run's random seed, the step, the turn, the direction, and how many draws came before in
        this turn and direction. If the batch is divided into parts (`runtime.accumulate`, several processes), each part
        gets the same numbers, except where the first length in `size` is the number of images: then each image has the
        numbers that it has in the whole batch.
        """
        return self._values.uniform(self.direction, size)

    def normal(self, *size: int) -> Tensor:
        """Standard normal random numbers of shape `size`; otherwise the same as `uniform`."""
        return self._values.normal(self.direction, size)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """{name: shape} of source, target, and of fake, identity and cycled if they are made. Computes nothing."""
        return self._values.shapes(self.direction)


class TranslationValues(Protocol):
    """Computes the values of a `Translation`. `ganlab.system.forward_cache.ForwardCache` implements it."""

    def images(self, domain: str) -> Tensor: ...

    def labels(self, domain: str) -> Tensor: ...

    def extras(self, domain: str) -> Mapping[str, Tensor]: ...

    def classes(self, domain: str) -> int: ...

    def translated(self, direction: str, value: str) -> list[Tensor]: ...

    def encoded(self, direction: str, images: Tensor) -> list[Tensor]: ...

    def decoded(self, direction: str, embedding: Tensor) -> Tensor: ...

    def fake_for_discriminator(self, direction: str) -> Tensor: ...

    def score(self, direction: str, sees: str, name: str | None, x: Tensor) -> Tensor: ...

    def activations(self, direction: str, name: str | None, images: Tensor) -> list[Tensor]: ...

    def discriminator(self, direction: str, name: str | None) -> Discriminator: ...

    @property
    def step(self) -> int: ...

    def log(self, direction: str, name: str, value: Tensor | float) -> None: ...

    def uniform(self, direction: str, size: tuple[int, ...]) -> Tensor: ...

    def normal(self, direction: str, size: tuple[int, ...]) -> Tensor: ...

    def shapes(self, direction: str) -> dict[str, tuple[int, ...]]: ...
