"""Metrics of paired data, pixel by pixel: the distance, PSNR and SSIM of each output from its partner."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

from torch import Tensor

import ganlab
from ganlab.evaluation.estimates import mean, refuse_fewer
from ganlab.interfaces.metrics import Estimate, Images, MetricInfo, MetricInputs, one_size

WINDOW = 11
"""The height and width of SSIM's window in pixels."""


class _Compared(ganlab.Metric):
    """The mean over all pairs of a number that compares an output with its partner."""

    on_pairs = True
    fewest = 2

    def compare(self, ours: Tensor, theirs: Tensor) -> float:
        """Returns the number of one pair. Both images are (1, 3, H, W), float64 in [-1, 1]."""
        raise NotImplementedError

    def measure(self, data: MetricInputs) -> Mapping[str, Estimate]:
        """Returns the mean number. Raises Unavailable if there are fewer than two pairs, or if the images of a pair
        differ in size."""
        assert data.partners is not None
        refuse_fewer({"pairs": len(data.outputs)}, self.fewest)
        values = []
        for pair in zip(data.outputs.pixels, data.partners.pixels, strict=True):
            one_size(pair)
            ours, theirs = (Images([pixels]).tensor().double() for pixels in pair)
            values.append(self.compare(ours, theirs))
        (name,) = self.numbers
        return {name: mean(values)}


class L1(_Compared):
    """The mean distance |x - y| of output and partner, over channels and pixels in [-1, 1]."""

    numbers: Mapping[str, MetricInfo] = {
        "l1-pair": MetricInfo(
            "how far an output is from its partner: the mean distance of their pixels, which are in [-1, 1]; 0 if they"
            " are equal, at most 2"
        )
    }

    def compare(self, ours: Tensor, theirs: Tensor) -> float:
        return float((ours - theirs).abs().mean())


class _ByTorchmetrics(_Compared):
    """A number that torchmetrics computes."""

    packages = ("torchmetrics",)

    def missing(self, images: Mapping[str, Images]) -> Mapping[str, str]:
        return {} if find_spec("torchmetrics") else dict.fromkeys(self.numbers, _INSTALL)

    def measure(self, data: MetricInputs) -> Mapping[str, Estimate]:
        if self.missing({}):
            raise ganlab.Unavailable(_INSTALL)
        return super().measure(data)


_INSTALL = "needs torchmetrics: pip install 'ganlab[pairs]'"


class PSNR(_ByTorchmetrics):
    """The peak signal-to-noise ratio of output and partner: 10 log10(2^2 / mean squared error), pixels in [-1, 1].

    It is computed for each pair by torchmetrics, and the results are averaged. Raises Unavailable if an output equals
    its partner.
    """

    numbers: Mapping[str, MetricInfo] = {
        "psnr": MetricInfo(
            "how close an output is to its partner, in decibels: the mean over all pairs of the peak signal-to-noise"
            " ratio; 10 dB more mean a tenth of the mean squared error",
            "higher",
        )
    }

    def compare(self, ours: Tensor, theirs: Tensor) -> float:
        from torchmetrics.functional.image import peak_signal_noise_ratio

        if ours.equal(theirs):
            raise ganlab.Unavailable("is infinite for an output that equals its partner, and there is such an output")
        return float(peak_signal_noise_ratio(ours, theirs, data_range=2.0))


class SSIM(_ByTorchmetrics):
    """The structural similarity of output and partner (doi:10.1109/TIP.2003.819861), by torchmetrics.

    The window is Gaussian, with a deviation of 1.5 pixels and 11x11 pixels; K1 is 0.01 and K2 is 0.03. Pixels are
    scaled to [0, 1]. The mean is over the channels and over all windows inside the image. Raises Unavailable for images
    of fewer than 11x11 pixels.
    """

    numbers: Mapping[str, MetricInfo] = {
        "ssim": MetricInfo(
            "how alike the structures of an output and its partner are: brightness, contrast and correlation in a"
            " window that moves over both; 1 if they are equal, about 0 if they are unrelated",
            "higher",
        )
    }

    def compare(self, ours: Tensor, theirs: Tensor) -> float:
        from torchmetrics.functional.image import structural_similarity_index_measure

        height, width = ours.shape[2:]
        if min(height, width) < WINDOW:
            raise ganlab.Unavailable(f"needs images of at least {WINDOW}x{WINDOW} pixels; they are {height}x{width}")
        # in [-1, 1] the means that SSIM compares could be negative
        scaled = ((images + 1) / 2 for images in (ours, theirs))
        _, similarity = structural_similarity_index_measure(*scaled, data_range=1.0, return_full_image=True)
        # versions of torchmetrics differ in what they do with windows that reach beyond the image
        edge = WINDOW // 2
        return float(similarity[..., edge : height - edge, edge : width - edge].mean())


@ganlab.hookimpl
def ganlab_metrics() -> dict[str, type[ganlab.Metric]]:
    return {"l1-pair": L1, "psnr": PSNR, "ssim": SSIM}
