"""The page a plugin author reads: generators, discriminators, losses, schedules, sources, features and metrics.

A component is an ordinary class with a typed constructor. Its keyword arguments are its options in a spec;
`Annotated[int, Field(ge=1)]` and `Literal[...]` become the spec's checks. A parameter annotated `Domain` is
supplied by the core, one annotated with an interface (`of: Discriminator`) is a nested component. Images are
tensors (N, C, H, W) in [-1, 1].
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from ganlab.errors import Unavailable
    from ganlab.evaluation.evidence import Evidence
    from ganlab.translation import Translation

Term = Tensor | Mapping[str, Tensor] | None
PLAYERS = ("generator", "discriminator")
SEES = ("images", "embeddings")


class Domain(NamedTuple):
    """What a network needs to know of one set of images (or of the embeddings, whose name is "embedding")."""

    name: str
    """"a" or "b", or "embedding"."""
    channels: int
    """3 for colours, 1 for grey, E of embeddings."""
    height: int
    """In pixels; of embeddings h."""
    width: int
    """In pixels; of embeddings w."""
    classes: int = 0
    """How many class labels there are; 0 where images have none."""


class Generator(nn.Module):
    """Translates images of domain `source` into images of domain `target`.

    Implement `decode` and one of `features` and `encode`. The constructor may take `source: Domain` and
    `target: Domain`.

    `decode` sees its argument alone: a U-Net's skips travel in the embedding, folded to its h and w
    (`torch.nn.functional.pixel_unshuffle`) and concatenated as channels, so that what reads embeddings reads them too.
    Training calls `features` and `decode`, samples and evaluations `forward`, which must give the same.
    """

    per_image = True
    """No layer mixes the images of a batch, so that the network's uses in one turn may share a batch. Batch norms need
    not say that they do."""

    stateful = False
    """A forward draws at random or changes the next, so that each use is its own. Dropout and spectral norm need not
    say it."""

    def features(self, images: Tensor) -> Sequence[Tensor]:
        """(N, C, H, W) in [-1, 1] -> successive activations of the encoder, the last of them the embedding."""
        return [self.encode(images)]

    def encode(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> the embedding (N, E, h, w)."""
        return self.features(images)[-1]

    def decode(self, embedding: Tensor) -> Tensor:
        """(N, E, h, w) -> images of the target domain (N, C, H, W) in [-1, 1]."""
        raise NotImplementedError(f"{type(self).__name__} has no decode")

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> their translations (N, C, H, W) in [-1, 1]: `decode` of `encode`."""
        return self.decode(self.encode(images))

    @classmethod
    def pair(cls, domains: Mapping[str, Domain], ways: Sequence[str], **options: Any) -> dict[str, Generator]:
        """{way: generator} for all ways of a spec. Override it to share layers between the ways.

        `options` are this class's own; a nested generator among them comes as {way: generator}.
        """
        takes = inspect.signature(cls).parameters
        return {
            way: cls(
                **{name: domains[way[end]] for end, name in enumerate(("source", "target")) if name in takes},
                **{name: value[way] if isinstance(value, Pair) else value for name, value in options.items()},
            )
            for way in ways
        }


class Pair(dict[str, Generator]):
    """{way: generator}, as an option of a generator that wraps another."""


class Discriminator(nn.Module):
    """Scores images of one domain, or embeddings. A critic is a discriminator whose scores are unbounded.

    The constructor may take one `Domain`: the images', or for embeddings (name "embedding", E, h, w).
    """

    sees = "images"
    """"images": the core makes one for each target domain. "embeddings": one serves both ways. A wrapper's is that
    of the discriminator it wraps."""

    per_image = True
    """As a generator's."""

    stateful = False
    """As a generator's. What is true of a part is true of the whole."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> scores (N, K, h, w); K > 1 with class labels."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def after_update(self) -> None:
        """Called after each update of this network's parameters, without gradients. A wrapper's reaches what it
        wraps."""
        for child in self.children():
            if isinstance(child, Discriminator):
                child.after_update()


class Loss(nn.Module):
    """What the players minimise. One instance serves every way: each method is written for one way, `t`.

    A method returns a scalar, None when the player has no such term, or {part: scalar} to log parts apart. Before the
    first step each is called once a way, on two images, to see what it asks for: buffers are then put back, plain
    attributes stay.
    """

    trains = "generator"
    """The player that this loss's own parameters, if any, join."""

    def prepare(self, t: Translation) -> None:
        """Called once a way with an example batch, before the optimisers exist: make lazy parameters here."""

    def generator(self, t: Translation) -> Term:
        """The generators' term on the way `t`."""
        return None

    def discriminator(self, t: Translation) -> Term:
        """The discriminators' term on the way `t`."""
        return None


class Turn(NamedTuple):
    """One update of one player."""

    player: str
    """"generator" or "discriminator"."""
    ways: tuple[str, ...]
    """Whose terms are summed."""
    moves: tuple[str, ...] | None = None
    """Whose networks move; by default those of `ways`."""
    losses: tuple[str, ...] | None = None
    """Only these named losses; by default all."""
    fresh: bool = False
    """Draw a new batch of both domains first, which the step's later turns see too. A step's first turn has a new one
    in any case."""
    sees: str | None = None
    """Of a discriminators' turn: only those that see "images", or "embeddings", move, on the losses that ask them."""


