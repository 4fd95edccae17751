"""Mutated specs and random command lines: nothing but success or one sentence; nothing executed, nothing written."""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import ganlab
from ganlab import experiment
from ganlab.cli.commands import app
from ganlab.components.options import signature
from ganlab.components.registry import registry
from ganlab.errors import GanlabError
from ganlab.spec.files import read
from ganlab.spec.models import Json
from helpers.paths import EXPERIMENTS
from helpers.systems import TINY

SPECS = [TINY, *map(read, sorted(EXPERIMENTS.glob("*.json")))]
NAMES = [
    *sorted({c.name for c in registry().components}),
    *sorted({option for c in registry().components for option in signature(c.cls).model.model_fields}),
    *("type", "of", "weight", "losses", "data", "a", "extends", "$schema", "generator", "evaluation", "features"),
]
ODD = ["", " ", ".", "..", "/", "~", "~nosuchuser", "a/b", "\0", "\n", "\x1b[2J", "\x9b", "\u202e", "é", "😀", "\udcff"]
ODD += ["{x}", "{}", "%s", "[/red]", "$(touch x)", "`touch x`", "x" * 5000, "null", "2024", "NaN", "'", '"', "\\"]
NUMBERS = [0, 1, -1, 2, 3, 7, 100, 10**9, 10**20, 10**400, -(2**63), 0.5, -0.0, 1e-320, 1e308, 1e999, float("nan")]
PLAIN = [None, True, False, [], {}, [[]], [1, 2], {"": 1}, {"type": None}, {"type": {}}]


def random_value(r: random.Random) -> Any:
    kind = r.randrange(6)
    if kind == 5:
        nested: Any = random_value(r)
        for _ in range(r.choice([1, 2, 50, 99, 120, 3000])):
            nested = {r.choice(NAMES): nested} if r.random() < 0.5 else [nested]
        return nested
    return deepcopy(r.choice((NAMES, ODD, NUMBERS, PLAIN, SPECS)[kind]))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield (*path, key)
            if len(path) < 10:
                yield from places(value[key], (*path, key))


def mutated(r: random.Random) -> Json:
    spec: Any = deepcopy(r.choice(SPECS))
    for _ in range(r.choice([1, 1, 1, 2, 5])):
        found = list(places(spec))
        if not found:
            break
        *parents, key = r.choice(found)
        holder = spec
        for parent in parents:
            holder = holder[parent]
        action = r.randrange(4)
        if action == 0:
            holder[key] = random_value(r)
        elif action == 1 and isinstance(holder, dict):
            holder[r.choice(NAMES + ODD)] = holder.pop(key)
        elif action == 2 and isinstance(holder, dict):
            holder[r.choice(NAMES + ODD)] = random_value(r)
        else:
            del holder[key]
    return dict(spec) if isinstance(spec, dict) else {}


def one_sentence(text: str) -> None:
    assert text
    assert text.isprintable(), repr(text)
    assert "(unexpected;" not in text
    assert "Traceback" not in text


