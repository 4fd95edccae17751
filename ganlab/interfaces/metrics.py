"""The interface of metrics: `Metric`, the `MetricInputs` that it measures, and the `Estimate`s that it returns."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from ganlab.errors import Unavailable

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
"""One image, (H, W, 3), 0 to 255."""

Vectors = np.ndarray[Any, np.dtype[np.float64]]
"""Feature vectors, (N, D)."""

T = TypeVar("T")


class MetricInfo(NamedTuple):
    """Describes a number that a metric measures."""

    about: str
    """One sentence that a student understands."""
    better: Literal["lower", "higher", ""] = "lower"
    """Says if lower or higher values are better; "" if neither is."""
    identity_is_optimal: bool = False
    """True if copying the input unchanged scores best, as for content preservation. A result worse than the identity
    baseline is then not flagged."""


class Estimate(NamedTuple):
    """A measured number with its uncertainty. `ganlab.evaluation.estimates` makes estimates from samples."""

    value: float
    """The measured value."""
    low: float
    """The lower end of a 95% confidence interval."""
    high: float
    """The upper end of the interval."""
    counts: Mapping[str, int]
    """{name of what was counted: number}, for example {"outputs": 300, "real": 300}."""
    chance: float | None = None
    """The value expected if the outputs had nothing to do with the inputs; None if not known."""
    note: str = ""
    """A warning to the reader; "" if there is none."""


class Metric:
    """Measures the images of one direction, or a folder of images. Subclasses set `numbers` and implement `measure`."""

    numbers: Mapping[str, MetricInfo]
    """{name: description} of every number that `measure` may return. The constructor may set it."""

    on_features = False
    """True if the metric compares feature vectors. The name of the feature network is then appended to the name of each
    number: "NUMBER-FEATURES"."""

    on_pairs = False
    """True if the metric compares each output with its partner, the real image that it should equal.
    `MetricInputs.partners` is then never None: if the data are not paired, the metric is left out, and a run says so
    before it trains."""

    fewest = 1
    """The smallest number of images in a set with which all numbers can be measured. `ganlab run` and `ganlab check`
    warn, before any training, of a domain with fewer test images."""

    packages: Sequence[str] = ()
    """The distributions that the results depend on, besides the metric's own. An evaluation records their versions."""

    def measure(self, data: MetricInputs) -> Mapping[str, Estimate | Unavailable]:
        """Returns {name of a number: estimate}.

        Leave out a number that does not apply to `data`. Return a `ganlab.Unavailable`, whose text is one sentence, for
        a number that cannot be measured. Raise it if no number can be measured.

        The core calls `measure` again for each reference. For "real", inputs and outputs are replaced by other real
        images of the target domain, which have no partners. For "identity", the outputs are replaced by the inputs. In
        both calls `cycled` is None and `encode` raises Unavailable.

        Torch's global random generator is seeded before each call and restored after it.
        """
        raise NotImplementedError(f"{type(self).__name__} has no measure")

    def missing(self, images: Mapping[str, Images]) -> Mapping[str, str]:
        """Returns {name of a number: reason} of the numbers that can't be measured on such images, {domain: some}.

        It is asked before a run trains, so that nobody waits for them.
        """
        return {}

    def files(self) -> Sequence[Path]:
        """Returns the weight files that the metric read. An evaluation records their hashes."""
        return ()


@dataclass(frozen=True, eq=False)
class Images:
    """A set of images. Images from a folder may differ in size."""

    pixels: Sequence[Pixels]
    """The images, each (H, W, 3) uint8, in a fixed order."""
    domain: str = ""
    """The domain that the images belong to, "a" or "b"; "" for a folder."""
    attributes: Sequence[Mapping[str, str]] | None = None
    """The attributes of each image, such as {"hair": "black"}; None if the source knows none."""
    real: bool = False
    """True for images of a source or of a real folder. Their feature vectors are kept between evaluations."""
    digests: Sequence[bytes] | None = None
    """The `image_digest` of each image, if it is known: images of a folder are read from their files each time."""

    def __len__(self) -> int:
        return len(self.pixels)

    def tensor(self) -> Tensor:
        """Returns the images as (N, 3, H, W) float32 in [-1, 1]. Raises Unavailable if they differ in size."""
        images = list(self.pixels)
        one_size(images)
        stacked = torch.from_numpy(np.stack(images))
        return stacked.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)

    def take(self, indices: Sequence[int]) -> Images:
        """Returns the images at `indices`, in the order of `indices`."""
        attributes = None if self.attributes is None else [self.attributes[i] for i in indices]
        digests = None if self.digests is None else [self.digests[i] for i in indices]
        return Images(LazyPixels(self.pixels.__getitem__, indices), self.domain, attributes, self.real, digests)


