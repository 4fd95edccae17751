"""Lists of files to leave out: how paths are read, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ganlab.data.exclusions import exclusions
from ganlab.data.folder import Folder
from ganlab.errors import SpecError
from helpers.folders import draw, names


def test_a_relative_path_starts_at_the_folder_of_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = draw(tmp_path)
    (folders["a"] / "in").mkdir()
    (folders["a"] / "03.png").rename(folders["a"] / "in/#3 x .png")
    (tmp_path / "lists").mkdir()
    (tmp_path / "link").symlink_to(folders["a"], target_is_directory=True)
    lines = [
        "# left out",
        "",
        "../pictures-a/00.png",
        "./../pictures-a/in/../in/#3 x .png",
        str(folders["a"] / "01.png"),
        "../link/02.png",
        "../pictures-b/11.png",
        "../pictures-a/nothing.png",
        "04.png",
    ]
    for name, text in (("list.txt", "\n".join(lines)), ("windows.txt", "\ufeff" + "\r\n".join([*lines, ""]))):
        (tmp_path / "lists" / name).write_bytes(text.encode())
        for path in (folders["a"], tmp_path / "link", Path("pictures-a")):
            monkeypatch.chdir(tmp_path)
            kept = Folder(path, exclude=Path("lists") / name).keys("a")
            assert kept == [f"{number:02}.png" for number in range(4, 12)]
        assert Folder(folders["b"], exclude=tmp_path / "lists" / name).keys("b") == names(folders["b"])[:11]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    folder = draw(tmp_path)["a"]
    odd = ["#1.png", " 2.png ", "ü 漢字.png", "a\nb.png", "\udcff.png"]
    for place, name in enumerate(odd):
        os.rename(folder / f"{place:02}.png", folder / name)
    for path in (folder / "#list.txt", tmp_path / "list.txt", tmp_path / "deep/in/list.txt"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(exclusions(path, {"odd": [folder / name for name in odd], "10": [folder / "10.png"]}))
        kept = Folder(folder, exclude=path).keys("a")
        # no line can hold the last two
        assert [key for key in kept if not key.endswith(".txt")] == sorted(
            [*odd[3:], *(f"{n:02}.png" for n in (5, 6, 7, 8, 9, 11))]
        )


def test_the_limit_counts_what_is_left(tmp_path: Path) -> None:
    folder = draw(tmp_path)["a"]
    (tmp_path / "list.txt").write_text("".join(f"pictures-a/{number:02}.png\n" for number in range(8)))
    assert Folder(folder, limit=4, exclude=tmp_path / "list.txt").keys("a") == names(folder)[8:]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "list.txt can't be read: No such file"),
        (b"\xff\xfe", "list.txt can't be read: 'utf-8' codec"),
        (b"# nothing\n", "list.txt names none of the 12 files in .*pictures-a; a relative path in it starts at"),
        (b"00.png\n", "names none of the 12 files"),
        ("".join(f"pictures-a/{number:02}.png\n" for number in range(12)).encode(), "names every file in"),
    ],
)
def test_a_list_of_no_use_is_one_sentence(content: bytes | None, said: str, tmp_path: Path) -> None:
    folder = draw(tmp_path)["a"]
    if content is not None:
        (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(SpecError, match=rf"^data\.a\.exclude: .*{said}"):
        Folder(folder, exclude=tmp_path / "list.txt").keys("a")
