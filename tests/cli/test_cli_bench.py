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
from ganlab.experiment import benching
from ganlab.experiment.benching import fastest
from ganlab.spec import devices
from ganlab.system import compiling


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


@pytest.mark.skipif(len(devices.precisions("cpu")) < 2, reason="this processor computes with float32 alone")
def test_the_fastest_precision_is_kept_and_auto_means_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANLAB_CACHE", str(here / "cache"))
    auto = ["--set", "runtime.precision=auto"]
    assert "--tune" not in CliRunner().invoke(app, ["check", "tiny.json", *auto]).stderr
    done = CliRunner().invoke(app, ["bench", "tiny.json", "--tune", "--steps", "2"])
    assert done.exit_code == 0, done.stderr
    (entry,) = json.loads((here / "cache" / "tuned.json").read_text()).values()
    assert entry["spec"] == "tiny"
    assert list(entry["seconds_a_step"]) == ["float32", "bfloat16"]
    assert (entry["precision"], entry["compile"]) == (fastest(entry["seconds_a_step"]), False)
    sentence = f"runtime.precision auto is {entry['precision']} and runtime.compile auto is false on"
    assert f"{sentence} {devices.device_name('cpu')} from now on" in done.stdout
    for command in ("check", "run"):
        done = CliRunner().invoke(app, [command, "tiny.json", *auto])
        assert f"runtime.precision auto is {entry['precision']} here" in done.stderr
        assert str(here / "cache" / "tuned.json") in done.stderr
    # the run keeps it, whatever the file says later
    (here / "cache" / "tuned.json").unlink()
    assert json.loads((here / "runs" / "tiny" / "spec.json").read_text())["runtime"]["precision"] == entry["precision"]


@pytest.mark.skipif(len(devices.precisions("cpu")) < 2, reason="this processor computes with float32 alone")
@pytest.mark.parametrize("generator", ["dropout", pytest.param("resnet", marks=pytest.mark.faults)])
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_compiled_networks_are_timed_where_they_may_save_time(
    generator: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU here. If the generator can't be compiled, as with `dropout`, a warning says that this is not timed."""
    monkeypatch.setenv("GANLAB_CACHE", str(here / "cache"))
    monkeypatch.setattr(benching, "COMPILED_ON", ("cpu",))
    monkeypatch.setattr(compiling, "code_generator", lambda deterministic: compiling.Compiler("aot_eager"))
    resnet = {"type": "resnet", "width": 4, "blocks": 2}
    asked = {"dropout": {"type": "dropout", "of": resnet}, "resnet": resnet}[generator]
    words = ["bench", "tiny.json", "--tune", "--steps", "2", "--json", "--set", f"generator={json.dumps(asked)}"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    plain = [("float32", False), ("bfloat16", False)]
    settings = [(setting["precision"], setting["compile"]) for setting in found["settings"]]
    if generator == "dropout":
        assert settings == plain
        assert "compiled networks are not timed: generator: can't translate" in done.stderr
    else:
        assert sorted(settings) == sorted([*plain, (found["precision"], True)])
    (entry,) = json.loads((here / "cache" / "tuned.json").read_text()).values()
    assert (entry["precision"], entry["compile"]) == (found["precision"], found["compile"])


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({"float32": 1.0, "bfloat16": 0.96}, "float32"),
        ({"float32": 1.0, "bfloat16": 0.95}, "bfloat16"),
        ({"float32": 1.0, "tf32": 0.5, "bfloat16": 0.49}, "tf32"),
        ({"float32": 1.0, "tf32": 1.5, "bfloat16": 0.9}, "bfloat16"),
        ({"float32": 1.0}, "float32"),
    ],
)
def test_a_less_exact_setting_has_to_save_a_twentieth(seconds: dict[str, float], expected: str) -> None:
    assert fastest(seconds) == expected


def test_one_step_has_no_spread(here: Path) -> None:
    done = CliRunner().invoke(app, ["bench", "tiny.json", "--steps", "1"])
    assert (done.exit_code, done.stdout) == (2, "")
