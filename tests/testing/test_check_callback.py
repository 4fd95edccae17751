"""`check_callback` and each requirement that a callback can fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import ganlab
from ganlab import testing
from ganlab.testing import callbacks
from helpers.broken import Broken, names_of, verify_every_condition_fails, verify_sentence


class Stops(ganlab.Callback):
    """Passes the check; the broken ones derive from it. It stops when a number was measured `most` times."""

    def __init__(self, most: int = 5) -> None:
        self.most, self.count = most, 0

    def begin(self, start: ganlab.TrainingStart) -> None:
        self.records(list(start.history))

    def records(self, records: Sequence[dict[str, float]]) -> None:
        self.count += sum("evaluation/ab/number" in record for record in records)
        if self.count >= self.most:
            self.request_stop("enough")


class NotToday(Stops):
    def __init__(self) -> None:
        raise LookupError("there is none")


class Crashes(Stops):
    def samples(self, step: int, path: Path) -> None:
        raise OSError(f"no {path.name} here")


class CountsInMemory(Stops):
    def begin(self, start: ganlab.TrainingStart) -> None:
        pass


class NeedsBegin(Stops):
    def begin(self, start: ganlab.TrainingStart) -> None:
        super().begin(start)
        self.step = 0

    def evaluation(self, measurement: ganlab.Measurement) -> None:
        self.step += 1


BROKEN: list[Broken] = [
    (testing.check_callback, NotToday, "built from its options.* LookupError: there is none"),
    (testing.check_callback, Crashes, r"to its end.* OSError: no step-000010\.png here"),
    (testing.check_callback, CountsInMemory, "same step.* stops after step 16 in .* after step 7, not after step 10"),
    (testing.check_callback, NeedsBegin, "without `begin`.* AttributeError: .* no attribute 'step'"),
]


@pytest.mark.parametrize(("check", "cls", "sentence"), BROKEN, ids=names_of)
def test_a_failed_requirement_is_named(check: Callable[..., None], cls: type, sentence: str) -> None:
    verify_sentence(check, cls, sentence)


def test_every_requirement_and_condition_fails_for_one_of_them() -> None:
    verify_every_condition_fails([callbacks], BROKEN)


@pytest.mark.parametrize("most", [5, 1, 100])
def test_the_callback_that_they_derive_from_passes(most: int) -> None:
    testing.check_callback(Stops, most=most)


def test_a_callback_that_does_nothing_passes() -> None:
    testing.check_callback(ganlab.Callback)
