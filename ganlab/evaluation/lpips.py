"""LPIPS, the learned perceptual distance between two images (arXiv:1801.03924), and its AlexNet trunks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPSILON = 1e-10
"""The constant that the authors' package `lpips` adds to a norm before it divides by the norm."""


def distance(ours: Sequence[Tensor], theirs: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """Returns the distances between two batches of images, (N,); 0 for equal images.

    d = sum_l 1/(H_l W_l) sum_hw sum_c w_lc (y_lchw - y'_lchw)^2, eq. (1), where y has unit length over the channels.
    The published weights w_lc replace the squares w_lc^2 of the paper.

    `ours` and `theirs` are the activations of each layer l, (N, C_l, H_l, W_l); `weights` are (C_l,).
    """
    layers = [
        (unit(our) - unit(their)).square().mean((2, 3)) @ weight
        for our, their, weight in zip(ours, theirs, weights, strict=True)
    ]
    return torch.stack(layers).sum(0)


def unit(activations: Tensor) -> Tensor:
    """Returns activations (N, C, H, W), scaled to length 1 over the channels at each position; 0 stays 0."""
    length: Tensor = torch.linalg.vector_norm(activations, dim=1, keepdim=True)
    return activations / (length + EPSILON)


class Trunk(nn.Module):
    """AlexNet up to its fifth convolution. Layers are numbered as in torchvision's `alexnet().features`.

    With `shift_tolerant` it is the variant of arXiv:2207.13686, in which a blur of stride 2 replaces each stride of a
    convolution or pooling.

    The weights are random until some are loaded. Images must be at least 31 pixels high and wide, or 21 with
    `shift_tolerant`.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, shift_tolerant: bool = False) -> None:
        super().__init__()
        # mean and deviation of ImageNet on the scale [-1, 1], rounded as in `lpips`
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))
        stride = 1 if shift_tolerant else 2

        def halved(channels: int) -> list[nn.Module]:
            return [_Blur(channels)] if shift_tolerant else []

        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=stride**2, padding=2),
            *halved(64),
            nn.ReLU(),
            nn.MaxPool2d(3, stride),
            *halved(64),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride),
            *halved(192),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) in [-1, 1] -> the activations of the five ReLUs, each (N, C, h, w). Differentiable."""
        found = []
        x = (images - self.shift) / self.scale
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                found.append(x)
        return found


class _Blur(nn.Module):
    """Blurs with the binomial filter 1, 2, 1 and keeps every second pixel (arXiv:1904.11486).

    Two reflected pixels are added beyond each border. `filt` has its name from the authors' weight file.
    """

    filt: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        row = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer("filt", torch.outer(row, row).expand(channels, 1, 3, 3).clone())

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W), each side at least 3 -> (N, C, (H + 3) // 2, (W + 3) // 2)."""
        return F.conv2d(F.pad(x, (2, 2, 2, 2), "reflect"), self.filt, stride=2, groups=len(self.filt))
