"""Sends runs to Weights & Biases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import ganlab
from ganlab_trackers.shared import need, results_of, values_of


class WandB(ganlab.Callback):
    """Sends a run to Weights & Biases: its spec, records, sample grids and results. Needs `ganlab[trackers]`.

    A run that resumes continues its run there, with each step once. Results of the last checkpoint are in the summary
    as "results/DIRECTION/NUMBER"; those of another one have its step in front.

    Args:
        project: the project.
        entity: the user or team; by default the one of the login.
        mode: "offline" keeps everything in the run folder, for `wandb sync`; by default WANDB_MODE decides.
    """

    def __init__(
        self,
        project: str = "ganlab",
        entity: str | None = None,
        mode: Literal["online", "offline", "disabled"] | None = None,
    ) -> None:
        need("wandb", "trackers")
        self.project, self.entity, self.mode = project, entity, mode
        self._run: Any = None

    def begin(self, start: ganlab.TrainingStart) -> None:
        import wandb

        self._run = wandb.init(
            project=self.project,
            entity=self.entity,
            mode=self.mode,
            dir=str(start.folder),
            name=start.name,
            id=start.run_id,
            resume="allow",
            config=dict(start.spec),
            # it would replace sys.stdout and sys.stderr
            settings=wandb.Settings(console="off"),
        )
        # steps that were sent before a kill
        self._first = self._run.step
        self._step = start.step

    def records(self, records: Sequence[dict[str, float]]) -> None:
        for record in records:
            if record["step"] >= self._first:
                self._run.log(values_of(record), step=int(record["step"]))
            self._step = int(record["step"])

    def samples(self, step: int, path: Path) -> None:
        import wandb

        if step >= self._first:
            self._run.log({"samples": wandb.Image(str(path))}, step=step)

    def evaluation(self, measurement: ganlab.Measurement) -> None:
        if self._run is not None:
            last = measurement.step == self._step
            before = "" if last else f"step-{measurement.step}/"
            self._run.summary.update({f"{before}{name}": value for name, value in results_of(measurement).items()})

    def end(self, end: ganlab.TrainingEnd) -> None:
        self._run.summary.update({"state": end.state, "why": end.why})
        self._run.finish(exit_code=0 if end.state == "finished" else 1)
        self._run = None
