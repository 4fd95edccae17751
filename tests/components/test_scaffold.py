"""`ganlab new` writes packages that are found, linted and tested as they come; and refuses with nothing written."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

import ganlab
from ganlab.cli.commands import app
from ganlab.components.docstrings import described
from ganlab.components.options import schema
from ganlab.components.scaffold import LONGEST, new
from helpers.paths import ROOT
from helpers.processes import Forker

KINDS = ["loss", "generator", "discriminator", "schedule", "metric", "source", "callback"]


def installed(folder: Path, into: Path) -> None:
    """Writes what `pip install -e` would: metadata that name the entry point."""
    project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
    info = into / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    ((name, module),) = project["entry-points"]["ganlab"].items()
    (info / "entry_points.txt").write_text(f"[ganlab]\n{name} = {module}\n")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of each kind, installed: fresh_loss, fresh_generator, ..."""
    folder = tmp_path_factory.mktemp("packages")
    for kind in KINDS:
        new(kind, f"fresh_{kind}", folder)
        installed(folder / f"fresh_{kind}", folder)
    return folder


def test_each_kind_passes_its_own_test(packages: Path, forker: Forker) -> None:
    tests = [f"fresh_{kind}/tests/test_fresh_{kind}.py" for kind in KINDS]
    words = ["-m", "pytest", "-q", "-W", "error", "--rootdir", ".", *tests]
    paths = [*(str(packages / f"fresh_{kind}") for kind in KINDS), str(packages)]
    done = forker.run(*words, python=True, folder=str(packages), paths=paths)
    assert done.code == 0, done.said
    assert re.search(r"^23 passed in", done.said, re.M), done.said


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_describes_its_options(kind: str, packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(packages / f"fresh_{kind}"))
    cls = getattr(importlib.import_module(f"ganlab_fresh_{kind}"), f"Fresh{kind.title()}")
    options = schema(cls)["properties"]
    assert set(options) == set(described(cls))
    assert all(option["description"] for option in options.values())


def clean_to_ruff(folder: Path) -> None:
    """Each package in the folder is clean to ruff, which sorts its imports as if it ran in the package's own folder."""
    for words in (["check", "--config", "src = ['*', '*/*']"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *words, "--isolated", "."]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr


def test_each_kind_is_clean_to_ruff(packages: Path) -> None:
    pytest.importorskip("ruff")
    clean_to_ruff(packages)


@pytest.mark.parametrize("length", [1, LONGEST])
def test_each_kind_is_clean_to_ruff_whatever_its_name(length: int, tmp_path: Path) -> None:
    pytest.importorskip("ruff")
    for kind in KINDS:
        (tmp_path / kind).mkdir()
        # without an inner _ the class's name is the longest
        new(kind, "x" * length, tmp_path / kind)
    clean_to_ruff(tmp_path)


def test_all_kinds_are_clean_to_mypy(packages: Path) -> None:
    pytest.importorskip("mypy")
    # mypy reads a package's types only if this file exists
    assert (Path(ganlab.__file__).parent / "py.typed").is_file()
    words = [str(path) for kind in KINDS for path in (packages / f"fresh_{kind}").rglob("*.py")]
    path = os.pathsep.join([str(packages / f"fresh_{kind}") for kind in KINDS])
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", *words],
        capture_output=True,
        text=True,
        # ganlab's own strict configuration, with its settings for torch
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": path},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_wheel_of_it_holds_the_package_and_its_entry_point(packages: Path, tmp_path: Path) -> None:
    script = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, cwd=packages / "fresh_loss"
    )
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(tmp_path / "ganlab_fresh_loss-0.1.0-py3-none-any.whl") as wheel:
        assert "ganlab_fresh_loss/__init__.py" in wheel.namelist()
        points = wheel.read("ganlab_fresh_loss-0.1.0.dist-info/entry_points.txt").decode()
    assert points.split() == ["[ganlab]", "fresh_loss", "=", "ganlab_fresh_loss"]


@pytest.mark.parametrize(("builder", "flag"), [(True, "--no-build-isolation "), (False, "")])
def test_the_command_says_what_comes_next(
    builder: bool, flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ganlab.cli.commands.find_spec", lambda name: builder or name != "hatchling" or None)
    shown = CliRunner().invoke(app, ["new", "loss", "mine"])
    assert shown.exit_code == 0, shown.output
    assert f"  install it   pip install {flag}-e mine\n" in shown.stdout
    shown = CliRunner().invoke(app, ["new", "source", "yours", "--json"])
    files = json.loads(shown.stdout)["files"]
    assert files == ["yours/pyproject.toml", "yours/ganlab_yours/__init__.py", "yours/tests/test_yours.py"]
    assert all((tmp_path / file).is_file() for file in files)


@pytest.mark.parametrize(
    ("kind", "name", "sentence"),
    [
        ("plugin", "mine", "there is no template for the kind 'plugin'; known kinds: loss, generator,"),
        (
            "loss",
            "my-loss",
            "'my-loss' can't be a name: use a lower-case letter, then lower-case letters, digits and inner _",
        ),
        ("loss", "MyThing", r"'MyThing' can't be a name: use a .* inner _; did you mean 'my_thing'\?"),
        ("loss", "XGANLoss2", r"'XGANLoss2' can't be a name: .*; did you mean 'xgan_loss2'\?"),
        ("loss", "Größe", "'Größe' can't be a name: .* and inner _"),
        ("loss", "x" * 26, "'x{26}' can't be a name: it has 26 characters, and at most 25 are allowed"),
        ("loss", "2nd", "'2nd' can't be a name"),
        ("loss", "größe", "'größe' can't be a name"),
        ("loss", "tail_", "'tail_' can't be a name"),
        ("loss", "../up", "'../up' can't be a name"),
        ("loss", "lambda", "'lambda' can't be a name: it is a keyword of Python; choose another"),
        ("loss", "cycle", "'cycle' is taken by the loss 'cycle' of plugin 'cyclegan' of ganlab "),
        ("metric", "cyclegan", "'cyclegan' is taken by the .* of plugin 'cyclegan' of ganlab "),
        ("loss", "there", "'there' exists already"),
    ],
)
def test_what_it_refuses(kind: str, name: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["new", kind, name])
    assert done.exit_code == 2
    assert re.fullmatch(f"ganlab: {sentence}.*\n", done.stderr), done.stderr
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


def test_a_package_that_is_there_is_not_shadowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ganlab_theirs.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ganlab.SpecError, match="its package ganlab_theirs is installed already"):
        new("loss", "theirs", tmp_path)
    assert not (tmp_path / "theirs").exists()


def test_a_name_of_another_kind_is_free(tmp_path: Path) -> None:
    assert len(new("metric", "cycle", tmp_path)) == 3


@pytest.mark.parametrize(
    ("name", "cls"), [("tensor", "TensorLoss"), ("soft_edge", "SoftEdgeLoss"), ("my_loss", "MyLoss")]
)
def test_the_class_has_a_name_that_its_module_does_not_import(name: str, cls: str, tmp_path: Path) -> None:
    _, module, _ = new("loss", name, tmp_path)
    space: dict[str, object] = {"__name__": "made"}
    exec(module.read_text("utf-8"), space)
    assert isinstance(space[cls], type)
    assert issubclass(space[cls], ganlab.Loss)
