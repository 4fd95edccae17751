"""Callbacks in real runs: what they are told, what their errors and random draws can do, and how they stop a run."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ganlab
from ganlab.engine.callbacks import Callbacks
from ganlab.runs.overview import list_runs
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from helpers.callbacks import Recording, interrupt


@pytest.fixture
def cheap(tiny: Json, trial: None) -> Json:
    """Twelve steps of a few milliseconds with batch norm and dropout, measured every second step."""
    patch = {
        "generator": {"type": "sharing"},
        "discriminators": {"image": {"type": "forgetful"}},
        "losses": {"cycle": None},
        "schedule": {"steps": 12},
        "data": {"holdout": 0.5},
        "evaluation": {"metrics": [{"type": "brightness", "better": "higher"}], "every": 2},
    }
    return merge(tiny, patch)  # type: ignore[no-any-return]


def networks(folder: Path, step: int = 12) -> bytes:
    return (folder / f"checkpoints/step-{step:06d}/networks.safetensors").read_bytes()


class Told(ganlab.Callback):
    """Writes down each call."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def begin(self, start: ganlab.TrainingStart) -> None:
        self.start = start
        self.calls.append(("begin", start.step, [record["step"] for record in start.history]))

    def records(self, records: Sequence[dict[str, float]]) -> None:
        self.calls.append(("records", [record["step"] for record in records]))

    def samples(self, step: int, path: Path) -> None:
        assert path.read_bytes().startswith(b"\x89PNG")
        self.calls.append(("samples", step))

    def evaluation(self, measurement: ganlab.Measurement) -> None:
        self.calls.append(("evaluation", measurement.step, measurement.images, sorted(measurement.values)))

    def checkpoint(self, step: int, folder: Path) -> None:
        assert (folder / "networks.safetensors").is_file()
        self.calls.append(("checkpoint", step))

    def end(self, end: ganlab.TrainingEnd) -> None:
        self.calls.append(("end", end.state, end.step, end.why))


def test_a_callback_is_told_what_happens_in_its_order(cheap: Json, tmp_path: Path) -> None:
    spec = merge(cheap, {"schedule": {"steps": 4}, "samples": {"every": 4}, "checkpoints": {"every": 4, "keep": 9}})
    first, second = Told(), Told()
    with pytest.raises(ganlab.Interrupted):
        ganlab.run(spec, out=tmp_path / "run", callback=Recording(2, interrupt), callbacks=[first])
    ganlab.run(spec, out=tmp_path / "run", callbacks=[second])
    both = ["ab/brightness", "ba/brightness"]
    assert first.calls == [
        ("begin", 0, []),
        ("records", [1]),
        ("records", [2]),
        ("evaluation", 2, "validation", both),
        ("checkpoint", 2),
        ("records", [3]),
        ("checkpoint", 3),
        ("end", "interrupted", 3, "stopped after step 3 of 4; everything is saved"),
    ]
    found = ganlab.load_run(tmp_path / "run").evaluation
    assert found is not None
    tested = sorted({result["step"] for result in found["results"]})
    assert second.calls == [
        ("begin", 3, [1, 2, 3]),
        ("records", [4]),
        ("evaluation", 4, "validation", both),
        ("samples", 4),
        ("checkpoint", 4),
        *(("evaluation", step, "test", both) for step in tested),
        ("end", "finished", 4, None),
    ]
    assert second.start.run_id == first.start.run_id
    assert second.start.better == {"brightness": "higher"}
    assert second.start.spec == ganlab.load_run(tmp_path / "run").spec.as_json()


class Stirring(ganlab.Callback):
    """Fails in every method, after drawing from every global generator and changing a setting and a record."""

    def _fail(self) -> None:
        random.random()
        np.random.rand()  # noqa: NPY002 (it is the global one)
        torch.rand(3)
        torch.set_num_threads(2)
        torch.set_grad_enabled(False)
        raise OSError("no network")

    def records(self, records: Sequence[dict[str, float]]) -> None:
        for record in records:
            record.clear()
        self._fail()

    def samples(self, step: int, path: Path) -> None:
        self._fail()

    def evaluation(self, measurement: ganlab.Measurement) -> None:
        self._fail()

    def checkpoint(self, step: int, folder: Path) -> None:
        self._fail()

    def end(self, end: ganlab.TrainingEnd) -> None:
        raise SystemExit(3)

    def warn(self, sentence: str) -> None:
        self._fail()


def test_the_first_step_of_a_process_is_read_at_once(cheap: Json, tmp_path: Path) -> None:
    class Steps(ganlab.Callback):
        def records(self, records: Sequence[dict[str, float]]) -> None:
            read.append([int(record["step"]) for record in records])

    read: list[list[int]] = []
    never = ["runtime.log_every=1000", "samples.every=1000", "checkpoints.every=1000", "evaluation.every=null"]
    ganlab.run(cheap, [*never, "schedule.steps=3"], tmp_path / "run", callbacks=[Steps()])
    assert read == [[1], [2, 3]]


