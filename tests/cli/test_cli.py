"""The command line: its output, the errors with their sentences and exit codes, and the files that it writes."""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import ganlab
from ganlab import experiment
from ganlab.cli.commands import app, main
from ganlab.components.docstrings import about, described
from ganlab.components.registry import Component, registry
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from ganlab.spec.schema import json_schema

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


# --- what is refused


@pytest.fixture
def here(tiny: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with pictures and `tiny.json`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.json").write_text(json.dumps(tiny))
    return tmp_path


Refused = Callable[..., str]


@pytest.fixture
def refused(here: Path) -> Refused:
    """`refused("run", ...)` returns the one sentence that is printed, and checks that nothing is written."""

    def call(*words: str) -> str:
        before = {path: path.stat().st_mtime_ns for path in here.rglob("*")}
        result = CliRunner().invoke(app, words)
        assert isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        assert "Traceback" not in result.stderr
        *reading, line = result.stderr.splitlines()
        assert all(re.fullmatch(r"images of [ab]: \d+", said) for said in reading)
        assert line.startswith("ganlab: ")
        assert {path: path.stat().st_mtime_ns for path in here.rglob("*")} == before
        return line.removeprefix("ganlab: ")

    return call


Patch = dict[str, Any]

UNKNOWN_KEYS: list[tuple[Patch, str]] = [
    ({"sede": 1}, "sede: unknown key; did you mean 'seed'?"),
    (
        {"data": {"sise": 8}},
        "data.sise: unknown key; did you mean 'size'? known are: a, b, batch, flip, holdout, paired, size",
    ),
    ({"data": {"b": {"pth": "x"}}}, "data.b.pth: unknown key; did you mean 'path'?"),
    ({"generator": {"widht": 8}}, "generator.widht: unknown key; did you mean 'width'?"),
    ({"generator": {"weight": 8}}, "generator.weight: unknown key;"),
    ({"discriminators": {"image": {"layer": 1}}}, "discriminators.image.layer: unknown key; did you mean 'layers'?"),
    (
        {"discriminators": {"image": {"type": "critic", "of": {"type": "patch", "widht": 8}}}},
        "discriminators.image.of.widht: unknown key; did you mean 'width'?",
    ),
    ({"losses": {"cycle": {"nrom": "l2"}}}, "losses.cycle.nrom: unknown key; did you mean 'norm'?"),
    ({"losses": {"cycle": {"weigth": 1}}}, "losses.cycle.weigth: unknown key; did you mean 'weight'?"),
    (
        {"losses": {"cycle": {"weight": {"generators": 1}}}},
        "losses.cycle.weight.generators: unknown key; did you mean 'generator'? known are: discriminator, generator",
    ),
    ({"schedule": {"stpes": 1}}, "schedule.stpes: unknown key; did you mean 'steps'?"),
    ({"samples": {"evry": 1}}, "samples.evry: unknown key; did you mean 'every'?"),
    ({"checkpoints": {"kep": 1}}, "checkpoints.kep: unknown key; did you mean 'keep'?"),
    ({"runtime": {"thread": 1}}, "runtime.thread: unknown key; did you mean 'threads'?"),
    (
        {"translations": ["ab"]},
        "translations: unknown key; known are: about, callbacks, checkpoints, data, directions, ",
    ),
]

WRONG_VALUES: list[tuple[Patch, str]] = [
    ({"seed": True}, "seed: true is not allowed: it should be an integer"),
    ({"seed": "3"}, 'seed: "3" is not allowed: it should be an integer'),
    ({"seed": -1}, "seed: -1 is not allowed: it should be greater than or equal to 0"),
    ({"data": {"size": 16.0}}, "data.size: 16.0 is not allowed: it should be an integer"),
    ({"data": {"size": 2}}, "data.size: 2 is not allowed: it should be greater than or equal to 4"),
    ({"data": {"batch": 0}}, "data.batch: 0 is not allowed: it should be greater than or equal to 1"),
    (
        {"data": {"batch": 10**20}},
        f"data.batch: {10**20} is not allowed: it should be greater than or equal to 1 and less than or equal to 65536",
    ),
    ({"data": {"holdout": 2}}, "data.holdout: 2 is not allowed: it should be greater than 0 and less than 1"),
    ({"data": {"flip": "yes"}}, 'data.flip: "yes" is not allowed: it should be true or false'),
    ({"data": []}, "data: [] is not allowed: it should be an object"),
    ({"data": {"a": {"channels": True}}}, "data.a.channels: true is not allowed: it should be 1"),
    ({"data": {"a": {"channels": 2}}}, "data.a.channels: 2 is not allowed: it should be 1 or 3"),
    ({"data": {"a": {"path": None}}}, "data.a.path: is required and has no default"),
    ({"generator": "resnet"}, 'generator: "resnet" is not allowed: it should be an object'),
    ({"generator": {"width": 0}}, "generator.width: 0 is not allowed: it should be greater than or equal to 1"),
    ({"generator": {"norm": "layer"}}, "generator.norm: \"layer\" is not allowed: it should be 'instance', 'batch' or"),
    ({"losses": None}, "losses: is required and has no default"),
    ({"losses": {"cycle": None, "adversarial": None}}, "losses: {} is not allowed: it should have at least 1 item"),
    ({"losses": {"cycle": {"weight": -1}}}, "losses.cycle.weight: -1 is not allowed: it should be greater than or"),
    ({"losses": {"cycle": {"weight": True}}}, "losses.cycle.weight: true is not allowed: it should be a number"),
    (
        {"losses": {"cycle": {"weight": {"generator": "1"}}}},
        'losses.cycle.weight.generator: "1" is not allowed: it should be a number',
    ),
    ({"losses": {"my cycle": {"type": "cycle"}}}, "losses: the name 'my cycle' is not allowed: letters, digits"),
    ({"losses": {"a/b": {"type": "cycle"}}}, "losses: the name 'a/b' is not allowed"),
    ({"discriminators": {"..": {"type": "patch"}}}, "discriminators: the name '..' is not allowed"),
    ({"schedule": {"lr": 0}}, "schedule.lr: 0 is not allowed: it should be greater than 0"),
    (
        {"schedule": {"betas": [0.5, 1]}},
        "schedule.betas.1: 1 is not allowed: it should be greater than or equal to 0 and les",
    ),
    ({"schedule": {"betas": [0.5]}}, "schedule.betas.1: is required and has no default"),
    ({"directions": ["ac"]}, "directions.0: \"ac\" is not allowed: it should be 'ab' or 'ba'"),
    ({"directions": ["ab", "ab"]}, "directions: ['ab', 'ab'] is not allowed: a direction is named once"),
    ({"directions": []}, "directions: [] is not allowed: it should have at least 1 item"),
    ({"ema_halflife_images": 0}, "ema_halflife_images: 0 is not allowed: it should be greater than 0"),
    ({"runtime": {"threads": 0}}, "runtime.threads: 0 is not allowed: it should be 'auto', or it should be greater"),
    ({"runtime": {"threads": 10**9}}, "runtime.threads: 1000000000 is not allowed: it should be 'auto', or it should"),
    ({"runtime": {"precision": "fp16"}}, "runtime.precision: \"fp16\" is not allowed: it should be 'auto', 'float32'"),
    ({"runtime": {"precision": "tf32"}}, "runtime.precision: 'tf32' is not allowed: only CUDA devices have it, not"),
    ({"runtime": {"device": "gpu"}}, "runtime.device: 'gpu' is not allowed: it should be 'auto', 'cpu', 'mps', 'cuda'"),
    ({"runtime": {"device": "cuda:99"}}, "runtime.device: 'cuda:99' is not available here; known are: "),
    ({"name": "../x"}, "name: '../x' is not allowed: it names a folder"),
    ({"name": "a/b"}, "name: 'a/b' is not allowed: it names a folder"),
    ({"name": ".."}, "name: '..' is not allowed: it names a folder"),
    ({"name": ".hidden"}, "name: '.hidden' is not allowed: it names a folder"),
    ({"name": "x" * 101}, f"name: '{'x' * 101}' is not allowed: it names a folder, so at most 100 letters"),
    ({"name": ""}, "name: '' is not allowed: it names a folder"),
]

UNKNOWN_COMPONENTS: list[tuple[Patch, str]] = [
    ({"generator": {"type": "resnt"}}, "generator: there is no generator 'resnt'; did you mean 'resnet'? known are: "),
    ({"losses": {"cycle": {"type": "cicle"}}}, "losses.cycle: there is no loss 'cicle'; did you mean 'cycle'?"),
    ({"schedule": {"type": "qqqqqq"}}, "schedule: there is no schedule 'qqqqqq'; known are: "),
    ({"data": {"a": {"type": "fodler"}}}, "data.a: there is no source 'fodler'; did you mean 'folder'?"),
    (
        {"discriminators": {"image": {"type": "critic", "of": {"type": "resnet"}}}},
        "discriminators.image.of: there is no discriminator 'resnet'; known are: ",
    ),
    ({"discriminators": {"image": {"type": "critic"}}}, "discriminators.image.of: is required"),
    (
        {"losses": {"cyle": {"weight": 3}}},
        "losses.cyle: names no loss: its type is missing; did you mean 'cycle'? known are: adversarial, cycle\n",
    ),
    (
        {"discriminators": {"imag": {"width": 8}}},
        "discriminators.imag: names no discriminator: its type is missing; did you mean 'image'? known are: image\n",
    ),
    ({"data": {"a": None}}, "data.a: is required"),
    ({"generator": None}, "generator: is required"),
    ({"schedule": {"type": None}}, "schedule: names no schedule: its type is missing\n"),
    ({"losses": {"new": {"type": 3}}}, "losses.new: names no loss: its type is 3"),
]


@pytest.mark.parametrize(("patch", "said"), UNKNOWN_KEYS + WRONG_VALUES + UNKNOWN_COMPONENTS)
@pytest.mark.parametrize("command", ["run", "check"])
def test_a_wrong_spec_is_refused(
    here: Path, tiny: Json, refused: Refused, command: str, patch: Patch, said: str
) -> None:
    (here / "wrong.json").write_text(json.dumps(merge(tiny, patch)))
    assert f"{refused(command, 'wrong.json')}\n".startswith(f"wrong.json: {said}")


def test_an_option_of_a_component_is_refused_with_whose_it_is(refused: Refused) -> None:
    said = refused("run", "tiny.json", "--set", "generator.width=wide")
    ours = f"(generator 'resnet' of plugin 'resnet' of ganlab {version('ganlab')})"
    assert said == f'tiny.json: generator.width: "wide" is not allowed: it should be an integer {ours}'


NOT_FITTING: list[tuple[Patch, str]] = [
    ({"data": {"a": {"path": "nowhere"}}}, "data.a: the folder 'HERE/nowhere' does not exist"),
    ({"data": {"b": {"path": "tiny.json"}}}, "data.b: the folder 'HERE/tiny.json' is not a folder"),
    ({"data": {"a": {"path": "empty"}}}, "data.a: the folder 'HERE/empty' is empty"),
    ({"data": {"b": {"path": "notes"}}}, "data.b: 0 of 2 images can be read; at least two are needed"),
    ({"data": {"a": {"path": "~nosuchuser/x"}}}, "data.a: source 'folder' of plugin 'folder' of ganlab"),
    ({"data": {"a": {"limit": 1}}}, "data.a: 1 of 1 images can be read; at least two are needed"),
    (
        {"data": {"a": {"type": "avatars", "style": "bigears"}}},
        "data.a: source 'avatars' of plugin 'avatars' of ganlab",
    ),
    (
        {"data": {"size": 18}},
        "generator: makes images of (3, 20, 20) from (3, 18, 18); those of domain b are (3, 18, 18)"
        "; is data.size a multiple of its downsampling? (generator 'resnet' of plugin 'resnet' of ganlab",
    ),
    ({"discriminators": {"image": {"layers": 4}}}, "data.size: 16 is too small for discriminator"),
    (
        {"losses": {"embedding": {"type": "embedding_lsgan"}}},
        "losses.embedding's generator term in direction ab: asks for a discriminator on embeddings; the spec has none",
    ),
    (
        {"discriminators": None},
        "losses.adversarial's generator term in direction ab: asks for a discriminator on images; the spec has none",
    ),
    (
        {"discriminators": {"other": {"type": "patch", "width": 4, "layers": 1}}},
        "losses.adversarial's generator term in direction ab: asks for a discriminator on images; there are 'image',"
        " 'other', so the loss must name one",
    ),
    (
        {"directions": ["ab"]},
        "losses.cycle's generator term in direction ab: asks for the direction ba, which `directions` leaves out",
    ),
    (
        {"losses": {"adversarial": {"type": "noisy_lsgan", "fake": [0.3, 0.2]}}},
        "losses.adversarial: loss 'noisy_lsgan' of plugin 'noisy_labels' of ganlab",
    ),
]


@pytest.mark.parametrize(("patch", "said"), NOT_FITTING)
@pytest.mark.parametrize("command", ["run", "check"])
def test_parts_that_do_not_fit_are_refused(
    here: Path, tiny: Json, refused: Refused, command: str, patch: Patch, said: str
) -> None:
    (here / "empty").mkdir()
    (here / "notes").mkdir()
    for name in ("one.txt", "two.png"):
        (here / "notes" / name).write_text("no picture")
    (here / "wrong.json").write_text(json.dumps(merge(tiny, patch)))
    assert refused(command, "wrong.json").startswith(said.replace("HERE", str(here)))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_a_device_that_is_not_there_is_refused(refused: Refused, device: str) -> None:
    said = refused("run", "tiny.json", "--set", f"runtime.device={device}")
    assert said.startswith(f"tiny.json: runtime.device: '{device}' is not available here; known are: ")
    assert said.endswith("cpu")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"seed": 1,}', "is not JSON: line 1, column 12: "),
        ('{"seed": 1, "seed": 2}', "the key 'seed' appears twice in one object"),
        ('{"seed": Infinity}', "Infinity is not allowed: numbers are finite"),
        ('{"data": {"holdout": 1e999}}', "1e999 is not allowed: numbers are finite"),
        ('{"extends": "wrong.json"}', "extends itself: wrong.json -> wrong.json"),
        ('{"extends": "mutual.json"}', "extends itself: wrong.json -> mutual.json -> wrong.json"),
        ("{}", "data: is required and has no default"),
        ('{"a": ' * 900 + "1" + "}" * 900, "is nested too deeply: at most 100 levels are allowed"),
    ],
)
def test_a_file_that_is_no_spec_is_refused(here: Path, refused: Refused, text: str, said: str) -> None:
    (here / "mutual.json").write_text('{"extends": "wrong.json"}')
    (here / "wrong.json").write_text(text)
    assert refused("run", "wrong.json").startswith(f"wrong.json: {said}")


