"""A run records its code: the warnings, and the records, when a plugin is edited between two commands."""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import ganlab
from ganlab.cli.commands import app
from ganlab.components.registry import Registry, installed, registry
from ganlab.runs import provenance
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from ganlab.spec.resolve import resolve
from helpers.callbacks import Recording, interrupt
from helpers.systems import TINY

INIT = """
import ganlab
from mine.terms import Mine

@ganlab.hookimpl
def ganlab_losses():
    return {"mine": Mine}
"""
TERMS = """
import ganlab
from theirs import mean

class Mine(ganlab.Loss):
    def generator(self, t):
        return mean(t.fake)
"""
# raises for a whole batch, but not for the dry run's two images
FAILING = TERMS.replace("t.fake)", "t.fake) * (1 // (len(t.source) < 4))")
THEIRS = """
import ganlab

def mean(x):
    return x.mean()

class Theirs(ganlab.Loss):
    pass

@ganlab.hookimpl
def ganlab_losses():
    return {"theirs": Theirs}
"""
SHADES = """
import ganlab
from ganlab import Estimate, MetricInfo

class Shade(ganlab.Metric):
    numbers = {"shade": MetricInfo("how bright an image is", "higher")}

    def measure(self, data):
        value = float(data.outputs.pixels[0].mean())
        return {"shade": Estimate(value, value, value, {"outputs": 1})}

@ganlab.hookimpl
def ganlab_metrics():
    return {"shade": Shade}
"""
FILES = {
    "shades.py": SHADES,
    "mine/__init__.py": INIT,
    "mine/terms.py": TERMS,
    "theirs.py": THEIRS,
    "unused.py": THEIRS.replace('"theirs"', '"unused"'),
}
PLUGINS = ("mine", "theirs", "unused", "shades")
USED = ["ganlab", "ganlab_cyclegan", "ganlab_resnet", "mine", "theirs"]


class Here:
    """A folder with plugins, and a run. Its loss is from the plugin `mine`, which imports the plugin `theirs`."""

    def __init__(self, folder: Path, spec: Json) -> None:
        self.folder, self.spec, self.run = folder, spec, folder / "run"

    def write(self, file: str, text: str) -> None:
        """Writes a file and forgets all imports, as if a new process ran next."""
        (self.folder / file).write_text(text)
        self.forget()

    def edit(self, file: str | None) -> None:
        if file is not None:
            self.write(file, f"{(self.folder / file).read_text()}# edited\n")

    def forget(self) -> None:
        for name in [name for name in sys.modules if name.split(".")[0] in PLUGINS]:
            del sys.modules[name]
        registry.cache_clear()

    def train(self, stop: int = 0) -> list[str]:
        """Runs in this process until step `stop`; returns the warnings."""
        callback = Recording(stop - 1 if stop else None, interrupt)
        if stop:
            with pytest.raises(ganlab.Interrupted):
                ganlab.run(self.spec, out=self.run, callback=callback)
        else:
            assert ganlab.run(self.spec, out=self.run, callback=callback).finished
        return [sentence for sentence in callback.warned if not sentence.startswith("stopping after this step")]

    @property
    def kept(self) -> Json:
        kept: Json = json.loads((self.run / "environment.json").read_text())
        return kept


