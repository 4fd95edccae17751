"""Every recipe of docs/recipes.md trains with the part of a spec that stands below it."""

from __future__ import annotations

import json
import re
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from ganlab.components.registry import Registry, installed
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from helpers.paths import DOCS
from helpers.systems import make_trainer

TEXT = (DOCS / "recipes.md").read_text("utf-8")
RECIPES = re.findall(r"\n## ([^\n]*)\n.*?```python\n(.*?)```\n\n```json\n(.*?)```", TEXT, re.S)
PLAIN: Json = {"generator": {"width": None, "blocks": None}, "discriminators": {"image": {"layers": None}}}


def test_every_block_is_part_of_a_recipe() -> None:
    assert len(RECIPES) == TEXT.count("```python") == TEXT.count("```json") == TEXT.count("\n## ")


@pytest.mark.parametrize(("title", "code", "patch"), RECIPES, ids=[title for title, *_ in RECIPES])
def test_a_recipe_trains(title: str, code: str, patch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"recipe_{re.sub('[^a-z]', '_', title.lower())}"
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    known = Registry([*installed(), EntryPoint(name, name, "ganlab")])
    assert known.broken == []
    asked: dict[str, Any] = json.loads(patch)
    trainer = make_trainer({kind: merge(PLAIN.get(kind, {}), part) for kind, part in asked.items()}, known=known)
    for _ in range(2):
        trainer.step()
    first, second = trainer.log.read(trainer.state)
    names = {label.split("/")[3] for label in first if label.startswith("loss/")}
    assert names == {"adversarial", "cycle", *asked.get("losses", {})}
    assert not {"r1"} & {label.split("/")[3] for label in second if label.startswith("loss/")}
    assert second["gradient/generator/ab+ba"] > 0
