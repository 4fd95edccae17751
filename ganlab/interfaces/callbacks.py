"""The interface of callbacks, which follow a run: its progress, records, samples, measurements and checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class TrainingStart(NamedTuple):
    """Describes a training that starts or resumes."""

    name: str
    """The spec's name."""
    folder: Path
    """The run folder."""
    step: int
    """The number of steps that are done already; above 0 if the run resumes."""
    steps: int
    """The number of steps of the whole run."""
    batch: int
    """The number of images of each domain in a batch."""
    device: str
    """"cpu", "cuda:0" and so on."""
    precision: str
    """"float32", "tf32", "bfloat16" or "float64"."""
    threads: int
    """The number of CPU threads."""
    run_id: str
    """A name that no other run has. It stays the same when the run resumes."""
    spec: Mapping[str, Any]
    """The resolved spec, as spec.json has it."""
    better: Mapping[str, str]
    """{number: "lower" or "higher"} of the numbers that are measured during training and have a better direction. The
    first one that can be measured picks the best checkpoint."""
    history: Iterable[dict[str, float]]
    """The records of the steps that are done, read from the run folder each time that they are iterated."""


class Measurement(NamedTuple):
    """The numbers of one checkpoint."""

    folder: Path
    """The run folder."""
    step: int
    """The step of the checkpoint."""
    images: str
    """"validation" during training, "test" at the end of the run and in `ganlab eval`."""
    values: Mapping[str, float]
    """{"DIRECTION/NUMBER": value}; the keys are those of records without "evaluation/"."""


class TrainingEnd(NamedTuple):
    """Describes the end of a process that trained and measured a run."""

    state: str
    """"finished", "interrupted" (the run can be resumed) or "failed"."""
    step: int
    """The number of steps that are done."""
    why: str | None
    """The error, or the reason why the run ended before its last step; None if it is complete."""


class Callback:
    """Follows a run: its methods are called as the run proceeds. By default each does nothing.

    A callback is not trained. It can't change the networks, and what it draws from global random
    generators is restored. If a method raises an exception, one warning names the callback and the error, and the run
    continues; after a failed `begin` the callback gets no further call. A process may be killed at any moment: a
    resumed run calls `begin` again, and repeats the steps after its newest checkpoint. So a callback takes what it has
    to remember from `TrainingStart.history`, not from memory.

    The constructor's arguments are its options in a spec. It starts nothing: `begin` does.
    """

    on_by_default = False
    """True if every run has this callback, under the name of its type, unless its spec sets that name to null."""

    _stop_reason: str | None = None

    def begin(self, start: TrainingStart) -> None:
        """Called when training starts or resumes. A SpecError that it raises refuses the run before a step is taken."""

    def records(self, records: Sequence[dict[str, float]]) -> None:
        """Called with the records of new steps; the list may be empty.

        A record has "step", "seconds" and "images", every term, logged value and gradient norm by name, and after a
        measurement every number as "evaluation/DIRECTION/NUMBER". Each step comes once in a process.
        """

    def samples(self, step: int, path: Path) -> None:
        """Called when a sample grid, a PNG file, was written."""

    def evaluation(self, measurement: Measurement) -> None:
        """Called after each measurement: during training, at the end of the run, and in `ganlab eval`, where `begin`
        is not called."""

    def checkpoint(self, step: int, folder: Path) -> None:
        """Called when a checkpoint is complete."""

    def end(self, end: TrainingEnd) -> None:
        """Called when the process has finished the run, or stops. A process that is killed does not call it."""

    def progress(self, items: Iterable[Any], what: str, total: int) -> Iterable[Any]:
        """Wraps the `total` items of a long task, named `what`, so that their progress can be shown.

        It is called on the `callback` of a function such as `ganlab.run`, not on callbacks of a spec.
        """
        return items

    def warn(self, sentence: str) -> None:
        """Called with a sentence that a person should read; the run continues."""

    def request_stop(self, reason: str) -> None:
        """Ends the training after the present step. The run is then finished: it is sampled, saved and measured, and
        its folder keeps the reason."""
        self._stop_reason = reason

    @property
    def stop_requested(self) -> str | None:
        """The reason given to `request_stop`; None if it was not called in this training."""
        return self._stop_reason
