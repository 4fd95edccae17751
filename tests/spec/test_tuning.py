"""What `runtime.precision: auto` means after `ganlab bench --tune`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ganlab.errors import RunError
from ganlab.spec import devices, tuning
from helpers.specs import resolved

AUTO = {"runtime": {"device": "cpu", "precision": "auto"}}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_auto_is_what_was_measured_on_this_device_and_with_this_torch(cache: Path) -> None:
    untuned, name = resolved(AUTO).runtime.precision, devices.device_name("cpu")
    for kept in devices.precisions("cpu"):
        tuning.keep(name, kept, {kept: 0.1}, "emb")
        assert resolved(AUTO).runtime.precision == kept
        assert resolved({"runtime": {"device": "cpu", "precision": "float64"}}).runtime.precision == "float64"
    tuning.keep("another", "float32", {}, "emb")
    everything = json.loads((cache / "tuned.json").read_text())
    assert list(everything) == [f"{name}, torch {torch.__version__}", f"another, torch {torch.__version__}"]
    (cache / "tuned.json").write_text(json.dumps({f"{name}, torch 1.0": {"precision": "float32"}}))
    assert resolved(AUTO).runtime.precision == untuned


@pytest.mark.parametrize("content", ["{", "[]", "null", '{"KEY": 1}', '{"KEY": {"precision": "tf32"}}', "[" * 10**5])
def test_a_damaged_file_counts_as_none(cache: Path, content: str) -> None:
    untuned = resolved(AUTO).runtime.precision
    cache.mkdir()
    key = f"{devices.device_name('cpu')}, torch {torch.__version__}"
    (cache / "tuned.json").write_text(content.replace("KEY", key))
    assert resolved(AUTO).runtime.precision == untuned
    tuning.keep(devices.device_name("cpu"), "float32", {}, "emb")
    assert resolved(AUTO).runtime.precision == "float32"


def test_a_cache_that_can_not_be_written_is_one_sentence(cache: Path) -> None:
    cache.write_text("a file")
    with pytest.raises(RunError, match=r"tuned\.json can't be written: "):
        tuning.keep("cpu", "float32", {}, "emb")
