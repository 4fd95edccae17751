"""The command line: its output, the errors with their sentences and exit codes, and the files that it writes."""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import ganlab
from ganlab import experiment
from ganlab.cli.commands import app, main
from ganlab.components.docstrings import about, described
from ganlab.components.registry import Component, registry
from ganlab.spec.models import Json
from ganlab.spec.schema import json_schema
from helpers.processes import Forker

WITHOUT_TORCH = """
import sys
from ganlab.cli.commands import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    print("exit code", end.code)
print("imported", *sorted({"torch", "numpy"} & set(sys.modules)))
"""


def python(code: str, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=cwd, env=environment
    )


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["run", "--help"], ["check", "--help"], ["new", "--help"], []]
)
def test_help_imports_no_torch(words: list[str]) -> None:
    done = python(WITHOUT_TORCH, *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "imported"


def test_the_package_itself_imports_no_torch() -> None:
    done = python("import sys, ganlab, ganlab.cli; dir(ganlab); print('torch' in sys.modules)")
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_the_version_is_the_distributions() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"ganlab {version('ganlab')}\n")


def test_help_names_every_command() -> None:
    shown = CliRunner().invoke(app, ["--help"]).stdout
    for command in app.registered_commands:
        assert command.callback is not None
        assert re.search(rf"^  {command.name or command.callback.__name__} +\w", shown, re.M), shown


# --- exit codes of real processes


def test_a_process_ends_with_2_and_one_sentence_and_with_debug_a_traceback(forker: Forker, here: Path) -> None:
    (here / "wrong.json").write_text('{"data": {"size": 3}}')
    before = sorted(here.rglob("*"))
    job = {"folder": str(here), "errors": str(forker.errors)}
    plain = forker.run("run", "wrong.json", **job)
    assert plain == (2, "", "ganlab: wrong.json: data.a: is required and has no default\n")
    debug = forker.run("--debug", "run", "wrong.json", **job)
    assert (debug.code, debug.said) == (2, "")
    assert debug.errors.startswith("Traceback (most recent call last):")
    assert debug.errors.endswith(plain.errors)
    assert sorted(here.rglob("*")) == before


def test_a_failed_run_ends_with_1_and_one_sentence(here: Path) -> None:
    result = CliRunner().invoke(app, ["run", "tiny.json", "--set", "schedule.lr=1e300"])
    assert result.exit_code == 1
    assert result.stdout == ""
    last = result.stderr.splitlines()[-1]
    whose = r"loss '\w+' of plugin '\w+' of ganlab \S+"
    assert re.match(rf"ganlab: \S+ became nan at step 2 \({whose}\); there is no checkpoint before it$", last)
    assert "Traceback" not in result.stderr


def test_an_unforeseen_error_is_one_sentence_too(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # no known fault leads here
    def fail(*_: object) -> Json:
        raise LookupError("first line\nsecond line")

    monkeypatch.setattr(experiment, "check", fail)
    result = CliRunner().invoke(app, ["check", "tiny.json"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "ganlab: LookupError: first line second line (unexpected; `ganlab --debug COMMAND` shows where)\n"
    )
    debug = CliRunner().invoke(app, ["--debug", "check", "tiny.json"])
    assert debug.exit_code == 1
    assert re.search(r"^Traceback.*^LookupError: first line\nsecond line\nganlab: ", debug.stderr, re.M | re.S)


# --- interrupts


# numpy is among the first that torch imports, plugins are the last
@pytest.mark.parametrize("lines", [2, 100, 125, 150, 800, 1500])
def test_an_interrupt_while_python_imports_ends_the_process(lines: int, here: Path) -> None:
    """The command gets a SIGINT `lines` imports after that of ganlab.cli.commands."""
    before = sorted(here.rglob("*"))
    # in a shell's background job SIGINT is ignored at the start
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    code += "from ganlab.cli.commands import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "run", "tiny.json"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=here,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPROFILEIMPORTTIME": "1"},
    ) as process:
        assert process.stderr is not None
        while not process.stderr.readline().endswith("| ganlab.cli.commands\n"):
            assert process.poll() is None
        for _ in range(lines):
            process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, printed = process.communicate()
    said = "".join(line for line in printed.splitlines(True) if not line.startswith("import time:"))
    assert process.returncode in (-signal.SIGINT, 130), said
    assert not re.search("Traceback|unexpected|terminate", said), said
    assert sorted(here.rglob("*")) == before


