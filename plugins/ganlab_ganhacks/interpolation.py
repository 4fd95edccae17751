"""Walks between Gaussian latents, stored in noise images."""

import math
from typing import Annotated, Any

import numpy as np
import torch
from ganlab_dcgan.gaussian import BYTES
from pydantic import Field
from torch import Tensor

import ganlab
from ganlab.determinism import keyed

HALF = 2 ** (8 * BYTES - 1)


class Interpolation(ganlab.Source):
    """Noise images that hold walks between Gaussian latents: `walks` walks of `steps` images each.

    The images of a walk hold the latents slerp(p, q, t), with t from 0 to 1 in equal steps, between two Gaussian
    latents p and q (arXiv:1609.04468). A straight line would pass through latents that are shorter than any that
    training draws. The domains share no walk.

    `ganlab_dcgan.gaussian.latents` reads the latents from the first 3 `latents` pixels; the other pixels are noise. An
    image stores each number as one of 2^24 intervals of equal probability. A number within 3 of 0 is kept to 1e-5, one
    within 4 to 3e-4; none is beyond 5.42. The norm of 100 numbers is kept to 1e-5 unless a number is beyond 4, as 1 in
    16,000 is.

    Held-out images are chosen at random, so a grid shows some steps of a walk, in order: set `walks` to 1 and `steps`
    to hundreds. Set `data.flip` to false: the latents of a mirrored image are not on the walk.

    `image` raises ValueError if an image has too few pixels for the latents.

    Args:
        walks: the number of walks of each domain.
        steps: the number of images of a walk; with 2 there are only its ends.
        latents: the number of latent values; the same as the generator's.
        sphere: if true, p and q are scaled to the norm sqrt(latents), which all latents of a walk then have. p and q
            are then uniform on that sphere. If false, the norm changes from that of p to that of q.
    """

    channels = 1

    def __init__(
        self,
        walks: Annotated[int, Field(ge=1, le=100_000)] = 1000,
        steps: Annotated[int, Field(ge=2, le=1000)] = 8,
        latents: Annotated[int, Field(ge=1, le=16384)] = 100,
        sphere: bool = False,
    ) -> None:
        self._walks = walks
        self._steps = steps
        self._latents = latents
        self._sphere = sphere

    def keys(self, domain: str) -> list[str]:
        """Returns "a-00000-000", "a-00000-001", ... for domain "a": the walk and the step."""
        return [f"{domain}-{walk:05d}-{step:03d}" for walk in range(self._walks) for step in range(self._steps)]

    def image(self, key: str, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Returns an image (size, size, 1), the same for the same key and size."""
        used = BYTES * self._latents
        if used > size * size:
            raise ValueError(f"{self._latents} latents need {used} pixels, and an image has {size * size}")
        walk, _, step = key.rpartition("-")
        p, q = torch.from_numpy(keyed("interpolation", walk).standard_normal((2, self._latents)))
        if self._sphere:
            p, q = on_sphere(p), on_sphere(q)
        picture = keyed("interpolation", "rest", key).integers(0, 256, (size, size, 1), np.uint8)
        picture.reshape(-1)[:used] = as_bytes(slerp(p, q, int(step) / (self._steps - 1))).numpy()
        return picture


def slerp(p: Tensor, q: Tensor, t: float) -> Tensor:
    """Returns sin((1 - t) w) / sin(w) p + sin(t w) / sin(w) q, (n,), where w is the angle between p and q, both (n,).

    Spherical linear interpolation (Shoemake, SIGGRAPH 1985, doi:10.1145/325334.325242). If p and q have the same norm,
    so has the result. It is undefined for opposite p and q.
    """
    # from the half angle: the cosine does not resolve small angles
    a, b = p / p.norm(), q / q.norm()
    w = 2 * torch.atan2((a - b).norm(), (a + b).norm())
    # sin(t w) / sin(w) without 0 / 0
    at_p, at_q, whole = (part * torch.sinc(part * w / math.pi) for part in (1 - t, t, 1))
    return at_p / whole * p + at_q / whole * q


def on_sphere(z: Tensor) -> Tensor:
    """Scales a latent (n,) to the norm sqrt(n), the root of a Gaussian latent's mean squared norm."""
    scaled: Tensor = z * math.sqrt(len(z)) / z.norm()
    return scaled


def as_bytes(z: Tensor) -> Tensor:
    """Returns the bytes (3 n,), uint8, that `ganlab_dcgan.gaussian.latents` reads as z, (n,) float64.

    Three bytes, the highest first, are the index of one of 2^24 intervals of equal probability.
    """
    place = (HALF * torch.erf(z / math.sqrt(2))).floor().clamp(-HALF, HALF - 1).long() + HALF
    return torch.stack([place >> shift & 255 for shift in (16, 8, 0)], dim=1).flatten().to(torch.uint8)
