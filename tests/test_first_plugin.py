"""docs/first-plugin.md does what it says: every block of it, in order, exactly as printed.

A `sh` block is run by bash, in the environment and the folder that the ones before it have left. A `python` or `json`
block is the file whose path ends the sentence before it. Each line of a `text` block stands, in this order, in what the
`sh` block before it has printed: "..." is anything, several spaces are one, and once something was trained any number
stands for any other, since no two machines print the same.

Two things are other than a reader's. The environment is there already, with all that this one has, so that `make venv`
finds nothing to do; and training is made small by what `SMALL` says.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "first-plugin.md").read_text("utf-8")
SMALL = (
    "schedule.steps=2",
    "data.a.count=48",
    "data.b.count=48",
    "data.size=32",
    "data.batch=2",
    "generator.width=4",
    "discriminators.image.width=4",
    "runtime.threads=1",
)


class Block(NamedTuple):
    language: str
    code: str
    before: str
    """The text since the block before."""


def blocks() -> Iterator[Block]:
    last = 0
    for found in re.finditer(r"^```(.*)\n((?:.*\n)*?)^```$", PAGE, re.M):
        yield Block(found[1], found[2], PAGE[last : found.start()])
        last = found.end()


class Reader:
    """Who does what the page says, beginning in a clone's root."""

    def __init__(self, folder: Path) -> None:
        clone = folder / "ganlab"
        clone.mkdir()
        for name in ("Makefile", "pyproject.toml", "experiments"):
            (clone / name).symlink_to(ROOT / name)
        make_environment(clone / ".venv")
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
        assert not self.failed, f"the page says nothing of a failure:\n{self.printed}"
        done = subprocess.run(
            ["bash", "-e", "-c", f'{code}\n(pwd; env -0) > "$0"', str(self.state)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.at,
            env=self.environment,
        )
        self.printed, self.failed = done.stdout, done.returncode != 0
        self.trained |= "ganlab run" in code
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


def make_environment(where: Path) -> None:
    """A virtual environment with its own site-packages, and this interpreter's behind them."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(where)], check=True)
    (site,) = where.glob("lib/python*/site-packages")
    behind = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (site / "behind.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in behind))
    small = " ".join(f"--set {patch}" for patch in SMALL)
    for name, script in {
        "pip": 'exec python -m pip "$@"',
        "pytest": 'exec python -m pytest "$@"',
        "ganlab": f'[ "$1" = run ] && set -- "$@" {small}\nexec python -c "from ganlab.cli import main; main()" "$@"',
    }.items():
        (where / "bin" / name).write_text(f"#!/bin/bash\n{script}\n")
        (where / "bin" / name).chmod(0o755)
    (where / "installed").touch()


def test_every_block_of_it_does_what_it_says(tmp_path: Path) -> None:
    if find_spec("pip") is None:
        pytest.skip("this environment has no pip to install a plugin with")
    reader = Reader(tmp_path)
    done = []
    for block in blocks():
        reader.does(block)
        done.append(block.language)
    # two fences a block: none was left out
    assert 2 * len(done) == len(re.findall(r"^\s*(?:```|~~~)", PAGE, re.M))
    assert {*done} == {"sh", "text", "python", "json"}
    lab = tmp_path / "lab"
    # as the page says below the broken promise
    assert "With `t.uniform(1)` in the place of `torch.rand(())` it passes." in PAGE
    (lab / "broken.py").write_text((lab / "broken.py").read_text().replace("torch.rand(())", "t.uniform(1)"))
    reader.runs("python broken.py")
    assert not reader.failed, reader.printed
    # but for the loss the two runs are the same
    plain, hinge = (json.loads((lab / "runs" / name / "spec.json").read_text()) for name in ("plain", "hinge"))
    assert hinge["losses"].pop("adversarial")["type"] == "hinge"
    assert plain["losses"].pop("adversarial")["type"] == "lsgan"
    different = {key for key in plain.keys() | hinge.keys() if plain.get(key) != hinge.get(key)}
    assert different == {"name", "about"}
