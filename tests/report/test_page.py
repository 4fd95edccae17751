"""Pages in a browser: what they show, load and do, in both colour schemes and on a telephone."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

import ganlab
from ganlab.cli.commands import app
from ganlab.comparison.page import PICTURES
from ganlab.report import run_page
from ganlab.report.faces import BYTES, SAMPLES
from ganlab.report.run_page import RunPage
from ganlab.runs.folder import RunFolder
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from helpers.folders import draw
from helpers.systems import TINY

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'> {{ 7 * 7 }} & \u2028 ü"

SPEC: Json = {
    "about": HOSTILE,
    "schedule": {"steps": 8},
    "samples": {"every": 2, "count": 4},
    "evaluation": {"metrics": ["content"], "every": 4, "during": ["content"]},
    "data": {"holdout": 0.7},
}


class Pages(NamedTuple):
    run: Path
    comparison: Path


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Pages:
    """The page of a run whose spec extends another one, and that of a comparison of two systems with two seeds."""
    folder = tmp_path_factory.mktemp("pages")
    sources = {domain: {"path": str(pictures)} for domain, pictures in draw(folder).items()}
    plain = merge(merge(TINY, SPEC), {"name": "plain", "data": sources})
    (folder / "plain.json").write_text(json.dumps(plain))
    wide = {"extends": "plain.json", "about": HOSTILE, "generator": {"width": 6}, "losses": {"cycle": {"weight": 5}}}
    (folder / "wide.json").write_text(json.dumps(wide))
    runs = []
    for name in ("plain", "wide"):
        for seed in range(2):
            runs.append(folder / f"{name}-{seed}")
            ganlab.run(folder / f"{name}.json", [f"seed={seed}"], runs[-1])
    found = ganlab.compare_runs(runs, out=folder / "comparison")
    # as the systems of spec files have it
    found["systems"][1]["about"] = HOSTILE
    (folder / "comparison/comparison.json").write_text(json.dumps(found))
    ganlab.write_report(folder / "comparison")
    return Pages(folder / "wide-1/report.html", folder / "comparison/report.html")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: the pages are not tried")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: the pages are not tried in a browser")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM)
        yield started
        started.close()


class Opened(NamedTuple):
    page: Any
    errors: list[str]
    requests: list[str]


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Opened]]:
    contexts = []

    def opened(path: Path, **options: Any) -> Opened:
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(120_000)
        found = Opened(page, [], [])
        page.on("console", lambda message: message.type == "error" and found.errors.append(message.text))
        page.on("pageerror", lambda error: found.errors.append(str(error)))
        page.on("request", lambda request: found.requests.append(request.url))
        page.goto(path.as_uri())
        until(page, DRAWN)
        return found

    yield opened
    for context in contexts:
        context.close()


DRAWN = "[...document.querySelectorAll('canvas[data-index]')].every((canvas) => canvas.width === 16)"
"""True once every picture has the pixels of its image."""

PIXELS = "[...document.querySelectorAll('canvas[data-system=\"0\"]')].map((canvas) => canvas.toDataURL()).join()"
"""The translations on the screen."""

CHARTS = "[...document.querySelectorAll('.plot')].filter((plot) => plot.children.length).length"
"""The number of charts that are drawn."""


def until(page: Any, holds: str, argument: Any = None) -> None:
    """Waits until a JavaScript expression holds; `argument` is its `before`."""
    # Playwright's own function evaluates text inside the page, which the page forbids
    for _ in range(2400):
        if page.evaluate(f"(before) => {holds}", argument):
            return
        page.wait_for_timeout(50)
    raise AssertionError(holds)


def wide(opened: Opened) -> bool:
    """Returns True if the page can be scrolled sideways."""
    found: bool = opened.page.evaluate("document.documentElement.scrollWidth > innerWidth")
    return found


def test_no_request_leaves_a_page_and_no_text_acts(pages: Pages, open_page: Callable[..., Opened]) -> None:
    for path in pages:
        opened = open_page(path)
        opened.page.evaluate("scrollTo(0, document.getElementById('curves').offsetTop)")
        until(opened.page, f"{CHARTS} > 1")
        assert opened.errors == []
        assert {url.partition(":")[0] for url in opened.requests} <= {"file", "data"}
        assert [url for url in opened.requests if url.startswith("file:")] == [path.as_uri()]
        assert opened.page.evaluate("window.hacked") is None
        assert HOSTILE in opened.page.text_content(".about")


def test_the_slider_moves_the_pictures(pages: Pages, open_page: Callable[..., Opened]) -> None:
    for path in pages:
        page = open_page(path).page
        assert page.text_content("#step-shown") == "step 8"
        seen = [page.evaluate(PIXELS)]
        page.focus("#step")
        for step in (6, 4, 2):
            page.keyboard.press("ArrowLeft")
            until(page, f"{PIXELS} !== before", seen[-1])
            assert page.text_content("#step-shown") == f"step {step}"
            assert page.get_attribute("#step", "aria-valuetext") == f"step {step}"
            seen.append(page.evaluate(PIXELS))
        page.keyboard.press("End")
        until(page, f"{PIXELS} === before", seen[0])
        assert len(set(seen)) == 4


def test_another_seed_shows_other_pictures(pages: Pages, open_page: Callable[..., Opened]) -> None:
    page = open_page(pages.comparison).page
    before = page.evaluate(PIXELS)
    page.select_option("#seed", label="1")
    until(page, f"{PIXELS} !== before", before)


def test_sorting_sorts(pages: Pages, open_page: Callable[..., Opened]) -> None:
    page = open_page(pages.comparison).page
    found = json.loads(pages.comparison.with_name("comparison.json").read_text())
    means = [summary["mean"] for number in found["numbers"] for summary in number["systems"].values()]
    table = "section[aria-labelledby=numbers] table.sortable"
    cells = f"[...document.querySelectorAll('{table} tbody tr')].map((row) => Number(row.cells[3].dataset.value))"
    assert page.evaluate(cells) == means
    assert sorted(means) != means
    button = page.locator(f"{table} th[data-column='3'] button")
    button.focus()
    page.keyboard.press("Enter")
    assert page.evaluate(cells) == sorted(means)
    assert page.get_attribute(f"{table} th[data-column='3']", "aria-sort") == "ascending"
    button.click()
    assert page.evaluate(cells) == sorted(means, reverse=True)
    page.locator(f"{table} th[data-column='2'] button").click()
    names = page.evaluate(f"[...document.querySelectorAll('{table} tbody tr')].map((row) => row.cells[2].textContent)")
    assert names == sorted(names)


def test_the_scale_and_the_smoothing_change_the_curves(pages: Pages, open_page: Callable[..., Opened]) -> None:
    opened = open_page(pages.run)
    page = opened.page
    page.evaluate("scrollTo(0, document.getElementById('curves').offsetTop)")
    until(page, f"{CHARTS} > 1")
    values = "[...drawn.values()][0].source.data.y0.map((value) => Number(value.toPrecision(6)))"
    chart = page.evaluate("charts[document.querySelector('.plot').dataset.chart].lines[0].y")
    for weight in (0, 0.5):
        page.evaluate(f"smoothing.value = {weight}; smoothing.dispatchEvent(new Event('input'))")
        mean = total = 0.0
        expected = []
        for value in chart:
            mean, total = weight * mean + (1 - weight) * value, weight * total + (1 - weight)
            expected.append(mean / total)
        assert page.evaluate(values) == pytest.approx(expected, rel=1e-5)
    page.check("input[value=log]")
    until(page, "Bokeh.documents.some((doc) => doc.roots()[0].y_scale.type === 'LogScale')")
    assert opened.errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_size_and_colour_scheme_can_be_read(scheme: str, pages: Pages, open_page: Callable[..., Opened]) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    for path in pages:
        opened = open_page(path, color_scheme=scheme, viewport={"width": 390, "height": 844})
        assert not wide(opened)
        opened.page.set_viewport_size({"width": 1360, "height": 900})
        assert not wide(opened)
        found = axe.run(opened.page).response["violations"]
        assert [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")] == []
        assert opened.errors == []


def test_a_command_is_copied(pages: Pages, open_page: Callable[..., Opened]) -> None:
    page = open_page(pages.run, permissions=["clipboard-read", "clipboard-write"]).page
    page.click("[aria-label='Copy: the command that makes the run again']")
    page.wait_for_selector("text=Copied")
    run = pages.run.parent
    assert page.evaluate("navigator.clipboard.readText()") == f"ganlab run {run}/spec.json --out {run}-again"


# -- without a browser


def test_a_page_stays_small(pages: Pages) -> None:
    for path in pages:
        text = path.read_text()
        pictures = sum(map(len, re.findall(r"data:image/webp;base64,[^\"]+", text)))
        assert pictures
        assert len(text) - pictures < 3_000_000
    # the most that pictures may take, as text
    for most in ((SAMPLES + 1) * BYTES, PICTURES):
        assert most * 4 / 3 + 3_000_000 < 15_000_000


def test_the_differences_to_the_parent_are_marked(pages: Pages) -> None:
    text = pages.run.read_text()
    rows = re.findall(r'<tr class="changed">\s*<th[^>]*>(.*?)</th>\s*<td>(.*?)</td>\s*<td[^>]*>(.*?)</td>', text)
    assert rows == [
        ("seed", "1", "<span>parent:</span> <del>0</del>"),
        ("width", "6", "<span>parent:</span> <del>4</del>"),
        ("generator", "5.0", "<span>parent:</span> <del>10.0</del>"),
        ("discriminator", "5.0", "<span>parent:</span> <del>10.0</del>"),
    ]


def test_a_page_is_written_while_the_run_trains(pages: Pages, tmp_path: Path) -> None:
    seen = []

    class Watching(ganlab.Callback):
        def records(self, records: Any) -> None:
            page = tmp_path / "run/report.html"
            seen.append(page.read_text() if page.exists() else "")

    ganlab.run(pages.run.parent, out=tmp_path / "run", callback=Watching())
    # samples are drawn at step 2, after its record
    assert ["" if not text else re.findall('class="state (.*?)"', text)[0] for text in seen[:3]] == ["", "", "training"]
    assert 'data-reload="30"' in seen[2]
    assert "step 2 of 8" in seen[2]
    finished = (tmp_path / "run/report.html").read_text()
    assert 'class="state finished"' in finished
    assert 'data-reload="0"' in finished


def test_a_page_that_fails_is_one_warning(pages: Pages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(pages.run.parent, tmp_path / "run")
    (tmp_path / "run/report.html").unlink()
    (tmp_path / "run/report.html").mkdir()
    said: list[str] = []
    folder = RunFolder(tmp_path / "run")
    page = RunPage(folder, folder.spec_here(), 8, said.append)
    page.write()
    page.write()
    assert len(said) == 1
    assert "report.html" in said[0]
    with pytest.raises(ganlab.RunError, match="is not written"):
        ganlab.write_report(tmp_path / "run")


def test_a_page_takes_a_small_share_of_the_time(pages: Pages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(pages.run.parent, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    page = RunPage(folder, folder.spec_here(), 8, pytest.fail)
    for share, written in ((1.0, True), (1e-9, True), (1e-9, False)):
        monkeypatch.setattr(run_page, "MOST_OF_TIME", share)
        (tmp_path / "run/report.html").unlink(missing_ok=True)
        page.write_now_and_then("training")
        assert (tmp_path / "run/report.html").exists() == written


def test_the_command_writes_pages_again(pages: Pages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = CliRunner().invoke(app, ["report", *(str(path.parent) for path in pages), "--json"])
    assert json.loads(done.stdout) == {"pages": [str(path) for path in pages]}
    # the newest in runs/
    monkeypatch.chdir(tmp_path)
    shutil.copytree(pages.run.parent, "runs/mine")
    assert CliRunner().invoke(app, ["report"]).stdout == "written: runs/mine/report.html\n"
    done = CliRunner().invoke(app, ["report", "nowhere"])
    assert (done.exit_code, "nowhere is neither a run nor a comparison" in done.stderr) == (2, True)


def test_a_page_is_written_again(pages: Pages, tmp_path: Path) -> None:
    for path in pages:
        before = path.read_text()
        assert ganlab.write_report(path.parent) == path
        # but for the time and the nonce
        changing = r'nonce-?="?[\w-]+"?|nonce-[\w-]+|<time.*?</time>'
        assert re.sub(changing, "", path.read_text()) == re.sub(changing, "", before)
    with pytest.raises(ganlab.SpecError, match="neither a run nor a comparison"):
        ganlab.write_report(tmp_path)