def test_an_interrupt_that_is_ignored_stays_so(forker: Forker, here: Path) -> None:
    job = {"folder": str(here), "errors": str(forker.errors), "signals": [[signal.SIGINT, "files.py:read", 1, 0]]}
    assert forker.run("check", "lost.json", **job).code == 130
    done = forker.run("check", "lost.json", **job, ignored=[signal.SIGINT])
    assert done == (2, "", "ganlab: lost.json: can't be read: No such file or directory\n")


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN, lambda number, frame: None])
@pytest.mark.parametrize("words", [["--version"], ["check", "lost.json"]])
def test_how_an_interrupt_is_taken_is_as_before_when_a_command_has_ended(handler: Any, words: list[str]) -> None:
    before = signal.signal(signal.SIGINT, handler)
    try:
        with pytest.raises(SystemExit):
            main(words)
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_command_can_be_called_in_a_thread() -> None:
    with ThreadPoolExecutor() as threads, pytest.raises(SystemExit) as end:
        threads.submit(main, ["--version"]).result()
    assert end.value.code == 0


# --- what is printed


def test_run_trains_and_says_where_to_look(here: Path) -> None:
    # by default the losses of 20 steps are read together
    words = ["run", "tiny.json", "--set", "runtime.log_every=20"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "trained: 6 steps, in runs/tiny",
        "  look at      runs/tiny/report.html",
        "  curves       tensorboard --logdir runs/tiny",
        "  networks     runs/tiny/checkpoints/step-000006/networks.safetensors",
        "  use it       ganlab translate runs/tiny PICTURES --to b",
    ]
    for path in (here / "runs/tiny/samples/step-000006.png", here / "runs/tiny/checkpoints/step-000006"):
        assert path.exists()
    said = result.stderr.splitlines()
    assert said[0] == "tiny starts: 6 steps on cpu, float32, 1 thread, in runs/tiny"
    assert [line.split("  ")[0] for line in said[1:]] == ["step 1/6", "step 6/6"]
    again = CliRunner().invoke(app, ["run", "tiny.json"])
    assert again.exit_code == 0
    assert again.stdout.splitlines()[0] == "already trained: 6 steps, in runs/tiny"
    assert again.stdout.splitlines()[-1] == "  start over   the same command with --fresh"


