"""The trackers drive the real libraries on this machine alone: W&B offline, MLflow's file store, Trackio's database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import ganlab
from ganlab.experiment import check
from helpers.paths import TESTS
from helpers.processes import Forker

RUN_ID = "0123456789abcdef"

FOLLOW = """
import json, sys
from pathlib import Path
import numpy as np
from PIL import Image
import ganlab
from ganlab.components.registry import registry
from helpers.callbacks import start_of

folder, spec = Path("run"), {"seed": 3, "losses": {"cycle": {"weight": 0.5}}}
(folder / "samples").mkdir(parents=True)
for step in (4, 6):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / f"samples/step-{step:06d}.png")


def record(step):
    return {"step": step, "seconds": step / 4, "loss/generator/ab/cycle": 1 / step, "gradient/generator/ab+ba": 2.0}


for name, options in json.loads(sys.argv[1]).items():
    # the second process resumes after step 2, and the first one had got to step 4
    for done, last, state in ((0, 4, "interrupted"), (2, 6, "finished")):
        callback = registry().find("callback", name, "test").cls(**options)
        callback.begin(start_of(folder, done, spec=spec))
        for step in range(done + 1, last + 1):
            callback.records([record(step)])
        callback.samples(last, folder / f"samples/step-{last:06d}.png")
        if state == "finished":
            callback.evaluation(ganlab.Measurement(folder, 6, "validation", {"ab/kid": 1.0}))
            callback.evaluation(ganlab.Measurement(folder, 4, "test", {"ab/kid": 0.25}))
            callback.evaluation(ganlab.Measurement(folder, 6, "test", {"ab/kid": 0.5}))
        callback.end(ganlab.TrainingEnd(state, last, "because" if state == "interrupted" else None))
    # a third one only measures
    callback.begin(start_of(folder, 6, spec=spec))
    callback.evaluation(ganlab.Measurement(folder, 6, "test", {"ab/fid": 2.0}))
    callback.end(ganlab.TrainingEnd("finished", 6, None))
"""


@pytest.fixture(scope="module")
def folder(forker: Forker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which every installed tracker has followed a run that was interrupted and resumed."""
    folder = tmp_path_factory.mktemp("trackers")
    options = {
        "mlflow": {"experiment": "faces", "uri": (folder / "store").as_uri()},
        "wandb": {"project": "faces", "mode": "offline"},
        "trackio": {"project": "faces"},
    }
    asked = json.dumps({name: given for name, given in options.items() if find_spec(name) is not None})
    environment = {
        "HOME": str(folder),
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "WANDB_SILENT": "true",
        "TRACKIO_DIR": str(folder / "trackio"),
    }
    (folder / "follow.py").write_text(FOLLOW)
    job = {"folder": str(folder), "environment": environment, "paths": [str(TESTS)]}
    done = forker.run("follow.py", asked, python=True, **job)
    assert done.code == 0, done.said
    return folder


def needed(package: str) -> None:
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")


def test_mlflow_has_each_step_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow import MlflowClient

    client = MlflowClient((folder / "store").as_uri())
    experiment = client.get_experiment_by_name("faces")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])

    def history(name: str) -> list[tuple[int, float]]:
        return [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]

    assert (run.info.status, run.info.run_name) == ("FINISHED", "name")
    assert run.data.params == {"seed": "3", "losses.cycle.weight": "0.5"}
    # of the first process it was "because"
    assert run.data.tags["ganlab.why"] == ""
    assert history("loss/generator/ab/cycle") == [(step, 1 / step) for step in range(1, 7)]
    assert history("gradient/generator/ab_ba") == [(step, 2.0) for step in range(1, 7)]
    assert sorted(history("results/ab/kid")) == [(4, 0.25), (6, 0.5)]
    assert history("results/ab/fid") == [(6, 2.0)]
    artifacts = [each.path for each in client.list_artifacts(run.info.run_id, "samples")]
    assert artifacts == ["samples/step-000004.png", "samples/step-000006.png"]
    (kept,) = (folder / "store").rglob("artifacts/spec.json")
    assert json.loads(kept.read_text()) == {"seed": 3, "losses": {"cycle": {"weight": 0.5}}}


