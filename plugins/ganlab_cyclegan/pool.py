"""A pool of past fakes (Shrivastava et al., arXiv:1612.07828; CycleGAN's section 4)."""

import torch
from torch import Tensor, nn


class Pool(nn.Module):
    """Keeps past fakes and shows them to the discriminator.

    The first `size` fakes are stored and returned unchanged. Afterwards each fake, with probability 1/2, replaces a
    random stored fake, which is returned instead. The images of a batch are handled in order, so a fake that has just
    been stored can be drawn for the next image.

    The pool uses tensor operations only, so that a step never waits for the device.
    """

    images: Tensor
    held: Tensor

    def __init__(self, size: int, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("images", torch.zeros(size, channels, height, width))
        self.register_buffer("held", torch.zeros((), dtype=torch.long))

    def forward(self, fakes: Tensor, draws: Tensor) -> Tensor:
        """Returns the images to show, (N, C, H, W), for fakes (N, C, H, W) and draws (N, 2) in [0, 1)."""
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
