"""pix2pix's distance of a translation from its partner."""

from torch import Tensor
from torch.nn.functional import l1_loss

import ganlab
from ganlab import Translation


class L1Pair(ganlab.Loss):
    """L1 (arXiv:1611.07004, eq. 3): the mean of |G(x) - y|, where y is the partner of x. It needs paired data.

    pix2pix gives it the weight 100.
    """

    on_pairs = True

    def generator(self, t: Translation) -> Tensor:
        return l1_loss(t.fake, t.target)
