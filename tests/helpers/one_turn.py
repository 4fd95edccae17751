"""One turn of one batch, with discriminators whose scores are known in closed form."""

from __future__ import annotations

import torch
from ganlab_resnet.generator import Resnet
from torch import Tensor, nn

import ganlab
from ganlab.system.forward_cache import ForwardCache
from ganlab.system.networks import Networks
from helpers.systems import SIZE, RandomImages


class Linear(ganlab.Discriminator):
    """Scores that are linear functions of the whole image, (N, K, 1, 1)."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self.weight.flatten(1).T)[:, :, None, None]


class Constant(ganlab.Discriminator):
    """Gives every input the same score, which autograd still treats as a function of the input."""

    def __init__(self, score: float, sees: str = "images") -> None:
        super().__init__()
        self.score, self.sees = score, sees

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(1, 2, 3), keepdim=True) * 0 + self.score


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def number(value: Tensor) -> float:
    return value.detach().item()


def one_turn(
    discriminator: ganlab.Discriminator, player: str, batch: int = 4, position: tuple[int, int] = (0, 0)
) -> ForwardCache:
    """Returns a cache in a turn of one batch, with small generators and `discriminator` as every discriminator."""
    images = RandomImages(batch, SIZE)
    a, b = images.domains.values()
    torch.manual_seed(0)
    generators: dict[str, ganlab.Generator] = {"ab": Resnet(a, b, 2, 1).double(), "ba": Resnet(b, a, 2, 1).double()}
    on_embeddings = discriminator.sees == "embeddings"
    networks = Networks(
        generators,
        {} if on_embeddings else {("image", domain): discriminator for domain in "ab"},
        {"embedding": discriminator} if on_embeddings else {},
    )
    cache = ForwardCache(networks, images(0), {}, 0)
    cache.begin(player, position, with_graph=True)
    return cache
