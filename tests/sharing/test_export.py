"""`ganlab.export`: folders that can be shared and read again."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from ganlab_resnet.generator import Resnet
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import ganlab
from ganlab import Domain, RunError, SpecError
from ganlab.cli.commands import app
from ganlab.components.registry import registry
from ganlab.runs.overview import leftovers, list_runs
from ganlab.sharing import card
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from helpers.folders import draw
from helpers.paths import INSTALLED
from helpers.pictures import colourful
from helpers.systems import SIZE, TINY

MEASURED = {"every": 1, "metrics": [{"type": "brightness", "better": "higher"}]}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ganlab.Run]:
    """A measured run with averaged weights whose best checkpoint is not its last, in a folder named secret."""
    folder = tmp_path_factory.mktemp("secret")
    sources = {domain: {"path": str(path)} for domain, path in draw(folder).items()}
    patch = {"data": {**sources, "holdout": 0.5}, "schedule": {"lr": 0.05}, "ema_halflife_images": 8}
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(INSTALLED))
        registry.cache_clear()
        ganlab.run(merge(TINY, {**patch, "about": "Noise | for tests", "evaluation": MEASURED}), out=folder / "run")
        yield ganlab.load_run(folder / "run")
    registry.cache_clear()


@pytest.fixture(scope="module")
def model(run: ganlab.Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run, exported."""
    folder = tmp_path_factory.mktemp("shared") / "model"
    ganlab.export(run, folder, license="cc0-1.0")
    return folder


def front_matter(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folder / "README.md").read_text("utf-8").split("---\n")[1])
    return found


# -- what is written --------------------------------------------------------------------------------------------------


def test_the_files_hold_the_generators_and_are_read_again(run: ganlab.Run, model: Path) -> None:
    assert sorted(path.name for path in model.iterdir()) == [
        *("README.md", "ab.safetensors", "ba.safetensors", "evaluation.json", "grid.png", "spec.json")
    ]
    assert (model / "grid.png").read_bytes() == (run.folder / "samples/step-000006.png").read_bytes()
    again = ganlab.load_run(model)
    assert (again.step, again.finished, again.records) == (6, True, [])
    image, images = colourful(30, 20), torch.rand(2, 3, SIZE, SIZE) * 2 - 1
    for direction in ("ab", "ba"):
        # built outside of ganlab's machinery
        plain = Resnet(*(Domain(name, 3, SIZE, SIZE) for name in direction), width=4, blocks=2).eval()
        plain.load_state_dict(load_file(model / f"{direction}.safetensors"))
        trained = load_file(run.folder / "checkpoints/step-000006/networks.safetensors")
        for name, value in plain.state_dict().items():
            assert torch.equal(value, trained[f"ema/{direction}.{name}"])
        with torch.no_grad():
            assert torch.equal(again.generator(direction)(images), plain(images))
        to = direction[1]
        for size in ("run", "keep"):
            one, other = (np.array(each.translate(image, to=to, size=size)) for each in (again, run))
            assert np.array_equal(one, other)


def test_the_best_checkpoint_is_exported_with_its_own_results(run: ganlab.Run, tmp_path: Path) -> None:
    found = ganlab.export(run, tmp_path / "best", checkpoint="best")
    assert run.evaluation is not None
    best = run.evaluation["protocol"]["best_by"]["step"]
    assert found["step"] == best != 6
    images = torch.rand(1, 3, SIZE, SIZE)
    again = ganlab.load_run(tmp_path / "best")
    assert torch.equal(again.translate(images, to="b"), run.translate(images, to="b", checkpoint="best"))
    kept = json.loads((tmp_path / "best/evaluation.json").read_text())
    assert kept["results"] == [result for result in run.evaluation["results"] if result["step"] == best]
    assert kept["results"]
    assert again.evaluation == kept


def test_nothing_names_this_machine(model: Path, run: ganlab.Run) -> None:
    texts = [path.read_text("utf-8") for path in model.iterdir() if path.suffix in (".md", ".json")]
    for direction in ("ab", "ba"):
        with safe_open(model / f"{direction}.safetensors", framework="pt") as file:
            texts.append(json.dumps(file.metadata()))
    for text in texts:
        assert "secret" not in text
        assert str(Path.home()) not in text
        assert "/" not in str(json.loads((model / "spec.json").read_text())["data"])
    spec = json.loads((model / "spec.json").read_text())
    assert spec["data"]["a"]["path"] == "pictures-a"
    # callbacks name accounts and servers, and plugins that others may lack
    assert spec["callbacks"] == {}
    kept, changed = run.spec.as_json(), ("data", "callbacks")
    assert kept["callbacks"] != {}
    assert {k: v for k, v in spec.items() if k not in changed} == {k: v for k, v in kept.items() if k not in changed}


