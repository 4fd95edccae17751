"""The files of a comparison while its trials end: well, with a failure, without results, or not at all."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import ganlab
from ganlab import Comparison, Interrupted, SpecError, Trial, TrialCallback
from ganlab.comparison import processes
from ganlab.comparison.processes import End
from ganlab.comparison.runs import MeasuredRun, notes
from ganlab.runs.lock import locking
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from helpers.callbacks import interrupt
from helpers.trials import InThisProcess

STEPS = 2


@pytest.fixture
def here(tiny: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory with a spec that trains and one whose terms stop being finite."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(processes, "start", InThisProcess)
    patch = {
        "name": None,
        "evaluation": {"metrics": ["content"]},
        "schedule": {"steps": STEPS},
        "data": {"holdout": 0.7},
    }
    (tmp_path / "plain.json").write_text(json.dumps(merge(tiny, patch)))
    (tmp_path / "broken.json").write_text(json.dumps({"extends": "plain.json", "schedule": {"lr": 1e30}}))
    return tmp_path


def kept() -> Json:
    found: Json = json.loads(Path("both/comparison.json").read_text())
    return found


def shown() -> tuple[str, str]:
    """Returns the state on the page, and the seconds after which the page reloads."""
    (found,) = re.findall(r'class="state (\w+)"', text := Path("both/report.html").read_text())
    (seconds,) = re.findall(r'data-reload="(\d+)"', text)
    return found, seconds


class Watching(TrialCallback):
    """Reads the files of the comparison when it begins to run, and whenever a trial ends."""

    def __init__(self) -> None:
        self.states: list[list[str]] = []
        self.pages: list[tuple[str, str]] = []

    def started(self, trial: Trial) -> None:
        if not self.states:
            self._look()

    def ended(self, trial: Trial, outcome: str, seconds: float) -> None:
        self._look()

    def _look(self) -> None:
        self.states.append([trial["state"] for trial in kept()["trials"]])
        self.pages.append(shown())


def test_the_files_are_written_whenever_a_trial_ends(here: Path) -> None:
    watching = Watching()
    # of a comparison that was killed while it wrote its page
    left = Path("both/.report.html.17.unfinished")
    left.parent.mkdir()
    left.touch()
    found = ganlab.compare(Comparison(["plain.json", "broken.json"], [0, 1], out="both"), watching)
    assert not left.exists()
    waits, good, bad = "unfinished", "finished", "failed"
    assert watching.states == [
        [waits] * 4,
        [good, waits, waits, waits],
        [good, bad, waits, waits],
        [good, bad, good, waits],
        [good, bad, good, bad],
    ]
    # a failure is no end
    assert watching.pages == [(waits, "30")] * 4 + [(bad, "0")]
    page = Path("both/report.html").read_text()
    # the curves and pictures of both finished runs, read at different times
    assert page.count('<option value="1">1</option>') == 1
    assert found["systems"][0]["cost"].keys() > {"seconds", "images_a_second"}
    # nothing runs any more, so the timings stay
    Path("broken.json").unlink()
    found = ganlab.compare(Comparison(["plain.json"], [0, 1], jobs=2, out="both"))
    assert found["systems"][0]["cost"].keys() > {"seconds", "images_a_second"}


def test_a_reason_is_kept_until_the_trial_is_tried_again(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(InThisProcess, "interrupted", "both/plain/seed-0")
    asked = Comparison(["plain.json", "broken.json"], [0], out="both")
    found = ganlab.compare(asked)
    assert [trial["state"] for trial in found["trials"]] == ["failed", "failed"]

    class Stopping(TrialCallback):
        def started(self, trial: Trial) -> None:
            interrupt()

    with pytest.raises(Interrupted, match="0 of 2 trials are finished"):
        ganlab.compare(asked, Stopping())
    plain, broken = kept()["trials"]
    assert (plain["state"], broken["state"]) == ("unfinished", "failed")
    assert " became " in broken["why"]


def test_a_trial_without_results_has_failed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(InThisProcess):
        def __init__(self, trial: Trial) -> None:
            self._end = End()

    monkeypatch.setattr(processes, "start", Silent)
    (trial,) = ganlab.compare(Comparison(["plain.json"], [0], out="both"))["trials"]
    assert trial["state"] == "failed"
    assert trial["why"] == "it has not begun; see both/logs/plain-seed-0.log"


def test_two_comparisons_do_not_share_a_folder(here: Path) -> None:
    asked = Comparison(["plain.json"], [0], out="both")
    with locking(here / "both", "taken"), pytest.raises(SpecError, match="both: another comparison is running here"):
        ganlab.compare(asked)
    assert not Path("both/plain").exists()


def run(system: str, seed: int, step: int, stopped: str = "", **protocol: object) -> MeasuredRun:
    return MeasuredRun(system, seed, f"runs/{system}-{seed}", step, 9, stopped=stopped, protocol=protocol)


def test_runs_that_a_callback_stopped_are_named() -> None:
    assert notes([run("a", 0, 9), run("b", 0, 9)]) == []
    assert notes([run("a", 0, 9), run("b", 0, 5, "no progress"), run("b", 1, 9)]) == [
        "the runs were not trained with the same number of steps: a 9, b 5 to 9",
        "a callback ended 1 of 3 runs before the last step: b, seed 0, after step 5 of 9: no progress",
    ]


def test_only_what_both_runs_used_can_differ() -> None:
    one = {"code": {"content": {"ganlab": "x"}}, "packages": {"torch": "2"}, "threads": 1}
    more = merge(one, {"code": {"content": {"other": "z"}, "kid": {"ganlab": "x"}}, "packages": {"lpips": "1"}})
    assert notes([run("a", 0, 9, **one), run("b", 0, 9, **more)]) == []
    other = {"code": {"content": {"ganlab": "y"}}, "packages": {"torch": "3"}, "threads": 2}
    assert notes([run("a", 0, 9, **one), run("b", 0, 9, **more), run("b", 1, 9, **other)]) == [
        "the runs were not measured with the same packages (torch)",
        "the runs were not measured with the same threads",
        "the runs were not measured with the same code (ganlab)",
    ]
