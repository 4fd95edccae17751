"""The folder in which commands run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ganlab.spec.models import Json


@pytest.fixture
def here(tiny: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with pictures and `tiny.json`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.json").write_text(json.dumps(tiny))
    return tmp_path
