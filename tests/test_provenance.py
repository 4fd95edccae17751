"""A run knows the code that it is of: what is told, and kept, when a plugin is edited between two commands."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import signal
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY
from typer.testing import CliRunner

import ganlab
from ganlab import provenance
from ganlab.cli import app
from ganlab.engine import Record
from ganlab.laboratory import Nobody
from ganlab.registry import Registry, installed, registry
from ganlab.spec import Json, merge, resolve

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
# the rehearsal's two images pass
FAILING = TERMS.replace("t.fake)", "t.fake) * (1 // (len(t.real) < 4))")
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
from ganlab.evaluation.estimates import Estimate
from ganlab.interfaces import Number

class Shade(ganlab.Metric):
    numbers = {"shade": Number("how bright an image is", "higher")}

    def measure(self, evidence):
        value = float(evidence.outputs.pixels[0].mean())
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
    """Some plugins, and a run of a loss of one that imports the second."""

    def __init__(self, folder: Path, spec: Json) -> None:
        self.folder, self.spec, self.run = folder, spec, folder / "run"

    def write(self, file: str, text: str) -> None:
        """Whatever runs next is a process that imports it anew."""
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
        """What is told by a process, which is stopped in step `stop`."""
        watcher = Telling(stop)
        if stop:
            with pytest.raises(ganlab.Interrupted):
                ganlab.run(self.spec, out=self.run, watcher=watcher)
        else:
            assert ganlab.run(self.spec, out=self.run, watcher=watcher).finished
        return watcher.told

    @property
    def kept(self) -> Json:
        kept: Json = json.loads((self.run / "environment.json").read_text())
        return kept


class Telling(Nobody):
    def __init__(self, stop: int) -> None:
        self.told: list[str] = []
        self.stop = stop

    def steps(self, records: list[Record]) -> None:
        if self.stop and records[-1]["step"] == self.stop - 1:
            os.kill(os.getpid(), signal.SIGINT)

    def warns(self, sentence: str) -> None:
        self.told.append(sentence)


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
    # an edit within the same second might be taken for no edit
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    patch = {"discriminators": {"image": {"type": "spectral_norm", "of": TINY["discriminators"]["image"]}}}
    found = Here(tmp_path, merge(merge(tiny, patch), {"losses": {"mine": {"type": "mine"}}}))
    found.forget()
    yield found
    found.forget()


def listed(folder: Path, *names: str) -> str:
    """As `sha256sum NAME ... | sha256sum`."""
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
def test_a_run_that_goes_on_with_other_code_says_so_ever_after(here: Here, file: str | None, named: str | None) -> None:
    assert here.train(stop=3) == []
    begun = here.kept
    here.edit(file)
    told = here.train()
    if named is None:
        assert (told, here.kept) == ([], begun)
    else:
        (sentence,) = told
        assert sentence.startswith(f"the code of {named} changed after step 3 of {here.run}, whose networks and ")
        (went_on,) = here.kept["continued"]
        assert set(went_on) == {"step", "code"}
        assert went_on["step"] == 3
        assert went_on["code"] != begun["code"]
        assert {**here.kept, "continued": []} == begun
    # once more, now that it is finished
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
            assert line.startswith(f"warning: the code of {named} has changed since {here.run} was trained, whose ")
            assert line.endswith("are of the code as it was; `ganlab run` with --fresh trains anew")


def test_every_change_is_told_and_one_whose_steps_are_lost_is_none(here: Here) -> None:
    here.train(stop=2)
    here.edit("theirs.py")
    here.train(stop=4)
    here.write("mine/terms.py", FAILING)
    with pytest.raises(ganlab.RunError, match="by zero"):
        here.train()
    assert [went_on["step"] for went_on in here.kept["continued"]] == [2, 4]
    # mended as it was: of the failing code there is no step
    for name in ("mine/terms.py", "theirs.py"):
        here.write(name, FILES[name])
    told = here.train()
    assert [went_on["step"] for went_on in here.kept["continued"]] == [2, 4]
    assert [sentence.split(" of ")[1] for sentence in told] == [
        "theirs (losses.mine) changed after step 2",
        "theirs (losses.mine) changed after step 4",
    ]


def test_a_run_without_a_checkpoint_is_of_the_code_with_which_it_begins_again(here: Here) -> None:
    here.write("mine/terms.py", FAILING)
    with pytest.raises(ganlab.RunError, match="by zero"):
        here.train()
    here.write("mine/terms.py", TERMS)
    assert here.train() == []
    assert here.kept["code"]["mine"]["sha256"] == listed(here.folder, "mine/__init__.py", "mine/terms.py")
    assert here.kept["continued"] == []


def test_a_run_that_was_begun_before_code_was_kept_goes_on_and_says_nothing(here: Here) -> None:
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
    spec = resolve(known, merge(TINY, {"losses": {"packed": {"type": "packed"}}}))
    now = provenance.code(known, provenance.trains(known, spec))
    assert now["packed"]["sha256"] is None

    def told(**patch: Any) -> list[str]:
        then = {**now, "packed": {**now["packed"], **patch}}
        return list(provenance.of_other_code(tmp_path, {"code": then}, now))

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
        f"the code of shades (shade) has changed since {here.run} was measured; `ganlab eval {here.run}` measures anew"
    )
    assert sentence == wanted
    watcher = Telling(0)
    ganlab.evaluate(here.run, ["shade"], watcher=watcher)
    assert watcher.told == []
    # the other's figures and code are as they were
    after = measured()
    assert after["figures"] == before["figures"]
    assert after["protocol"]["code"] == {**code, "shade": {**code["shade"], "shades": listed(here.folder, "shades.py")}}
    assert here.train() == []
    # a file from before code was kept
    del after["protocol"]["code"]
    (here.run / "evaluation.json").write_text(json.dumps(after))
    here.edit("shades.py")
    assert here.train() == []


def test_what_is_edited_after_it_was_read_is_not_what_ran(here: Here) -> None:
    here.train(stop=3)
    (here.folder / "mine/terms.py").write_text(f"{TERMS}# edited\n")
    # the same process goes on with what it has imported
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
