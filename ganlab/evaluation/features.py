"""Computes feature vectors of images, resized by clean-fid's rule, and keeps those of real images."""

from __future__ import annotations

import functools
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import PIL
import torch
from PIL import Image

from ganlab import files, workers
from ganlab.data.reading import Progress, in_threads, silent
from ganlab.determinism import keyed, one_thread
from ganlab.errors import GanlabError, SpecError, Unavailable
from ganlab.files import hashes, opened, tidy, write
from ganlab.interfaces.metrics import Images, LazyPixels, Pixels, Vectors, image_digest
from ganlab.interfaces.networks import Features
from ganlab.torch_utils import evaluating

Floats = np.ndarray[Any, np.dtype[np.float32]]

RULE = "Pillow's antialiased bicubic on each channel in float32, clipped to [0, 255], not rounded (clean-fid's)"
"""The rule for resizing images."""

BATCH = 32
"""The largest number of images in a forward."""

PIXELS = 4 * 224 * 224
"""The most pixels of a forward on a CPU: activations of more leave the core's cache, and a forward of 32 images of 224
pixels takes 1.5 times as long an image as one of 4 (benchmarks/test_features.py)."""

SHARE = 256
"""The most images that a process gets at once, because rank 0 keeps the images of all in memory until they are sent."""


def resized(image: Pixels, size: int) -> Floats:
    """(H, W, 3) uint8 -> (size, size, 3) in [0, 255] by clean-fid's rule (arXiv:2104.11222), bit for bit.

    An image of that size keeps its values.
    """
    channels = [Image.fromarray(channel).resize((size, size), Image.Resampling.BICUBIC) for channel in _planes(image)]
    return np.stack([np.asarray(channel) for channel in channels], axis=-1).clip(0, 255)


def _planes(image: Pixels) -> Floats:
    return np.ascontiguousarray(image.transpose(2, 0, 1), np.float32)


def cache_folder() -> Path | None:
    """Returns the folder that keeps the vectors of real images. None if the user has no home folder."""
    return files.cache_folder("features")


class Task(NamedTuple):
    """Asks for the feature vectors of batches of images."""

    identity: str
    """The `identity` of the extractor."""