def one_size(*sets: Iterable[Pixels]) -> tuple[int, int]:
    """Returns (height, width) of all images. Raises Unavailable if they differ in size."""
    sizes: set[tuple[int, int]] = {image.shape[:2] for images in sets for image in images}
    if len(sizes) != 1:
        height, width = min(sizes)
        tall, wide = max(sizes)
        raise Unavailable(f"needs images of one size, and they go from {height}x{width} to {tall}x{wide} pixels")
    return sizes.pop()


class LazyPixels(Sequence[Pixels]):
    """Images that are read when they are asked for, by `read(index)` for each of `indices`."""

    def __init__(self, read: Callable[[int], Pixels], indices: Sequence[int]) -> None:
        self._read, self._indices = read, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return LazyPixels(self._read, self._indices[place])
        return self._read(self._indices[place])

    def __reduce__(self) -> tuple[type[list[Pixels]], tuple[list[Pixels]]]:
        # another process may not be able to call `_read`, so it gets the images themselves
        return list, ([*self],)


def image_digest(image: Pixels) -> bytes:
    """Returns a SHA-256 of an image's shape and values."""
    hashed = hashlib.sha256(repr(image.shape).encode())
    hashed.update(image.tobytes())
    return hashed.digest()


def _no_vectors(images: Images) -> Vectors:
    raise Unavailable("needs a feature network, and none is chosen (--features)")


def no_encoder(direction: str, images: Images) -> Tensor:
    """Raises Unavailable. `MetricInputs.encode` is this function if there are no networks."""
    raise Unavailable("needs a run, whose generators have embeddings")


@dataclass(frozen=True, eq=False)
class MetricInputs:
    """The images of one direction that a metric measures. `outputs[i]` is the translation of `inputs[i]`."""

    direction: str
    """"ab" or "ba"; "" for folders."""
    outputs: Images
    """The images to measure."""
    targets: Images
    """Held-out real images of the target domain, in an order of their own."""
    inputs: Images | None = None
    """Held-out images of the source domain; None for folders without inputs."""
    partners: Images | None = None
    """The real images of the target domain that belong to the inputs: `outputs[i]` should equal `partners[i]`. None if
    the data are not paired."""
    cycled: Images | None = None
    """`outputs` translated back into the source domain; None if the run has no reverse direction."""
    train: Mapping[str, Images] = field(default_factory=dict)
    """{domain: its training images}. Nothing is measured on them; a metric may train a classifier on them."""
    vectors: Callable[[Images], Vectors] = _no_vectors
    """Images -> feature vectors (N, D) by the evaluation's feature network, computed once for each set. Raises
    Unavailable if no feature network is chosen."""
    encode: Callable[[str, Images], Tensor] = no_encoder
    """(direction, images of its source domain) -> embeddings (N, E, h, w) by that direction's generator, float32 on the
    CPU. Raises Unavailable if there is no such generator."""
    seed: int = 0
    """The random seed of the evaluation, for `ganlab.determinism.keyed`."""
    kept: dict[Any, Any] = field(default_factory=dict)
    """{key: value} of everything that `once` made."""

    def once(self, key: Any, make: Callable[[], T]) -> T:
        """Returns the result of `make`, for example a trained classifier. `make` runs once for each direction and key.

        `make` may depend on `train`, on `seed` and on values that `key` contains. It must not depend on targets,
        outputs or networks, which differ between calls of `measure`.
        """
        if key not in self.kept:
            self.kept[key] = make()
        value: T = self.kept[key]
        return value
