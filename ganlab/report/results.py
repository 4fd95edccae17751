"""The results of an evaluation as rows of a page's table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from ganlab.spec.models import Json

KEYS = 4
"""The most numbers on the first screen."""


def key_results(results: Iterable[Json], first: str | None) -> list[Json]:
    """Returns the results for the first screen: of each metric its first number, at most `KEYS`, `first` before them.

    `results` are those of one checkpoint, as evaluation.json has them.
    """
    results = list(results)
    by_metric: dict[str, str] = {}
    for result in results:
        by_metric.setdefault(result["metric"], result["number"])
    chosen = list(dict.fromkeys([*([first] if first else []), *by_metric.values()]))[:KEYS]
    return [result for number in chosen for result in results if result["number"] == number]


def rows(results: Iterable[Json]) -> Iterator[Json]:
    """Yields the rows of a table of results, the directions of a number below each other."""
    results = list(results)
    numbers = dict.fromkeys(result["number"] for result in results)
    for number in numbers:
        own = [result for result in results if result["number"] == number]
        for index, result in enumerate(own):
            references = {name: reference["value"] for name, reference in result["references"].items()}
            digits = digits_of(*result["interval"])
            yield {
                "number": number,
                # the number of rows that it stands beside
                "lead": sum(1 + len(each["notes"]) for each in own) if index == 0 else 0,
                "better": result["better"],
                "direction": f"{result['direction'][0]} → {result['direction'][1]}",
                "value": fixed(result["value"], digits),
                "interval": f"{fixed(result['interval'][0], digits)} to {fixed(result['interval'][1], digits)}",
                "real": _reference(references.get("real"), digits),
                "identity": _reference(references.get("identity"), digits),
                "chance": _reference(result.get("chance"), digits),
                "bar": _bar(result, references),
                "notes": result["notes"],
            }


def digits_of(low: float, high: float) -> int:
    """Returns the number of digits after the point that shows two digits of half an interval."""
    half = (high - low) / 2
    return 4 if half <= 0 else min(6, max(0, 1 - math.floor(math.log10(half))))


def fixed(value: float, digits: int) -> str:
    """Returns a number with a fixed number of digits after the point; a minus is a minus sign, and 0 has none."""
    return f"{value:z,.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _reference(value: float | None, digits: int) -> str:
    return "" if value is None else fixed(value, digits)


def _bar(result: Json, references: Mapping[str, float]) -> Json | None:
    """Returns the places, in per cent, of a result and its references on a scale on which the right is better.

    Returns None if neither lower nor higher is better, or if there is nothing to compare with.
    """
    marks = {**references, **({"chance": result["chance"]} if "chance" in result else {})}
    every = [result["value"], *result["interval"], *marks.values()]
    low, high = min(every), max(every)
    if not result["better"] or not marks or low == high:
        return None

    def at(value: float) -> float:
        share = (value - low) / (high - low)
        place: float = round(4 + 92 * (share if result["better"] == "higher" else 1 - share), 2)
        return place

    ends = sorted(map(at, result["interval"]))
    named = ", ".join(f"{name} {value:.3g}" for name, value in marks.items())
    return {
        "value": at(result["value"]),
        "low": ends[0],
        "width": round(ends[1] - ends[0], 2),
        "marks": [{"name": name, "at": at(value)} for name, value in marks.items()],
        "words": f"{result['value']:.3g} beside {named}; {result['better']} is better",
    }