class Extractor:
    """Returns the feature vectors of a set of images, (N, D) float64, computed in float32.

    Each of torch's threads computes batches of its own, which is faster than sharing the operations of one batch among
    the threads, and makes the vectors independent of their number.

    The constructor moves the network to `device`. `identity`, the JSON of the component in a spec, distinguishes this
    network and its options from every other.

    The vectors of a set are kept in memory as long as the set exists. Vectors of real images are also kept in the
    folder `cache`, under a hash of everything that they depend on. Without a folder, or if it cannot be used, they are
    computed again.

    Raises SpecError if the network does not return vectors. Raises Unavailable if a set is empty, the network fails or
    a vector is not finite.
    """

    def __init__(
        self,
        network: Features,
        identity: str,
        device: torch.device,
        cache: Path | None = None,
        progress: Progress = silent,
    ) -> None:
        # faster than the default memory format on CPUs (benchmarks/test_features.py)
        self._network = network.to(device).to(memory_format=torch.channels_last)
        self._identity, self._device, self._cache, self._progress = identity, device, cache, progress
        # fixed, because the last bits of the vectors depend on it; the last batch of a set may have fewer images
        self._batch = max(1, min(BATCH, PIXELS // network.size**2)) if device.type == "cpu" else BATCH
        self._made: WeakKeyDictionary[Images, tuple[list[bytes], Vectors]] = WeakKeyDictionary()

    def __call__(self, images: Images) -> Vectors:
        if not len(images):
            raise Unavailable("needs images, and there are none")
        if images not in self._made:
            digests = [*(images.digests or map(image_digest, images.pixels))]
            vectors = self._vectors(images, digests)
            if not np.isfinite(vectors).all():
                raise Unavailable(f"features {self._identity} are not finite")
            # read-only, so that a metric cannot change the vectors that the next one gets
            vectors.setflags(write=False)
            self._made[images] = digests, vectors
        return self._made[images][1]

    def _vectors(self, images: Images, digests: list[bytes]) -> Vectors:
        known = {digest: vector for made in self._made.values() for digest, vector in zip(*made, strict=True)}
        # for example a part of a set that was computed before
        if all(digest in known for digest in digests):
            return np.stack([known[digest] for digest in digests])
        if self._cache is None or not images.real:
            return self._compute(images.pixels, self._progress).astype(np.float64)
        path = self._cache / f"{self._key(digests)}.npy"
        vectors = _read(path, (len(images), len(self._probe)))
        if vectors is None:
            vectors = self._compute(images.pixels, self._progress)
            # a full or read-only disk costs only time
            with suppress(OSError):
                tidy(self._cache)
                write(path, _sealed(vectors))
        return vectors.astype(np.float64)

    def _key(self, digests: Iterable[bytes]) -> str:
        depends = {
            "features": self._identity,
            "weights": hashes(self._network.files()),
            "probe": self._probe.tobytes().hex(),
            "resize": [self._network.size, RULE, PIL.__version__],
            "batch": self._batch,
            "torch": torch.__version__,
            "device": self._device.type,
        }
        return hashlib.sha256(json.dumps(depends).encode() + b"".join(digests)).hexdigest()

    @functools.cached_property
    def _probe(self) -> Floats:
        """The vector (D,) of a fixed image. It shows changes that no version shows: edited code, another processor."""
        image = keyed("probe").integers(0, 256, (48, 64, 3), np.uint8)
        vector: Floats = self._compute([image], silent)[0]
        return vector

    def _compute(self, pixels: Sequence[Pixels], progress: Progress) -> Floats:
        places = (range(start, min(start + self._batch, len(pixels))) for start in range(0, len(pixels), self._batch))
        batches = (LazyPixels(pixels.__getitem__, part) for part in places)
        at_once = max(1, min(torch.get_num_threads(), SHARE // self._batch))
        vectors = workers.each(Task(self._identity), self.vectors, batches, at_once)
        return np.stack([*progress(chain.from_iterable(vectors), "feature vectors", len(pixels))])

    def vectors(self, batches: Iterable[Sequence[Pixels]]) -> Iterator[Floats]:
        """Yields the vectors (N, D) of each batch, float32. Raises as the extractor does."""
        threads = torch.get_num_threads()
        with self._exactly(), one_thread():
            yield from in_threads(self._vectors_of, batches, threads)

    def _vectors_of(self, pixels: Sequence[Pixels]) -> Floats:
        """Computes the vectors (N, D) of a batch. Images of a folder are read here."""
        batch = np.stack([resized(image, self._network.size) for image in pixels])
        images = torch.from_numpy(batch).to(self._device).permute(0, 3, 1, 2).div_(127.5).sub_(1)
        try:
            # both hold for the calling thread alone
            with torch.inference_mode(), torch.autocast(self._device.type, enabled=False):
                found = self._network(images)
        except GanlabError:
            raise
        except Exception as error:
            raise Unavailable(f"features {self._identity}: {type(error).__name__}: {error}") from error
        if found.ndim != 2 or len(found) != len(batch):
            raise SpecError(
                f"features {self._identity}: {len(batch)} images gave {tuple(found.shape)}, not (N, D) vectors"
            )
        vectors: Floats = found.float().cpu().numpy()
        return vectors

    @contextmanager
    def _exactly(self) -> Iterator[None]:
        """Computes in eval mode and full float32, and restores the caller's settings afterwards."""
        kind = self._device.type
        precision = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            with (
                torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
                torch.random.fork_rng([self._device] if kind == "cuda" else [], device_type=kind),
                evaluating(self._network),
            ):
                yield
        finally:
            torch.set_float32_matmul_precision(precision)


def _sealed(vectors: Floats) -> bytes:
    """Returns the content of a .npy file with its SHA-256 appended; readers of .npy files ignore the hash."""
    buffer = io.BytesIO()
    np.save(buffer, vectors, allow_pickle=False)
    return buffer.getvalue() + hashlib.sha256(buffer.getvalue()).digest()


def _read(path: Path, shape: tuple[int, int]) -> Floats | None:
    """Returns the vectors of a file with a hash; None if it does not exist, is damaged or has another shape."""
    try:
        with opened(path) as file:
            content = file.read()
    except OSError:
        return None
    content, seal = content[:-32], content[-32:]
    if hashlib.sha256(content).digest() != seal:
        return None
    vectors: Floats = np.load(io.BytesIO(content), allow_pickle=False)
    return vectors if vectors.shape == shape else None
