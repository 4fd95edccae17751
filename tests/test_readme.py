"""What the README shows does what it says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import ganlab
from ganlab.build import build_data, build_sources
from ganlab.evaluation.material import split
from ganlab.evaluation.run import named
from ganlab.registry import registry
from ganlab.spec import Json, merge

README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The README's Python blocks, each installed as a package of its own."""
    names = []
    for code in re.findall(r"```python\n(.*?)```", README, re.S):
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
    assert {figure["number"] for figure in done.evaluation["figures"]} == {"sharpness"}
    parts = split(build_data(registry(), done.spec), build_sources(registry(), done.spec))
    for figure in done.evaluation["figures"]:
        pixels = np.stack(list(parts.choosing[figure["way"][1]].pixels)).astype(np.float64)
        expected = np.abs(np.diff(pixels, axis=2)).mean() / 127.5
        assert figure["references"]["real"]["value"] == pytest.approx(expected, rel=1e-5)


def test_it_explains_every_number_of_the_shipped_metrics() -> None:
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
    (table,) = re.findall(r"\n\| number \|.*?\n\n", README, re.S)
    for number in named(registry(), resolved.evaluation).numbers:
        short = re.sub("^(precision|recall|density|coverage)-.*", r"\1", number)
        short = re.sub("^.*-diversity$", "...-diversity", short)
        assert f"`{short}`" in table, number