def test_run_takes_settings_and_a_folder_and_answers_in_json(here: Path) -> None:
    words = ["run", "tiny.json", "--set", "schedule.steps=2", "--set", "seed=5", "--out", "elsewhere", "--json"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    run = ganlab.load_run("elsewhere")
    assert (found["folder"], found["step"], found["finished"]) == ("elsewhere", 2, True)
    assert found["last"] == run.records[-1]
    assert (run.spec.seed, run.spec.schedule["steps"]) == (5, 2)
    assert not (here / "runs").exists()


def test_check_says_what_would_be_built_and_writes_nothing(here: Path) -> None:
    before = sorted(here.rglob("*"))
    found = json.loads(CliRunner().invoke(app, ["check", "tiny.json", "--json"]).stdout)
    assert found["images"] == {"a": 12, "b": 12}
    # by hand: the weights and biases of each layer; instance norms have none
    widths = [3, 4, 8, 16]
    down = sum(i * o * k * k + o for i, o, k in zip(widths, widths[1:], (7, 3, 3), strict=False))
    up = sum(i * o * k * k + o for i, o, k in ((16, 8, 3), (8, 4, 3), (4, 3, 7)))
    generator = down + up + 2 * 2 * (16 * 16 * 3 * 3 + 16)
    patch = (3 * 4 * 16 + 4) + (4 * 8 * 16 + 8) + (8 * 1 * 16 + 1)
    assert found["networks"] == [
        {
            "name": f"generator/{direction}",
            "type": "resnet",
            "parameters": generator,
            "input": "3x16x16",
            "output": "3x16x16",
        }
        for direction in ("ab", "ba")
    ] + [
        {
            "name": f"discriminator/image/{to}",
            "type": "patch",
            "parameters": patch,
            "input": "3x16x16",
            "output": "1x6x6",
        }
        for to in "ab"
    ]
    assert found["turns"] == [
        {
            "player": "generator",
            "directions": ["ab", "ba"],
            "moves": ["generator/ab", "generator/ba"],
            "new_batch": False,
        },
        {
            "player": "discriminator",
            "directions": ["ab", "ba"],
            "moves": ["discriminator/image/b", "discriminator/image/a"],
            "new_batch": False,
        },
    ]
    shown = CliRunner().invoke(app, ["check", "tiny.json"], env={"COLUMNS": "120"}).stdout
    for network in found["networks"]:
        assert re.search(rf"{network['name']} +{network['type']} +{network['parameters']:,} ", shown)
    for term in found["terms"]:
        assert re.search(rf"{term['player']} +{term['direction']} +{term['term']} +{term['weight']:g} *$", shown, re.M)
    assert not re.search(r"turn .* batch *$", shown, re.M)
    assert sorted(here.rglob("*")) == before


def test_check_warns_if_the_machine_has_less_memory(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sysconf", lambda name: 4096 if name == "SC_PAGE_SIZE" else 64)
    said = CliRunner().invoke(app, ["check", "tiny.json"]).stderr
    found = re.search(
        r"warning: the run needs about (\d+) MiB of memory, and cpu has 0: lower data.batch or data.si", said
    )
    assert found is not None
    assert int(found[1]) >= 1


def test_check_shows_which_turns_draw_a_batch_of_their_own(here: Path) -> None:
    (here / "fresh.json").write_text('{"extends": "tiny.json", "schedule": {"type": "wgan", "critic_updates": 2}}')
    found = json.loads(CliRunner().invoke(app, ["check", "fresh.json", "--json"]).stdout)
    assert [turn["new_batch"] for turn in found["turns"]] == [True, True, True]
    shown = CliRunner().invoke(app, ["check", "fresh.json"], env={"COLUMNS": "120"}).stdout
    assert re.search(r"^ turn +player +terms of +moves +batch *$", shown, re.M)
    assert len(re.findall(r"^ [123] +\w+ +ab ba .* new *$", shown, re.M)) == 3


def test_plugins_lists_every_component_as_a_table_and_as_json() -> None:
    found = json.loads(CliRunner().invoke(app, ["plugins", "--json"]).stdout)
    assert found == {"components": [c.as_dict() for c in registry().components], "broken": []}
    by_name = {(c["kind"], c["name"]): c for c in found["components"]}
    cycle = by_name["loss", "cycle"]
    assert (cycle["plugin"], cycle["package"], cycle["version"]) == ("cyclegan", "ganlab", version("ganlab"))
    assert cycle["options"]["properties"]["norm"] | {"title": ""} == {
        "default": "l1",
        "description": '"l1" (as published) or "l2" (the square).',
        "enum": ["l1", "l2"],
        "title": "",
        "type": "string",
    }
    shown = CliRunner().invoke(app, ["plugins"], env={"COLUMNS": "200"}).stdout
    for component in found["components"]:
        assert re.search(rf" {component['name']} +{re.escape(component['about'][:20])}", shown), component["name"]


def test_plugins_lists_those_of_a_kind() -> None:
    found = json.loads(CliRunner().invoke(app, ["plugins", "source", "--json"]).stdout)
    assert found == {"components": [c.as_dict() for c in registry().components if c.kind == "source"], "broken": []}
    shown = CliRunner().invoke(app, ["plugins", "source"], env={"COLUMNS": "200"}).stdout
    assert re.findall(r"^ (\w+) ", shown, re.M) == ["source"]


@pytest.mark.parametrize("found", registry().components, ids=lambda found: f"{found.kind}-{found.name}")
def test_plugins_says_all_that_a_component_says(found: Component) -> None:
    words = ["plugins", found.kind, found.name]
    (component,) = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)["components"]
    assert component == found.as_dict()
    shown = CliRunner().invoke(app, words, env={"COLUMNS": "4000"})
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.startswith(f"{found.full_name}\n\n{about(found.cls)}\n\n")
    said = dict(described(found.cls))
    own = [p for p in list(inspect.signature(found.cls).parameters.values()) if p.name in said]
    assert len(own) == len(said)
    for p in own:
        default = "required" if p.default is p.empty else json.dumps(p.default)
        assert re.search(rf"^ {p.name} +{re.escape(default)} +{re.escape(said[p.name])} *$", shown.stdout, re.M), p.name
    assert ("It has no options." in shown.stdout) == (not own)


def test_schema_prints_the_json_schema_of_what_is_installed() -> None:
    assert json.loads(CliRunner().invoke(app, ["schema"]).stdout) == json_schema(registry().components)