def test_a_file_that_is_not_there_is_refused(here: Path, refused: Refused) -> None:
    assert refused("run", "lost.json") == "lost.json: can't be read: No such file or directory"
    assert refused("check", ".") == (
        ".: is a folder without a run; a spec is a JSON file, a shipped experiment or a run folder"
    )
    (here / "child.json").write_text('{"extends": "lost.json"}')
    assert refused("run", "child.json") == "lost.json: can't be read: No such file or directory (child.json extends it)"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("data.size", "--set data.size: is not of the form path.to.key=value"),
        ("=8", "--set =8: is not of the form path.to.key=value"),
        ("data..size=8", "--set data..size=8: is not of the form path.to.key=value"),
        ("data.size=", 'tiny.json: data.size: "" is not allowed: it should be an integer'),
        ("data.size=large", 'tiny.json: data.size: "large" is not allowed: it should be an integer'),
        ("data.size.x=8", 'tiny.json: data.size: {"x": 8} is not allowed: it should be an integer'),
        ("data.flip=False", 'tiny.json: data.flip: "False" is not allowed: it should be true or false'),
        ("data.holdout=NaN", 'tiny.json: data.holdout: "NaN" is not allowed: it should be a number'),
        ("data.holdout=1e999", "tiny.json: data.holdout: Infinity is not allowed: it should be a finite number"),
        ("sede=1", "tiny.json: sede: unknown key; did you mean 'seed'?"),
        ("name=../elsewhere", "tiny.json: name: '../elsewhere' is not allowed"),
        ("extends=other.json", "tiny.json: extends: only a file can extend another"),
        ("losses=null", "tiny.json: losses: is required and has no default"),
        ("losses.cyle.weight=3", "tiny.json: losses.cyle: names no loss: its type is missing; did you mean 'cycle'?"),
        (
            "losses.cyle=null",
            "--set losses.cyle=null: there is no 'cyle' to remove from losses; did you mean 'cycle'? known are: ",
        ),
    ],
)
def test_a_wrong_setting_is_refused(refused: Refused, asked: str, said: str) -> None:
    assert refused("run", "tiny.json", "--set", asked).startswith(said)


