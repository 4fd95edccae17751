"""`ganlab experiments`, `python -m ganlab`, `-h`, and what fits into 80 columns."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console as Terminal
from typer.testing import CliRunner

from ganlab.cli.commands import app
from ganlab.display.terminal import Console
from ganlab.spec.shipped import experiments
from helpers.callbacks import start_of

NARROW = {"COLUMNS": "80"}


def test_experiments_lists_them_as_a_table_and_as_json() -> None:
    shown = CliRunner().invoke(app, ["experiments"], env=NARROW).stdout
    words = " ".join(shown.split())
    for each in experiments():
        assert re.search(rf"^ {each.name} +{re.escape(each.about[:30])}", shown, re.M), each.name
    assert words.startswith("experiment description ")
    # a long text is wrapped, not cut
    assert all(f" {each.name} {' '.join(each.about.split())} " in f" {words} " for each in experiments())
    assert max(map(len, shown.splitlines())) <= 80
    found = json.loads(CliRunner().invoke(app, ["experiments", "--json"]).stdout)
    assert found == [{"name": e.name, "about": e.about, "path": str(e.path)} for e in experiments()]


def test_a_shipped_experiment_is_checked_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["check", "emb", "--json", "--set", "data.a.count=4", "--set", "data.b.count=4"])
    assert json.loads(done.stdout)["name"] == "emb"


@pytest.mark.parametrize(
    "words", [[], *([command.name or command.callback.__name__] for command in app.registered_commands)]
)  # type: ignore[union-attr]
def test_every_command_has_a_short_option_for_help(words: list[str]) -> None:
    runner = CliRunner()
    short, long = (runner.invoke(app, [*words, option]) for option in ("-h", "--help"))
    assert (short.exit_code, short.stdout) == (0, long.stdout)


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ganlab", "--version"], capture_output=True, text=True, env={**os.environ, **NARROW}
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == CliRunner().invoke(app, ["--version"]).stdout


def test_the_plugins_are_readable_in_80_columns() -> None:
    shown = CliRunner().invoke(app, ["plugins"], env=NARROW).stdout.splitlines()
    assert max(map(len, shown)) <= 80
    # a description has two thirds of the line
    start = next(line for line in shown if "minibatch_discrimination" in line).index(" ", 4)
    assert 80 - start > 50


def test_the_values_that_an_option_may_have_are_listed() -> None:
    shown = CliRunner().invoke(app, ["plugins", "loss", "cycle"]).stdout
    assert shown.endswith("norm is one of: l1, l2\n")


@pytest.mark.parametrize("width", [80, 200])
def test_the_progress_keeps_rate_and_time_and_cuts_the_terms(width: int) -> None:
    console = Console()
    console.begin(start_of(Path("runs/emb"))._replace(steps=100_000))
    names = ("generator/ab/adversarial", "generator/ab/cycle", "generator/ab/embedding", "discriminator/ab/adversarial")
    console.records([{"step": 12_345, **{f"loss/{name}": 0.25 for name in names}}])
    (task,) = console._bar.tasks
    task.fields["rate"] = 1234.5
    terminal = Terminal(width=width, force_terminal=True, color_system=None, legacy_windows=False)
    with terminal.capture() as captured:
        terminal.print(console._bar.get_renderable())
    (line,) = captured.get().splitlines()
    assert len(line) <= width
    assert re.search(r"training .* 12345/100000 1234\.5 images/s \S+ G adv", line), line
    assert ("D adversarial 0.250" in line) == (width == 200)


@pytest.mark.parametrize(
    ("words", "completions"),
    [
        ("ganlab ru", ["run", "runs"]),
        ("ganlab translate runs/emb me.jpg --to ", ["a", "b"]),
        ("ganlab translate runs/emb me.jpg --size k", ["keep"]),
    ],
)
def test_the_shell_can_complete_commands_and_values(words: str, completions: list[str]) -> None:
    """As bash asks for it, by the script that --show-completion prints."""
    result = CliRunner().invoke(
        app,
        [],
        prog_name="ganlab",
        env={"_GANLAB_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))},
    )
    assert result.stdout.split() == completions


def test_help_names_the_option_that_installs_completion() -> None:
    assert "--install-completion" in CliRunner().invoke(app, ["--help"]).stdout