def test_a_callback_that_fails_is_named_once_and_changes_nothing(cheap: Json, tmp_path: Path) -> None:
    shown, after = Recording(), Told()
    whole = ganlab.run(cheap, out=tmp_path / "whole")
    done = ganlab.run(cheap, out=tmp_path / "run", callback=shown, callbacks=[Stirring(), after])
    (said,) = (said for said in shown.warned if "callbacks" in said)
    assert said.startswith("callbacks[0] (Stirring) failed in `")
    assert said.endswith("`: no network; the run continues, and its later errors give no warning")
    assert done.finished
    assert networks(done.folder) == networks(whole.folder)
    assert [{**a, "seconds": 0} for a in done.records] == [{**b, "seconds": 0} for b in whole.records]
    assert done.evaluation == whole.evaluation
    # those after it are told everything
    assert [call[1] for call in after.calls if call[0] == "records"] == [[step] for step in range(1, 13)]


class Display(Recording):
    """Writes down the items that it is given, and fails after `most` of them."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.given, self.ended = most, list[int](), 0

    def progress(self, items: Iterable[Any], what: str, total: int) -> Iterable[Any]:
        for item in items:
            if len(self.given) == self.most:
                raise OSError("no terminal")
            self.given.append(item)
            yield item
        self.ended += 1


def test_a_display_that_fails_loses_no_item_and_is_named_once() -> None:
    good, bad = Display(99), Display(2)
    assert list(Callbacks({"good": good}).progress(iter([5, 5, 7]), "things", 3)) == [5, 5, 7]
    assert (good.given, good.ended, good.warned) == ([5, 5, 7], 1, [])
    guarded = Callbacks({"bad": bad})
    for _ in range(2):
        assert list(guarded.progress(iter([5, 5, 7, 8]), "things", 4)) == [5, 5, 7, 8]
    assert bad.given == [5, 5]
    said = "bad failed in `progress`: no terminal; the run continues, and its later errors give no warning"
    assert bad.warned == [said]


class Eager(Recording):
    """Takes all items before it shows the first."""

    def progress(self, items: Iterable[Any], what: str, total: int) -> Iterable[Any]:
        return list(items)


def test_a_display_that_takes_all_items_at_once_ends() -> None:
    assert list(Callbacks({"eager": Eager()}).progress(iter([5, 5, 7]), "things", 3)) == [5, 5, 7]


def test_an_error_of_the_items_is_not_the_displays() -> None:
    def damaged() -> Iterator[int]:
        yield 5
        raise ValueError("a damaged file")

    shown = Display(99)
    with pytest.raises(ValueError, match=r"^a damaged file$"):
        list(Callbacks({"shown": shown}).progress(damaged(), "things", 3))
    assert (shown.given, shown.warned) == ([5], [])


class Broken(Told):
    def begin(self, start: ganlab.TrainingStart) -> None:
        raise ValueError("not today")


class Refusing(ganlab.Callback):
    def begin(self, start: ganlab.TrainingStart) -> None:
        raise ganlab.SpecError("not with this spec")


def test_a_callback_that_can_not_begin_is_left_out_or_refuses_the_run(cheap: Json, tmp_path: Path) -> None:
    shown, broken = Recording(), Broken()
    ganlab.run(cheap, ["schedule.steps=2"], out=tmp_path / "run", callback=shown, callbacks=[broken])
    assert [said for said in shown.warned if "callbacks" in said] == [
        "callbacks[0] (Broken) failed in `begin`: not today; the run continues without it"
    ]
    assert broken.calls == []
    with pytest.raises(ganlab.SpecError, match=r"^not with this spec$"):
        ganlab.run(cheap, out=tmp_path / "other", callbacks=[Refusing()])
    assert not (tmp_path / "other/metrics.jsonl").read_bytes()


def test_a_second_interrupt_in_a_callback_stops_at_once(cheap: Json, tmp_path: Path) -> None:
    class Twice(ganlab.Callback):
        def records(self, records: Sequence[dict[str, float]]) -> None:
            interrupt()
            interrupt()

    told = Told()
    with pytest.raises(ganlab.Interrupted, match=r"^stopped at once; no step is saved$"):
        ganlab.run(cheap, out=tmp_path / "run", callbacks=[Twice(), told])
    assert told.calls[-1] == ("end", "interrupted", 1, "stopped at once; no step is saved")


class Enough(ganlab.Callback):
    """Stops after step `at`, also of the steps that an earlier process has done."""

    def __init__(self, at: int) -> None:
        self.at = at

    def begin(self, start: ganlab.TrainingStart) -> None:
        self.records(list(start.history))

    def records(self, records: Sequence[dict[str, float]]) -> None:
        if any(record["step"] >= self.at for record in records):
            self.request_stop(f"{self.at} steps are enough")


def test_a_run_that_a_callback_stops_is_finished_and_says_why(cheap: Json, tmp_path: Path) -> None:
    every = {"samples": {"every": 4}, "checkpoints": {"every": 4, "keep": 9}}
    whole = ganlab.run(merge(cheap, every), out=tmp_path / "whole")
    out, told = tmp_path / "run", Told()
    # step 7 is no step at which a run saves, samples or measures
    done = ganlab.run(merge(cheap, every), out=out, callbacks=[Enough(7), told])
    why = "7 steps are enough"
    assert (done.step, done.steps, done.finished, done.stopped) == (7, 12, True, why)
    assert done == ganlab.load_run(out)
    assert told.calls[-1] == ("end", "finished", 7, why)
    assert (out / "samples/step-000007.png").is_file()
    assert done.evaluation is not None
    assert {"last"} <= {word for result in done.evaluation["results"] for word in result["checkpoint"].split(" = ")}
    assert {7} <= {result["step"] for result in done.evaluation["results"]}
    (status,) = list_runs(out)
    assert (status.state, status.why) == ("finished", why)
    # it stays as it is, also if it is measured otherwise
    before = networks(out, 7)
    assert ganlab.run(merge(cheap, every), out=out) == done
    changed = {"evaluation": {"metrics": [{"type": "brightness", "better": "lower"}], "every": 2}}
    measuring = Told()
    again = ganlab.run(merge(merge(cheap, every), changed), out=out, callback=measuring)
    assert (again.step, again.stopped, networks(out, 7)) == (7, why, before)
    assert measuring.calls[-1] == ("end", "finished", 7, why)
    # what a run does not end with any more, it trains without
    longer = merge(merge(cheap, every), {"schedule": {"steps": 13}})
    assert ganlab.run(longer, out=out, callbacks=[Enough(12)]).step == 12
    assert networks(out) == networks(whole.folder)
    # after the last step there is nothing to stop
    assert ganlab.run(longer, out=out, callbacks=[Enough(13), told]).stopped is None
    assert told.calls[-1] == ("end", "finished", 13, None)


# the run stops after the next step: in the second case at the step of the stop
@pytest.mark.parametrize("at", [3, 5])
def test_a_stop_is_repeated_at_the_same_step_after_an_interrupt(cheap: Json, tmp_path: Path, at: int) -> None:
    out = tmp_path / "run"
    with pytest.raises(ganlab.Interrupted):
        ganlab.run(cheap, out=out, callback=Recording(at, interrupt), callbacks=[Enough(6)])
    assert ganlab.load_run(out).stopped is None
    done = ganlab.run(cheap, out=out, callbacks=[Enough(6)])
    assert (done.step, done.stopped) == (6, "6 steps are enough")


PATIENT = {"early": {"type": "early_stopping", "patience": 2}}


def test_callbacks_are_no_part_of_what_is_trained(cheap: Json, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(ganlab.Interrupted):
        ganlab.run(cheap, out=out, callback=Recording(2, interrupt))
    # another one is added on resume, and one is removed
    more = {**cheap, "callbacks": {"tensorboard": None, "early": {"type": "early_stopping", "patience": 99}}}
    done = ganlab.run(more, out=out)
    assert done.spec.callbacks == {
        "tensorboard": None,
        "early": {"type": "early_stopping", "number": None, "patience": 99, "least": 0.0},
    }
    whole = ganlab.run(cheap, out=tmp_path / "whole")
    assert whole.spec.fingerprint() == done.spec.fingerprint()
    assert networks(out) == networks(whole.folder)


def without_a_better_value(records: Sequence[dict[str, float]], patience: int, sign: int) -> int | None:
    """The step at which `sign` times the means has had no new maximum for `patience` entries, by brute force."""
    steps = [record for record in records if "evaluation/ab/brightness" in record]
    values = [sign * np.mean([r["evaluation/ab/brightness"], r["evaluation/ba/brightness"]]) for r in steps]
    for end in range(len(values)):
        best = int(np.argmax(values[: end + 1]))
        if end - best == patience:
            return int(steps[end]["step"])
    return None


@pytest.mark.parametrize("stop", [None, 3, 4])
def test_early_stopping_ends_a_run_at_the_same_step_however_often_it_is_stopped(
    cheap: Json, tmp_path: Path, stop: int | None
) -> None:
    whole = ganlab.run(merge(cheap, {"checkpoints": {"keep": 9}}), out=tmp_path / "whole")
    higher, lower = (without_a_better_value(whole.records, 2, sign) for sign in (1, -1))
    # one of the two ways to judge the values stops the run
    expected, better = (higher, "higher") if higher is not None else (lower, "lower")
    metrics = {"metrics": [{"type": "brightness", "better": better}]}
    spec = {**merge(cheap, {"evaluation": metrics}), "callbacks": PATIENT}
    if stop:
        with pytest.raises(ganlab.Interrupted):
            ganlab.run(spec, out=tmp_path / "run", callback=Recording(stop, interrupt))
    done = ganlab.run(spec, out=tmp_path / "run")
    assert done.finished
    assert done.step == expected is not None
    assert networks(done.folder, done.step) == networks(whole.folder, done.step)
