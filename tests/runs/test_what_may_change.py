"""The places of the images and the cadence may change between the processes of a run: they train nothing."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

import ganlab
from ganlab import SpecError
from ganlab.cli.commands import app
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from helpers.callbacks import Recording, interrupt


@pytest.fixture
def spec(tiny: Json, trial: None) -> Json:
    """A few milliseconds a step, half of the images held out, measured by a third party's metric."""
    patch = {
        "generator": {"type": "sharing"},
        "discriminators": {"image": {"type": "plain"}},
        "losses": {"cycle": None},
        "data": {"holdout": 0.5},
        "ema_halflife_images": 20,
        "evaluation": {"metrics": [{"type": "brightness", "better": "higher"}], "every": 1},
    }
    return merge(tiny, patch)  # type: ignore[no-any-return]


def networks(folder: Path) -> bytes:
    return (folder / "checkpoints/step-000006/networks.safetensors").read_bytes()


def begun(spec: Json, folder: Path, at: int = 2) -> Path:
    """A run that was interrupted after step `at` + 1."""
    with pytest.raises(ganlab.Interrupted):
        ganlab.run(spec, out=folder, callback=Recording(at, interrupt))
    return folder


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(SpecError) as caught:
        call()
    return str(caught.value)


def kept(folder: Path) -> Any:
    return json.loads((folder / "spec.json").read_text())


def test_a_run_resumes_and_is_measured_where_its_images_lie_now(
    spec: Json, pictures: dict[str, Path], tmp_path: Path
) -> None:
    whole = ganlab.run(spec, out=tmp_path / "whole")
    out = begun(spec, tmp_path / "run")
    moved = pictures["a"].rename(tmp_path / "moved")
    place = f"data.a.path={moved}"
    assert "does not exist" in refusal(lambda: ganlab.run(spec, out=out))
    done = ganlab.run(spec, [place], out=out)
    assert done.finished
    assert networks(out) == networks(tmp_path / "whole")
    assert done.evaluation is not None
    assert whole.evaluation is not None
    assert done.evaluation["results"] == whole.evaluation["results"]
    assert done.evaluation["protocol"]["spec"] == whole.evaluation["protocol"]["spec"]
    assert kept(out)["data"]["a"]["path"] == str(moved)
    ganlab.evaluate(out)
    # the other run still has the old path
    said = refusal(lambda: ganlab.evaluate(tmp_path / "whole"))
    old = pictures["a"]
    assert said == (
        f"data.a: the folder {str(old)!r} does not exist; if the images have moved, give their place with"
        " --set data.a.path=..."
    )
    arguments = ["eval", str(tmp_path / "whole"), "--set", place, "--json"]
    answer = CliRunner().invoke(app, arguments)
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.stdout)["results"] == whole.evaluation["results"]
    assert kept(tmp_path / "whole")["data"]["a"]["path"] == str(old)


@pytest.mark.parametrize("finished", [False, True])
def test_other_images_at_another_place_are_refused(
    spec: Json, pictures: dict[str, Path], tmp_path: Path, finished: bool
) -> None:
    out = tmp_path / "run"
    if finished:
        ganlab.run(spec, out=out)
    else:
        begun(spec, out)
    other = tmp_path / "other"
    shutil.copytree(pictures["a"], other)
    Image.new("RGB", (20, 16)).save(other / "03.png")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for call in (ganlab.run, lambda spec, set, out: ganlab.evaluate(out, set=set)):
        said = refusal(lambda call=call: call(spec, set=[f"data.a.path={other}"], out=out))  # type: ignore[misc]
        assert said == (
            f"data.a: these are not the images that {out} began with: 12 now (in {other}), 12 then, or their names,"
            " order or content have changed; give the place of the run's images with --set data.a.path=..., or choose"
            " another folder with --out"
        )
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_finished_run_whose_images_have_moved_is_not_trained_again(
    spec: Json, pictures: dict[str, Path], tmp_path: Path
) -> None:
    done = ganlab.run(spec, out=tmp_path / "run")
    moved = pictures["b"].rename(tmp_path / "moved")
    again = ganlab.run(spec, [f"data.b.path={moved}"], out=tmp_path / "run")
    assert (again.records, again.evaluation) == (done.records, done.evaluation)
    assert ganlab.load_run(tmp_path / "run").spec.data.b["path"] == str(moved)


def test_a_run_is_found_by_its_images_from_any_folder_and_at_another_place(
    spec: Json, pictures: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    relative = merge(spec, {"data": {domain: {"path": path.name} for domain, path in pictures.items()}})
    (tmp_path / "spec.json").write_text(json.dumps(relative))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    begun(Path("../spec.json"), Path("run"))  # type: ignore[arg-type]
    monkeypatch.chdir(tmp_path)
    moved = Path("elsewhere/run").rename("run")
    assert ganlab.run("spec.json", out=moved).finished
    monkeypatch.chdir("/")
    assert ganlab.evaluate(tmp_path / "run")["results"]


def test_only_what_trains_nothing_can_be_set_for_an_evaluation(spec: Json, tmp_path: Path) -> None:
    ganlab.run(spec, out=tmp_path / "run")
    for change, named in (("data.size=8", "data.size: 16 / 8"), ("seed=2", "seed: 0 / 2")):
        said = refusal(lambda change=change: ganlab.evaluate(tmp_path / "run", set=[change]))  # type: ignore[misc]
        assert said == f"eval --set: {tmp_path / 'run'} was trained otherwise (there / asked): {named}"
    assert "unknown key" in refusal(lambda: ganlab.evaluate(tmp_path / "run", set=["dta=1"]))
    assert "goes with a run" in refusal(lambda: ganlab.evaluate(images=("a", "b"), set=["seed=1"]))
    with pytest.raises(ganlab.Unavailable, match="kid needs at least 4 images"):
        ganlab.evaluate(tmp_path / "run", set=['evaluation.metrics=["kid"]', "evaluation.features=averages"])


CADENCES: list[Json] = [
    {"samples": {"every": 1, "count": 4}, "checkpoints": {"every": 1, "keep": 9}, "runtime": {"log_every": 3}},
    {"samples": {"every": 100}, "checkpoints": {"every": 100, "keep": 1}, "runtime": {"log_every": 100}},
]


@pytest.mark.parametrize("cadence", CADENCES, ids=["more often", "less often"])
def test_a_resumed_run_may_save_draw_and_log_at_other_steps(spec: Json, tmp_path: Path, cadence: Json) -> None:
    ganlab.run(spec, out=tmp_path / "whole")
    out = begun(merge(spec, {"runtime": {"log_every": 2}}), tmp_path / "run")
    # twice: the second process changes the first one's cadence back
    with pytest.raises(ganlab.Interrupted):
        ganlab.run(merge(spec, cadence), out=out, callback=Recording(4, interrupt))
    for key, values in cadence.items():
        assert kept(out)[key].items() >= values.items()
    done = ganlab.run(merge(spec, cadence), out=out)
    assert networks(out) == networks(tmp_path / "whole")
    assert Counter(record["step"] for record in done.records) == Counter(range(1, 7))
    without = [{k: v for k, v in record.items() if k != "seconds"} for record in done.records]
    expected = ganlab.load_run(tmp_path / "whole").records
    assert without == [{k: v for k, v in record.items() if k != "seconds"} for record in expected]
    assert done.evaluation is not None
    # the best checkpoint is kept beyond the newest
    best = done.evaluation["protocol"]["best_by"]["step"]
    assert (out / f"checkpoints/step-{best:06d}").is_dir()
