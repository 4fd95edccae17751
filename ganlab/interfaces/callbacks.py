"""The interface of callbacks, which receive the progress, records and warnings of a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class TrainingStart(NamedTuple):
    """Describes a training that starts: its run, steps, batch and device."""

    name: str
    """The spec's name."""
    folder: Path
    """The run folder."""
    step: int
    """The number of steps that are done already; above 0 if the run resumes."""
    steps: int
    """The number of steps of the whole run."""
    batch: int
    """The number of images of each domain over which the gradients of one update are averaged."""
    device: str
    """"cpu", "cuda:0" and so on."""
    precision: str
    """"float32", "tf32", "bfloat16" or "float64"."""
    threads: int
    """The number of CPU threads."""


class Callback:
    """Receives the progress, records and warnings of a run. By default each method does nothing."""

    def progress(self, items: Iterable[Any], what: str, total: int) -> Iterable[Any]:
        """Wraps the `total` items of a long task, named `what`, so that their progress can be shown."""
        return items

    def begin(self, start: TrainingStart) -> None:
        """Called when training starts or resumes."""

    def records(self, records: Sequence[dict[str, float]]) -> None:
        """Called with the records of new steps; the list may be empty.

        A record has "step", "seconds" and "images", every term, logged value and gradient norm by name, and after a
        measurement every number as "evaluation/DIRECTION/NUMBER".
        """

    def warn(self, sentence: str) -> None:
        """Called with a sentence that a person should read; the run continues."""
