"""The page a plugin author reads: generators, discriminators, losses, schedules and sources.

A component is an ordinary class with a typed constructor. Its keyword arguments are its options in a spec;
`Annotated[int, Field(ge=1)]` and `Literal[...]` become the spec's checks. A parameter annotated `Domain` is
supplied by the core, one annotated with an interface (`of: Discriminator`) is a nested component. Images are
tensors (N, C, H, W) in [-1, 1].
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from ganlab.translation import Translation

Term = Tensor | Mapping[str, Tensor] | None
PLAYERS = ("generator", "discriminator")
SEES = ("images", "embeddings")


class Domain(NamedTuple):
    """What a network needs to know of one set of images (or of the embeddings, whose name is "embedding")."""

    name: str
    channels: int
    height: int
    width: int
    classes: int = 0


class Generator(nn.Module):
    """Translates images of domain `source` into images of domain `target`.

    Implement `decode` and one of `features` and `encode`. The constructor may take `source: Domain` and
    `target: Domain`.
    """

    per_image = True
    """No layer mixes the images of a batch (instance norm: True; batch norm: False), so that the network's uses in
    one turn may share a batch."""

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

    A method returns a scalar, None when the player has no such term, or {part: scalar} to log parts apart.
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
    """Draw a new batch first."""
    sees: str | None = None
    """Of a discriminators' turn: only those that see "images", or "embeddings", move, on the losses that ask them."""


class Schedule:
    """Who moves when, with which optimiser, for how many steps."""

    steps: int
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
