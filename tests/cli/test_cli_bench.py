"""`ganlab bench`: its table, its JSON and its refusals."""

from __future__ import annotations

import io
import json
import platform
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from ganlab.cli import process
from ganlab.cli.commands import app
from ganlab.cli.tables import show_bench


def test_a_spec_is_timed_and_nothing_is_written(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(here.rglob("*"))
    done = CliRunner().invoke(app, ["bench", "tiny.json", "--steps", "3", "--json"])
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert sorted(here.rglob("*")) == before
    step, images = found["step"], found["images_a_second"]
    assert (found["spec"], found["size"], found["batch"], found["precision"]) == ("tiny", 16, 4, "float32")
    assert (step["steps"], step["blocks"]) == (3, 3)
    seconds = step["seconds"]["median"]
    assert images["median"] == pytest.approx(4 / seconds)
    assert images["quartiles"][0] <= images["median"] <= images["quartiles"][1]
    assert found["share_of_peak"]["flops"] == pytest.approx(step["flops"] / seconds / found["peak"]["flops_a_second"])
    assert [part["part"] for part in found["parts"]] == ["generator ab+ba", "discriminator ab+ba", "average"]
    # a process that has torch in it takes more than 50 MiB
    assert found["peak_memory_bytes"] > 50 * 2**20
    assert found["hardware"]["torch"] == torch.__version__
    assert found["hardware"]["platform"] == platform.platform()
    monkeypatch.setattr(process.Output, "stream", written := io.StringIO())
    show_bench(found)
    for words in ("tiny: 16 pixels, batch 4", "images a second", "operators a step", "of a copy's", "generator ab+ba"):
        assert words in written.getvalue()


def test_one_step_has_no_spread(here: Path) -> None:
    done = CliRunner().invoke(app, ["bench", "tiny.json", "--steps", "1"])
    assert (done.exit_code, done.stdout) == (2, "")
