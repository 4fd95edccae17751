"""Compares the numbers of systems over seeds, and says which differences the seeds support."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ganlab.comparison.statistics import ALPHA, POWER, holm, paired, pairs_needed, power
from ganlab.evaluation.estimates import mean
from ganlab.spec.models import Json

Values = dict[tuple[str, str], dict[str, dict[int, float]]]
"""{(number, direction): {system: {seed: value}}}."""


def compare_values(
    values: Values, better: Mapping[tuple[str, str], str], systems: Sequence[str]
) -> tuple[list[Json], Json]:
    """Compares systems by their values over seeds. The first of `systems` is the baseline.

    `better` says for each number and direction if "lower" or "higher" values are better; "" if neither is, so that no
    test is made. All tests are corrected together.

    Returns the entries of "numbers" and the entry "tests" of comparison.json.
    """
    numbers = [_number(place, each, better[place], systems) for place, each in values.items()]
    tested = [difference for number in numbers if number["better"] for difference in number["differences"].values()]
    # a test that the data forbid counts too: it could have been one of the others
    p_values = [1.0 if difference["p"] is None else difference["p"] for difference in tested]
    for difference, corrected in zip(tested, holm(p_values), strict=True):
        difference["p_holm"] = None if difference["p"] is None else corrected
    for number in numbers:
        for difference in number["differences"].values():
            difference["verdict"] = _verdict(difference, number["better"])
    pairs = min((len(d["seeds"]) for d in tested), default=0)
    tests = {
        "count": len(tested),
        "level": ALPHA,
        "correction": "Holm",
        "power": POWER,
        "power_at_3_deviations": power(3 / 2**0.5, pairs, len(tested)) if pairs else None,
        "pairs": pairs,
    }
    return numbers, tests


def _number(place: tuple[str, str], values: dict[str, dict[int, float]], better: str, systems: Sequence[str]) -> Json:
    number, direction = place
    present = {name: dict(sorted(values[name].items())) for name in systems if name in values}
    base = present.get(systems[0], {})
    differences = {}
    for name in systems[1:]:
        own = present.get(name, {})
        seeds = [seed for seed in own if seed in base]
        if len(seeds) > 1:
            found = paired([own[seed] for seed in seeds], [base[seed] for seed in seeds])
            differences[name] = {
                "seeds": seeds,
                "mean": found.mean,
                "interval": [found.low, found.high],
                "deviation": found.deviation,
                "p": found.p,
            }
    return {
        "number": number,
        "direction": direction,
        "better": better,
        "systems": {name: _summary(each) for name, each in present.items()},
        "differences": differences,
    }


def _summary(values: Mapping[int, float]) -> Json:
    kept = {"values": {str(seed): value for seed, value in values.items()}}
    if len(values) < 2:
        return {**kept, "mean": next(iter(values.values())), "interval": None}
    estimate = mean([*values.values()], "seeds")
    return {**kept, "mean": estimate.value, "interval": [estimate.low, estimate.high]}


def _verdict(difference: Json, better: str) -> str:
    """Returns "better", "worse", or "none" for a difference that the seeds do not support; "" without a test."""
    if not better:
        return ""
    if difference["p_holm"] is None or difference["p_holm"] >= ALPHA:
        return "none"
    return "better" if (difference["mean"] < 0) == (better == "lower") else "worse"


def half_of_the_largest(differences: Mapping[str, Json], tests: int) -> Json | None:
    """Returns the system with the largest difference, and the number of seeds with which half of it would be found.

    The number is None if it is too large. Returns None if nothing is tested, or if the largest difference has no
    spread.
    """
    if not tests or not differences:
        return None
    name = max(differences, key=lambda system: abs(differences[system]["mean"]))
    largest = differences[name]
    if largest["deviation"] == 0:
        return None
    return {"system": name, "seeds": pairs_needed(abs(largest["mean"]) / 2 / largest["deviation"], tests)}
