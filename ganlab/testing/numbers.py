"""What an evaluation relies on in metrics and feature networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import torch
from torch import Tensor

from ganlab.draws import keyed
from ganlab.errors import Unavailable
from ganlab.evaluation.evidence import Evidence, Images
from ganlab.evaluation.examine import unfit
from ganlab.interfaces import (
    Domain,
    Estimate,
    Features,
    Metric,
    Number,
)
from ganlab.testing.making import check_class, made_of
from ganlab.testing.promise import apart, check_gradients, close, promise, sides_of, unseen, weighted
from ganlab.testing.simple import (
    noise,
)

__tracebackhide__ = True


@unseen
def check_metric(cls: type[Metric], /, **options: Any) -> None:
    """A metric's promises, on noise in the place of images."""
    check_class(cls, "metric", options)

    def make() -> Metric:
        metric: Metric = made_of(cls, options)
        return metric

    with promise(cls, "has numbers, {name: Number}") as so:
        numbers = getattr(make(), "numbers", None)
        fit = isinstance(numbers, Mapping) and all(isinstance(number, Number) for number in numbers.values())
        so(bool(numbers) and fit, f"they are {numbers!r}")
        ends = get_args(get_type_hints(Number)["better"])
        for name, number in (numbers or {}).items():
            so(number.better in ends, f"{name} has better={number.better!r}, not one of {', '.join(map(repr, ends))}")
    whole = _evidence()
    with promise(cls, "measures numbers that it has named, one at least, each inside its interval") as so:
        found = _measured(make(), whole)
        so(bool(found), "of complete evidence it measures none")
        so(set(found) <= set(numbers or ()), f"it has named {sorted(numbers or ())} and measures {sorted(found)}")
        for name, figure in found.items():
            so((wrong := unfit(figure)) is None, f"{name} {wrong}")
            if isinstance(figure, Estimate):
                ordered = figure.low <= figure.value <= figure.high
                so(ordered, f"{name} is {figure.value} in [{figure.low}, {figure.high}]")
    with promise(cls, "measures the same twice, and leaves the images as they are") as so:
        again = _measured(make(), whole)
        so(repr(again) == repr(found), f"it measures {found}, and then {again}")
        for name in ("outputs", "targets", "inputs"):
            kept = zip(getattr(whole, name).pixels, getattr(_evidence(), name).pixels, strict=True)
            so(all(np.array_equal(one, other) for one, other in kept), f"it has changed the {name}")
    with promise(cls, "raises Unavailable, and nothing else, where it needs what isn't there"):
        folders = Evidence("", whole.outputs, whole.targets)
        for lacking in (folders, replace(whole, cycled=None), replace(whole, outputs=whole.outputs.take([0]))):
            try:
                _measured(make(), replace(lacking, kept={}))
            except Unavailable:
                continue


@unseen
def check_features(cls: type[Features], /, **options: Any) -> None:
    """The promises of a feature network. Raises Unavailable where its weights are not to be had."""
    check_class(cls, "features", options)
    torch.manual_seed(0)
    with promise(cls, "is made of its options"):
        network: Features = made_of(cls, options)
    x = noise(Domain("images", 3, cls.size, cls.size), "features").float().requires_grad_()
    with promise(cls, "gives finite vectors (N, D), each image's its own, the same twice") as so:
        vectors = network(x)
        so(vectors.dim() == 2 and len(vectors) == len(x), f"of {sides_of(x)} it gives {sides_of(vectors)}")
        so(bool(vectors.isfinite().all()), f"{int((~vectors.isfinite()).sum())} of {vectors.numel()} are not finite")
        alone = torch.cat([network(image[None]) for image in x])
        so(close(vectors, alone, 1e-3), f"alone and in a batch they differ by up to {apart(vectors, alone):.3g}")
        again = network(x)
        so(torch.equal(vectors, again), f"twice they differ by up to {apart(vectors, again):.3g}")
    with promise(cls, "can be differentiated by the images") as so:
        so(vectors.requires_grad, "the vectors have no gradient")
        (gradient,) = torch.autograd.grad(weighted(vectors), x, allow_unused=True)
        check_gradients({"the images": gradient}, so)
    with promise(cls, "names weight files that are there, and packages that are installed") as so:
        missing = [str(file) for file in network.files() if not Path(file).is_file()]
        so(not missing, f"missing: {', '.join(missing)}")
        for package in network.packages:
            version(package)


def _evidence() -> Evidence:
    def images(domain: str, what: str, count: int = 24) -> Images:
        pixels = keyed("evidence", domain, what).integers(0, 256, (count, 32, 32, 3), np.uint8)
        return Images(list(pixels), domain, real=what in ("held out", "learning"))

    def vectors(images: Images) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.stack([pixels[::8, ::8].mean(2).ravel() / 255 for pixels in images.pixels])

    def encode(way: str, images: Images) -> Tensor:
        return images.tensor()[:, :, ::8, ::8]

    return Evidence(
        way="ab",
        outputs=images("b", "outputs"),
        targets=images("b", "held out"),
        inputs=images("a", "held out"),
        cycled=images("a", "cycled"),
        learning={domain: images(domain, "learning") for domain in "ab"},
        vectors=vectors,
        encode=encode,
    )


def _measured(metric: Metric, evidence: Evidence) -> Mapping[str, Estimate | Unavailable]:
    torch.manual_seed(0)
    return metric.measure(replace(evidence, kept={}))
