"""`ganlab demo`: its page in a browser, what it refuses, and what it leaves behind."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import ganlab
from ganlab.cli.commands import app
from ganlab.spec.files import merge
from helpers.folders import draw
from helpers.pictures import colourful
from helpers.processes import ENVIRONMENT, Forker
from helpers.systems import TINY

Array = np.ndarray[Any, np.dtype[Any]]

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
PATIENCE = 300_000
"""Milliseconds until a page that does not answer is an error, on a machine that is busy too."""


class Demo(NamedTuple):
    address: str
    runs: list[ganlab.Run]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[ganlab.Run]:
    """A run with three checkpoints, and one that translates to b only."""
    folder = tmp_path_factory.mktemp("demo")
    tiny = merge(TINY, {"data": {domain: {"path": str(path)} for domain, path in draw(folder).items()}})
    one = merge(tiny, {"directions": ["ab"], "losses": {"cycle": None}, "schedule": {"steps": 2}})
    both = merge(tiny, {"about": "both ways", "checkpoints": {"keep": 4}})
    return [ganlab.run(spec, out=folder / name) for name, spec in (("both", both), ("one", one))]


@pytest.fixture(scope="module")
def demo(runs: list[ganlab.Run], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The command in a process of its own, which Ctrl-C ends."""
    uploads, errors = tmp_path_factory.mktemp("uploads"), tmp_path_factory.mktemp("errors") / "errors"
    words = ["demo", *(run.folder.name for run in runs), "--port", "0"]
    with (
        errors.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, "-m", "ganlab", *words],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=runs[0].folder.parent,
            env={**ENVIRONMENT, "TMPDIR": str(uploads), "HTTP_PROXY": "http://localhost:1"},
        ) as process,
    ):
        assert process.stdout is not None
        try:
            said = [process.stdout.readline().rstrip() for _ in range(3)]
            assert (said[0], said[2]) == ("demo: both, one", "  stop it      Ctrl-C"), errors.read_text()
            assert said[1].startswith("  open it      http://127.0.0.1:")
            yield Demo(said[1].split()[-1], runs)
            process.send_signal(signal.SIGINT)
            assert (process.stdout.read(), process.wait()) == ("", 0)
            # Gradio's words on a file that was not uploaded
            told = errors.read_text()
            assert told == "" or (told.count("Traceback") == 1 and told.endswith("it was not uploaded by a user.\n"))
            assert uploaded(uploads) == []
        finally:
            process.kill()


def uploaded(folder: Path) -> list[Path]:
    """The files in the folder for temporary ones: Gradio leaves an empty folder there."""
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_a_picture_is_translated_in_the_page(demo: Demo, tmp_path: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api")
    both, one = demo.runs
    photo = tmp_path / "me.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    colourful(20, 30).save(photo, exif=exif)
    (tmp_path / "notes.png").write_text("notes")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.set_default_timeout(PATIENCE)
        errors: list[str] = []
        requested: list[str] = []
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requested.append(request.url))
        said = page.locator("textarea")

        def expect(*sentences: str) -> None:
            for index, sentence in enumerate(sentences):
                sync_api.expect(said.nth(index)).to_have_value(sentence, timeout=PATIENCE)

        def expect_pictures(*expected: Image.Image) -> None:
            """Waits until the first pictures in the page, after the one that was dropped, are the expected ones."""
            for _ in range(PATIENCE // 100):
                found = page.locator(".picture img").all()[1 : 1 + len(expected)]
                if same([pixels(image.get_attribute("src")) for image in found], expected):
                    return
                page.wait_for_timeout(100)
            pytest.fail("the page shows other pictures")

        page.goto(demo.address)
        expect("both ways", "")
        page.locator("input[type=file]").first.set_input_files(photo)
        expect("step 6, 16 x 16 pixels", "step 2, 16 x 16 pixels")
        page.screenshot(path=tmp_path / "page.png", full_page=True)
        output = both.translate(photo, to="b")
        expect_pictures(output, both.translate(output, to="a"), one.translate(photo, to="b"))
        # an older checkpoint, as the slider names it
        page.get_by_label("number input for checkpoint").first.fill("4")
        expect("step 4, 16 x 16 pixels")
        expect_pictures(both.translate(photo, to="b", checkpoint=4))
        page.get_by_label("b to a").check()
        expect("step 4, 16 x 16 pixels", "me.png can't be translated: to: 'a' is not allowed: this run translates to b")
        expect_pictures(both.translate(photo, to="a", checkpoint=4))
        page.get_by_label("the whole picture").check()
        expect("step 4, 30 x 20 pixels")
        # a file that is no picture
        page.get_by_label("Remove Image").click()
        expect("both ways", "")
        page.locator("input[type=file]").first.set_input_files(tmp_path / "notes.png")
        sync_api.expect(said.first).to_have_value(
            "notes.png can't be translated: is no image of a kind that is read (AVIF, BMP, GIF, JPEG, JPEG2000, PNG,"
            " PPM, TIFF, WEBP)",
            timeout=PATIENCE,
        )
        # checkpoints that were saved in the meantime
        ganlab.run(one.folder, ["schedule.steps=4"], out=one.folder)
        page.reload()
        slider = page.get_by_label("range slider for checkpoint").nth(1)
        sync_api.expect(slider).to_have_attribute("max", "4", timeout=PATIENCE)
        browser.close()
    assert errors == []
    assert [url for url in requested if not url.startswith((f"{demo.address}/", "blob:", "data:"))] == []


def answered(address: str, body: bytes | None = None, kind: str = "application/json") -> bytes:
    request = urllib.request.Request(address, body, {"Content-Type": kind})
    # past the proxy
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=300) as answer:
        found: bytes = answer.read()
        return found


