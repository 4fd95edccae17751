"""Distances between the feature vectors of outputs and of real images: KID, FID, precision and recall."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

import ganlab
from ganlab.evaluation import fid, kid, prdc
from ganlab.evaluation.estimates import refuse_fewer
from ganlab.interfaces.metrics import Estimate, MetricInfo, MetricInputs, Vectors

FEW = 2048
"""The number of Inception's features. With fewer images, covariances are singular and FID is far above its limit."""

FEWEST = 4
"""The fewest images of a set from which a distance and its interval are estimated."""

_KID = MetricInfo(
    "How different outputs and real images are for a feature network, from all pairs of images; around 0 if both have"
    " the same distribution, however many images there are."
)


class KID(ganlab.Metric):
    """Kernel inception distance (arXiv:1801.01401)."""

    on_features = True
    fewest = FEWEST
    numbers: Mapping[str, MetricInfo] = {"kid": _KID}

    def measure(self, data: MetricInputs) -> Mapping[str, Estimate]:
        return {"kid": kid.estimate(*_vectors(data), data.seed)}


class FID(ganlab.Metric):
    """Fréchet inception distance (arXiv:1706.08500), and KID.

    KID comes first if there are fewer than 2,048 images, because FID is then biased by the sample size.
    """

    on_features = True
    fewest = FEWEST
    numbers: Mapping[str, MetricInfo] = {
        "kid": _KID,
        "fid": MetricInfo(
            "How far the mean and spread of the outputs' features are from those of real images; compare it only at"
            " equal numbers of images, because fewer images give a larger value."
        ),
    }

    def measure(self, data: MetricInputs) -> Mapping[str, Estimate]:
        outputs, real = _vectors(data)
        kernel, frechet = kid.estimate(outputs, real, data.seed), fid.estimate(outputs, real)
        fewest = min(frechet.counts.values())
        if fewest >= FEW:
            return {"fid": frechet, "kid": kernel}
        return {
            "kid": kernel,
            "fid": frechet._replace(note=f"biased by the sample size: {fewest:,} images, fewer than {FEW:,}"),
        }


class PRDC(ganlab.Metric):
    """Precision and recall (arXiv:1904.06991), density and coverage (arXiv:2002.09797).

    Args:
        k: the number of neighbours. Two images look alike if one is within the other's distance to its k-th nearest
            neighbour in its own set.
    """

    on_features = True
    numbers: Mapping[str, MetricInfo] = {
        "precision": MetricInfo("The share of outputs that look like some real image.", "higher"),
        "recall": MetricInfo("The share of real images that look like some output.", "higher"),
        "density": MetricInfo(
            "The number of real images that an output looks like, relative to a real image's number: about 1 if both"
            " have the same distribution.",
            "higher",
        ),
        "coverage": MetricInfo(
            "The share of real images that have an output as near as their k-th nearest neighbour.", "higher"
        ),
    }

    def __init__(self, k: Annotated[int, Field(ge=1, le=1000)] = 5) -> None:
        self._k = k
        self.fewest = prdc.fewest(k)

    def measure(self, data: MetricInputs) -> Mapping[str, Estimate]:
        return prdc.estimate(*_vectors(data), self._k, data.seed)


def _vectors(data: MetricInputs) -> tuple[Vectors, Vectors]:
    """Returns the vectors of the outputs and of the real images. Raises Unavailable if a set has fewer than four
    images."""
    refuse_fewer({"outputs": len(data.outputs), "real": len(data.targets)}, FEWEST)
    return data.vectors(data.outputs), data.vectors(data.targets)


@ganlab.hookimpl
def ganlab_metrics() -> dict[str, type[ganlab.Metric]]:
    return {"kid": KID, "fid": FID, "prdc": PRDC}