class Schedule:
    """Who moves when, with which optimiser, for how many steps."""

    steps: int
    """How many steps a run has, from 1 up."""
    ways: tuple[str, ...] = ("ab", "ba")
    """The spec's translations, set by the core before anything is asked."""

    def turns(self, step: int) -> Iterable[Turn]:
        """The turns of step `step`, counted from 0."""
        raise NotImplementedError(f"{type(self).__name__} has no turns")

    def optimizer(self, player: str, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """The one optimiser of a player."""
        raise NotImplementedError(f"{type(self).__name__} has no optimizer")

    def learning_rate(self, player: str, step: int) -> float:
        """A factor on the optimiser's own learning rate."""
        return 1.0

    def weight(self, loss: str, player: str, step: int) -> float:
        """A factor on the spec's weight of a loss; a term whose weight is 0 is not computed."""
        return 1.0

    def pool(self, target: Domain) -> nn.Module | None:
        """What stands between a generator and its discriminator: past fakes, say. One is made for each way.

        Called as `pool(fakes, draws)` with fakes (N, C, H, W) and draws (N, 2) uniform in [0, 1); returns
        (N, C, H, W). Its state lives in buffers, which checkpoints keep.
        """
        return None


class Source:
    """A set of images, each with a key that names it."""

    channels: int = 3
    """3 for colours, 1 for grey."""
    classes: int = 0
    """How many class labels there are; 0 where images have none."""

    def keys(self, domain: str) -> list[str]:
        """The images' keys in a fixed order, for use as domain "a" or "b"."""
        raise NotImplementedError(f"{type(self).__name__} has no keys")

    def image(self, key: str, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The image as (size, size, channels). Called from several threads.

        Raises OSError or ValueError where it can't be read; it is then named, counted and left out.
        """
        raise NotImplementedError(f"{type(self).__name__} has no image")

    def label(self, key: str) -> int:
        """The image's class, 0 <= label < classes."""
        raise NotImplementedError(f"{type(self).__name__} has no label")

    def attributes(self, key: str) -> dict[str, str]:
        """What is known of the picture's content: {"hair": "black", ...}."""
        return {}


class Features(nn.Module):
    """A network that turns images into vectors, whose distributions metrics compare.

    Its constructor reads the weights, and raises `ganlab.Unavailable` with one sentence where they are not to be had.
    The core freezes it and puts it into eval mode. It is no part of what a checkpoint holds: a run that trains with one
    keeps the hashes of its files.
    """

    size: int
    """Height and width in pixels of the images that it takes; others are resized by clean-fid's rule
    (arXiv:2104.11222): Pillow's antialiased bicubic, each channel in float32, clipped to [0, 255], not rounded."""

    shipped = False
    """Whether the weights come inside a package: nothing is downloaded."""

    packages: Sequence[str] = ()
    """The distributions that its vectors depend on, beside its own; an evaluation records their versions."""

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, size, size) in [-1, 1] -> vectors (N, D). Differentiable."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def files(self) -> Sequence[Path]:
        """The weight files that were read; runs and evaluations record their hashes."""
        return ()


class Number(NamedTuple):
    """What is known of a number before it is measured."""

    about: str
    """One sentence that a student understands."""
    better: Literal["lower", "higher", ""] = "lower"
    """Which is better; "" where neither is."""
    copies_win: bool = False
    """Whether doing nothing is best at it, as at keeping what an image shows: to be worse than that is no news."""


class Estimate(NamedTuple):
    """A number that was measured, with its uncertainty. `ganlab.evaluation.estimates` makes them."""

    value: float
    """What was measured."""
    low: float
    """The lower end of a 95% confidence interval."""
    high: float
    """Its upper end."""
    counts: Mapping[str, int]
    """{what was counted: how many}: {"outputs": 300, "real": 300}, say."""
    chance: float | None = None
    """What it would be if outputs had nothing to do with inputs."""
    note: str = ""
    """What a reader should be warned of."""


class Metric:
    """Measures one way of a system on held-out images, or two folders of images."""

    numbers: Mapping[str, Number]
    """What it measures, by name; may be set by the constructor."""

    on_features = False
    """Whether it compares feature vectors: its numbers' names then end with the features', "NUMBER-FEATURES"."""

    packages: Sequence[str] = ()
    """As of `Features`."""

    def measure(self, evidence: Evidence) -> Mapping[str, Estimate | Unavailable]:
        """{name of a number: estimate}, without those that this evidence has nothing for; in the place of one that it
        can't measure, a `ganlab.Unavailable` with one sentence. Raises that where it can't measure any.

        The core calls it again for each reference: with real images in the place of inputs and outputs, and with the
        inputs in the place of the outputs. Torch's global generator is seeded before each call, and put back after it.
        """
        raise NotImplementedError(f"{type(self).__name__} has no measure")

    def files(self) -> Sequence[Path]:
        """The weight files that were read; an evaluation records their hashes."""
        return ()