def pixels(address: str) -> Array:
    return np.array(Image.open(io.BytesIO(answered(address))))


def same(found: Sequence[Array], expected: Sequence[Image.Image]) -> bool:
    return len(found) == len(expected) and all(map(np.array_equal, found, map(np.array, expected)))


def test_only_uploaded_files_are_read(demo: Demo, tmp_path: Path) -> None:
    colourful(20, 30).save(tmp_path / "mine.png")
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="mine.png"\r\n\r\n'
    form = head + (tmp_path / "mine.png").read_bytes() + b"\r\n--x--\r\n"
    (sent,) = json.loads(answered(f"{demo.address}/gradio_api/upload", form, "multipart/form-data; boundary=x"))
    call = f"{demo.address}/gradio_api/call/translated"
    for path, expected in ((sent, b"event: complete"), (str(tmp_path / "mine.png"), b"event: error")):
        photo = {"path": path, "meta": {"_type": "gradio.FileData"}}
        asked = json.dumps({"data": [photo, "b", "run", 6]}).encode()
        event = json.loads(answered(call, asked))["event_id"]
        assert answered(f"{call}/{event}").splitlines()[0] == expected


def test_what_is_wrong_is_one_sentence(forker: Forker, demo: Demo, tmp_path: Path) -> None:
    port = demo.address.rsplit(":", 1)[1]
    empty = tmp_path / "empty"
    shutil.copytree(demo.runs[1].folder, empty, ignore=shutil.ignore_patterns("checkpoints"))
    commands = {
        "no --port 0": "no is not a run: it has no spec.json\n",
        f"{empty} --port 0": f"{empty} has no checkpoint yet; train it with `ganlab run`\n",
        f"{demo.runs[0].folder} --port {port}": f"the demo can't listen at 127.0.0.1, port {port}: ",
    }
    # one process for all of them: Gradio takes seconds to import
    code = (
        "import sys; from typer.testing import CliRunner; from ganlab.cli.commands import app\n"
        "for words in sys.argv[1:]:\n"
        "    done = CliRunner().invoke(app, ['demo', *words.split()])\n"
        "    print(done.exit_code, repr(done.stdout), done.stderr, end='')"
    )
    (tmp_path / "wrong.py").write_text(code)
    done = forker.run(str(tmp_path / "wrong.py"), *commands, python=True, errors=str(forker.errors))
    assert done.code == 0, done.errors
    parts = done.said.split("2 '' ganlab: ")[1:]
    assert len(parts) == len(commands)
    for part, sentence in zip(parts, commands.values(), strict=True):
        assert part.startswith(sentence)
        assert part.count("\n") == 1


def test_without_gradio_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    done = CliRunner().invoke(app, ["demo", "runs/emb"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "ganlab: demo needs Gradio, which is not installed: pip install 'ganlab[demo]'\n"
