"""Computes pieces of rank 0's evaluation in another rank."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from ganlab.determinism import untouched_randomness
from ganlab.evaluation import features, translators
from ganlab.evaluation.features import Extractor
from ganlab.evaluation.translators import Translators, copied_generators
from ganlab.interfaces.networks import Domain
from ganlab.system.build import System, build_features
from ganlab.system.module_state import load_own_state


class EvaluationWorker:
    """Computes translations, embeddings and feature vectors with the networks of this process.

    The generators get the weights that rank 0 gives. A feature network is built when its vectors are first asked for.
    """

    def __init__(self, system: System, domains: Mapping[str, Domain]) -> None:
        self._system = system
        self._channels = {name: domain.channels for name, domain in domains.items()}
        self._weights: dict[int, Any] = {}
        self._translators: dict[int, Translators] = {}
        self._extractors: dict[str, Extractor] = {}

    def receive(self, number: int, value: Any) -> None:
        self.forget()
        self._weights[number] = value

    def forget(self) -> None:
        self._weights.clear()
        self._translators.clear()

    def __call__(self, task: Any) -> Callable[[Iterable[Any]], Iterable[Any]]:
        if isinstance(task, translators.Task):
            return partial(self._translators_with(task.given).results, task)
        assert isinstance(task, features.Task)
        return self._extractor(task.identity).vectors

    def _translators_with(self, number: int) -> Translators:
        """Returns translators with the weights of this number. Raises KeyError if rank 0 has given others since."""
        if number not in self._translators:
            generators = copied_generators(self._system)
            for direction, weights in self._weights[number].items():
                load_own_state(generators[direction], weights)
            self._translators[number] = Translators(self._system, generators, self._channels)
        return self._translators[number]

    def _extractor(self, identity: str) -> Extractor:
        """Returns the extractor of one of the spec's feature networks. Raises Unavailable if its weights are missing,
        KeyError if the spec has no such network."""
        if identity not in self._extractors:
            evaluation = self._system.spec.evaluation
            used = filter(None, map(evaluation.features_of, evaluation.metric_components))
            known = {json.dumps(resolved.as_json(), sort_keys=True): resolved for resolved in used}
            # as in rank 0, training must not depend on what a constructor draws
            with untouched_randomness(self._system.device):
                network = build_features(known[identity])
            self._extractors[identity] = Extractor(network, identity, self._system.device)
        return self._extractors[identity]