def test_a_folder_of_something_else_is_refused(here: Path, refused: Refused) -> None:
    (here / "letters").mkdir()
    (here / "letters" / "one.txt").write_text("dear")
    for out in ("letters", "tiny.json"):
        said = refused("run", "tiny.json", "--out", out)
        assert said == f"{out} exists and is not a run; choose another folder with --out"
        assert refused("run", "tiny.json", "--fresh", "--out", out) == said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rnu", "tiny.json"], "No such command 'rnu'. Did you mean 'run'?"),
        (["run"], "Missing argument 'SPEC'"),
        (["run", "tiny.json", "other.json"], "Got unexpected extra argument"),
        (["run", "tiny.json", "--st", "seed=1"], "No such option: --st"),
        (["run", "tiny.json", "--set"], "Option '--set' requires an argument"),
    ],
)
def test_wrong_words_are_refused_with_the_usage(here: Path, words: list[str], said: str) -> None:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert not (here / "runs").exists()


# --- exit codes of real processes

COMMAND = "from ganlab.cli.commands import main; main()"


def test_a_process_ends_with_2_and_one_sentence_and_with_debug_a_traceback(here: Path) -> None:
    (here / "wrong.json").write_text('{"data": {"size": 3}}')
    before = sorted(here.rglob("*"))
    plain = python(COMMAND, "run", "wrong.json", cwd=here)
    assert (plain.returncode, plain.stdout) == (2, "")
    assert plain.stderr == "ganlab: wrong.json: data.a: is required and has no default\n"
    debug = python(COMMAND, "--debug", "run", "wrong.json", cwd=here)
    assert (debug.returncode, debug.stdout) == (2, "")
    assert debug.stderr.startswith("Traceback (most recent call last):")
    assert debug.stderr.endswith(plain.stderr)
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


