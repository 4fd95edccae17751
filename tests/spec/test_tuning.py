"""What "auto" means in a spec's `runtime` after `ganlab bench --tune`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ganlab.errors import RunError
from ganlab.spec import devices, tuning
from ganlab.spec.files import merge
from ganlab.spec.resolve import resolve
from ganlab.spec.tuning import Tuned
from helpers.specs import resolved
from helpers.systems import TINY

AUTO = {"runtime": {"device": "cpu", "precision": "auto"}}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_auto_is_what_was_measured_on_this_device_and_with_this_torch(cache: Path) -> None:
    untuned, name = resolved(AUTO).runtime.precision, devices.device_name("cpu")
    for kept in devices.precisions("cpu"):
        tuning.keep(name, Tuned(kept), {Tuned(kept): 0.1}, "emb")
        assert resolved(AUTO).runtime.precision == kept
        assert resolved({"runtime": {"device": "cpu", "precision": "float64"}}).runtime.precision == "float64"
    tuning.keep("another", Tuned("float32"), {}, "emb")
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
    tuning.keep(devices.device_name("cpu"), Tuned("float32"), {}, "emb")
    assert resolved(AUTO).runtime.precision == "float32"
    assert resolved(AUTO).runtime.compile is False


def test_networks_are_compiled_where_that_was_measured_to_be_the_fastest(tmp_path: Path) -> None:
    assert resolved(AUTO).runtime.compile is False
    setting = Tuned(devices.precisions("cpu")[-1], compiled=True)
    tuning.keep(devices.device_name("cpu"), setting, {setting: 0.1}, "emb")
    tuned = resolved(AUTO)
    assert (tuned.runtime.precision, tuned.runtime.compile) == (setting.precision, True)
    # in another precision it was not measured, and it does not go with another option
    assert resolved({"runtime": {"device": "cpu", "precision": "float64"}}).runtime.compile is False
    assert resolved(merge(AUTO, {"runtime": {"checkpoint_activations": True}})).runtime.compile is False
    # a run keeps its own choice
    asked = merge(TINY, AUTO)
    plain = resolve(merge(asked, {"runtime": {"compile": False}}))
    assert resolve(asked, like=plain).runtime.compile is False
    assert (plain.fingerprint() == tuned.fingerprint(), "compile" in plain.trains()["runtime"]) == (False, False)


def test_a_cache_that_can_not_be_written_is_one_sentence(cache: Path) -> None:
    cache.write_text("a file")
    with pytest.raises(RunError, match=r"tuned\.json can't be written: "):
        tuning.keep("cpu", Tuned("float32"), {}, "emb")