def stored(path: Path) -> Iterator[Any]:
    """Yields the records of a file of W&B: those of LevelDB's log format, in blocks of 32 KiB after 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, data = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if (left := 32768 - at % 32768) < 7:
            at += left
        size, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        # 1 is a whole record, 2, 3 and 4 are its first, middle and last part
        data = (data if kind in (3, 4) else b"") + content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            yield Record.FromString(data)


def values(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def test_wandb_keeps_a_run_offline(folder: Path) -> None:
    needed("wandb")
    runs: list[dict[str, Any]] = []
    for path in sorted(folder.glob("run/wandb/offline-run-*/run-*.wandb")):
        run: dict[str, Any] = {"history": [], "summary": {}}
        for record in stored(path):
            match record.WhichOneof("record_type"):
                case "run":
                    run |= {"id": record.run.run_id, "project": record.run.project}
                    run["config"] = values(record.run.config.update)
                case "history":
                    run["history"].append(values(record.history.item))
                case "summary":
                    run["summary"] |= values(record.summary.update)
        runs.append(run)
    *runs, measured = runs
    assert (measured["id"], measured["history"], measured["summary"]["results/ab/fid"]) == (RUN_ID, [], 2.0)
    # offline the second process can't know what the first one kept; `wandb sync` joins them by their steps
    for run, steps in zip(runs, (range(1, 5), range(3, 7)), strict=True):
        assert (run["id"], run["project"]) == (RUN_ID, "faces")
        assert {"seed": 3, "losses": {"cycle": {"weight": 0.5}}}.items() <= run["config"].items()
        cycle = [(row["_step"], row["loss/generator/ab/cycle"]) for row in run["history"]]
        assert cycle == [(step, 1 / step) for step in steps]
        assert run["history"][-1]["samples/_type"] == "image-file"
    assert (runs[0]["summary"]["state"], runs[0]["summary"]["why"]) == ("interrupted", "because")
    last = runs[1]["summary"]
    assert (last["results/ab/kid"], last["step-4/results/ab/kid"], last["state"]) == (0.5, 0.25, "finished")


def test_trackio_has_the_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed("trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(folder / "trackio"))
    from trackio.sqlite_storage import SQLiteStorage

    (run,) = SQLiteStorage.get_runs("faces")
    assert run == f"name-{RUN_ID[:8]}"
    rows = SQLiteStorage.get_logs("faces", run)
    cycle = [(row["step"], row["loss/generator/ab/cycle"]) for row in rows if "loss/generator/ab/cycle" in row]
    assert cycle == [(step, 1 / step) for step in range(1, 7)]
    assert [(row["step"], row["results/ab/kid"]) for row in rows if "results/ab/kid" in row] == [(4, 0.25), (6, 0.5)]
    assert [(row["step"], row["results/ab/fid"]) for row in rows if "results/ab/fid" in row] == [(6, 2.0)]
    assert [row["step"] for row in rows if "samples" in row] == [4, 6]


@pytest.mark.parametrize(("name", "extra"), [("wandb", "trackers"), ("mlflow", "trackers"), ("trackio", "trackio")])
def test_a_missing_package_is_said_before_anything_is_trained(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, extra: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    spec = {**tiny, "callbacks": {"mine": {"type": name}}}
    for call in (lambda: ganlab.run(spec, out=tmp_path / "run"), lambda: check(spec)):
        with pytest.raises(ganlab.Unavailable) as caught:
            call()
        assert str(caught.value) == f"the package {name} is not installed: pip install 'ganlab[{extra}]'"
    assert not (tmp_path / "run").exists()
