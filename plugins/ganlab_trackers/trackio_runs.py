"""Writes runs to Trackio."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ganlab
from ganlab_trackers.shared import need, results_of, values_of


class Trackio(ganlab.Callback):
    """Writes a run to Trackio: its spec, records, sample grids and results. Needs `ganlab[trackio]`.

    Everything stays on this machine, and `trackio show` shows it, unless TRACKIO_SPACE_ID or TRACKIO_SERVER_URL names
    another place. A run that resumes continues its run there, with each step once.

    Args:
        project: the project.
    """

    def __init__(self, project: str = "ganlab") -> None:
        need("trackio", "trackio")
        self.project = project
        self._run: Any = None

    def begin(self, start: ganlab.TrainingStart) -> None:
        import trackio

        self._run = trackio.init(
            self.project,
            name=f"{start.name}-{start.run_id[:8]}",
            config=dict(start.spec),
            resume="allow",
            embed=False,
            # its threads would measure the machine's load beside the training
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        # after the steps that were written before a kill; trackio has no public name for it
        self._first = getattr(self._run, "_next_step", 0)

    def records(self, records: Sequence[dict[str, float]]) -> None:
        for record in records:
            if record["step"] >= self._first:
                self._run.log(values_of(record), step=int(record["step"]))

    def samples(self, step: int, path: Path) -> None:
        import trackio

        if step >= self._first:
            self._run.log({"samples": trackio.Image(path)}, step=step)

    def evaluation(self, measurement: ganlab.Measurement) -> None:
        if self._run is not None and (results := results_of(measurement)):
            self._run.log(results, step=measurement.step)

    def end(self, end: ganlab.TrainingEnd) -> None:
        self._run.finish()
        self._run = None
