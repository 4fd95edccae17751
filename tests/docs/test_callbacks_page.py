"""The example of docs/callbacks.md runs, and its spec can be resolved."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import ganlab
from ganlab.components.registry import registry
from ganlab.spec.models import Json
from helpers.paths import DOCS

TEXT = (DOCS / "callbacks.md").read_text("utf-8")


def test_the_example_stops_a_run(
    tiny: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "emb").write_text(json.dumps({**tiny, "name": "emb"}))
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    # the first steps of a new system are not that good
    assert code.count("< 0.5") == 1
    names: dict[str, Any] = {}
    exec(code.replace("< 0.5", "< 9"), names)
    assert names["run"].finished
    assert names["run"].step == 1
    assert re.fullmatch(r"1 the cycle loss is \d\.\d{3}\n", capsys.readouterr().out)
    exec(code, names)
    assert names["run"].step == 6


def test_the_spec_that_it_shows_is_one(tmp_path: Path) -> None:
    (text,) = re.findall(r"```json\n(.*?)```", TEXT, re.S)
    (tmp_path / "mine.json").write_text(text)
    spec = ganlab.load_spec(tmp_path / "mine.json")
    assert {name: c.component.name for name, c in spec.callback_components.items()} == {
        "tensorboard": "tensorboard",
        "stop": "early_stopping",
        "wandb": "wandb",
    }


def test_its_table_lists_every_shipped_callback() -> None:
    shipped = [c.name for c in registry().components if c.kind == "callback" and c.package == "ganlab"]
    assert sorted(re.findall(r"^\| `(\w+)` \|", TEXT, re.M)) == sorted(shipped)
