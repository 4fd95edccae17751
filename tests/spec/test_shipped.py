"""The experiments that ship: in a clone and in the wheel, by name on the command line and in `extends`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import ganlab
from ganlab.errors import SpecError
from ganlab.spec.files import read
from ganlab.spec.shipped import experiments
from helpers.experiments import FILES
from helpers.paths import EXPERIMENTS, ROOT


def test_each_file_is_an_experiment_with_its_own_words() -> None:
    found = experiments()
    assert {f"{each.name}.json": each.path for each in found} == FILES
    for each in found:
        assert each.about == json.loads(each.path.read_text("utf-8"))["about"] != ""
    names = [each.name for each in found]
    assert names.index("zhu2017") < names.index("paper/cyclegan")


@pytest.mark.parametrize("name", ["emb", "emb.json", "paper/wgan"])
def test_a_name_stands_for_the_experiment(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    expected = read((EXPERIMENTS / name).with_suffix(".json"))
    assert read(name) == expected
    # a folder of the name is no spec
    (tmp_path / name).mkdir(parents=True)
    assert read(name) == expected


def test_a_file_of_the_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("emb.json").write_text('{"about": "mine"}')
    assert read("emb") == read("emb.json") == {"about": "mine", "name": "emb"}
    Path("emb").write_text('{"about": "without a suffix"}')
    assert read("emb")["about"] == "without a suffix"


def test_a_spec_extends_an_experiment_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # also one of the same name as itself
    Path("emb.json").write_text('{"extends": "emb", "seed": 3}')
    found = ganlab.load_spec("emb")
    assert (found.seed, found.generator) == (3, ganlab.load_spec(EXPERIMENTS / "emb.json").generator)
    Path("mine.json").write_text('{"extends": "emb.json", "data": {"batch": 2}}')
    assert ganlab.load_spec("mine.json").seed == 3


@pytest.mark.parametrize("name", ["embb", "paper", "../experiments/emb.json", "paper/../emb", ".schema", ""])
def test_other_names_are_paths(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match=f"^{Path(name)}: (can't be read: |is a folder without a run; )"):
        read(name)


def test_a_name_that_is_almost_right_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    missing = "can't be read: No such file or directory"
    for asked, name in (("embb", "emb"), ("cylegan.json", "cyclegan"), ("paper/wgann", "paper/wgan")):
        with pytest.raises(SpecError, match=f"^{asked}: {missing}; did you mean '{name}'[?]$"):
            read(asked)
    Path("child.json").write_text('{"extends": "embb"}')
    with pytest.raises(SpecError, match=rf"{missing} \(child.json extends it\); did you mean 'emb'[?]$"):
        read("child.json")
    with pytest.raises(SpecError, match=f"^pictures: {missing}$"):
        read("pictures")


def test_they_are_in_the_wheel(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
        (metadata,) = (archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA"))
    for line in ("Author: The ganlab authors", "Keywords: ", "Classifier: Typing :: Typed"):
        assert f"\n{line}" in metadata
    code = "import ganlab.spec.shipped as s; print(s.__file__); [print(e.name, e.path) for e in s.experiments()]"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
    )
    home, *found = done.stdout.splitlines()
    assert home.startswith(str(tmp_path))
    expected = [f"{each.name} {tmp_path}/site/ganlab/experiments/{each.name}.json" for each in experiments()]
    assert found == expected
    for name, path in FILES.items():
        assert (tmp_path / "site/ganlab/experiments" / name).read_bytes() == path.read_bytes()
