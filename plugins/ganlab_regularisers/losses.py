"""Penalties on a discriminator's slope, and on what a generator makes. Scalars; means run over images."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import interpolate, mse_loss

import ganlab
from ganlab import Translation


class _Slope(ganlab.Loss):
    """A penalty on a discriminator's slope at images.

    Args:
        gamma: twice the penalty's factor, as in the paper.
    """

    def __init__(self, gamma: Annotated[float, Field(ge=0)] = 10.0) -> None:
        super().__init__()
        self.gamma = gamma

    def penalty(self, t: Translation, images: Tensor) -> Tensor:
        score = t.score(images).flatten(1).mean(dim=1).sum()
        (gradient,) = torch.autograd.grad(score, images, create_graph=True)
        return self.gamma / 2 * gradient.square().flatten(1).sum(dim=1).mean()


class R1(_Slope):
    """gamma / 2 * E |grad D(x)|^2 at reals (arXiv:1801.04406, eq. 9). An image's score is the mean of its map."""

    def discriminator(self, t: Translation) -> Tensor:
        return self.penalty(t, t.target)


class R2(_Slope):
    """gamma / 2 * E |grad D(x)|^2 at fakes (arXiv:1801.04406, eq. 10). An image's score is the mean of its map."""

    def discriminator(self, t: Translation) -> Tensor:
        return self.penalty(t, t.fake_for_discriminator)


class TotalVariation(ganlab.Loss):
    """Anisotropic total variation of the fake: mean |difference of vertical neighbours| + the same of horizontal ones
    (after Rudin, Osher and Fatemi, doi:10.1016/0167-2789(92)90242-F).
    """

    def generator(self, t: Translation) -> Tensor:
        return t.fake.diff(dim=2).abs().mean() + t.fake.diff(dim=3).abs().mean()


class Perceptual(ganlab.Loss):
    """Mean squared distance between the features of an input and those of its `of`, its translation or what the way
    back makes of that (arXiv:1603.08155, eq. 2, on the vectors of any features component).

    Args:
        features: the network whose vectors are compared.
        of: "fake", an image's translation, or "cycled", what the way back makes of that.
    """

    def __init__(self, features: ganlab.Features, of: Literal["fake", "cycled"] = "fake") -> None:
        super().__init__()
        self.features = features
        self.of = of

    def generator(self, t: Translation) -> Tensor:
        made = t.fake if self.of == "fake" else t.cycled
        return mse_loss(vectors(self.features, made), vectors(self.features, t.real))


def vectors(features: ganlab.Features, images: Tensor) -> Tensor:
    """Images (N, 3, H, W), or grey ones (N, 1, H, W) -> vectors (N, D), by the resizing rule of `ganlab.Features`.
    Differentiable.
    """
    rows, columns = (_resizing(images, images.shape[dim], features.size) for dim in (2, 3))
    found: Tensor = features((rows @ images.expand(-1, 3, -1, -1) @ columns.T).clamp(-1, 1))
    return found


def _resizing(like: Tensor, old: int, new: int) -> Tensor:
    """(new, old): antialiased bicubic resizing of one side, as a matrix."""
    # torch's own backward of resizing adds in no fixed order on CUDA; a product's doesn't
    one = torch.eye(old, dtype=like.dtype, device=like.device)[None, None]
    return interpolate(one, (new, old), mode="bicubic", antialias=True)[0, 0]
