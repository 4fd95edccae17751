"""A pool of past fakes (Shrivastava et al., arXiv:1612.07828; CycleGAN's section 4)."""

import torch
from torch import Tensor, nn


class Pool(nn.Module):
    """The first `size` fakes are kept and passed on. Then, for each image, with probability 1/2 a random one of the
    pool is passed on and replaced by it.

    Tensor operations only, so that a step can be captured whole. Images of one batch are taken in turn: one
    swapped in can be drawn again at once.
    """

    images: Tensor
    held: Tensor

    def __init__(self, size: int, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("images", torch.zeros(size, channels, height, width))
        self.register_buffer("held", torch.zeros((), dtype=torch.long))

    def forward(self, fakes: Tensor, draws: Tensor) -> Tensor:
        """Fakes (N, C, H, W) and draws (N, 2) in [0, 1) -> what the discriminator is shown, (N, C, H, W)."""
        shown = []
        for fake, (coin, place) in zip(fakes, draws.unbind(), strict=True):
            full = self.held >= self.size
            # a draw may have been rounded up to 1
            index = torch.where(full, (place * self.size).long(), self.held).clamp(max=self.size - 1)[None]
            swap = full & (coin > 0.5)
            old = self.images.index_select(0, index)[0]
            shown.append(torch.where(swap, old, fake))
            self.images.index_copy_(0, index, torch.where(~full | swap, fake, old)[None])
            self.held.add_((~full).long())
        return torch.stack(shown)
