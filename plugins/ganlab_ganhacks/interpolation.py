"""Walks between Gaussian latents, as pictures that hold them."""

import math
from typing import Annotated, Any

import numpy as np
import torch
from ganlab_dcgan.gaussian import BYTES
from pydantic import Field
from torch import Tensor

import ganlab
from ganlab.draws import keyed

HALF = 2 ** (8 * BYTES - 1)


class Interpolation(ganlab.Source):
    """`walks` walks of `steps` pictures each. Those of a walk hold the latents slerp(p, q, t), t = 0 ... 1 in even
    steps, on a great circle between Gaussian ones p and q of its own (arXiv:1609.04468): a straight line would pass
    through latents that are shorter than any that are drawn. The domains "a" and "b" share none.

    `ganlab_dcgan.gaussian.latents` reads the latents from the first 3 `latents` pixels; the others are noise. A picture
    holds which of 2^24 intervals of equal probability a number is in, so one within 3 of 0 comes back to 1e-5, one
    within 4 to 3e-4, and none is beyond 5.42. Norms of 100 numbers are kept to 1e-5 unless one is beyond 4, which one
    of 16,000 is.

    Held-out pictures are drawn by lot, so a grid shows some of a walk's steps, in order: let `walks` be 1 and `steps`
    hundreds. `data.flip` is to be false: a mirrored picture's latents are other Gaussian ones, off the walk.

    Pictures raise ValueError where they have too few pixels for so many latents.

    Args:
        walks: how many walks each domain has.
        steps: pictures of a walk; with 2 there are only its ends.
        latents: numbers of a latent, the generator's.
        sphere: whether p and q are scaled to the norm sqrt(latents), which all latents of a walk then have: they are
            uniform on that sphere at its ends. If not, norms go from one to the other.
    """

    channels = 1

    def __init__(
        self,
        walks: Annotated[int, Field(ge=1)] = 1000,
        steps: Annotated[int, Field(ge=2)] = 8,
        latents: Annotated[int, Field(ge=1)] = 100,
        sphere: bool = False,
    ) -> None:
        self._walks = walks
        self._steps = steps
        self._latents = latents
        self._sphere = sphere

    def keys(self, domain: str) -> list[str]:
        """ "a-00000-000", "a-00000-001", ...: walk and step."""
        return [f"{domain}-{walk:05d}-{step:03d}" for walk in range(self._walks) for step in range(self._steps)]

    def image(self, key: str, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """(size, size, 1), the same for the same key and size."""
        used = BYTES * self._latents
        if used > size * size:
            raise ValueError(f"{self._latents} latents need {used} pixels, and a picture has {size * size}")
        walk, _, step = key.rpartition("-")
        p, q = torch.from_numpy(keyed("interpolation", walk).standard_normal((2, self._latents)))
        if self._sphere:
            p, q = on_sphere(p), on_sphere(q)
        picture = keyed("interpolation", "rest", key).integers(0, 256, (size, size, 1), np.uint8)
        picture.reshape(-1)[:used] = as_bytes(slerp(p, q, int(step) / (self._steps - 1))).numpy()
        return picture


def slerp(p: Tensor, q: Tensor, t: float) -> Tensor:
    """(n,), (n,) -> (n,): sin((1 - t) w) / sin(w) p + sin(t w) / sin(w) q, w the angle between p and q (Shoemake,
    SIGGRAPH 1985, doi:10.1145/325334.325242). Of one norm all along if p and q are; undefined where they are opposite.
    """
    # by the half angle: the cosine alone is blind to small ones
    a, b = p / p.norm(), q / q.norm()
    w = 2 * torch.atan2((a - b).norm(), (a + b).norm())
    # sin(t w) / sin(w) without 0 / 0
    at_p, at_q, whole = (part * torch.sinc(part * w / math.pi) for part in (1 - t, t, 1))
    return at_p / whole * p + at_q / whole * q


def on_sphere(z: Tensor) -> Tensor:
    """(n,) -> (n,), with the norm sqrt(n): the root of a Gaussian latent's mean squared norm."""
    scaled: Tensor = z * math.sqrt(len(z)) / z.norm()
    return scaled


def as_bytes(z: Tensor) -> Tensor:
    """(n,) float64 -> (3 n,) uint8 that `ganlab_dcgan.gaussian.latents` reads as z: which of 2^24 intervals of equal
    probability, the highest byte first."""
    place = (HALF * torch.erf(z / math.sqrt(2))).floor().clamp(-HALF, HALF - 1).long() + HALF
    return torch.stack([place >> shift & 255 for shift in (16, 8, 0)], dim=1).flatten().to(torch.uint8)
