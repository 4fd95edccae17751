"""Functions show progress where a person sees it, and lines elsewhere are few."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import ganlab
from ganlab.display import terminal
from ganlab.display.choice import showing
from ganlab.display.terminal import Console
from ganlab.interfaces.callbacks import Callback
from ganlab.spec.models import Json


@contextmanager
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """A terminal as stderr. At the end the list has what it was sent."""
    ours, theirs = os.openpty()
    sent: list[bytes] = []

    def read() -> None:
        # a terminal whose other end is closed raises OSError
        try:
            while piece := os.read(ours, 65536):
                sent.append(piece)
        except OSError:
            pass

    reader = threading.Thread(target=read)
    reader.start()
    with open(theirs, "w") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        patch.setenv("TERM", "xterm")
        yield sent
    reader.join()
    os.close(ours)


def test_a_run_in_a_terminal_shows_its_progress(
    tiny: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with screen(monkeypatch) as sent:
        ganlab.run(tiny, ["schedule.steps=2"], out=tmp_path / "run")
        ganlab.run(tiny, ["schedule.steps=2"], out=tmp_path / "quiet", callback=ganlab.Callback())
    shown = b"".join(sent).decode()
    assert "tiny starts: 2 steps on cpu" in shown
    assert "training" in shown
    assert "quiet" not in shown
    assert capfd.readouterr() == ("", "")


def test_elsewhere_a_run_is_silent(tiny: Json, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ganlab.run(tiny, ["schedule.steps=2"], out=tmp_path / "run")
    assert capfd.readouterr() == ("", "")


def test_a_callback_that_is_given_is_used() -> None:
    given = Callback()
    with showing(given) as shown:
        assert shown is given


@pytest.mark.parametrize(("seconds", "lines"), [(1e9, []), (-1.0, ["vectors: 1/3", "vectors: 2/3", "vectors: 3/3"])])
def test_piped_progress_has_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], seconds: float, lines: list[str]
) -> None:
    monkeypatch.setattr(terminal, "QUIET_SECONDS", seconds)
    with Console() as console:
        assert list(console.progress("abc", "vectors", 3)) == ["a", "b", "c"]
    assert capsys.readouterr().err.splitlines() == lines