def test_the_card_has_front_matter_results_protocol_and_limits(model: Path, run: ganlab.Run) -> None:
    front = front_matter(model)
    assert (front["library_name"], front["pipeline_tag"], front["license"]) == ("ganlab", "image-to-image", "cc0-1.0")
    assert {"gan", "image-translation"} == set(front["tags"])
    assert run.evaluation is not None
    last = [result for result in run.evaluation["results"] if result["step"] == 6]
    assert len(last) == 2
    (entry,) = front["model-index"]
    shown = [(m["name"], m["value"]) for result in entry["results"] for m in result["metrics"]]
    assert shown == [(result["number"], result["value"]) for result in last]
    for result in entry["results"]:
        assert result["task"]["type"] == "image-to-image"
        assert result["dataset"].keys() == {"type", "name"}
    text = (model / "README.md").read_text("utf-8")
    assert text.split("---\n")[2].startswith("\n# tiny\n\nNoise | for tests\n")
    for result in last:
        low, high = result["interval"]
        real, identity = (result["references"][name]["value"] for name in ("real", "identity"))
        row = f"| {result['number']} | {result['value']:.4g} | {low:.4g} to {high:.4g} | {real:.4g} | {identity:.4g} |"
        assert row in text
        assert f"{result['counts']['outputs']} outputs" in text
    assert f"SHA-256 `{run.evaluation['protocol']['images']['a']['sha256']}`" in text
    assert "Images of 16 x 16 pixels in batches of 4, mirrored at random; 50% of each domain held out." in text
    assert "`lsgan` (weight 1), `cycle` (weight 10)" in text
    assert "averaged over training, half-life 8 images" in text
    assert (
        "- Trained at 16 x 16 pixels. The generators take heights and widths that are multiples of 4, 8 or more" in text
    )
    for title in ("## Use", "## Training", "## Results", "## Limits", "## Data"):
        assert f"\n{title}\n\n" in text
    # YAML 1.1 takes 1e-05 for a text
    assert [yaml.safe_load(card._yaml(value)) for value in (1e-05, -2e22, 0.5)] == [1e-05, -2e22, 0.5]
    # neither blank lines in tables nor what a template leaves
    assert not re.search(r"\n\n\n|\{[{%]|\|\n\n\|", text)


def test_the_card_credits_the_data(tmp_path: Path) -> None:
    sources = {d: {"type": "avatars", "style": s, "count": 8} for d, s in (("a", "big-ears"), ("b", "pixel-art"))}
    spec = merge(TINY, {"data": {**sources, "holdout": 0.5}, "schedule": {"steps": 1}})
    ganlab.run(spec, out=tmp_path / "run")
    ganlab.export(tmp_path / "run", tmp_path / "model")
    text = (tmp_path / "model/README.md").read_text("utf-8")
    assert "- **a**: avatars big-ears, 8 images (SHA-256 `" in text
    assert (
        "The Visual Team” (https://thevisual.team/)" in text or "„The Visual Team”, licensed under „CC BY 4.0”" in text
    )
    assert "„DiceBear”, licensed under „CC0 1.0”" in text
    assert "This checkpoint was not measured." in text
    front = front_matter(tmp_path / "model")
    assert "license" not in front
    assert "model-index" not in front


def test_generators_that_share_layers_are_whole_in_each_file(tiny: Json, tmp_path: Path) -> None:
    options = {"type": "xgan", "width": 2, "embedding": 4}
    patch = {"generator": options, "schedule": {"steps": 1}, "data": {"size": 32}}
    run = ganlab.run(merge(tiny, patch), out=tmp_path / "run")
    ganlab.export(run, tmp_path / "model")
    again = ganlab.load_run(tmp_path / "model")
    images = torch.rand(1, 3, 32, 32)
    for to in "ab":
        assert torch.equal(again.translate(images, to=to), run.translate(images, to=to))
    assert "images of 32 x 32 pixels only" in (tmp_path / "model/README.md").read_text("utf-8")


