"""The parts that the trackers share."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any

import ganlab


def need(package: str, extra: str) -> None:
    """Raises Unavailable if a package is not installed. Does not import it."""
    if importlib.util.find_spec(package) is None:
        raise ganlab.Unavailable(f"the package {package} is not installed: pip install 'ganlab[{extra}]'")


def values_of(record: Mapping[str, float]) -> dict[str, float]:
    """Returns a record without its step."""
    return {name: value for name, value in record.items() if name != "step"}


def results_of(measurement: ganlab.Measurement) -> dict[str, float]:
    """Returns the results of a measurement by the names "results/DIRECTION/NUMBER"; {} for validation numbers, which
    the records have."""
    if measurement.images == "validation":
        return {}
    return {f"results/{name}": value for name, value in measurement.values.items()}


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields ("path.to.key", value) of every value in a spec that is no object."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else key)
    else:
        yield path, value
