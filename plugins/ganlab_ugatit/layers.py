"""The layers of U-GAT-IT (arXiv:1907.10830): attention by class activation maps, and AdaLIN."""

import torch
from ganlab_resnet.layers import ReflectionPad
from torch import Tensor, nn
from torch.nn.functional import group_norm, linear, relu


class Attention(nn.Module):
    """Attention by class activation maps (CAM; section 2.1.1, after arXiv:1512.04150).

    Two classifiers tell the domains apart, one from the mean and one from the maximum of each channel. The maps times
    the weights of each classifier, concatenated, are mixed by a 1x1 convolution.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.by_mean = nn.Linear(channels, 1, bias=False)
        self.by_maximum = nn.Linear(channels, 1, bias=False)
        self.mix = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (N, C, h, w) -> the classifiers' logits (N, 2, 1, 1), and the attended maps (N, C, h, w) before their
        activation function."""
        weights = self.by_mean.weight, self.by_maximum.weight  # (1, C) each
        pooled = maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))
        logits = torch.cat([linear(vector, weight) for vector, weight in zip(pooled, weights, strict=True)], dim=1)
        weighted = torch.cat([maps * weight[:, :, None, None] for weight in weights], dim=1)
        attended: Tensor = self.mix(weighted)
        return logits[:, :, None, None], attended


class AdaLIN(nn.Module):
    """Adaptive layer-instance normalisation, eq. (1): gamma * (rho * a_I + (1 - rho) * a_L) + beta.

    a_I has mean 0 and variance 1 in each channel of each image, a_L in each image. eps is 1e-5. Each channel has a rho
    of its own, which is trained and clipped to [0, 1] after each update.

    The variances divide by the number of values, as in the authors' TensorFlow code; their PyTorch code divides by one
    less.

    Args:
        channels: C.
        rho: the initial rho.
    """

    def __init__(self, channels: int, rho: float) -> None:
        super().__init__()
        self.channels = channels
        self.rho = nn.Parameter(torch.full((channels, 1, 1), rho))

    def forward(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        """Maps (N, C, h, w), gamma and beta (N, C, 1, 1) -> (N, C, h, w)."""
        by_instance, by_layer = group_norm(x, self.channels), group_norm(x, 1)
        return gamma * (self.rho * by_instance + (1 - self.rho) * by_layer) + beta

    def clip(self) -> None:
        """Clips rho to [0, 1]."""
        self.rho.clamp_(0, 1)


class LIN(nn.Module):
    """AdaLIN with a trained gamma and beta for each channel, and rho 0 at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = AdaLIN(channels, rho=0.0)
        self.gamma = nn.Parameter(torch.ones(channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(x, self.gamma, self.beta)
        return normed


class AdaptiveResidual(nn.Module):
    """x + adalin(conv(relu(adalin(conv(x))))); both convolutions are 3 wide, with reflection padding.

    rho is 1 at first, as in the paper. In the authors' PyTorch code it is 0.9 at first, and their TensorFlow code
    subtracts 0.1 from it in each use.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (
            nn.Sequential(ReflectionPad(1), nn.Conv2d(channels, channels, 3, bias=False)) for _ in range(2)
        )
        self.first_norm, self.second_norm = (AdaLIN(channels, rho=1.0) for _ in range(2))

    def forward(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        inner = relu(self.first_norm(self.first(x), gamma, beta))
        result: Tensor = x + self.second_norm(self.second(inner), gamma, beta)
        return result
