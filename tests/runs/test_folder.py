"""The run folder: reading, removing and refusing, also if files are damaged."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

import pytest

from ganlab import files
from ganlab.errors import RunError, SpecError
from ganlab.runs.folder import RunFolder, write


def record(step: int, value: float = 0.5) -> dict[str, float]:
    return {"step": step, "seconds": step / 10, "images": 4 * step, "loss/generator/ab/cycle": value / step}


def test_records_are_read_as_they_were_written(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert list(folder.records()) == []
    given = [record(step, 1 / 3) for step in range(1, 6)]
    with folder.recorder(0, pytest.fail) as recorder:
        recorder(given[:2])
        # a reader sees whole records while the run writes
        assert list(folder.records()) == given[:2]
        recorder([])
        recorder(given[2:])
    assert list(folder.records()) == given
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == given


@pytest.mark.parametrize("kept", [0, 2, 5, 9])
def test_a_run_that_resumes_records_each_step_once(tmp_path: Path, kept: int) -> None:
    folder = RunFolder(tmp_path)
    with folder.recorder(0, pytest.fail) as recorder:
        recorder([record(step) for step in range(1, 6)])
    with folder.recorder(kept, pytest.fail) as recorder:
        recorder([record(step, 0.25) for step in range(kept + 1, 8)])
    expected = [record(step) for step in range(1, min(kept, 5) + 1)] + [
        record(step, 0.25) for step in range(kept + 1, 8)
    ]
    assert list(folder.records()) == list(folder.history) == list(folder.history) == expected


def test_samples_of_steps_that_are_dropped_are_dropped(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for name in ("step-000002.png", "step-000003.png", "step-1000000.png", "step-best.png", "mine.png"):
        write(tmp_path / "samples" / name, b"x")
    with folder.recorder(2, pytest.fail):
        pass
    assert {path.name for path in folder.samples.iterdir()} == {"step-000002.png", "step-best.png", "mine.png"}
    assert folder.sample(2).read_bytes() == b"x"


@pytest.mark.parametrize("torn", ['{"step": 3, "seco', "{", '{"step": 3}}', "\x00\x00\x00"])
def test_a_last_line_that_was_cut_off_is_left_out_and_written_again(tmp_path: Path, torn: str) -> None:
    folder = RunFolder(tmp_path)
    with folder.recorder(0, pytest.fail) as recorder:
        recorder([record(1), record(2)])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(torn)
    assert list(folder.records()) == [record(1), record(2)]
    with folder.recorder(2, pytest.fail) as recorder:
        recorder([record(3)])
    assert list(folder.records()) == [record(1), record(2), record(3)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "Expecting value"),
        ('{"name": "x"', "delimiter"),
        ("[1]", "dictionary"),
        (b"\xff", "utf-8"),
        ("[" * 100_000, "nested"),
    ],
)
@pytest.mark.parametrize("name", ["spec.json", "environment.json"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: str | bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    folder = RunFolder(tmp_path)
    with pytest.raises(SpecError) as caught:
        folder.spec_json() if name == "spec.json" else folder.environment()
    assert str(caught.value).startswith(f"{tmp_path / name} can't be read: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_file_names_that_are_no_text_can_be_kept(tmp_path: Path) -> None:
    content = {"skipped": ["\udcff.png: broken", "漢字 ü"], "nested": {"a": [1, 2.5, None]}}
    folder = RunFolder(tmp_path)
    folder.write_json("environment.json", content)
    assert folder.environment() == content
    assert "漢字 ü" in (tmp_path / "environment.json").read_text(encoding="utf-8")


RUN = (
    "spec.json",
    "environment.json",
    "evaluation.json",
    "speed.json",
    "metrics.jsonl",
    "events.out.tfevents.1.host.2",
)


def populate(path: Path) -> dict[str, Any]:
    """Writes a run and other files beside it, and returns {name of the other file: content}."""
    for name in ("checkpoints/step-000002/state.pt", "checkpoints/.step-000004/state.pt", "samples/step-000002.png"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("run")
    for name in RUN:
        (path / name).write_text("{}")
    notes = {"notes.txt": "mine", "events.txt": "mine", "my checkpoints/step-000002/x": "mine", "spec.json.bak": "mine"}
    for name, content in notes.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(content)
    return notes


def test_clearing_removes_the_run_and_nothing_beside_it(tmp_path: Path) -> None:
    notes = populate(tmp_path)
    RunFolder(tmp_path).clear()
    left = {str(p.relative_to(tmp_path)): p.read_text() for p in tmp_path.rglob("*") if p.is_file()}
    assert left == notes
    assert {p.name for p in tmp_path.iterdir()} == {name.split("/")[0] for name in notes}
    RunFolder(tmp_path).clear()


class Stop(BaseException):
    """Acts like a kill: no code catches it."""


def stopped(at: int, work: Callable[[], Any]) -> bool:
    """Does `work` up to its `at`-th call of any function. Returns False if it ended before."""
    calls, over = 0, False

    def count(frame: FrameType, event: str, arg: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")
        if calls == at and not over:
            raise Stop

    sys.setprofile(count)
    try:
        work()
    except Stop:
        return True
    finally:
        # do not raise at the call that ends the counting
        over = True
        sys.setprofile(None)
    return False


def test_clearing_can_be_stopped_anywhere_and_done_again(tmp_path: Path) -> None:
    at = 0
    while True:
        at += 3
        path = tmp_path / str(at)
        path.mkdir()
        notes = populate(path)
        folder = RunFolder(path)
        if not stopped(at, folder.clear):
            break
        # it is still a run with complete checkpoints, or none of its files is left
        if folder.exists:
            assert all((path / f"checkpoints/step-{step:06d}/state.pt").exists() for step in folder.steps)
        else:
            assert not [name for name in RUN if (path / name).exists()]
        folder.clear()
        assert {str(p.relative_to(path)): p.read_text() for p in path.rglob("*") if p.is_file()} == notes
    assert at > 50


def test_clearing_removes_a_link_and_not_what_it_leads_to(tmp_path: Path) -> None:
    populate(tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/precious").write_text("mine")
    (tmp_path / "run/samples/linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    RunFolder(tmp_path / "run").clear()
    assert (tmp_path / "elsewhere/precious").read_text() == "mine"


def test_clearing_empties_folders_on_another_disk_and_keeps_the_links(tmp_path: Path) -> None:
    populate(tmp_path / "run")
    for name in ("checkpoints", "samples"):
        (tmp_path / "run" / name).rename(tmp_path / name)
        (tmp_path / "run" / name).symlink_to(tmp_path / name, target_is_directory=True)
        (tmp_path / name / "notes").write_text("mine")
    RunFolder(tmp_path / "run").clear()
    for name in ("checkpoints", "samples"):
        assert (tmp_path / "run" / name).is_symlink()
        assert [path.name for path in (tmp_path / name).iterdir()] == ["notes"]


def test_only_a_folder_with_something_else_in_it_is_foreign(tmp_path: Path) -> None:
    def foreign(path: Path) -> bool:
        return RunFolder(path).foreign

    assert not foreign(tmp_path / "missing")
    assert not foreign(tmp_path)
    # a process that is killed before it writes the spec leaves these files
    (tmp_path / ".lock").touch()
    (tmp_path / ".spec.json.unfinished").touch()
    assert not foreign(tmp_path)
    (tmp_path / "holiday.jpg").touch()
    assert foreign(tmp_path)
    assert foreign(tmp_path / "holiday.jpg")
    (tmp_path / "spec.json").touch()
    assert not foreign(tmp_path)


def test_one_at_a_time(tmp_path: Path) -> None:
    with (
        RunFolder(tmp_path / "run").locked(),
        pytest.raises(SpecError, match="run: another process is training here"),
        RunFolder(tmp_path / "run").locked(),
    ):
        pytest.fail("entered")
    with RunFolder(tmp_path / "run").locked():
        pass


def test_a_lock_that_is_a_link_is_refused_and_one_with_content_keeps_it(tmp_path: Path) -> None:
    mine, run = tmp_path / "mine", tmp_path / "run"
    mine.write_text("precious")
    run.mkdir()
    (run / ".lock").symlink_to(mine)
    with pytest.raises(SpecError, match=r"\.lock is a symbolic link; remove it"), RunFolder(run).locked():
        pytest.fail("entered")
    (run / ".lock").unlink()
    (run / ".lock").hardlink_to(mine)
    with RunFolder(run).locked():
        pass
    assert mine.read_text() == "precious"
    (run / ".lock").unlink()
    (run / ".lock").mkdir()
    with pytest.raises(RunError, match=r"\.lock can't be written: Is a directory"), RunFolder(run).locked():
        pytest.fail("entered")


@pytest.mark.parametrize("begun_again", [False, True])
def test_a_folder_that_was_removed_is_written_no_more(tmp_path: Path, begun_again: bool) -> None:
    folder = RunFolder(tmp_path / "run")
    with folder.locked():
        folder.write_json("spec.json", {})
        shutil.rmtree(tmp_path / "run")
        with RunFolder(tmp_path / "run").locked() if begun_again else nullcontext():
            with pytest.raises(RunError, match="run was removed or replaced while this run trained in it"):
                folder.write_json("evaluation.json", {})
            assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [".lock"] * begun_again


@pytest.mark.skipif(os.name == "nt", reason="Windows removes no file that is open")
def test_records_are_not_written_to_a_file_that_was_removed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with folder.recorder(0, pytest.fail) as recorder:
        recorder([record(1)])
        folder.metrics.unlink()
        with pytest.raises(RunError, match=r"metrics\.jsonl was removed while this run trained"):
            recorder([record(2)])


def test_a_damaged_line_costs_itself_and_is_told(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with folder.recorder(0, pytest.fail) as recorder:
        recorder([record(step) for step in range(1, 12)])
    lines = (tmp_path / "metrics.jsonl").read_bytes().splitlines(True)
    damages = (b"\xff", b"[1]\n", b"{}\n", b'{"step": 5, "loss/x": 1}\n', b'{"step": true}\n', b"[" * 100_000 + b"\n")
    for at, damaged in zip((1, 2, 3, 4, 5, 6), damages, strict=True):
        lines[at] = damaged + lines[at] if damaged == b"\xff" else damaged
    (tmp_path / "metrics.jsonl").write_bytes(b"".join(lines))
    told: list[str] = []
    with folder.recorder(11, told.append):
        pass
    assert told == [f"{tmp_path / 'metrics.jsonl'}: damaged lines are left out (6): 2, 3, 4, ..."]
    assert [r["step"] for r in folder.records()] == [1, 8, 9, 10, 11]
    with folder.recorder(11, pytest.fail):
        pass


def test_records_are_read_as_a_stream(tmp_path: Path) -> None:
    folder, count = RunFolder(tmp_path), 1000
    many = {f"loss/generator/ab/term{number}": number / 7 for number in range(20)}
    (tmp_path / "metrics.jsonl").write_text(
        "".join(json.dumps({"step": step, **many}) + "\n" for step in range(1, count + 1))
    )
    # about 2.5 MB as a list
    tracemalloc.start()
    try:
        assert sum(1 for _ in folder.records()) == count
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(RunError, match="file/run can't be written: Not a directory"),
        RunFolder(tmp_path / "file/run").locked(),
    ):
        pytest.fail("entered")


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write(path, b"one")
    write(path, b"other")
    assert path.read_bytes() == b"other"
    assert [p.name for p in path.parent.iterdir()] == ["file"]
    (tmp_path / "in the way").touch()
    with pytest.raises(RunError, match="in the way/file can't be written: "):
        write(tmp_path / "in the way" / "file", b"x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunError, match="folder can't be written: Is a directory"):
        write(tmp_path / "folder", b"x")
    assert {p.name for p in tmp_path.iterdir()} == {"deep", "in the way", "folder"}


def test_one_that_tidies_up_takes_nothing_from_one_that_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, sync, seen = tmp_path / "samples/step-000001.png", files._sync, []

    def tidied(file: BinaryIO) -> None:
        sync(file)
        seen.append(sorted(p.name.split(".")[-1] for p in path.parent.iterdir()))
        if len(seen) == 1:
            RunFolder(tmp_path).tidy()

    path.parent.mkdir()
    (path.parent / ".step-000002.png.17.unfinished").touch()
    monkeypatch.setattr(files, "_sync", tidied)
    write(path, b"content")
    assert path.read_bytes() == b"content"
    assert seen == [["unfinished", "unfinished"], ["unfinished"]]
    assert [p.name for p in path.parent.iterdir()] == [path.name]
