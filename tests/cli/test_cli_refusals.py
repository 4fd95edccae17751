"""What the command line refuses: exit code 2, one sentence, and nothing is written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import ganlab
from ganlab.cli.commands import app
from ganlab.spec.files import merge
from ganlab.spec.models import Json

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
        "data.sise: unknown key; did you mean 'size'? known are: a, b, batch, crop, flip, holdout, paired,"
        " resize, root, size, swap",
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