@pytest.fixture
def here(tiny: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    for name in PLUGINS:
        info = tmp_path / f"my_{name}-0.3.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: my-{name}\nVersion: 0.3\n")
        (info / "entry_points.txt").write_text(f"[ganlab]\n{name} = {name}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    # with bytecode, Python could miss an edit within the same second
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    patch = {"discriminators": {"image": {"type": "spectral_norm", "of": TINY["discriminators"]["image"]}}}
    found = Here(tmp_path, merge(merge(tiny, patch), {"losses": {"mine": {"type": "mine"}}}))
    found.forget()
    yield found
    found.forget()


def listed(folder: Path, *names: str) -> str:
    """The output of `sha256sum NAME ... | sha256sum`."""
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def test_the_code_of_what_trains_is_kept_and_of_nothing_else(here: Here) -> None:
    (here.folder / "mine/.#terms.py").symlink_to("nowhere")
    (here.folder / "mine/deep").mkdir()
    (here.folder / "mine/deep/more.py").write_text("1\n")
    (here.folder / "mine/data.json").write_text("{}")
    here.train(stop=2)
    code = here.kept["code"]
    assert sorted(code) == sorted([*USED, "ganlab_regularisers"])
    files = ("mine/__init__.py", "mine/deep/more.py", "mine/terms.py")
    assert code["mine"] == {
        "package": "my-mine",
        "version": "0.3",
        "sha256": listed(here.folder, *files),
        "used_by": ["losses.mine"],
    }
    assert code["theirs"]["sha256"] == listed(here.folder, "theirs.py")
    assert code["theirs"]["used_by"] == ["losses.mine"]
    assert code["ganlab_regularisers"]["used_by"] == ["discriminators.image"]
    assert "discriminators.image.of" in code["ganlab_cyclegan"]["used_by"]
    core = Path(ganlab.__file__).parents[1]
    names = sorted(path.relative_to(core).as_posix() for path in (core / "ganlab").rglob("*.py"))
    assert code["ganlab"]["sha256"] == listed(core, *names)
    assert set(code["ganlab"]["used_by"]) >= {"data.a", "data.b", "generator", "schedule", "losses.mine"}


EDITS = [
    ("mine/terms.py", "mine (losses.mine)"),
    ("mine/__init__.py", "mine (losses.mine)"),
    ("theirs.py", "theirs (losses.mine)"),
    ("unused.py", None),
    (None, None),
]


@pytest.mark.parametrize(("file", "named"), EDITS)
def test_a_run_that_resumes_with_other_code_says_so_ever_after(here: Here, file: str | None, named: str | None) -> None:
    assert here.train(stop=3) == []
    begun = here.kept
    here.edit(file)
    told = here.train()
    if named is None:
        assert (told, here.kept) == ([], begun)
    else:
        (sentence,) = told
        assert sentence.startswith(f"the code of {named} changed after step 3 of {here.run}: its networks and ")
        (went_on,) = here.kept["continued"]
        assert set(went_on) == {"step", "code"}
        assert went_on["step"] == 3
        assert went_on["code"] != begun["code"]
        assert {**here.kept, "continued": []} == begun
    # again, now that the run is finished
    assert here.train() == told


@pytest.mark.parametrize(("file", "named"), EDITS)
def test_a_finished_run_says_that_its_code_has_changed(here: Here, file: str | None, named: str | None) -> None:
    here.train()
    (here.folder / "spec.json").write_text(json.dumps(here.spec))
    here.edit(file)
    before = {path: path.stat().st_mtime_ns for path in here.run.rglob("*")}
    for command in (["run", "spec.json", "--out", str(here.run)], ["eval", str(here.run), "--content"]):
        done = CliRunner().invoke(app, command)
        if command[0] == "run":
            assert f"already trained: 6 steps, in {here.run}" in done.stdout
            assert {path: path.stat().st_mtime_ns for path in here.run.rglob("*")} == before
        warned = [line for line in done.stderr.splitlines() if line.startswith("warning: the code of")]
        if named is None:
            assert warned == []
        else:
            (line,) = warned
            assert line.startswith(f"warning: the code of {named} has changed since {here.run} was trained: its ")
            assert line.endswith("come from the earlier version; `ganlab run` with --fresh starts over")


def test_every_change_is_told_and_one_whose_steps_are_lost_is_none(here: Here) -> None:
    here.train(stop=2)
    here.edit("theirs.py")
    here.train(stop=4)
    here.write("mine/terms.py", FAILING)
    with pytest.raises(ganlab.RunError, match="by zero"):
        here.train()
    assert [went_on["step"] for went_on in here.kept["continued"]] == [2, 4]
    # the old code is back, and no step was trained with the failing code
    for name in ("mine/terms.py", "theirs.py"):
        here.write(name, FILES[name])
    told = here.train()
    assert [went_on["step"] for went_on in here.kept["continued"]] == [2, 4]
    assert [sentence.split(" of ")[1] for sentence in told] == [
        "theirs (losses.mine) changed after step 2",
        "theirs (losses.mine) changed after step 4",
    ]


def test_a_run_without_a_checkpoint_starts_over_with_the_code_of_that_moment(here: Here) -> None:
    here.write("mine/terms.py", FAILING)
    with pytest.raises(ganlab.RunError, match="by zero"):
        here.train()
    here.write("mine/terms.py", TERMS)
    assert here.train() == []
    assert here.kept["code"]["mine"]["sha256"] == listed(here.folder, "mine/__init__.py", "mine/terms.py")
    assert here.kept["continued"] == []


def test_a_run_from_before_code_was_kept_resumes_and_says_nothing(here: Here) -> None:
    here.train(stop=3)
    old = {key: value for key, value in here.kept.items() if key not in ("code", "continued")}
    (here.run / "environment.json").write_text(json.dumps(old))
    here.edit("mine/terms.py")
    assert here.train() == []
    (here.run / "environment.json").write_text(json.dumps(old))
    assert here.train() == []


def test_code_that_is_no_files_is_known_by_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "packed.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("packed.py", THEIRS.replace('"theirs"', '"packed"'))
    monkeypatch.syspath_prepend(str(path))
    known = Registry([*installed(), EntryPoint("packed", "packed", "ganlab")])
    spec = resolve(merge(TINY, {"losses": {"packed": {"type": "packed"}}}), registry=known)
    now = provenance.code(spec.components.values())
    assert now["packed"]["sha256"] is None

    def told(**patch: Any) -> list[str]:
        then = {**now, "packed": {**now["packed"], **patch}}
        return list(provenance.code_changes(tmp_path, {"code": then}, now))

    assert told() == []
    (sentence,) = told(version="0")
    assert sentence.startswith(f"the code of packed (losses.packed) has changed since {tmp_path} was trained")


def test_a_metric_has_its_own_code_and_that_of_what_it_sees(here: Here) -> None:
    measures = {"data": {"holdout": 0.8}, "evaluation": {"metrics": ["shade", "kid"], "features": "lite0"}}
    here.spec = merge(here.spec, measures)
    here.train()

    def measured() -> Json:
        found: Json = json.loads((here.run / "evaluation.json").read_text())
        return found

    before = measured()
    code = before["protocol"]["code"]
    assert list(code) == ["kid", "shade"]
    assert code["shade"]["shades"] == listed(here.folder, "shades.py")
    assert set(code["shade"]) == {"ganlab", "shades"}
    assert set(code["kid"]) == {"ganlab", "ganlab_metrics", "ganlab_lite0"}
    assert "shades" not in here.kept["code"]
    here.edit("shades.py")
    (sentence,) = here.train()
    wanted = (
        f"the code of shades (shade) has changed since {here.run} was measured;"
        f" `ganlab eval {here.run}` measures it again"
    )
    assert sentence == wanted
    callback = Recording()
    ganlab.evaluate(here.run, ["shade"], callback=callback)
    assert callback.warned == []
    # the results and the code of the other metric have not changed
    after = measured()
    assert after["results"] == before["results"]
    assert after["protocol"]["code"] == {**code, "shade": {**code["shade"], "shades": listed(here.folder, "shades.py")}}
    assert here.train() == []
    # an evaluation.json of a version that did not record code
    del after["protocol"]["code"]
    (here.run / "evaluation.json").write_text(json.dumps(after))
    here.edit("shades.py")
    assert here.train() == []


def test_what_is_edited_after_it_was_read_is_not_what_ran(here: Here) -> None:
    here.train(stop=3)
    (here.folder / "mine/terms.py").write_text(f"{TERMS}# edited\n")
    # the same process still uses the code that it has imported
    assert here.train() == []
    here.forget()
    (sentence,) = here.train()
    assert "has changed since" in sentence


def test_all_forms_of_an_import_count_and_no_hidden_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "several"
    (package / ".ipynb_checkpoints").mkdir(parents=True)
    content = b"import json, ganlab.spec as spec, numpy\nfrom torch.nn import functional\n"
    (package / "__init__.py").write_bytes(content)
    (package / ".ipynb_checkpoints" / "copy.py").write_text("import os\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    sha256, imports = provenance._source(importlib.import_module("several"))
    line = f"{hashlib.sha256(content).hexdigest()}  several/__init__.py\n"
    assert sha256 == hashlib.sha256(line.encode()).hexdigest()
    assert imports == {"json", "ganlab", "numpy", "torch"}
    assert provenance._source(None) == (None, frozenset())