def test_onnx_files_are_written_and_compared(tiny: Json, tmp_path: Path) -> None:
    one_way = {"directions": ["ab"], "losses": {"cycle": None}, "generator": {"blocks": 1, "width": 2}}
    run = ganlab.run(merge(merge(tiny, one_way), {"schedule": {"steps": 1}}), out=tmp_path / "run")
    words = ["export", str(run.folder), str(tmp_path / "model"), "--onnx"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[:2] == [
        f"exported: step 1 of {run.folder}, in {tmp_path / 'model'}",
        f"  look at      {tmp_path / 'model/README.md'}",
    ]
    assert re.fullmatch(
        r"  ONNX +\S+ab.onnx: at most \S+e-\d\d from PyTorch in float32, \S+ in float64", done.stdout.splitlines()[2]
    )
    session = onnxruntime.InferenceSession(tmp_path / "model/ab.onnx", providers=["CPUExecutionProvider"])
    images = torch.rand(3, 3, 24, 20)
    (outputs,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        assert np.abs(outputs - run.generator("ab")(images).numpy()).max() <= 1e-4
    text = (tmp_path / "model/README.md").read_text("utf-8")
    assert "Opset 18." in text
    assert "1 x 3 x 16 x 16" in text
    assert "onnx" in front_matter(tmp_path / "model")["tags"]
    # an export without ONNX leaves no file of the one before
    ganlab.export(run, tmp_path / "model", overwrite=True)
    assert not (tmp_path / "model/ab.onnx").exists()


def test_the_result_is_the_same_twice_and_of_a_model_again(run: ganlab.Run, model: Path, tmp_path: Path) -> None:
    ganlab.export(run, tmp_path / "twice", license="cc0-1.0")
    ganlab.export(model, tmp_path / "again", license="cc0-1.0")
    for path in model.iterdir():
        assert (tmp_path / "twice" / path.name).read_bytes() == path.read_bytes()
        if path.name not in ("README.md", "spec.json"):
            assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


# -- what is refused --------------------------------------------------------------------------------------------------


def test_nothing_is_overwritten_unasked(run: ganlab.Run, model: Path, tmp_path: Path) -> None:
    target = tmp_path / "model"
    shutil.copytree(model, target)
    (target / "grid.png").write_bytes(b"other")
    with pytest.raises(SpecError, match=r"spec\.json exists, and 5 others do; replace with --overwrite, or choose"):
        ganlab.export(run, target)
    assert (target / "grid.png").read_bytes() == b"other"
    ganlab.export(run, target, overwrite=True)
    assert (target / "grid.png").read_bytes() == (model / "grid.png").read_bytes()
    for overwrite in (False, True):
        with pytest.raises(SpecError, match="is the run to export; choose another folder"):
            ganlab.export(run, run.folder, overwrite=overwrite)
        shutil.copytree(run.folder, tmp_path / f"other-{overwrite}")
        with pytest.raises(SpecError, match="is a run, which is not overwritten; choose another folder"):
            ganlab.export(run, tmp_path / f"other-{overwrite}", overwrite=overwrite)
    with pytest.raises(SpecError, match="is not a folder; choose another name"):
        ganlab.export(run, target / "grid.png", overwrite=True)
    project = tmp_path / "project"
    project.mkdir()
    (project / "README.md").write_text("mine")
    with pytest.raises(SpecError, match=r"README\.md exists, and .*project is no shared model; choose another folder"):
        ganlab.export(run, project, overwrite=True)
    assert [path.name for path in project.iterdir()] == ["README.md"]


def test_a_model_has_one_checkpoint_and_no_images(model: Path) -> None:
    with pytest.raises(
        SpecError, match=r"checkpoint: 'best' is not allowed: .* is a shared model, with one checkpoint"
    ):
        ganlab.load_run(model).generator("ab", "best")
    with pytest.raises(SpecError, match="is a shared model, without its images; measure it on others with --inputs"):
        ganlab.evaluate(model)


def test_a_model_is_not_trained_further_and_not_pruned(model: Path) -> None:
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    for fresh in (False, True):
        with pytest.raises(SpecError, match=r"is a shared model, which is not trained further; to begin with its weig"):
            ganlab.run(model, set=["schedule.steps=9"], fresh=fresh)
    (status,) = list_runs(model.parent)
    assert (status.state, status.step) == ("shared", 6)
    assert leftovers(model.parent) == []
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before


def test_a_run_begins_with_the_weights_of_a_model(model: Path, tiny: Json, tmp_path: Path) -> None:
    # a step without a change
    patch = {"init": {"run": str(model)}, "schedule": {"steps": 1, "lr": 1e-30}}
    run = ganlab.run(merge(tiny, patch), out=tmp_path / "run")
    images = torch.rand(1, 3, SIZE, SIZE)
    for to in "ab":
        assert torch.equal(run.translate(images, to=to), ganlab.load_run(model).translate(images, to=to))
    kept = json.loads((tmp_path / "run/environment.json").read_text())["init"]
    names = ("ab.safetensors", "ba.safetensors")
    hashed = {name: hashlib.sha256((model / name).read_bytes()).hexdigest() for name in names}
    assert kept == {"run": str(model.resolve()), "step": 6, "sha256": hashed}


def damaged(model: Path, tmp_path: Path) -> Path:
    shutil.copytree(model, tmp_path / "model")
    return tmp_path / "model" / "ab.safetensors"


@pytest.mark.parametrize("what", ["cut", "shape", "nan", "missing", "absent", "metadata", "no metadata"])
def test_a_damaged_file_is_one_sentence(model: Path, tmp_path: Path, what: str) -> None:
    path = damaged(model, tmp_path)
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    name = next(name for name in tensors if name.endswith("weight"))
    if what == "cut":
        path.write_bytes(path.read_bytes()[:-4])
    elif what == "absent":
        path.unlink()
    else:
        changed = {"shape": torch.zeros(2), "nan": tensors[name] * float("nan")}.get(what, tensors.pop(name))
        if what != "missing":
            tensors[name] = changed
        kept = {"metadata": {"ganlab": '{"step": "six"}'}, "no metadata": {"format": "pt"}}.get(what, metadata)
        save_file(tensors, path, kept)
    with pytest.raises(RunError, match=re.escape(f"{path} can't be read: ")) as raised:
        ganlab.load_run(path.parent).generator("ab")
    assert "\n" not in str(raised.value)
    done = CliRunner().invoke(app, ["export", str(path.parent), str(tmp_path / "out")])
    assert (done.exit_code, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()
