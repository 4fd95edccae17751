"""Random projections of a feature network's maps (arXiv:2111.01007, section 3.2)."""

from collections.abc import Sequence
from itertools import pairwise

from ganlab_regularisers.losses import resize
from torch import Tensor, nn


class RandomProjections(nn.Module):
    """Mixes maps across channels (CCM) and then across scales (CSM), with random weights that are never trained.

    CCM is a 1x1 convolution of each map, the k-th to 2^k `width` channels. CSM goes from the coarsest map to the
    finest: a 3x3 convolution, bilinear upsampling to the next finer map, and the sum with it. The weights follow
    arXiv:1502.01852, and no bias is used. They are kept in checkpoints.

    The authors' code differs: it has biases and torch's initial weights; its CSM is bilinear upsampling of the sum, of
    the finest map too, then a 1x1 convolution, so that its projected maps have twice the size and, but for the finest,
    half of the channels.

    Args:
        channels: the channels of the maps, from the finest to the coarsest.
        width: channels of the finest map after CCM.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.channels = [width * 2**scale for scale in range(len(channels))]
        """The channels of the projected maps."""
        self.across_channels = nn.ModuleList(
            nn.Conv2d(inner, outer, 1, bias=False) for inner, outer in zip(channels, self.channels, strict=True)
        )
        self.across_scales = nn.ModuleList(
            nn.Conv2d(coarse, fine, 3, padding=1, bias=False) for fine, coarse in pairwise(self.channels)
        )
        for parameter in self.parameters():
            nn.init.kaiming_normal_(parameter)
        self.requires_grad_(False)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps (N, C_k, h_k, w_k), from the finest to the coarsest -> maps of the same sizes with `channels`."""
        mixed = [mix(each) for mix, each in zip(self.across_channels, maps, strict=True)]
        for scale in reversed(range(len(self.across_scales))):
            coarse = self.across_scales[scale](mixed[scale + 1])
            mixed[scale] = mixed[scale] + resize(coarse, mixed[scale].shape[2:], "bilinear")
        return mixed
