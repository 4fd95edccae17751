"""A pool of past fakes (Shrivastava et al., arXiv:1612.07828; CycleGAN's section 4)."""

import torch
from torch import Tensor, nn


class Pool(nn.Module):
    """Keeps past fakes and shows them to the discriminator.

    The first `size` fakes are stored and returned unchanged. Afterwards each fake, with probability 1/2, replaces a
    random stored fake, which is returned instead. The images of a batch are handled in order, so a fake that has just
    been stored can be drawn for the next image.

    The pool uses tensor operations only, so that a step never waits for the device. Their number does not depend on the
    batch: which fake lies in which place after each image is worked out on numbers, then the images are copied at once.
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
        count = len(fakes)
        number = torch.arange(count, device=fakes.device)
        coin, random = draws.unbind(1)
        full = self.held + number >= self.size
        # a draw may have been rounded up to 1
        place = torch.where(full, (random * self.size).long(), self.held + number).clamp(max=self.size - 1)
        swapped = full & (coin > 0.5)
        stored = swapped | ~full
        # the last fake of this batch that lies in the place of each image before it, and after all images; -1 if none
        here = stored & (place[:, None] == place)  # (image, fake)
        last = torch.where(here, number, -1)
        before, after = last.where(number < number[:, None], -1).amax(1), last.amax(1)
        old = self.images.index_select(0, place)
        # the first `count` are those that lay in the places before, the others are the fakes
        either = torch.cat([old, fakes])
        shown = torch.where(swapped, _among(before, number, count), number + count)
        # images with the same place write the same image to it
        self.images.index_copy_(0, place, either.index_select(0, _among(after, number, count)))
        self.held.copy_((self.held + count).clamp(max=self.size))
        return either.index_select(0, shown)


def _among(fake: Tensor, number: Tensor, count: int) -> Tensor:
    """Returns indices among `count` old images and then `count` fakes: the fake's, or the old image's if it is -1."""
    return torch.where(fake >= 0, fake + count, number)
