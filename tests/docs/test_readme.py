"""The code, spec and tables of README.md and of the pages that continue it are correct."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import ganlab
from ganlab.components.registry import registry
from ganlab.evaluation.metric_suite import evaluator_for
from ganlab.evaluation.splits import split
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from ganlab.system.build import build_data
from helpers.paths import DOCS, EXPERIMENTS, ROOT

README = (ROOT / "README.md").read_text("utf-8")
METRIC = (DOCS / "fifteen-lines.md").read_text("utf-8")
NUMBERS = (DOCS / "numbers.md").read_text("utf-8")


def test_git_ignores_what_a_reader_creates_in_the_clone() -> None:
    files = re.findall(r"`(mine\.json)`", README)[:1] + re.findall(r'"path": "(\w+)"', README)
    assert files == ["mine.json", "photos", "comics"]
    ignored = [line.strip("/") for line in (ROOT / ".gitignore").read_text("utf-8").splitlines()]
    assert set(files) <= set(ignored)


def test_it_has_the_steps_of_the_default_run() -> None:
    spec = ganlab.load_spec(EXPERIMENTS / "emb.json")
    steps = spec.schedule["steps"]
    assert re.findall(r"([\d,]+) steps (?:of batch|on images)", README) == [f"{steps:,}"] * 2
    assert f"steps of batch {spec.data.batch} " in README
    assert re.findall(r"step-(\d+)", README) == [f"{steps:06d}"] * 2
    assert f"Every {spec.samples.every} steps, a sample" in README


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The Python blocks of README.md and fifteen-lines.md, each installed as a package of its own."""
    names = []
    for code in re.findall(r"```python\n(.*?)```", README + METRIC, re.S):
        name = re.search(r'return \{"(\w+)": ', code)
        assert name is not None
        names.append(name[1])
        (tmp_path / f"{name[1]}.py").write_text(code)
        info = tmp_path / f"ganlab_{name[1]}-0.1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: ganlab-{name[1]}\nVersion: 0.1\n")
        (info / "entry_points.txt").write_text(f"[ganlab]\n{name[1]} = {name[1]}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.cache_clear()
    yield names
    registry.cache_clear()


def test_its_loss_trains_and_its_metric_measures(plugins: list[str], tiny: Json, tmp_path: Path) -> None:
    assert plugins == ["hinge", "sharpness"]
    spec = merge(
        tiny,
        {
            "losses": {"adversarial": {"type": "hinge"}},
            "evaluation": {"metrics": ["sharpness"]},
            "schedule": {"steps": 2},
            "data": {"holdout": 0.5},
        },
    )
    done = ganlab.run(spec, out=tmp_path / "run")
    assert done.evaluation is not None
    assert {result["number"] for result in done.evaluation["results"]} == {"sharpness"}
    parts = split(build_data(done.spec))
    for result in done.evaluation["results"]:
        pixels = np.stack(list(parts.validation[result["direction"][1]].pixels)).astype(np.float64)
        expected = np.abs(np.diff(pixels, axis=2)).mean() / 127.5
        assert result["references"]["real"]["value"] == pytest.approx(expected, rel=1e-5)


def test_its_spec_trains_on_two_folders_of_pictures(pictures: dict[str, Path], tmp_path: Path) -> None:
    (block,) = re.findall(r"```json\n(.*?)```", README, re.S)
    (tmp_path / "experiments").symlink_to(EXPERIMENTS)
    (tmp_path / "mine.json").write_text(block)
    small = [f"data.{domain}.path={folder}" for domain, folder in pictures.items()]
    small += [
        "data.size=32",
        "data.batch=2",
        "generator.width=4",
        "discriminators.image.of.width=4",
        "schedule.steps=1",
    ]
    small += ["discriminators.embedding.width=4", "runtime.threads=1", "data.holdout=0.7"]
    small += ["evaluation.every=null", "evaluation.features=null"]
    small.append('evaluation.metrics=[{"type": "content", "shared": {"hair": {"attribute": "x"}}}]')
    done = ganlab.run(tmp_path / "mine.json", small, out=tmp_path / "run")
    assert done.finished
    assert (tmp_path / "run" / "samples" / "step-000001.png").exists()
    assert done.evaluation is not None
    # as docs/use.md says of folders
    assert {left["number"] for left in done.evaluation["left_out"]} == {"content-hair"}


def test_every_number_of_the_shipped_metrics_is_explained() -> None:
    with_labels = {"type": "content", "shared": {"hair": {"attribute": "x"}, "skin": {"attribute": "x"}}}
    spec = {
        "evaluation": {"metrics": ["kid", "fid", "prdc", "lpips", with_labels, "embedding_space"], "features": "lite0"}
    }
    base = {
        "name": "numbers",
        "data": {"a": {"type": "folder", "path": "a"}, "b": {"type": "folder", "path": "b"}},
        "generator": {"type": "resnet"},
        "losses": {"cycle": {"type": "cycle"}},
        "schedule": {"type": "simultaneous"},
    }
    resolved = ganlab.load_spec({**base, **spec})
    (table,) = re.findall(r"\n\| number \|.*?\n\n", NUMBERS, re.S)
    for number in evaluator_for(resolved.evaluation).numbers:
        short = re.sub("^(precision|recall|density|coverage)-.*", r"\1", number)
        short = re.sub("^.*-diversity$", "...-diversity", short)
        assert f"`{short}`" in table, number
