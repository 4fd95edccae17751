"""The metrics of an evaluation and the feature network that they use, built once."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from ganlab.components.registry import registry
from ganlab.data.dataset import Progress
from ganlab.errors import SpecError
from ganlab.evaluation.evaluator import Evaluator
from ganlab.evaluation.features import RULE, Extractor, cache_folder
from ganlab.files import hashes
from ganlab.interfaces.metrics import MetricInputs
from ganlab.interfaces.networks import Features
from ganlab.runs.environment import versions
from ganlab.runs.provenance import code
from ganlab.spec.models import Evaluation, Json, ResolvedComponent
from ganlab.system.build import build_features, build_metric

_PACKAGES = ("ganlab", "torch", "numpy", "scipy", "pillow")

SEED = 0
"""The random seed of every evaluation. It is not the run's, so that runs with different seeds are measured alike."""


def evaluator_for(evaluation: Evaluation) -> Evaluator:
    """Builds the metrics of a resolved evaluation, without the feature network.

    Raises SpecError if a metric needs a feature network and none is named.
    """
    named = {resolved.component.name: resolved for resolved in evaluation.metric_components}
    metrics = {name: build_metric(resolved) for name, resolved in named.items()}
    features = evaluation.features_component
    if features is None and (needing := [name for name, metric in metrics.items() if metric.on_features]):
        known = ", ".join(registry().names("features"))
        raise SpecError(f"evaluation.features: is required by {', '.join(needing)}; known are: {known}")
    owners = {name: resolved.component.owner for name, resolved in named.items()}
    return Evaluator(metrics, features.component.name if features else None, owners)


class MetricSuite(NamedTuple):
    """Metrics, feature network and extractor of one evaluation."""

    evaluation: Evaluation
    evaluator: Evaluator
    features: Features | None
    extractor: Extractor | None
    device: torch.device

    @classmethod
    def build(cls, evaluation: Evaluation, device: torch.device, progress: Progress) -> MetricSuite:
        """Builds what a resolved evaluation needs.

        Raises SpecError if a metric needs a feature network and none is named, Unavailable if weights are missing.
        """
        evaluator = evaluator_for(evaluation)
        resolved = evaluation.features_component
        if resolved is None or not any(metric.on_features for metric in evaluator.metrics.values()):
            return cls(evaluation, evaluator, None, None, device)
        network = build_features(resolved)
        identity = json.dumps(resolved.as_json(), sort_keys=True)
        extractor = Extractor(network, identity, device, cache_folder(), progress)
        return cls(evaluation, evaluator, network, extractor, device)

    def files(self) -> Sequence[Path]:
        """Returns every weight file that was read."""
        own = [] if self.features is None else self.features.files()
        return [*own, *(path for metric in self.evaluator.metrics.values() for path in metric.files())]

    def seeing(self, data: MetricInputs) -> MetricInputs:
        """Returns the inputs with `vectors` from the feature network."""
        return data if self.extractor is None else replace(data, vectors=self.extractor)

    def protocol(self) -> Json:
        """Returns everything that the results depend on, besides the images and the checkpoints."""
        metrics = sorted(self.evaluation.metric_components, key=lambda resolved: resolved.component.name)
        features = self.evaluation.features_component
        described: Json = {
            "metrics": {resolved.component.name: resolved.as_json() for resolved in metrics},
            "code": {resolved.component.name: self._code(resolved) for resolved in metrics},
            "features": {},
            "seed": SEED,
            "python": platform.python_version(),
            "packages": dict(sorted(versions(*_PACKAGES, *self._packages()).items())),
            "device": str(self.device),
            "threads": torch.get_num_threads(),
            "weights": dict(sorted(hashes(self.files()).items())),
        }
        if self.features is not None and features is not None:
            sizes = {"size": self.features.size, "resize": RULE}
            described["features"][features.component.name] = {**features.as_json(), **sizes}
        return described

    def _code(self, metric: ResolvedComponent) -> dict[str, str | None]:
        """Returns {module: hash of its code} of a metric and of the feature network that it uses."""
        used = [metric]
        features = self.evaluation.features_component
        if features is not None and self.evaluator.metrics[metric.component.name].on_features:
            used.append(features)
        return {module: entry["sha256"] for module, entry in code(used).items()}

    def _packages(self) -> Iterator[str]:
        """Yields the distributions of the metrics and of everything that they and the features depend on."""
        for resolved in self.evaluation.metric_components:
            yield resolved.component.package
            yield from self.evaluator.metrics[resolved.component.name].packages
        if self.features is not None:
            yield from self.features.packages
