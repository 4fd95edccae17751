"""docs/first-plugin.md does what it says: every block of it, in order, exactly as printed.

A `sh` block runs line by line, in the environment and the folder that the lines before it have left. A `python` or
`json` block is written to the file that the sentence before the block ends with. The output of a `sh` block must
contain the lines of the `text` block after it, in order: "..." matches anything, several spaces match one, and after a
training any number matches any other, because machines print different numbers.

Three things differ from a reader's work. The environment exists already, with all packages of this one, so that `make
venv` has nothing to do. `SMALL` makes the training small. The commands of `PROGRAMS`, which import torch, run in forks
of one process that has imported it; bash runs the others.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

from helpers.paths import ROOT
from helpers.processes import Forker

PAGE = (ROOT / "docs" / "first-plugin.md").read_text("utf-8")
SMALL = (
    "schedule.steps=2",
    "data.a.count=48",
    "data.b.count=48",
    "data.size=32",
    "data.batch=2",
    "generator.width=4",
    "discriminators.image.of.width=4",
    "runtime.threads=1",
)


PROGRAMS = {"ganlab": [], "pytest": ["-m", "pytest"], "python": []}
"""{command: the words before its own that `Forker` gets}"""


class Block(NamedTuple):
    language: str
    code: str
    before: str
    """The text between the block before and this one."""


def blocks() -> Iterator[Block]:
    last = 0
    for found in re.finditer(r"^```(.*)\n((?:.*\n)*?)^```$", PAGE, re.M):
        yield Block(found[1], found[2], PAGE[last : found.start()])
        last = found.end()


class Reader:
    """Does what the page says, starting in the root of a clone."""

    def __init__(self, folder: Path, forker: Forker) -> None:
        clone = folder / "ganlab"
        clone.mkdir()
        for name in ("Makefile", "pyproject.toml", "experiments"):
            (clone / name).symlink_to(ROOT / name)
        self.forker = forker
        self.venv = clone / ".venv"
        self.site = make_environment(self.venv)
        offline = {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        # wide enough for the page's longest row
        self.environment = {**os.environ, **offline, "COLUMNS": "160", "OMP_NUM_THREADS": "1"}
        self.at, self.state = clone, folder / "state"
        self.trained = False
        self.printed = ""
        self.failed = False

    def does(self, block: Block) -> None:
        if block.language == "sh":
            self.runs(block.code)
        elif block.language == "text":
            self.sees(block.code)
        else:
            path = re.search(r"`([\w./]+)`:\s*$", block.before)
            assert path is not None, f"no sentence names the file of\n{block.code}"
            (self.at / path[1]).write_text(block.code)

    def runs(self, code: str) -> None:
        self.printed = ""
        for line in code.splitlines():
            assert not self.failed, f"the page says nothing of a failure:\n{self.printed}"
            words = shlex.split(line)
            if words[0] in PROGRAMS:
                self.forks(*words)
            else:
                self.asks_bash(line)

    def forks(self, program: str, *words: str) -> None:
        assert self.environment["VIRTUAL_ENV"] == str(self.venv), "the environment is not active"
        if words[0] == "run":
            self.trained = True
            words += tuple(word for patch in SMALL for word in ("--set", patch))
        job = {"folder": str(self.at), "environment": self.environment, "site": str(self.site)}
        done = self.forker.run(*PROGRAMS[program], *words, python=program != "ganlab", **job)
        self.printed += done.said
        self.failed = done.code != 0

    def asks_bash(self, line: str) -> None:
        done = subprocess.run(
            ["bash", "-e", "-c", f'{line}\n(pwd; env -0) > "$0"', str(self.state)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.at,
            env=self.environment,
        )
        self.printed += done.stdout
        self.failed = done.returncode != 0
        if not self.failed:
            at, _, environment = self.state.read_text().partition("\n")
            self.at = Path(at)
            self.environment = dict(item.split("=", 1) for item in environment.split("\0") if item)

    def sees(self, text: str) -> None:
        assert self.failed == (re.match(r"ganlab: |\w*Error: ", text) is not None), self.printed
        self.failed = False
        rest = self.plain(self.printed)
        for line in self.plain(text).splitlines():
            found = re.search(re.escape(line).replace(re.escape("..."), ".*"), rest)
            assert found is not None, f"{line!r} is not in, or not in its place in\n{self.printed}"
            rest = rest[found.end() :]

    def plain(self, text: str) -> str:
        lines = [" ".join(line.split()) for line in text.splitlines()]
        return re.sub(r"-?\d+(\.\d+)?(e-?\d+)?", "#", "\n".join(lines)) if self.trained else "\n".join(lines)


def make_environment(where: Path) -> Path:
    """Makes a virtual environment with its own site-packages, which it returns, and this interpreter's behind them."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(where)], check=True)
    (site,) = where.glob("lib/python*/site-packages")
    behind = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (site / "behind.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in behind))
    (where / "bin/pip").write_text('#!/bin/bash\nexec python -m pip "$@"\n')
    (where / "bin/pip").chmod(0o755)
    (where / "installed").touch()
    return site


def test_every_block_of_it_does_what_it_says(forker: Forker, tmp_path: Path) -> None:
    if find_spec("pip") is None:
        pytest.skip("this environment has no pip to install a plugin with")
    reader = Reader(tmp_path, forker)
    done = []
    for block in blocks():
        reader.does(block)
        done.append(block.language)
    # each block has two fences, so no block was left out
    assert 2 * len(done) == len(re.findall(r"^\s*(?:```|~~~)", PAGE, re.M))
    assert {*done} == {"sh", "text", "python", "json"}
    lab = tmp_path / "lab"
    # as the page says after it shows the broken requirement
    assert "With `t.uniform(1)` instead of `torch.rand(())` it passes." in PAGE
    (lab / "broken.py").write_text((lab / "broken.py").read_text().replace("torch.rand(())", "t.uniform(1)"))
    reader.runs("python broken.py")
    assert not reader.failed, reader.printed
    # the two runs differ in the loss alone
    plain, hinge = (json.loads((lab / "runs" / name / "spec.json").read_text()) for name in ("plain", "hinge"))
    assert hinge["losses"].pop("adversarial")["type"] == "hinge"
    assert plain["losses"].pop("adversarial")["type"] == "lsgan"
    different = {key for key in plain.keys() | hinge.keys() if plain.get(key) != hinge.get(key)}
    assert different == {"name", "about"}
