"""The rows of a page's tables of results."""

from __future__ import annotations

from typing import Any

import pytest

from ganlab.report.results import digits_of, fixed, key_results, rows


def result(number: str, value: float, better: str | None = "lower", **others: Any) -> dict[str, Any]:
    return {
        "number": number,
        "metric": number.partition("-")[0],
        "direction": "ab",
        "value": value,
        "interval": [value - 0.01, value + 0.01],
        "better": better,
        "references": {name: {"value": 1.0 * x} for name, x in (("real", 0), ("identity", 1))},
        "notes": [],
        **others,
    }


@pytest.mark.parametrize(("better", "places"), [("lower", (73, 96, 4)), ("higher", (27, 4, 96))])
def test_better_stands_further_right(better: str, places: tuple[float, float, float]) -> None:
    bar = next(rows([result("kid", 0.25, better)]))["bar"]
    assert (bar["value"], *(mark["at"] for mark in bar["marks"])) == places
    assert bar["low"] + bar["width"] / 2 == pytest.approx(bar["value"])
    assert bar["width"] == pytest.approx(92 * 0.02)


@pytest.mark.parametrize("unknown", [{"better": None}, {"references": {}}])
def test_a_result_without_a_scale_has_no_bar(unknown: dict[str, Any]) -> None:
    assert next(rows([result("kid", 0.25, **unknown)]))["bar"] is None


def test_the_directions_of_a_number_stand_below_each_other() -> None:
    asked = [result("kid", 0.1), result("fid", 10.0, notes=["a note"]), result("kid", 0.2, direction="ba")]
    found = [(row["number"], row["direction"], row["lead"]) for row in rows(asked)]
    assert found == [("kid", "a → b", 2), ("kid", "b → a", 0), ("fid", "a → b", 2)]


def test_the_first_screen_has_one_number_of_each_metric() -> None:
    names = ("prdc-precision", "prdc-recall", "kid-lite0", "content-hair", "lpips-alex", "fid-lite0")
    found = key_results([result(name, 0.5) for name in names], first="fid-lite0")
    assert [each["number"] for each in found] == ["fid-lite0", "prdc-precision", "kid-lite0", "content-hair"]


@pytest.mark.parametrize(
    ("value", "low", "high", "shown"),
    [
        (0.106306, 0.0982, 0.1144, "0.1063"),
        (-0.00004, -0.001, 0.001, "0.0000"),
        (-0.2, -0.3, -0.1, "\N{MINUS SIGN}0.20"),
        (1234.5, 1134.5, 1334.5, "1,234"),
        (1.0, 1.0, 1.0, "1.0000"),
    ],
)
def test_a_number_has_two_digits_of_its_interval(value: float, low: float, high: float, shown: str) -> None:
    assert fixed(value, digits_of(low, high)) == shown