def interrupted_while_importing(handler: str, lines: int, cwd: Path, *words: str) -> tuple[int, str]:
    """Returns (exit code, stderr) of a command that gets a SIGINT `lines` imports after that of ganlab.cli.commands."""
    # in a shell's background job SIGINT is ignored at the start
    code = f"import signal; signal.signal(signal.SIGINT, signal.{handler}); {COMMAND}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPROFILEIMPORTTIME": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=environment,
    ) as process:
        assert process.stderr is not None
        while not process.stderr.readline().endswith("| ganlab.cli.commands\n"):
            assert process.poll() is None
        for _ in range(lines):
            process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    return process.returncode, "".join(line for line in said.splitlines(True) if not line.startswith("import time:"))


# numpy is among the first that torch imports, plugins are the last
@pytest.mark.parametrize("lines", [2, 100, 125, 150, 800, 1500])
def test_an_interrupt_while_python_imports_ends_the_process(lines: int, here: Path) -> None:
    before = sorted(here.rglob("*"))
    code, said = interrupted_while_importing("default_int_handler", lines, here, "run", "tiny.json")
    assert code in (-signal.SIGINT, 130), said
    assert not re.search("Traceback|unexpected|terminate", said), said
    assert sorted(here.rglob("*")) == before


def test_an_interrupt_that_is_ignored_stays_so(here: Path) -> None:
    code, said = interrupted_while_importing("SIG_IGN", 125, here, "check", "lost.json")
    assert (code, said) == (2, "ganlab: lost.json: can't be read: No such file or directory\n")


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


