"""Results reach stdout and nothing else does; names are printed so that a terminal obeys none of them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from shutil import which

import pytest

from ganlab.cli import process
from ganlab.cli.commands import main
from ganlab.errors import LONGEST, SpecError, printable
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from helpers.processes import Forker

COMMAND = "from ganlab.cli.commands import main; main()"

LOUD = """
import atexit, os, subprocess, sys, threading
import ganlab
os.write(1, b"raw at import ")
atexit.register(print, "at exit")
class Loud(ganlab.Loss):
    def __init__(self):
        super().__init__()
        print("in a constructor")
        sys.__stdout__.write("through the first stdout ")
        subprocess.run(["echo", "in a child"])
    def generator(self, t):
        print("in a term")
        return -t.score(t.fake).mean()
    def discriminator(self, t):
        return t.score(t.fake_for_discriminator).mean() - t.score(t.target).mean()
@ganlab.hookimpl
def ganlab_losses():
    return {"loud": Loud}
"""


def test_what_a_component_prints_is_no_part_of_the_results(forker: Forker, tiny: Json, tmp_path: Path) -> None:
    (tmp_path / "loud_module.py").write_text(LOUD)
    info = tmp_path / "loud-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: loud\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ganlab]\nloud = loud_module\n")
    spec = tmp_path / "loud.json"
    spec.write_text(json.dumps(merge(tiny, {"losses": {"adversarial": {"type": "loud"}}})))
    (tmp_path / "command.py").write_text(COMMAND)
    job = {"paths": [str(tmp_path)], "errors": str(forker.errors)}
    done = forker.run(str(tmp_path / "command.py"), "check", str(spec), "--json", python=True, **job)
    assert done.code == 0, done.errors
    assert json.loads(done.said)["name"] == "tiny"
    for place in ("raw at import", "at exit", "in a constructor", "first stdout", "in a child", "in a term"):
        assert place in done.errors


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_device_is_one_sentence() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", COMMAND, "--help"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.stderr == "ganlab: the output can't be written: No space left on device\n"
    assert done.returncode == 1


@pytest.mark.skipif(which("sh") is None, reason="this system has no sh")
def test_a_stdout_that_is_closed_is_no_error() -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -c "$1" --version >&-', sys.executable, COMMAND], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize("words", [["plugins", "source"], ["plugins", "source", "--json"], ["eval", "--help"]])
def test_every_encoding_of_stdout_will_do(encoding: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding))
    monkeypatch.setenv("COLUMNS", "40")
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 0
    sys.stdout.flush()
    text = written.getvalue().decode("utf-8" if encoding == "ascii" else encoding)
    if "--json" in words:
        assert len(json.loads(text)["components"]) > 3
    assert text


def test_a_result_in_json_holds_names_of_any_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["a\udcff", "\x1b[2J", "\x9b\x7f\u202e", "line\nend", "é…😀"]
    for encoding in ("ascii", "utf-8"):
        written = io.BytesIO()
        monkeypatch.setattr(process.Output, "stream", io.TextIOWrapper(written, encoding))
        process.print_json(names)
        text = written.getvalue().decode(encoding)
        assert json.loads(text) == names
        assert text.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a/b c.png", "a/b c.png"),
        ("é…😀", "é…😀"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("one\ntwo\r\t", r"one\ntwo\r\t"),
        ("\udcff\x9b\u202e", r"\udcff\x9b\u202e"),
        ("\U000e0001", r"\U000e0001"),
    ],
)
def test_a_message_holds_no_control_codes(name: str, shown: str) -> None:
    assert printable(name) == str(SpecError(name)) == shown
    assert shown.isprintable()


def test_a_message_has_an_end() -> None:
    assert len(str(SpecError("x" * 10**6))) == LONGEST


@pytest.mark.parametrize(
    "words",
    [
        ["\x1b[2J\n"],
        ["run", "--s\x1b"],
        ["run", "a\x1b", "b\x9b\n"],
        ["check", "lost\x1b\n\udcff.json"],
        ["plugins", "\x07"],
    ],
)
def test_words_of_a_command_line_are_repeated_without_control_codes(
    words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    said = capfd.readouterr().err
    assert all(line.isprintable() for line in said.splitlines()), repr(said)
