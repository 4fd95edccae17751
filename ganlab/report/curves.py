"""The curves of a run: its records, averaged over pieces of equal length, and put into charts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ganlab import files
from ganlab.engine.step_log import Record
from ganlab.runs import models
from ganlab.spec.models import Json

POINTS = 2000
"""The most points of a curve."""

_NO_CURVES = ("step", "seconds", "images")


class Place(NamedTuple):
    """The place of a curve: its group, such as a player, its chart in the group, and its line in the chart."""

    group: str
    chart: str
    line: str


class Curves:
    """Averages the values of records over pieces of `width` steps. Keeps sums instead of records."""

    def __init__(self, steps: int, points: int = POINTS) -> None:
        self.width = max(1, -(-steps // points))
        self.last: Record = {"step": 0}
        """The last record that was added."""
        self._read = 0
        self._sums: dict[str, dict[int, tuple[float, int]]] = {}

    def read(self, metrics: Path) -> None:
        """Adds the records of a metrics.jsonl that are new since the last call. Leaves out damaged lines."""
        with suppress(OSError), files.opened(metrics) as file:
            file.seek(self._read)
            for line in file:
                # the last line may be a half of one that is being written
                if line.endswith(b"\n"):
                    self._read += len(line)
                    with suppress(ValueError):
                        self.add([models.record(line)])

    def add(self, records: Iterable[Record]) -> None:
        """Adds records, in the order of their steps."""
        for record in records:
            self.last = record
            piece = max(0, int(record["step"]) - 1) // self.width
            for name, value in record.items():
                if name not in _NO_CURVES:
                    sums = self._sums.setdefault(name, {})
                    total, count = sums.get(piece, (0.0, 0))
                    sums[piece] = total + value, count + 1

    def means(self) -> dict[str, dict[int, float]]:
        """Returns {name: {last step of a piece: mean of the values in the piece}}."""
        last = int(self.last["step"])
        return {
            name: {min((piece + 1) * self.width, last): total / count for piece, (total, count) in sums.items()}
            for name, sums in self._sums.items()
        }


def place(name: str) -> Place:
    """Returns the place of a value of a record by its name."""
    kind, _, rest = name.partition("/")
    if kind == "loss" and rest.count("/") >= 2:
        player, direction, label, *part = rest.split("/")
        return Place(player, label, " ".join([direction, *part]))
    if kind == "log" and rest.count("/") >= 3:
        player, direction, logged = rest.split("/", 2)
        return Place(player, logged, direction)
    if kind == "gradient" and "/" in rest:
        player, network = rest.split("/", 1)
        return Place(player, "norm of the gradient", network)
    if kind == "learning_rate":
        return Place(rest, "learning rate", rest)
    if kind == "evaluation" and "/" in rest:
        direction, number = rest.split("/", 1)
        return Place("evaluation", number, direction)
    return Place("other", name, name)


def charts(means: Mapping[str, Mapping[int, float]]) -> list[Json]:
    """Returns the charts of a run as JSON: {"group", "title", "x": steps, "lines": [{"name", "colour": its
    number in the palette, "y": values or None}]}.

    The groups are players in the order of their first terms; of a player, losses stand before gradients and rates.
    """
    found: dict[tuple[str, str], dict[str, Mapping[int, float]]] = {}
    for name, values in sorted(means.items(), key=lambda item: _rank(item[0])):
        where = place(name)
        found.setdefault((where.group, where.chart), {})[where.line] = values
    return [
        {"group": group, "title": title, **_drawn(lines), "summary": _summary(lines)}
        for (group, title), lines in found.items()
    ]


def band_charts(systems: Mapping[str, Sequence[Mapping[str, Mapping[int, float]]]]) -> list[Json]:
    """Returns the charts of a comparison: a line for each system, with a band from the lowest to the highest seed.

    `systems` is {name: the `means` of each of its runs}. A line of several runs has "low" and "high" beside "y", their
    mean.
    """
    names = dict.fromkeys(name for runs in systems.values() for run in runs for name in run)
    colours = {system: colour for colour, system in enumerate(systems)}
    found = []
    for name in sorted(names, key=_rank):
        lines: dict[str, Mapping[int, float]] = {}
        ends: dict[str, dict[str, Mapping[int, float]]] = {}
        for system, runs in systems.items():
            each = [run[name] for run in runs if name in run]
            steps = sorted({step for values in each for step in values})
            columns = {step: [values[step] for values in each if step in values] for step in steps}
            if columns:
                lines[system] = {step: sum(column) / len(column) for step, column in columns.items()}
            if len(each) > 1:
                ends[system] = {
                    "low": {step: min(column) for step, column in columns.items()},
                    "high": {step: max(column) for step, column in columns.items()},
                }
        where = place(name)
        title = where.chart if where.line == where.group else f"{where.chart}, {where.line}"
        chart = {"group": where.group, "title": title, **_drawn(lines), "summary": _summary(lines)}
        for line in chart["lines"]:
            # a system has the same colour in every chart
            line["colour"] = colours[line["name"]]
            line |= {end: _rounded(values, chart["x"]) for end, values in ends.get(line["name"], {}).items()}
        found.append(chart)
    return found


def _rank(name: str) -> tuple[int, int]:
    """Sorts curves: players, then measurements; of a player the losses, then what they log, gradients, rates."""
    kinds = ("loss", "log", "gradient", "learning_rate")
    kind = name.partition("/")[0]
    players = ("generator", "discriminator", "evaluation")
    group = place(name).group
    return (
        players.index(group) if group in players else len(players),
        kinds.index(kind) if kind in kinds else len(kinds),
    )


def _drawn(lines: Mapping[str, Mapping[int, float]]) -> Json:
    steps = sorted({step for values in lines.values() for step in values})
    return {
        "x": steps,
        "lines": [
            {"name": name, "colour": colour, "y": _rounded(values, steps)}
            for colour, (name, values) in enumerate(lines.items())
        ],
    }


def _rounded(values: Mapping[int, float], steps: Sequence[int]) -> list[float | None]:
    """Returns values with four digits, more than a screen can show; None at steps without one."""
    return [float(f"{values[step]:.4g}") if step in values else None for step in steps]


def _summary(lines: Mapping[str, Mapping[int, float]]) -> str:
    """Returns the curves in words, for those who don't see them."""
    each = []
    for name, values in lines.items():
        ordered = [values[step] for step in sorted(values)]
        low, high = min(ordered), max(ordered)
        each.append(f"{name} from {ordered[0]:.3g} to {ordered[-1]:.3g}, between {low:.3g} and {high:.3g}")
    return "; ".join(each)
