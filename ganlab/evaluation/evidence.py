"""What a metric sees: held-out images of one way, what became of them, and real images to compare with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ganlab.errors import Unavailable

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Vectors = np.ndarray[Any, np.dtype[np.float64]]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Images:
    """A set of images, each (H, W, 3) uint8; from a folder they may differ in size."""

    pixels: Sequence[Pixels]
    """The images, in a fixed order."""
    domain: str = ""
    """The domain whose source they are from; "" of folders."""
    attributes: Sequence[Mapping[str, str]] | None = None
    """Of each image what is known of its content, where its source knows anything."""
    real: bool = False
    """Whether they are a source's own: their vectors are then kept from one evaluation to the next."""

    def __len__(self) -> int:
        return len(self.pixels)

    def tensor(self) -> Tensor:
        """(N, 3, H, W) in [-1, 1]. Raises Unavailable where they differ in size."""
        shapes = {image.shape[:2] for image in self.pixels}
        if len(shapes) != 1:
            height, width = min(shapes)
            tall, wide = max(shapes)
            raise Unavailable(f"needs images of one size, and they go from {height}x{width} to {tall}x{wide} pixels")
        stacked = torch.from_numpy(np.stack(list(self.pixels)))
        return stacked.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)

    def take(self, indices: Sequence[int]) -> Images:
        """Those of these numbers, in their order."""
        known = None if self.attributes is None else [self.attributes[i] for i in indices]
        return Images([self.pixels[i] for i in indices], self.domain, known, self.real)


def _no_vectors(images: Images) -> Vectors:
    raise Unavailable("needs a feature network, and none is chosen (--features)")


def no_encoder(way: str, images: Images) -> Tensor:
    """Stands where there are no networks."""
    raise Unavailable("needs a run, whose generators have embeddings")


@dataclass(frozen=True, eq=False)
class Evidence:
    """One way, seen from outside. `inputs[i]` became `outputs[i]`; `targets` are no pairs of them."""

    way: str
    """"ab" or "ba"; "" of two folders."""
    outputs: Images
    """What is measured."""
    targets: Images
    """Held-out real images of the target domain."""
    inputs: Images | None = None
    """Held-out images of the source domain; of folders only where they are given."""
    cycled: Images | None = None
    """`outputs`, translated back; not where there is no way back."""
    learning: Mapping[str, Images] = field(default_factory=dict)
    """{domain: its training images}: real images on which nothing is measured, from which a judge may learn."""
    vectors: Callable[[Images], Vectors] = _no_vectors
    """Images -> feature vectors (N, D), by the evaluation's feature network; each set's are computed once."""
    encode: Callable[[str, Images], Tensor] = no_encoder
    """(way, images of its source domain) -> that way's generator's embeddings (N, E, h, w), float32 on the CPU."""
    seed: int = 0
    """Of every random choice, by `ganlab.draws.keyed`."""
    kept: dict[Any, Any] = field(default_factory=dict)
    """What `once` has made."""

    def once(self, key: Any, make: Callable[[], T]) -> T:
        """What `make` gives, made once for all evidence of this way: a judge, say. `key` names all that it depends on
        but `learning` and the seed: targets, outputs and networks are others in the next evidence."""
        if key not in self.kept:
            self.kept[key] = make()
        value: T = self.kept[key]
        return value
