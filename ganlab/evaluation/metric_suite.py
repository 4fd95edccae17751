"""The metrics of an evaluation and the feature networks that they use, built once."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from ganlab.components.registry import registry
from ganlab.data.reading import Progress
from ganlab.errors import SpecError, Unavailable
from ganlab.evaluation.evaluator import Evaluator
from ganlab.evaluation.features import RULE, Extractor, cache_folder
from ganlab.files import hashes
from ganlab.interfaces.metrics import Images, Vectors
from ganlab.interfaces.networks import Features
from ganlab.runs.environment import versions
from ganlab.runs.provenance import code
from ganlab.spec.models import Evaluation, Json, ResolvedComponent, ResolvedMetric
from ganlab.system.build import build_features, build_metric

_PACKAGES = ("ganlab", "torch", "numpy", "scipy", "pillow")

SEED = 0
"""The random seed of every evaluation. It is not the run's, so that runs with different seeds are measured alike."""


def evaluator_for(evaluation: Evaluation) -> Evaluator:
    """Builds the metrics of a resolved evaluation, without feature networks.

    Raises SpecError if a metric needs a feature network and none is named.
    """
    resolved = evaluation.metric_components
    metrics = {each.key: build_metric(each) for each in resolved}
    labels = {each.key: used.label for each in resolved if (used := evaluation.features_of(each)) is not None}
    if needing := [key for key, metric in metrics.items() if metric.on_features and key not in labels]:
        known = ", ".join(registry().names("features"))
        raise SpecError(f"evaluation.features: is required by {', '.join(needing)}; known are: {known}")
    return Evaluator(metrics, labels, {each.key: each.component.owner for each in resolved})


def _without_network(why: str, images: Images) -> Vectors:
    raise Unavailable(why)


class MetricSuite(NamedTuple):
    """Metrics and feature networks of one evaluation."""

    evaluation: Evaluation
    evaluator: Evaluator
    features: dict[str, tuple[ResolvedComponent, Features]]
    """{label: a feature network that a metric uses}."""
    device: torch.device

    @classmethod
    def build(cls, evaluation: Evaluation, device: torch.device, progress: Progress) -> MetricSuite:
        """Builds what a resolved evaluation needs. Metrics with the same feature network share its vectors.

        A metric is left out if the weights of its own feature network are missing. Raises Unavailable if those of the
        evaluation's are; SpecError if a metric needs a feature network and none is named, or if two have one name.
        """
        evaluator = evaluator_for(evaluation)
        features: dict[str, tuple[ResolvedComponent, Features]] = {}
        extractors: dict[str, Extractor] = {}
        for metric in evaluation.metric_components:
            resolved = evaluation.features_of(metric)
            if resolved is None:
                continue
            label = resolved.label
            if label not in features:
                try:
                    features[label] = resolved, build_features(resolved)
                except Unavailable as missing:
                    if metric.features is None:
                        raise
                    evaluator.vectors[metric.key] = partial(_without_network, str(missing))
                    continue
                extractors[label] = Extractor(features[label][1], resolved.identity, device, cache_folder(), progress)
            elif features[label][0].as_json() != resolved.as_json():
                raise SpecError(
                    f"{resolved.place}: another feature network of this evaluation is named {label!r} too, with other"
                    " options; their numbers would have the same names"
                )
            evaluator.vectors[metric.key] = extractors[label]
        return cls(evaluation, evaluator, features, device)

    def files(self) -> Sequence[Path]:
        """Returns every weight file that was read."""
        own = [path for _, network in self.features.values() for path in network.files()]
        return [*own, *(path for metric in self.evaluator.metrics.values() for path in metric.files())]

    def protocol(self) -> Json:
        """Returns everything that the results depend on, besides the images and the checkpoints."""
        metrics = sorted(self.evaluation.metric_components, key=lambda resolved: resolved.key)
        return {
            "metrics": {resolved.key: resolved.as_json() for resolved in metrics},
            "code": {resolved.key: self._code(resolved) for resolved in metrics},
            "features": {
                label: {**resolved.as_json(), "size": network.size, "resize": RULE}
                for label, (resolved, network) in sorted(self.features.items())
            },
            "seed": SEED,
            "python": platform.python_version(),
            "packages": dict(sorted(versions(*_PACKAGES, *self._packages()).items())),
            "device": self.device.type,
            "threads": torch.get_num_threads(),
            "weights": dict(sorted(hashes(self.files()).items())),
        }

    def _code(self, metric: ResolvedMetric) -> dict[str, str | None]:
        """Returns {module: hash of its code} of a metric and of the feature network that it uses."""
        features = self.evaluation.features_of(metric)
        used = [metric] if features is None else [metric, features]
        return {module: entry["sha256"] for module, entry in code(used).items()}

    def _packages(self) -> Iterator[str]:
        """Yields the distributions of the metrics and of everything that they and the features depend on."""
        for resolved in self.evaluation.metric_components:
            yield resolved.component.package
            yield from self.evaluator.metrics[resolved.key].packages
        for _, network in self.features.values():
            yield from network.packages
