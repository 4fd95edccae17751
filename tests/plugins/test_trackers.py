"""The trackers drive the real libraries on this machine alone: W&B offline, MLflow's file store, Trackio's database."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import ganlab
from ganlab.experiment import check
from helpers.paths import ROOT

# one worker, because each starts a process that imports torch
pytestmark = pytest.mark.xdist_group("trackers")

FOLLOW = """
import json, sys
from pathlib import Path
import numpy as np
from PIL import Image
import ganlab
from ganlab.components.registry import registry
from helpers.callbacks import start_of

name, options = sys.argv[1], json.loads(sys.argv[2])
folder = Path("run")
(folder / "samples").mkdir(parents=True)
Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "samples/step-000004.png")


def record(step):
    return {"step": step, "seconds": step / 4, "loss/generator/ab/cycle": 1 / step, "gradient/generator/ab+ba": 2.0}


# the second process resumes after step 2, and the first one had got to step 4
for done, last, state in ((0, 4, "interrupted"), (2, 6, "finished")):
    callback = registry().find("callback", name, "test").cls(**options)
    callback.begin(start_of(folder, done, spec={"seed": 3, "losses": {"cycle": {"weight": 0.5}}}))
    for step in range(done + 1, last + 1):
        callback.records([record(step)])
    callback.samples(4, folder / "samples/step-000004.png")
    if state == "finished":
        callback.evaluation(ganlab.Measurement(folder, 6, "validation", {"ab/kid": 1.0}))
        callback.evaluation(ganlab.Measurement(folder, 4, "test", {"ab/kid": 0.25}))
        callback.evaluation(ganlab.Measurement(folder, 6, "test", {"ab/kid": 0.5}))
    callback.end(ganlab.TrainingEnd(state, last, "because" if state == "interrupted" else None))
"""


def follow(name: str, folder: Path, options: dict[str, Any], environment: dict[str, str], read: str) -> Any:
    """Lets a tracker follow a run that is interrupted and resumed, in a process of its own, since it may start others.

    Returns what the code `read` then prints as JSON.
    """
    path = os.pathsep.join(map(str, (ROOT, ROOT / "plugins", ROOT / "tests")))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HOME": str(folder), **environment}
    words = [sys.executable, "-c", FOLLOW + read, name, json.dumps(options)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def needed(package: str) -> None:
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")


def test_mlflow_has_each_step_once(tmp_path: Path) -> None:
    needed("mlflow")
    read = """
from mlflow import MlflowClient
client = MlflowClient(options["uri"])
(run,) = client.search_runs([client.get_experiment_by_name("faces").experiment_id])
history = lambda key: [[m.step, m.value] for m in client.get_metric_history(run.info.run_id, key)]
print(json.dumps({
    "status": run.info.status, "name": run.info.run_name, "params": run.data.params,
    "cycle": history("loss/generator/ab/cycle"), "gradient": history("gradient/generator/ab_ba"),
    "results": history("results/ab/kid"), "why": run.data.tags.get("ganlab.why"),
    "artifacts": [a.path for a in client.list_artifacts(run.info.run_id, "samples")],
    "spec": json.loads(Path(client.download_artifacts(run.info.run_id, "spec.json")).read_text()),
}))
"""
    options = {"experiment": "faces", "uri": (tmp_path / "store").as_uri()}
    found = follow("mlflow", tmp_path, options, {"MLFLOW_ALLOW_FILE_STORE": "true"}, read)
    assert (found["status"], found["name"]) == ("FINISHED", "name")
    assert found["params"] == {"seed": "3", "losses.cycle.weight": "0.5"}
    assert found["spec"] == {"seed": 3, "losses": {"cycle": {"weight": 0.5}}}
    assert found["cycle"] == [[step, 1 / step] for step in range(1, 7)]
    assert found["gradient"] == [[step, 2.0] for step in range(1, 7)]
    assert sorted(found["results"]) == [[4, 0.25], [6, 0.5]]
    assert found["artifacts"] == ["samples/step-000004.png"]


def test_wandb_keeps_a_run_offline(tmp_path: Path) -> None:
    needed("wandb")
    # the file is read by W&B's own reader
    read = """
from wandb.proto import wandb_internal_pb2
from wandb.sdk.internal.datastore import DataStore

runs = []
for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
    store, found = DataStore(), {"history": [], "summary": {}, "config": {}}
    store.open_for_scan(str(path))
    while data := store.scan_data():
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.HasField("run"):
            found["id"], found["project"] = record.run.run_id, record.run.project
            found["config"] |= {u.key: json.loads(u.value_json) for u in record.run.config.update}
        if record.HasField("history"):
            items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            found["history"].append({key: json.loads(value) for key, value in items.items()})
        if record.HasField("summary"):
            items = record.summary.update
            found["summary"] |= {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}
    runs.append(found)
print(json.dumps(runs))
"""
    environment = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_CONFIG_DIR": str(tmp_path)}
    first, second = follow("wandb", tmp_path, {"project": "faces"}, environment, read)
    for run in (first, second):
        assert (run["id"], run["project"]) == ("0123456789abcdef", "faces")
        assert {"seed": 3, "losses": {"cycle": {"weight": 0.5}}}.items() <= run["config"].items()
    cycle = [[[row["_step"], row["loss/generator/ab/cycle"]] for row in run["history"]] for run in (first, second)]
    # offline the second process can't know what the first one has sent; `wandb sync` merges them by step
    assert cycle == [[[step, 1 / step] for step in steps] for steps in (range(1, 5), range(3, 7))]
    assert first["history"][-1]["samples"]["_type"] == "image-file"
    assert second["summary"]["results/ab/kid"] == 0.5
    assert second["summary"]["step-4/results/ab/kid"] == 0.25
    assert second["summary"]["state"] == "finished"


def test_trackio_has_the_run(tmp_path: Path) -> None:
    needed("trackio")
    read = """
from trackio.sqlite_storage import SQLiteStorage
(run,) = SQLiteStorage.get_runs("faces")
print(json.dumps([row | {"samples": 0} if "samples" in row else row for row in SQLiteStorage.get_logs("faces", run)]))
"""
    rows = follow("trackio", tmp_path, {"project": "faces"}, {"TRACKIO_DIR": str(tmp_path / "trackio")}, read)
    cycle = {row["step"]: row["loss/generator/ab/cycle"] for row in rows if "loss/generator/ab/cycle" in row}
    assert cycle == {step: 1 / step for step in range(1, 7)}
    assert [(row["step"], row["results/ab/kid"]) for row in rows if "results/ab/kid" in row] == [(4, 0.25), (6, 0.5)]
    assert any("samples" in row for row in rows)


@pytest.mark.parametrize(("name", "extra"), [("wandb", "trackers"), ("mlflow", "trackers"), ("trackio", "trackio")])
def test_a_missing_package_is_said_before_anything_is_trained(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, extra: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    spec = {**tiny, "callbacks": {"mine": {"type": name}}}
    for call in (lambda: ganlab.run(spec, out=tmp_path / "run"), lambda: check(spec)):
        with pytest.raises(ganlab.Unavailable) as caught:
            call()
        said = f"the package {name} is not installed: pip install 'ganlab[{extra}]'"
        assert str(caught.value) == said
    assert not (tmp_path / "run").exists()
