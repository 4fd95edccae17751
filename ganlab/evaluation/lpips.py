"""LPIPS, the learned perceptual distance between two images (arXiv:1801.03924), and its AlexNet trunks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPSILON = 1e-10
"""What the authors' `lpips` adds to a norm before dividing by it."""


def distance(ours: Sequence[Tensor], theirs: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """d = sum_l 1/(H_l W_l) sum_hw sum_c w_lc (y_lchw - y'_lchw)^2, y of unit length over the channels: eq. (1), with
    w_lc in the place of its square, as the published weights have it.

    Of each layer l the activations (N, C_l, H_l, W_l) of two batches and the weights (C_l,) -> (N,), 0 where they are
    the same.
    """
    layers = [
        (_unit(our) - _unit(their)).square().mean((2, 3)) @ weight
        for our, their, weight in zip(ours, theirs, weights, strict=True)
    ]
    return torch.stack(layers).sum(0)


def _unit(activations: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(activations, dim=1, keepdim=True)
    return activations / (length + EPSILON)


class Trunk(nn.Module):
    """AlexNet up to its fifth convolution, its layers numbered as torchvision's `alexnet().features`; or the
    shift-tolerant one of arXiv:2207.13686, whose strides of convolution and pooling become blurs of stride 2.

    The weights are random until some are loaded. Images must be at least 31 pixels high and wide; 21 where it is
    shift-tolerant.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, shift_tolerant: bool = False) -> None:
        super().__init__()
        # ImageNet's mean and deviation, seen from [-1, 1], as `lpips` rounds them
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
        """(N, 3, H, W) in [-1, 1] -> the five ReLUs' activations (N, C, h, w). Differentiable."""
        found = []
        x = (images - self.shift) / self.scale
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                found.append(x)
        return found


class _Blur(nn.Module):
    """Blurs by the binomial filter 1, 2, 1, two reflected pixels beyond each border, and keeps every second pixel
    (arXiv:1904.11486). `filt` is named as in the authors' file of weights."""

    filt: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        row = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer("filt", torch.outer(row, row).expand(channels, 1, 3, 3).clone())

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W), each side at least 3 -> (N, C, (H + 3) // 2, (W + 3) // 2)."""
        return F.conv2d(F.pad(x, (2, 2, 2, 2), "reflect"), self.filt, stride=2, groups=len(self.filt))
