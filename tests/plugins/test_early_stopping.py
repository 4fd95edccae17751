"""Early stopping on made-up records, against a count by brute force, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ganlab_early_stopping import EarlyStopping

import ganlab
from helpers.callbacks import start_of

BETTER = {"kid": "lower", "coverage": "higher"}


def measured(values: list[float], number: str = "kid") -> list[dict[str, float]]:
    """Records with two steps from one measurement to the next; the mean over the directions is the value."""
    records: list[dict[str, float]] = []
    for index, value in enumerate(values):
        records.append({"step": 2 * index + 1})
        parts = {f"evaluation/ab/{number}": value - 0.25, f"evaluation/ba/{number}": value + 0.25}
        records.append({"step": 2 * index + 2, **parts, "evaluation/ab/other": 0.0})
    return records


def stop_of(callback: EarlyStopping, records: list[dict[str, float]], done: int = 0) -> int | None:
    callback.begin(start_of(Path(), done, better=BETTER, history=records[:done]))
    for at in range(done, len(records) + 1):
        if callback.stop_requested is not None:
            return at
        callback.records(records[at : at + 1])
    return None


def by_hand(values: list[float], patience: int, least: float, sign: int) -> int | None:
    best = since = 0.0
    for index, value in enumerate(values):
        better = index == 0 or sign * value < best - least
        best, since = (sign * value, 0) if better else (best, since + 1)
        if since == patience:
            return 2 * index + 2
    return None


@pytest.mark.parametrize("number", ["kid", "coverage"])
@pytest.mark.parametrize("least", [0.0, 0.2])
@pytest.mark.parametrize("patience", [1, 3])
def test_it_stops_where_a_count_by_hand_does(number: str, least: float, patience: int) -> None:
    sign = 1 if BETTER[number] == "lower" else -1
    for seed in range(20):
        values = [float(v) for v in np.random.default_rng(seed).normal(size=12).round(2)]
        expected = by_hand(values, patience, least, sign)
        records = measured(values, number)
        for done in (0, 1, 8, 17):
            found = stop_of(EarlyStopping(patience=patience, least=least), records, done)
            assert found == (None if expected is None else max(done, expected)), (seed, done)


def test_a_value_that_is_not_finite_is_never_the_best() -> None:
    nan = float("nan")
    assert stop_of(EarlyStopping(patience=2), measured([nan, 5.0, nan, 4.0, nan, nan])) == 12


def test_a_measurement_without_one_direction_is_no_new_best_value() -> None:
    records = measured([5.0, 4.0, 3.0, 2.0, 1.0])
    for at in (5, 7):
        # the other direction alone would be better
        del records[at]["evaluation/ba/kid"]
    assert stop_of(EarlyStopping(patience=2), records) == 8
    # one that lacks both, but not another number
    for at in (5, 7):
        del records[at]["evaluation/ab/kid"]
    assert stop_of(EarlyStopping(patience=2), records) == 8


def test_the_count_starts_again_when_a_direction_has_its_first_number() -> None:
    # 0.75 in one direction; then 5, the best of both, 6 and 7
    records = measured([1.0, 6.0, 5.0, 6.0, 7.0])
    del records[1]["evaluation/ba/kid"]
    callback = EarlyStopping(patience=2)
    assert stop_of(callback, records) == 10
    assert str(callback.stop_requested).startswith("kid had no value better than 5, that of step 6,")


def test_the_reason_names_the_best_value_and_its_step() -> None:
    callback = EarlyStopping("coverage", patience=1)
    assert stop_of(callback, measured([0.5, 0.25], "coverage")) == 4
    said = "coverage had no value better than 0.5, that of step 2, in 1 measurements, up to step 4"
    assert callback.stop_requested == said


@pytest.mark.parametrize(
    ("number", "better", "said"),
    [
        (None, {}, "nothing is measured during training; set evaluation.every"),
        ("kit", BETTER, "'kit' is not measured during training; known: kid, coverage"),
    ],
)
def test_a_number_that_is_not_measured_is_refused(number: str | None, better: dict[str, str], said: str) -> None:
    with pytest.raises(ganlab.SpecError) as caught:
        EarlyStopping(number).begin(start_of(Path(), better=better))
    assert str(caught.value) == f"early stopping: {said}"
