"""Writes runs to MLflow."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ganlab
from ganlab_trackers.shared import leaves, need, results_of, values_of

_TAG = "ganlab.run_id"

_STATES = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}


class MLflow(ganlab.Callback):
    """Writes a run to MLflow: its spec, records, sample grids and results. Needs `ganlab[trackers]`.

    A run that resumes continues its run there, with each step once.

    Args:
        experiment: the experiment; it is made if there is none.
        uri: the tracking server or store, for example "http://localhost:5000"; by default MLFLOW_TRACKING_URI decides.
    """

    def __init__(self, experiment: str = "ganlab", uri: str | None = None) -> None:
        need("mlflow", "trackers")
        self.experiment, self.uri = experiment, uri
        self._run: Any = None

    def begin(self, start: ganlab.TrainingStart) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client = MlflowClient(self.uri)
        found = self._client.get_experiment_by_name(self.experiment)
        experiment = found.experiment_id if found else self._client.create_experiment(self.experiment)
        runs = self._client.search_runs([experiment], f"tags.`{_TAG}` = '{start.run_id}'", max_results=1)
        if runs:
            self._run = runs[0].info.run_id
            self._client.update_run(self._run, "RUNNING")
            known = max((m.step for name in runs[0].data.metrics for m in self._history(name)), default=0)
            self._first = known + 1
        else:
            self._run = self._client.create_run(
                experiment, run_name=start.name, tags={_TAG: start.run_id, "ganlab.folder": str(start.folder.resolve())}
            ).info.run_id
            spec = [Param(_plain(name), str(value)[:6000]) for name, value in leaves(start.spec)]
            for at in range(0, len(spec), 100):
                self._client.log_batch(self._run, params=spec[at : at + 100])
            self._first = 0
        self._client.log_dict(self._run, dict(start.spec), "spec.json")

    def records(self, records: Sequence[dict[str, float]]) -> None:
        for record in records:
            if record["step"] >= self._first:
                self._metrics(int(record["step"]), values_of(record))

    def samples(self, step: int, path: Path) -> None:
        self._client.log_artifact(self._run, str(path), "samples")

    def evaluation(self, measurement: ganlab.Measurement) -> None:
        if self._run is not None:
            self._metrics(measurement.step, results_of(measurement))

    def end(self, end: ganlab.TrainingEnd) -> None:
        # an earlier process may have left another reason
        self._client.set_tag(self._run, "ganlab.why", end.why or "")
        self._client.set_terminated(self._run, _STATES[end.state])
        self._run = None

    def _metrics(self, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = round(time.time() * 1000)
        metrics = [Metric(_plain(name), value, now, step) for name, value in values.items()]
        for at in range(0, len(metrics), 1000):
            self._client.log_batch(self._run, metrics=metrics[at : at + 1000])

    def _history(self, name: str) -> Any:
        return self._client.get_metric_history(self._run, name)


def _plain(name: str) -> str:
    """Returns a name with the characters that MLflow allows."""
    return re.sub(r"[^\w./: -]", "_", name)
