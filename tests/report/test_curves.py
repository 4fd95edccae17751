"""The curves of a page: means of records, against numpy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ganlab.report.curves import POINTS, Curves, Place, band_charts, charts, place

NAMES = ("loss/generator/ab/cycle", "loss/discriminator/ba/adversarial/real", "gradient/generator/ab")


def records(steps: int, seed: int = 0) -> list[dict[str, float]]:
    random = np.random.default_rng(seed)
    head = [{"step": step, "seconds": step / 2, "images": 4 * step} for step in range(1, steps + 1)]
    return [
        {**own, **dict(zip(NAMES, map(float, row), strict=True))}
        for own, row in zip(head, random.normal(size=(steps, 3)), strict=True)
    ]


@pytest.mark.parametrize(("steps", "points"), [(10, 10), (10, 4), (2001, 2000), (7, 100), (1000, 7)])
def test_a_point_is_the_mean_of_the_steps_since_the_last_one(steps: int, points: int) -> None:
    made = records(steps)
    curves = Curves(steps, points)
    curves.add(made)
    for name in NAMES:
        found = curves.means()[name]
        assert len(found) <= points
        ends = [0, *found]
        assert ends[-1] == steps
        values = np.array([record[name] for record in made])
        expected = [values[a:b].mean() for a, b in pairwise(ends)]
        np.testing.assert_allclose(list(found.values()), expected)
        assert len({*np.diff(ends)[:-1]}) <= 1
    assert set(curves.means()) == set(NAMES)


def test_a_long_run_has_few_points() -> None:
    curves = Curves(1_000_000)
    curves.add([{"step": step, NAMES[0]: 1.0} for step in range(1, 1_000_000, 97)])
    assert len(curves.means()[NAMES[0]]) == POINTS


def test_records_are_read_as_they_come(tmp_path: Path) -> None:
    made = records(9)
    lines = [json.dumps(record).encode() + b"\n" for record in made]
    whole, pieces = Curves(9, 5), Curves(9, 5)
    metrics = tmp_path / "metrics.jsonl"
    pieces.read(metrics)
    for content in (lines[:3], [*lines[:5], lines[5][:20]], [*lines[:6], b"damaged\n", *lines[6:]]):
        metrics.write_bytes(b"".join(content))
        pieces.read(metrics)
    whole.add(made)
    assert pieces.means() == whole.means()
    assert pieces.last == made[-1]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("loss/generator/ab/cycle", Place("generator", "cycle", "ab")),
        ("loss/discriminator/ba/adversarial/real", Place("discriminator", "adversarial", "ba real")),
        ("log/generator/ab/cycle/spread", Place("generator", "cycle/spread", "ab")),
        ("gradient/generator/ab+ba", Place("generator", "norm of the gradient", "ab+ba")),
        ("learning_rate/critic", Place("critic", "learning rate", "critic")),
        ("evaluation/ab/kid-lite0", Place("evaluation", "kid-lite0", "ab")),
        ("results", Place("other", "results", "results")),
        ("loss/odd", Place("other", "loss/odd", "loss/odd")),
    ],
)
def test_a_curve_stands_with_its_player(name: str, expected: Place) -> None:
    assert place(name) == expected


def test_charts_are_grouped_by_player() -> None:
    names = ("evaluation/ab/kid", "learning_rate/generator", *NAMES, "loss/generator/ba/cycle")
    found = charts({name: {5: 0.123456, 10: 2.0} for name in names})
    assert [(chart["group"], chart["title"]) for chart in found] == [
        ("generator", "cycle"),
        ("generator", "norm of the gradient"),
        ("generator", "learning rate"),
        ("discriminator", "adversarial"),
        ("evaluation", "kid"),
    ]
    assert found[0]["x"] == [5, 10]
    lines = [{"name": name, "colour": index, "y": [0.1235, 2.0]} for index, name in enumerate(("ab", "ba"))]
    assert found[0]["lines"] == lines
    assert found[0]["summary"] == "; ".join(f"{d} from 0.123 to 2, between 0.123 and 2" for d in ("ab", "ba"))


def test_a_line_without_a_value_has_a_gap() -> None:
    (found,) = charts({"loss/generator/ab/cycle": {1: 1.0}, "loss/generator/ba/cycle": {1: 2.0, 2: 3.0}})
    assert [line["y"] for line in found["lines"]] == [[1.0, None], [2.0, 3.0]]


def test_a_band_goes_from_the_lowest_to_the_highest_seed() -> None:
    def run(seed: int) -> Mapping[str, Mapping[int, float]]:
        curves = Curves(6, 6)
        curves.add(records(6, seed))
        return curves.means()

    systems = {"plain": [run(0), run(1), run(2)], "wide": [run(3)]}
    found = band_charts(systems)
    assert [chart["title"] for chart in found] == ["cycle, ab", "norm of the gradient, ab", "adversarial, ba real"]
    for chart, name in zip(found, (NAMES[0], NAMES[2], NAMES[1]), strict=True):
        assert [line["name"] for line in chart["lines"]] == ["plain", "wide"]
        for line in chart["lines"]:
            values = np.array([list(means[name].values()) for means in systems[line["name"]]])
            ends = {"y": values.mean(0), "low": values.min(0), "high": values.max(0)}
            # one run has no band
            for end in ends if line["name"] == "plain" else ["y"]:
                np.testing.assert_allclose(line[end], ends[end], rtol=1e-3)
            assert ("low" in line) == (line["name"] == "plain")
    # a system has its colour in every chart, also where another lacks a line
    (alone,) = band_charts({"plain": [], "wide": [{NAMES[0]: {1: 0.5}}]})
    assert [(line["name"], line["colour"]) for line in alone["lines"]] == [("wide", 1)]