def test_a_run_of_another_spec_is_refused_with_the_differences(here: Path, refused: Refused) -> None:
    assert CliRunner().invoke(app, ["run", "tiny.json", "--set", "schedule.steps=1"]).exit_code == 0
    said = refused("run", "tiny.json", "--set", "schedule.steps=1", "--set", "seed=1")
    assert said == (
        "runs/tiny holds another spec (there / asked): seed: 0 / 1; start over with --fresh, or choose another folder"
        " with --out"
    )
    over = CliRunner().invoke(app, ["run", "tiny.json", "--set", "schedule.steps=1", "--set", "seed=1", "--fresh"])
    assert over.exit_code == 0
    assert ganlab.load_run("runs/tiny").spec.seed == 1


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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["los"], "plugins: there is no kind 'los'; did you mean 'loss'? known are: callback, discriminator,"),
        (["los", "cycle"], "plugins: there is no kind 'los'; did you mean 'loss'?"),
        (["loss", "cycel"], "plugins: there is no loss 'cycel'; did you mean 'cycle'?"),
    ],
)
def test_plugins_refuses_what_is_not_there(words: list[str], said: str, refused: Refused) -> None:
    assert refused("plugins", *words).startswith(said)


def test_schema_prints_the_json_schema_of_what_is_installed() -> None:
    assert json.loads(CliRunner().invoke(app, ["schema"]).stdout) == json_schema(registry().components)
