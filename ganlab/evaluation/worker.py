"""Computes pieces of rank 0's evaluation in another rank."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch

from ganlab.determinism import untouched_randomness
from ganlab.evaluation import features, translators
from ganlab.evaluation.features import Extractor
from ganlab.evaluation.translators import Given, Translators, copied_generators
from ganlab.spec.models import Evaluation
from ganlab.system.build import System, build_features
from ganlab.system.module_state import load_own_state


class EvaluationWorker:
    """Computes translations, embeddings and feature vectors with the networks of this process.

    `evaluation` is resolved. The generators of `system`, if there are any, get the weights that rank 0 gives. A feature
    network is built when its vectors are first asked for.
    """

    def __init__(self, evaluation: Evaluation, device: torch.device, system: System | None) -> None:
        self._evaluation, self._device, self._system = evaluation, device, system
        self._given: tuple[int, Given] | None = None
        self._translators: Translators | None = None
        self._extractors: dict[str, Extractor] = {}

    def receive(self, number: int, value: Given) -> None:
        self._given, self._translators = (number, value), None

    def forget(self) -> None:
        self._given = self._translators = None

    def __call__(self, task: Any) -> Callable[[Iterable[Any]], Iterable[Any]]:
        if isinstance(task, translators.Task):
            return partial(self._translators_with(task.given).results, task)
        assert isinstance(task, features.Task)
        return self._extractor(task.identity).vectors

    def _translators_with(self, number: int) -> Translators:
        """Returns translators with the weights that rank 0 gave last, under this number."""
        assert self._system is not None
        assert self._given is not None
        own_number, given = self._given
        assert own_number == number, "rank 0 has given other weights since"
        if self._translators is None:
            generators = copied_generators(self._system)
            for direction, weights in given.weights.items():
                load_own_state(generators[direction], weights)
            self._translators = Translators(self._system, generators, given.channels)
        return self._translators

    def _extractor(self, identity: str) -> Extractor:
        """Returns the extractor of one of the evaluation's feature networks. Raises Unavailable if its weights are
        missing, KeyError if the evaluation has no such network."""
        if identity not in self._extractors:
            used = filter(None, map(self._evaluation.features_of, self._evaluation.metric_components))
            known = {resolved.identity: resolved for resolved in used}
            # training must not depend on what a constructor draws
            with untouched_randomness(self._device):
                network = build_features(known[identity])
            self._extractors[identity] = Extractor(network, identity, self._device)
        return self._extractors[identity]
