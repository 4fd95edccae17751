"""Minibatch discrimination (arXiv:1606.03498, section 3.2)."""

from typing import Annotated, Literal

import torch
from ganlab_cyclegan.discriminator import Patch
from pydantic import Field
from torch import Tensor, nn

from ganlab import Domain


class MinibatchDiscrimination(Patch):
    """PatchGAN with minibatch discrimination: it recognises fakes that are all alike.

    The last convolution also reads how close an image is to the others of its batch; these inputs are the same at each
    position. Real images and fakes form separate batches, as in the paper.

    f(x_i) in R^A is the mean over positions of the last convolution's other inputs. M_i = f(x_i) T with T in
    R^(A x B x C). o(x_i)_b = sum_j exp(-||M_i,b - M_j,b||_1), from 1 (j runs over i too) to N.

    Args:
        norm: the norm after each convolution but the first and the last. After an instance norm all means are about the
            same.
        kernels: B, the number of sums of an image.
        dimensions: C, the dimension of the space in which distances are taken.
    """

    def __init__(
        self,
        shape: Domain,
        width: Annotated[int, Field(ge=1, le=1024)] = 64,
        layers: Annotated[int, Field(ge=1, le=6)] = 3,
        norm: Literal["instance", "batch", "none"] = "batch",
        kernels: Annotated[int, Field(ge=1, le=1024)] = 32,
        dimensions: Annotated[int, Field(ge=1, le=256)] = 5,
    ) -> None:
        super().__init__(shape, width, layers, norm)
        last = self.net.pop(-1)
        assert isinstance(last, nn.Conv2d)
        self.transform = nn.Parameter(0.02 * torch.randn(last.in_channels, kernels, dimensions))
        self.last = nn.Conv2d(last.in_channels + kernels, last.out_channels, 4, 1, 1)
        nn.init.normal_(self.last.weight, 0.0, 0.02)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    def features(self, x: Tensor) -> list[Tensor]:
        """Images (N, C, H, W) -> the activations after each LeakyReLU, then unbounded scores (N, 1, h, w)."""
        *inner, read = super().features(x)
        near = nearness(read.mean(dim=(2, 3)), self.transform)
        return [*inner, self.last(torch.cat([read, near[:, :, None, None].expand(-1, -1, *read.shape[2:])], dim=1))]


def nearness(features: Tensor, transform: Tensor) -> Tensor:
    """Returns the sums o (N, B) of features (N, A) and a transform (A, B, C)."""
    m = torch.einsum("na,abc->nbc", features, transform)
    return (-(m[:, None] - m).abs().sum(dim=3)).exp().sum(dim=1)
