"""Ranges of a spec's values for a search: `losses.cycle.weight=log(0.1,10)`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import isfinite
from typing import Any, NamedTuple

from ganlab.comparison.trials import OWN, listed
from ganlab.errors import SpecError

FORMS = "KEY=log(LOW,HIGH), KEY=uniform(LOW,HIGH), KEY=int(LOW,HIGH) or KEY=choice(VALUE,VALUE)"
"""The forms of a range."""

_FORM = re.compile(r"([^=()]+)=(\w+)\((.*)\)")


class Range(NamedTuple):
    """The values that a search gives one key of a spec."""

    path: str
    """The key, "path.to.key"."""
    kind: str
    """"log" (a real number, uniform in its logarithm), "uniform", "int" or "choice"."""
    values: tuple[str, ...]
    """The lowest and the highest value, or all values of a choice, as JSON or text."""

    def __str__(self) -> str:
        return f"{self.path}={self.kind}({','.join(self.values)})"

    def distribution(self, optuna: Any) -> Any:
        """Returns the range as Optuna describes it."""
        kinds = optuna.distributions
        if self.kind == "choice":
            return kinds.CategoricalDistribution(self.values)
        if self.kind == "int":
            return kinds.IntDistribution(*map(int, self.values))
        return kinds.FloatDistribution(*map(float, self.values), log=self.kind == "log")


def is_range(word: str) -> bool:
    """Returns True if a word of a command line has the form of a range."""
    return _FORM.fullmatch(word) is not None


def ranges_of(words: Sequence[str]) -> list[Range]:
    """Reads ranges. Raises SpecError if one is not a range, or if two have the same key."""
    found = [_range(word) for word in words]
    paths = [each.path for each in found]
    if repeated := [path for index, path in enumerate(paths) if path in paths[:index]]:
        raise SpecError(f"--search {repeated[0]}: has two ranges")
    if not found:
        raise SpecError(f"--search: needs a range to search, {FORMS}")
    return found


def _range(word: str) -> Range:
    where = f"--search {word}"
    if (form := _FORM.fullmatch(word)) is None or form[2] not in ("log", "uniform", "int", "choice"):
        raise SpecError(f"{where}: is no range; ranges are {FORMS}")
    path, kind, values = form[1].strip(), form[2], listed(form[3])
    if path in OWN:
        raise SpecError(f"{where}: is not allowed: a search sets {path}; see {OWN[path]}")
    if kind == "choice":
        if len(set(values)) < 2 or len(set(values)) < len(values) or not all(values):
            raise SpecError(f"{where}: is not allowed: choice takes two or more different values")
    elif not _rises(values, kind):
        numbers = {"log": "two numbers above 0", "uniform": "two numbers", "int": "two whole numbers"}[kind]
        raise SpecError(f"{where}: is not allowed: {kind} takes {numbers}, the lower one first")
    return Range(path, kind, tuple(values))


def _rises(values: Sequence[str], kind: str) -> bool:
    """Returns True if the values are two numbers of a kind, the lower one first."""
    try:
        low, high = (int(value) if kind == "int" else float(value) for value in values)
    except ValueError:
        return False
    return isfinite(low) and isfinite(high) and low < high and (kind != "log" or low > 0)
