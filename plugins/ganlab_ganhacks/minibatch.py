"""Minibatch discrimination (arXiv:1606.03498, section 3.2)."""

from typing import Annotated, Literal

import torch
from ganlab_cyclegan.discriminator import Patch
from pydantic import Field
from torch import Tensor, nn

from ganlab import Domain


class MinibatchDiscrimination(Patch):
    """PatchGAN whose last convolution also reads how near an image is to the others of its batch, the same at each
    place: fakes that are all alike give themselves away. Reals and fakes are batches of their own, as in the paper.

    f(x_i) in R^A, the mean over places of what the last convolution reads; M_i = f(x_i) T, T in R^(A x B x C);
    o(x_i)_b = sum_j exp(-||M_i,b - M_j,b||_1), from 1, since j runs over i too, to N.

    Args:
        norm: the norm behind each convolution but the first and the last; behind an instance norm all means are about
            the same.
        kernels: B, how many such sums an image has.
        dimensions: C, of the space in which each is taken.
    """

    per_image = False

    def __init__(
        self,
        shape: Domain,
        width: Annotated[int, Field(ge=1)] = 64,
        layers: Annotated[int, Field(ge=1, le=6)] = 3,
        norm: Literal["instance", "batch", "none"] = "batch",
        kernels: Annotated[int, Field(ge=1)] = 32,
        dimensions: Annotated[int, Field(ge=1)] = 5,
    ) -> None:
        super().__init__(shape, width, layers, norm)
        last = self.net.pop(-1)
        assert isinstance(last, nn.Conv2d)
        self.transform = nn.Parameter(0.02 * torch.randn(last.in_channels, kernels, dimensions))
        self.last = nn.Conv2d(last.in_channels + kernels, last.out_channels, 4, 1, 1)
        nn.init.normal_(self.last.weight, 0.0, 0.02)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> scores (N, 1, h, w), unbounded."""
        read = self.net(x)
        near = nearness(read.mean(dim=(2, 3)), self.transform)
        scores: Tensor = self.last(torch.cat([read, near[:, :, None, None].expand(-1, -1, *read.shape[2:])], dim=1))
        return scores


def nearness(features: Tensor, transform: Tensor) -> Tensor:
    """(N, A), (A, B, C) -> (N, B), of each image its sums."""
    m = torch.einsum("na,abc->nbc", features, transform)
    return (-(m[:, None] - m).abs().sum(dim=3)).exp().sum(dim=1)
