"""The benchmark `time_to_quality`: what it computes from records, and a whole call on small pictures."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import ganlab
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from helpers.paths import ROOT


@pytest.fixture
def benchmark_(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import time_to_quality

    return time_to_quality


def test_a_spec_may_carry_changes(benchmark_: ModuleType) -> None:
    asked = benchmark_.parse('x/zhu2017.json:data.batch=1,ema_halflife_images=null,directions=["ab","ba"]')
    assert asked.path == "x/zhu2017.json"
    assert asked.changes == ("data.batch=1", "ema_halflife_images=null", 'directions=["ab","ba"]')
    assert asked.label == "zhu2017_data.batch=1_ema_halflife_images=null_directions=_ab_ba_"
    assert benchmark_.parse("x/emb.json") == ("x/emb.json", ())


def records(seconds: list[float], **numbers: list[float]) -> list[dict[str, float]]:
    """Records of runs whose number has `value + 1` in ab and `value - 1` in ba, with unmeasured steps in between."""
    made: list[dict[str, float]] = []
    for place, second in enumerate(seconds):
        values = {name.replace("_", "-"): value[place] for name, value in numbers.items()}
        each = {f"evaluation/{d}/{n}": v + s for n, v in values.items() for d, s in (("ab", 1), ("ba", -1))}
        made += [{"step": 2 * place + 1, "seconds": second - 0.5}, {"step": 2 * place + 2, "seconds": second, **each}]
    return made


def test_time_to_a_mark_is_linear_between_measurements(benchmark_: ModuleType) -> None:
    values = {"kid_x": [0.5, 0.25, 0.375], "content_hair": [0.25, 0.5, 0.875]}
    curve = benchmark_.curve(records([10, 20, 30], **values))
    assert curve == ([10, 20, 30], [2, 4, 6], {name.replace("_", "-"): each for name, each in values.items()})
    assert benchmark_.time_to(0.375, "kid-x", curve) == 15
    assert benchmark_.time_to(0.5, "kid-x", curve) == 10
    assert benchmark_.time_to(0.24, "kid-x", curve) is None
    assert benchmark_.time_to(0.6875, "content-hair", curve) == 25
    assert benchmark_.time_to(0.1, "kid-y", curve) is None


def test_seeds_make_a_band_where_all_have_values(benchmark_: ModuleType) -> None:
    one, other = (benchmark_.curve(records(s, kid_x=v)) for s, v in (([0, 10], [1, 0]), ([5, 10, 20], [3, 1, 1])))
    times, least, median, greatest = benchmark_.band([one, other], "kid-x")
    assert times.tolist() == [5, 10]
    np.testing.assert_allclose([least, median, greatest], [[0.5, 0], [1.75, 0.5], [3, 1]])


def test_the_table_compares_with_the_first_spec(benchmark_: ModuleType) -> None:
    slow = {seed: benchmark_.curve(records([10, 20], kid_x=[3.0, 1.0 + seed / 10])) for seed in (0, 1, 2)}
    fast = {seed: benchmark_.curve(records([2, 4], kid_x=[3.0, 1.1 + seed / 10])) for seed in (0, 1, 2)}
    marks = benchmark_.last_values(slow.values())
    assert marks == {"kid-x": pytest.approx(1.1)}
    found = benchmark_.report({"slow": slow, "fast": fast}, {"kid-x": 1.15}, {})
    # (3 - 1.15) / (3 - 1.1) of the way, in the middle seed; of the fast seeds only one gets there
    assert found["specs"]["slow"]["median_time_to_mark"]["kid-x"] == pytest.approx(10 + 10 * 1.85 / 1.9)
    assert found["specs"]["fast"]["median_time_to_mark"]["kid-x"] is None
    slow_line, fast_line = benchmark_.markdown(found).splitlines()[2:]
    assert slow_line == "| slow | 3 | 20 | 1.1 | 20 (19 to 20, 1 never), 1.0x |"
    assert fast_line == "| fast | 3 | 4 | 1.2 | not reached (1 of 3 seeds) |"


def test_a_call_trains_resumes_and_reports(
    benchmark_: ModuleType,
    tiny: Json,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[Any],
) -> None:
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path / "cache"))
    spec = tmp_path / "tiny.json"
    spec.write_text(json.dumps(merge(tiny, {"data": {"holdout": 0.8}, "schedule": {"steps": 3}})))
    out = tmp_path / "out"
    words = [str(spec), "--seeds", "4", "--jobs", "1", "--features", "stlpips-alex", "--out", str(out)]
    run = out / "tiny/seed-4"
    # as a call with `--seconds 0` does, in a process of its own
    kid = ({"type": "kid", "features": "stlpips-alex"},)
    benchmark_.train(benchmark_.Job(benchmark_.parse(str(spec)), 4, kid, 0.0, str(run)))
    assert ganlab.load_run(run).step == 2
    assert benchmark_.main(words) == 0
    done = ganlab.load_run(run)
    assert done.finished
    assert (done.spec.seed, done.spec.runtime.threads) == (4, 1)
    found = json.loads((out / "time_to_quality.json").read_text())
    curve = found["specs"]["tiny"]["curves"]["4"]
    assert curve["steps"] == [1, 2, 3]
    assert curve["seconds"] == [record["seconds"] for record in done.records]
    each = [done.records[-1][f"evaluation/{direction}/kid-stlpips-alex"] for direction in ("ab", "ba")]
    assert curve["values"]["kid-stlpips-alex"][-1] == pytest.approx(sum(each) / 2)
    assert found["marks"] == {"kid-stlpips-alex": curve["values"]["kid-stlpips-alex"][-1]}
    assert (out / "time_to_quality.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "time_to_quality.md").read_text() in capsys.readouterr().out
