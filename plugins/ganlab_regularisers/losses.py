"""Penalties on a discriminator's gradient and on a generator's images. Means run over images."""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import interpolate, mse_loss

import ganlab
from ganlab import Translation


class _Slope(ganlab.Loss):
    """A penalty on the gradient of a discriminator with respect to images.

    Args:
        gamma: twice the factor of the penalty, as in the paper.
        every: the number of steps from one with the penalty to the next. The penalty is multiplied by it
            (arXiv:1912.04958, section 3.1).
    """

    def __init__(
        self, gamma: Annotated[float, Field(ge=0)] = 10.0, every: Annotated[int, Field(ge=1, le=1000)] = 1
    ) -> None:
        super().__init__()
        self.gamma = gamma
        self.every = every

    def penalty(self, t: Translation, images: Tensor) -> Tensor:
        score = t.score(images).flatten(1).mean(dim=1).sum()
        (gradient,) = torch.autograd.grad(score, images, create_graph=True)
        return self.gamma / 2 * gradient.square().flatten(1).sum(dim=1).mean()


class R1(_Slope):
    """gamma / 2 * E |grad D(x)|^2 at real images (arXiv:1801.04406, eq. 9). D(x) is the mean of an image's scores."""

    def discriminator(self, t: Translation) -> Tensor:
        return self.penalty(t, t.target)


class R2(_Slope):
    """gamma / 2 * E |grad D(x)|^2 at fakes (arXiv:1801.04406, eq. 10). D(x) is the mean of an image's scores."""

    def discriminator(self, t: Translation) -> Tensor:
        return self.penalty(t, t.fake_for_discriminator)


class TotalVariation(ganlab.Loss):
    """Anisotropic total variation of fakes (after Rudin, Osher and Fatemi, doi:10.1016/0167-2789(92)90242-F).

    The mean |difference| of vertical neighbours plus that of horizontal neighbours.
    """

    def generator(self, t: Translation) -> Tensor:
        return t.fake.diff(dim=2).abs().mean() + t.fake.diff(dim=3).abs().mean()


class Perceptual(ganlab.Loss):
    """Mean squared distance of the feature vectors of an input and of its translation (arXiv:1603.08155, eq. 2).

    Args:
        features: the network that computes the vectors.
        of: "fake" compares the translation, "cycled" the translation translated back.
    """

    def __init__(self, features: ganlab.Features, of: Literal["fake", "cycled"] = "fake") -> None:
        super().__init__()
        self.features = features
        self.of = of

    def generator(self, t: Translation) -> Tensor:
        made = t.fake if self.of == "fake" else t.cycled
        return mse_loss(vectors(self.features, made), vectors(self.features, t.source))


def vectors(features: ganlab.Features, images: Tensor) -> Tensor:
    """Returns vectors (N, D) of images (N, 3, H, W) or grey images (N, 1, H, W). Differentiable.

    The images are resized as `ganlab.Features.size` says.
    """
    found: Tensor = features(resize(images.expand(-1, 3, -1, -1), (features.size, features.size)).clamp(-1, 1))
    return found


def resize(x: Tensor, size: Sequence[int], mode: Literal["bicubic", "bilinear"] = "bicubic") -> Tensor:
    """Returns maps (N, C, h, w) resized to `size`, height and width; antialiased if they become smaller."""
    # on CUDA, the backward of torch's resizing sums in no fixed order; a matrix product's backward has a fixed order
    rows, columns = (_resizing(x, old, new, mode) for old, new in zip(x.shape[2:], size, strict=True))
    return rows @ x @ columns.T


def _resizing(like: Tensor, old: int, new: int, mode: str) -> Tensor:
    """Returns the matrix (new, old) of antialiased resizing of one side."""
    # torch's resizing has no bfloat16
    dtype = torch.promote_types(like.dtype, torch.float32)
    one = torch.eye(old, dtype=dtype, device=like.device)[None, None]
    return interpolate(one, (new, old), mode=mode, antialias=True)[0, 0].to(like.dtype)
