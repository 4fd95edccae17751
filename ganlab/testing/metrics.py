"""The checks for metrics and feature networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import torch
from torch import Tensor

from ganlab.determinism import keyed
from ganlab.errors import Unavailable
from ganlab.evaluation.evaluator import defect
from ganlab.interfaces.metrics import Estimate, Images, Metric, MetricInfo, MetricInputs
from ganlab.interfaces.networks import Domain, Features
from ganlab.testing.building import build, check_class
from ganlab.testing.requirement import (
    check_gradients,
    close,
    keeps_random_state,
    max_difference,
    requirement,
    shape_text,
    weighted_sum,
)
from ganlab.testing.simple import noise
from ganlab.torch_utils import checked_activations

__tracebackhide__ = True


@keeps_random_state
def check_metric(cls: type[Metric], /, **options: Any) -> None:
    """Checks a metric on noise images."""
    check_class(cls, "metric", options)

    def make() -> Metric:
        metric: Metric = build(cls, options)
        return metric

    with requirement(cls, "has numbers, a mapping {name: MetricInfo}") as check:
        numbers = getattr(make(), "numbers", None)
        fits = isinstance(numbers, Mapping) and all(isinstance(number, MetricInfo) for number in numbers.values())
        check(bool(numbers) and fits, f"numbers is {numbers!r}")
        allowed = get_args(get_type_hints(MetricInfo)["better"])
        for name, number in (numbers or {}).items():
            choices = ", ".join(map(repr, allowed))
            check(number.better in allowed, f"{name} has better={number.better!r}, not one of {choices}")
    complete = _metric_inputs()
    with requirement(cls, "measures at least one of its numbers, and each inside its interval") as check:
        found = _measure(make(), complete)
        check(bool(found), "it measures none, though the data are complete")
        check(set(found) <= set(numbers or ()), f"numbers has {sorted(numbers or ())}, and it measures {sorted(found)}")
        for name, result in found.items():
            check((wrong := defect(result)) is None, f"{name} {wrong}")
            if isinstance(result, Estimate):
                ordered = result.low <= result.value <= result.high
                check(ordered, f"{name} is {result.value}, not in [{result.low}, {result.high}]")
    with requirement(cls, "measures the same twice and does not change the images") as check:
        again = _measure(make(), complete)
        check(repr(again) == repr(found), f"it measures {found}, and then {again}")
        for name in ("outputs", "targets", "inputs", "partners"):
            kept = zip(getattr(complete, name).pixels, getattr(_metric_inputs(), name).pixels, strict=True)
            check(all(np.array_equal(one, other) for one, other in kept), f"it changes the {name}")
    with requirement(cls, "raises no error but Unavailable if the data lack what it needs"):
        partners = complete.partners if cls.on_pairs else None
        folders = MetricInputs("", complete.outputs, complete.targets, partners=partners)
        one_output = replace(complete, outputs=complete.outputs.take([0]))
        for incomplete in (folders, replace(complete, cycled=None), one_output):
            try:
                _measure(make(), replace(incomplete, kept={}))
            except Unavailable:
                continue


@keeps_random_state
def check_features(cls: type[Features], /, **options: Any) -> None:
    """Checks a feature network. Raises Unavailable if its weights are missing."""
    check_class(cls, "features", options)
    torch.manual_seed(0)
    with requirement(cls, "can be built from its options"):
        network: Features = build(cls, options)
    x = noise(Domain("images", 3, network.size, network.size), "features").float().requires_grad_()
    with requirement(cls, "gives finite vectors (N, D), the same twice, each from its own image alone") as check:
        vectors = network(x)
        check(vectors.dim() == 2 and len(vectors) == len(x), f"for {shape_text(x)} it gives {shape_text(vectors)}")
        wrong = int((~vectors.isfinite()).sum())
        check(wrong == 0, f"{wrong} of {vectors.numel()} values are not finite")
        alone = torch.cat([network(image[None]) for image in x])
        check(
            close(vectors, alone, 1e-3),
            f"alone and in a batch they differ by up to {max_difference(vectors, alone):.3g}",
        )
        again = network(x)
        check(torch.equal(vectors, again), f"two results differ by up to {max_difference(vectors, again):.3g}")
    with requirement(cls, "can be differentiated with respect to the images") as check:
        check(vectors.requires_grad, "the vectors have no gradient")
        (gradient,) = torch.autograd.grad(weighted_sum(vectors), x, allow_unused=True)
        check_gradients({"the images": gradient}, check)
    if cls.maps is not Features.maps:
        _check_maps(cls, network, x)
    with requirement(cls, "names weight files that exist and packages that are installed") as check:
        missing = [str(file) for file in network.files() if not Path(file).is_file()]
        check(not missing, f"missing: {', '.join(missing)}")
        for package in network.packages:
            version(package)


def _check_maps(cls: type, network: Features, x: Tensor) -> None:
    with requirement(cls, "gives finite maps (N, C, h, w) of floats, the same twice, in a list") as check:
        maps, again = (checked_activations(network, network.maps(x)) for _ in range(2))
        for index, (one, other) in enumerate(zip(maps, again, strict=True)):
            fits = one.dim() == 4 and len(one) == len(x) and one.is_floating_point()
            check(fits, f"for {shape_text(x)} map {index} is {shape_text(one)} of {one.dtype}")
            wrong = int((~one.isfinite()).sum())
            check(wrong == 0, f"{wrong} of {one.numel()} values of map {index} are not finite")
            check(torch.equal(one, other), f"two of map {index} differ by up to {max_difference(one, other):.3g}")
    with requirement(cls, "has maps that can be differentiated with respect to the images") as check:
        for index, one in enumerate(maps):
            check(one.requires_grad, f"map {index} has no gradient")
            gradients = torch.autograd.grad(weighted_sum(one), x, allow_unused=True, retain_graph=True)
            check_gradients({f"the images from map {index}": gradients[0]}, check)


def _metric_inputs() -> MetricInputs:
    """Returns complete data of noise images."""

    def images(domain: str, what: str, count: int = 24) -> Images:
        pixels = keyed("data", domain, what).integers(0, 256, (count, 32, 32, 3), np.uint8)
        return Images(list(pixels), domain, real=what in ("held out", "partners", "train"))

    def vectors(images: Images) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.stack([pixels[::8, ::8].mean(2).ravel() / 255 for pixels in images.pixels])

    def encode(direction: str, images: Images) -> Tensor:
        return images.tensor()[:, :, ::8, ::8]

    return MetricInputs(
        direction="ab",
        outputs=images("b", "outputs"),
        targets=images("b", "held out"),
        inputs=images("a", "held out"),
        partners=images("b", "partners"),
        cycled=images("a", "cycled"),
        train={domain: images(domain, "train") for domain in "ab"},
        vectors=vectors,
        encode=encode,
    )


def _measure(metric: Metric, data: MetricInputs) -> Mapping[str, Estimate | Unavailable]:
    torch.manual_seed(0)
    return metric.measure(replace(data, kept={}))
