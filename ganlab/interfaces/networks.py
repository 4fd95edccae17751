"""The networks that a plugin author implements: generators, discriminators and feature networks.

A component is an ordinary class with a typed constructor. The constructor's keyword arguments are the component's
options in a spec. `Annotated[int, Field(ge=1)]` and `Literal[...]` become the spec's checks. The core supplies every
parameter annotated `Domain`. A parameter annotated with an interface (`of: Discriminator`) takes a nested component.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

SEES = ("images", "embeddings")
"""The values of `Discriminator.sees`."""


class Domain(NamedTuple):
    """The shape of a domain's images, or of embeddings."""

    name: str
    """"a" or "b"; "embedding" for embeddings."""
    channels: int
    """3 for colour images, 1 for grey; E for embeddings."""
    height: int
    """Height in pixels; h for embeddings."""
    width: int
    """Width in pixels; w for embeddings."""
    classes: int = 0
    """The number of class labels; 0 if the images have none."""


class Generator(nn.Module):
    """Translates images of the source domain into images of the target domain.

    Implement `decode`, and either `encode` or `features`. The constructor may take `source: Domain` and
    `target: Domain`.

    Training calls `features` and `decode`; samples and evaluations call `forward`. Both must give the same images.

    `decode` must depend on its argument alone. A U-Net passes its skip connections inside the embedding, as further
    channels (`torch.nn.functional.pixel_unshuffle` folds them to h and w). Losses on embeddings then see them too.
    """

    stateful = False
    """True if a forward draws random numbers or changes the result of the next forward. Dropout and spectral norm are
    detected; other modules must declare it. A network is stateful if any of its submodules is."""

    def features(self, images: Tensor) -> Sequence[Tensor]:
        """Returns activations of the encoder, in order; the last one is the embedding. `images` is (N, C, H, W) in
        [-1, 1]."""
        return [self.encode(images)]

    def encode(self, images: Tensor) -> Tensor:
        """Returns the embedding (N, E, h, w) of images (N, C, H, W) in [-1, 1]."""
        return self.features(images)[-1]

    def decode(self, embedding: Tensor) -> Tensor:
        """Returns images of the target domain, (N, C, H, W) in [-1, 1], for an embedding (N, E, h, w)."""
        raise NotImplementedError(f"{type(self).__name__} does not implement decode")

    def forward(self, images: Tensor) -> Tensor:
        """Returns the translations of images (N, C, H, W) in [-1, 1]: `decode(encode(images))`."""
        return self.decode(self.encode(images))

    @classmethod
    def pair(cls, domains: Mapping[str, Domain], directions: Sequence[str], **options: Any) -> dict[str, Generator]:
        """Builds {direction: generator} for all directions of a spec. Override it to share layers between directions.

        `options` are the options of this class. A nested generator is passed as {direction: generator}.
        """
        takes = inspect.signature(cls).parameters
        return {
            direction: cls(
                **{name: domains[direction[end]] for end, name in enumerate(("source", "target")) if name in takes},
                **{name: value[direction] if isinstance(value, Pair) else value for name, value in options.items()},
            )
            for direction in directions
        }


class Pair(dict[str, Generator]):
    """{direction: generator}: the option of a generator that wraps another generator."""


class Discriminator(nn.Module):
    """Scores images of one domain, or embeddings. A critic is a discriminator with unbounded scores.

    The constructor may take one `Domain`: the shape of the images, or of the embeddings (`name` is "embedding").
    """

    sees = "images"
    """The input: "images" (the core builds one discriminator for each target domain) or "embeddings" (one for both
    directions). A wrapper sets it to the value of the discriminator that it wraps."""

    stateful = False
    """Same as `Generator.stateful`. A network is stateful if any of its submodules is."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns the scores (N, K, h, w) of a batch (N, C, H, W); K is 1 unless the discriminator predicts classes."""
        raise NotImplementedError(f"{type(self).__name__} does not implement forward")

    def after_update(self) -> None:
        """Called without gradients after each update of this network's parameters. The default calls it for every
        discriminator that is a direct submodule."""
        for child in self.children():
            if isinstance(child, Discriminator):
                child.after_update()


class Features(nn.Module):
    """Turns images into feature vectors, for metrics and for losses.

    The constructor loads the weights. It raises `ganlab.Unavailable` with one sentence if they are missing. The core
    freezes the network and sets eval mode. Checkpoints do not contain it; a run that trains with one records the hashes
    of its files.
    """

    size: int
    """Height and width of the input in pixels; the constructor may set another size. The core resizes other images as
    clean-fid does (arXiv:2104.11222): Pillow's antialiased bicubic filter on each channel in float32, clipped to [0,
    255], not rounded."""

    label_options: Sequence[str] = ()
    """Options that change what the vectors mean, such as the size. A value other than the default is part of the
    network's name in the names of numbers: "NUMBER-TYPE-VALUE"."""

    shipped = False
    """True if the weights come with a package, so that nothing is downloaded."""

    packages: Sequence[str] = ()
    """Distributions that the vectors depend on, apart from the plugin's own. An evaluation records their versions."""

    def forward(self, images: Tensor) -> Tensor:
        """Returns vectors (N, D) for images (N, 3, size, size) in [-1, 1]. Must be differentiable."""
        raise NotImplementedError(f"{type(self).__name__} does not implement forward")

    def files(self) -> Sequence[Path]:
        """Returns the weight files that were loaded. Runs and evaluations record their hashes."""
        return ()
