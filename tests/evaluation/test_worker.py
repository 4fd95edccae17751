"""What another process computes for an evaluation: with the weights that it was given last, or not at all."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from ganlab.evaluation import features
from ganlab.evaluation.splits import split
from ganlab.evaluation.translators import Batch, Given, Task, Translators, copied_generators
from ganlab.evaluation.worker import EvaluationWorker
from ganlab.interfaces.metrics import LazyPixels
from ganlab.spec.models import Json
from ganlab.spec.resolve import resolve
from ganlab.system.build import build, build_data

CHANNELS = {"a": 3, "b": 3}


def test_a_worker_uses_the_weights_that_were_given_last_and_no_others(tiny: Json) -> None:
    spec = resolve(tiny)
    data = build_data(spec)
    system = build(spec, {name: dataset.domain for name, dataset in data.items()})
    batch = Batch(0, split(data).train["a"].pixels)
    worker = EvaluationWorker(spec.evaluation, system.device, system)
    for number in (1, 2):
        generators = copied_generators(system)
        with torch.no_grad():
            for generator in generators.values():
                for parameter in generator.parameters():
                    parameter.mul_(1 + number)
        worker.receive(number, Given({ab: dict(g.state_dict()) for ab, g in generators.items()}, CHANNELS))
        task = Task(number, "ab", embeds=False)
        (expected,) = Translators(system, generators, CHANNELS).results(task, [batch])
        (found,) = worker(task)([batch])
        assert np.array_equal(found, expected)
        assert expected.std() > 1
    with pytest.raises(AssertionError, match="other weights"):
        worker(Task(1, "ab", embeds=False))
    worker.forget()
    with pytest.raises(AssertionError):
        worker(Task(2, "ab", embeds=False))
    with pytest.raises(KeyError, match="unknown"):
        worker(features.Task("unknown"))


def test_another_process_gets_the_images_of_a_part_alone() -> None:
    images = list(np.random.default_rng(0).integers(0, 256, (9, 4, 5, 3), np.uint8))
    pickled = pickle.dumps((7, LazyPixels(LazyPixels(images.__getitem__, range(1, 9)).__getitem__, [0, 3])))
    number, found = pickle.loads(pickled)
    assert number == 7
    assert type(found) is list
    assert [image.tolist() for image in found] == [images[1].tolist(), images[4].tolist()]
    assert len(pickled) < 4 * images[0].nbytes + 200
