"""Perceptual distance (arXiv:1801.03924), as the metric "lpips" and as the features "stlpips-alex"."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field

import ganlab
from ganlab.determinism import keyed
from ganlab.errors import Unavailable
from ganlab.evaluation.estimates import mean, refuse_fewer
from ganlab.evaluation.evaluator import fewer
from ganlab.evaluation.lpips import distance
from ganlab.interfaces.metrics import Images, MetricInputs, one_size
from ganlab_lpips.features import ShiftTolerantAlexNet
from ganlab_lpips.weights import Weights, alex, downloaded, stlpips_alex

BATCH = 8
"""The number of images of one forward: as fast as 32 on a CPU, with a quarter of the memory. The last bits of the
results depend on it."""

LEAST = {"alex": 31, "stlpips-alex": 21}
"""The smallest height and width in pixels that the trunk takes."""

Network = Literal["auto", "alex", "stlpips-alex"]
Pairs = Annotated[int, Field(ge=4, le=10**6)]


class _Distances(ganlab.Metric):
    """LPIPS distances of images by one of two trunks.

    `label` is the trunk's name in the names of numbers, and `distance` says in words what is measured.
    """

    packages = ("lpips", "stlpips-pytorch")

    def __init__(self, network: Network, pairs: int | None) -> None:
        if network == "auto":
            network = "alex" if downloaded().exists() else "stlpips-alex"
        self.network, self.pairs = network, pairs
        self.label = "lpips-alex" if network == "alex" else network
        self.distance = f"LPIPS on {'AlexNet' if network == 'alex' else 'the shift-tolerant AlexNet'}"
        self._loaded: Weights | Unavailable | None = None

    def files(self) -> Sequence[Path]:
        return self._loaded.files if isinstance(self._loaded, Weights) else ()

    def refuse_sizes(self, *sets: Images) -> None:
        """Raises Unavailable if images differ in size or are too small for the trunk."""
        height, width = one_size(*(images.pixels for images in sets))
        if min(height, width) < (least := LEAST[self.network]):
            raise Unavailable(
                f"{self.label} needs images of at least {least}x{least} pixels; they are {height}x{width}"
            )

    def distances(self, ours: Images, theirs: Images) -> list[float]:
        """Returns the distance of each of `ours` from the image of `theirs` in the same place."""
        weights = self._weights()
        found: list[float] = []
        with torch.inference_mode():
            for start in range(0, len(ours), BATCH):
                members = range(start, min(start + BATCH, len(ours)))
                seen = [weights.trunk(images.take(members).tensor()) for images in (ours, theirs)]
                found += distance(seen[0], seen[1], weights.layers).tolist()
        return found

    def _weights(self) -> Weights:
        # the error is kept too, so that a failed download is not tried again at every measurement
        if self._loaded is None:
            try:
                self._loaded = alex() if self.network == "alex" else stlpips_alex()
            except Unavailable as error:
                self._loaded = error
        if isinstance(self._loaded, Unavailable):
            raise Unavailable(str(self._loaded))
        return self._loaded


class LPIPS(_Distances):
    """Measures the LPIPS distance of images from their reconstructions, and of outputs from one another.

    Runs on the CPU.

    Args:
        network: "alex" is AlexNet, the LPIPS of the literature. "stlpips-alex" is the shift-tolerant AlexNet
            (arXiv:2207.13686). "auto" is "alex" if its weights were downloaded before, otherwise "stlpips-alex". The
            numbers' names contain the choice.
        pairs: the most pairs of images from which a number is estimated, chosen at random; null for all. The mean stays
            unbiased and its interval grows wider; the result's counts say how many pairs there were.
    """

    fewest = 4

    def __init__(self, network: Network = "auto", pairs: Pairs | None = None) -> None:
        super().__init__(network, pairs)
        self.numbers = {
            f"{self.label}-cycle": ganlab.MetricInfo(
                "how different an image looks after it was translated and translated back:"
                f" the mean distance of the two by {self.distance}, 0 if they are equal"
            ),
            f"{self.label}-diversity": ganlab.MetricInfo(
                f"how different outputs look from one another: the mean distance of random pairs by {self.distance};"
                " near 0 all look the same; compare it with real images",
                "",
            ),
        }

    def measure(self, data: MetricInputs) -> Mapping[str, ganlab.Estimate | Unavailable]:
        """Returns both numbers. The number for cycles is Unavailable if no images were translated back.

        Raises Unavailable if weights are missing, if images are too small or differ in size, or if there are fewer than
        four outputs.
        """
        outputs = data.outputs
        refuse_fewer({"outputs": len(outputs)}, self.fewest)
        pairs = keyed("diversity", data.seed, len(outputs)).permutation(len(outputs))[: len(outputs) // 2 * 2]
        first, second = pairs.reshape(2, -1)[:, : self.pairs].tolist()
        compared: dict[str, tuple[Images, Images]] = {}
        if data.inputs is not None and data.cycled is not None:
            most = self.pairs or len(outputs)
            compared["cycle"] = (fewer(data.inputs, most, data.seed), fewer(data.cycled, most, data.seed))
        compared["diversity"] = (outputs.take(first), outputs.take(second))
        for both in compared.values():
            self.refuse_sizes(*both)
        found = {f"{self.label}-{what}": mean(self.distances(*both)) for what, both in compared.items()}
        return {f"{self.label}-cycle": Unavailable("needs images that were translated back"), **found}


class LPIPSPair(_Distances):
    """Measures the LPIPS distance of each output from its partner, on paired data. Runs on the CPU.

    Args:
        network: "alex", "stlpips-alex" or "auto", as for the metric `lpips`.
        pairs: the most outputs that are compared, chosen at random; null for all.
    """

    on_pairs = True
    fewest = 2

    def __init__(self, network: Network = "auto", pairs: Pairs | None = None) -> None:
        super().__init__(network, pairs)
        self.numbers = {
            f"{self.label}-pair": ganlab.MetricInfo(
                f"how different an output looks from its partner: the mean distance of the two by {self.distance}, 0 if"
                " they are equal"
            )
        }

    def measure(self, data: MetricInputs) -> Mapping[str, ganlab.Estimate]:
        """Returns the mean distance. Raises Unavailable if weights are missing, if images are too small or differ in
        size, or if there are fewer than two pairs."""
        assert data.partners is not None
        refuse_fewer({"pairs": len(data.outputs)}, self.fewest)
        compared = [fewer(images, self.pairs or len(images), data.seed) for images in (data.outputs, data.partners)]
        self.refuse_sizes(*compared)
        return {f"{self.label}-pair": mean(self.distances(*compared))}


@ganlab.hookimpl
def ganlab_metrics() -> dict[str, type[ganlab.Metric]]:
    return {"lpips": LPIPS, "lpips-pair": LPIPSPair}


@ganlab.hookimpl
def ganlab_features() -> dict[str, type[ganlab.Features]]:
    return {"stlpips-alex": ShiftTolerantAlexNet}
