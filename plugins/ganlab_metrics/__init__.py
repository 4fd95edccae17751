"""Distances between the feature vectors of outputs and of real images: KID, FID, precision and recall."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

import ganlab
from ganlab.evaluation import frechet, kernel, prdc
from ganlab.evaluation.estimates import refuse_fewer
from ganlab.evaluation.evidence import Evidence, Vectors
from ganlab.interfaces import Estimate, Number

FEW = 2048
"""With fewer images than Inception has features, covariances lose rank and FID is far above its limit."""

_KID = Number(
    "How different outputs and real images are to a feature network, all pairs compared; around 0 where they are of one"
    " kind, whatever their number."
)


class KID(ganlab.Metric):
    """Kernel distance (arXiv:1801.01401)."""

    on_features = True
    numbers: Mapping[str, Number] = {"kid": _KID}

    def measure(self, evidence: Evidence) -> Mapping[str, Estimate]:
        return {"kid": kernel.estimate(*_vectors(evidence), evidence.seed)}


class FID(ganlab.Metric):
    """Fréchet distance (arXiv:1706.08500), with KID beside it, which comes first below 2,048 images: FID is biased by
    their number then."""

    on_features = True
    numbers: Mapping[str, Number] = {
        "kid": _KID,
        "fid": Number(
            "How far the mean and spread of outputs' features are from those of real images; compare it only at equal"
            " numbers of images, of which fewer give more."
        ),
    }

    def measure(self, evidence: Evidence) -> Mapping[str, Estimate]:
        outputs, real = _vectors(evidence)
        kid, fid = kernel.estimate(outputs, real, evidence.seed), frechet.estimate(outputs, real)
        fewest = min(fid.counts.values())
        if fewest >= FEW:
            return {"fid": fid, "kid": kid}
        return {
            "kid": kid,
            "fid": fid._replace(note=f"biased by the sample size: {fewest:,} images, fewer than {FEW:,}"),
        }


class PRDC(ganlab.Metric):
    """Precision and recall (arXiv:1904.06991), density and coverage (arXiv:2002.09797).

    Args:
        k: an image looks like another that is no farther from it than its own k-th nearest neighbour.
    """

    on_features = True
    numbers: Mapping[str, Number] = {
        "precision": Number("The share of outputs that look like some real image.", "higher"),
        "recall": Number("The share of real images that look like some output.", "higher"),
        "density": Number(
            "How many real images an output looks like, against how many a real image does: about 1 where both are of"
            " one kind.",
            "higher",
        ),
        "coverage": Number("The share of real images to which some output is as close as their neighbours.", "higher"),
    }

    def __init__(self, k: Annotated[int, Field(ge=1)] = 5) -> None:
        self._k = k

    def measure(self, evidence: Evidence) -> Mapping[str, Estimate]:
        return prdc.estimate(*_vectors(evidence), self._k, evidence.seed)


def _vectors(evidence: Evidence) -> tuple[Vectors, Vectors]:
    """Of the outputs and of the real images. Raises Unavailable before a network sees fewer than four."""
    refuse_fewer({"outputs": len(evidence.outputs), "real": len(evidence.targets)}, 4)
    return evidence.vectors(evidence.outputs), evidence.vectors(evidence.targets)


@ganlab.hookimpl
def ganlab_metrics() -> dict[str, type[ganlab.Metric]]:
    return {"kid": KID, "fid": FID, "prdc": PRDC}