@pytest.fixture
def harmless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """`harmless()` fails if since the last call anything was executed, or written in the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path / "cache"))
    seen: list[str] = []
    listening = True

    def listen(event: str, details: Any) -> None:
        started = event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork")
        if listening and (
            started or (event == "open" and isinstance(details[1], str) and set(details[1]) & set("wax+"))
        ):
            seen.append(f"{event} {details}")

    sys.addaudithook(listen)

    def check() -> None:
        written = [entry for entry in seen if str(os.devnull) not in entry]
        assert written == []
        assert sorted(path.name for path in tmp_path.iterdir()) == before

    before = sorted(path.name for path in tmp_path.iterdir())
    yield check
    listening = False


@pytest.mark.parametrize("count", [150, pytest.param(10_000, marks=pytest.mark.faults)])
def test_mutated_specs_resolve_or_are_refused_with_a_sentence(
    count: int, harmless: Callable[[], None], record_property: Callable[[str, object], None]
) -> None:
    r = random.Random(count)
    resolved = 0
    for number in range(count):
        spec = mutated(r)
        settings = [f"{'.'.join(r.choices(NAMES + ODD, k=r.choice([1, 2, 3, 2000])))}={r.choice(ODD)}"] * (
            number % 10 == 0
        )
        try:
            ganlab.load_spec(spec, settings)
            resolved += 1
        except GanlabError as error:
            one_sentence(str(error))
    harmless()
    record_property("counted", f"{count} mutated specs, {resolved} of them resolved")
    assert count // 50 < resolved < count


def random_component(r: random.Random, kind: str) -> Json:
    """A component of the kind with small or default options. Its parts need not fit together."""
    found = [c for c in registry().components if c.kind == kind and (kind != "features" or c.cls.shipped)]  # type: ignore[attr-defined]
    chosen = r.choice(found)
    sign = signature(chosen.cls)
    small = {"width": [1, 4], "blocks": [0, 1], "layers": [1, 2], "kernel": [3, 5], "steps": [2], "pool": [0, 1, 3]}
    options = {option: r.choice(small[option]) for option in sorted(sign.model.model_fields.keys() & small.keys())}
    return {"type": chosen.name, **options, **{option: random_component(r, of) for option, of in sign.nested.items()}}


@pytest.mark.parametrize("count", [12, pytest.param(300, marks=pytest.mark.faults)])
def test_random_components_are_checked_or_refused_with_a_sentence(
    count: int, tiny: Json, harmless: Callable[[], None], record_property: Callable[[str, object], None]
) -> None:
    r = random.Random(count)
    checked = 0
    for _ in range(count):
        spec = deepcopy(tiny)
        place, kind = r.choice(
            [
                ("generator", "generator"),
                ("schedule", "schedule"),
                ("losses", "loss"),
                ("discriminators", "discriminator"),
            ]
        )
        part = random_component(r, kind)
        spec[place] = part if place == kind else {**spec[place], r.choice(["image", "adversarial", "other"]): part}
        spec["data"]["size"] = r.choice([16, 16, 20, 32])
        spec["directions"] = r.choice([["ab", "ba"], ["ab", "ba"], ["ba"]])
        try:
            experiment.check(spec)
            checked += 1
        except GanlabError as error:
            one_sentence(str(error))
    harmless()
    record_property("counted", f"{count} specs of random components, {checked} of them checked")
    assert 0 < checked < count


WORDS = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
OPTIONS = ["--set", "--out", "--fresh", "--json", "--debug", "--version", "--help", "--kid", "--images", "--inputs"]
OPTIONS += ["--metric", "--features", "-", "--", "-x", "--se", "--set=data.size=8", "--images=x"]
VALUES = [
    "wrong.json",
    "lost.json",
    "data.a.path=2024",
    "a=1",
    "=",
    "a..b=1",
    "kid",
    "loss",
    "lsgan",
    "runs",
    "notes.txt",
]


@pytest.mark.parametrize("count", [25, pytest.param(500, marks=pytest.mark.faults)])
def test_random_command_lines_end_with_a_sentence(
    count: int, tmp_path: Path, request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> None:
    (tmp_path / "wrong.json").write_text('{"extends": "base.json", "seed": "x"}')
    (tmp_path / "base.json").write_text(json.dumps(TINY))
    (tmp_path / "notes.txt").write_bytes(b"\xff\x00")
    harmless = request.getfixturevalue("harmless")
    r = random.Random(count)
    codes: list[int] = []
    while len(codes) < count:
        # `new` writes on purpose; it is refused if its name is wrong
        words = [r.choice(WORDS)] if r.random() < 0.9 else []
        words += r.choices(OPTIONS + VALUES + ODD + WORDS, k=r.randrange(6))
        if "new" in words and "loss" in words:
            continue
        # --debug shows tracebacks
        result = CliRunner().invoke(app, [word for word in words if word != "--debug"])
        assert result.exit_code in (0, 1, 2), (words, result.output)
        assert result.exception is None or isinstance(result.exception, SystemExit), (words, result.exception)
        said = result.stderr.splitlines()
        if result.exit_code:
            one_sentence(said[-1])
            assert len(said) == 1 or said[0].startswith("Usage: ganlab"), (words, said)
        assert "\x1b" not in result.output
        codes.append(result.exit_code)
        harmless()
    ended = ", ".join(f"{codes.count(code)} with {code}" for code in (0, 1, 2))
    record_property("counted", f"{count} command lines, ended {ended}")
