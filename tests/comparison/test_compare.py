"""Comparisons: their plans, the runs that they read, the tables that they write."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import ganlab
from ganlab import SpecError
from ganlab.cli.commands import app
from ganlab.comparison import tables
from ganlab.comparison.numbers import compare_values, half_of_the_largest
from ganlab.comparison.trials import Comparison, plan
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from helpers.folders import draw
from helpers.systems import TINY

# the quantiles 0.975 of Student's t with 1 and 2 degrees of freedom (Fisher and Yates, table III)
STUDENT = {2: 12.706205, 3: 4.302653}


MEASURED: Json = {
    "name": None,
    "evaluation": {"metrics": ["content"]},
    "schedule": {"steps": 2},
    "data": {"holdout": 0.7},
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two specs, `plain.json` and `wide.json`, and three runs of each."""
    folder = tmp_path_factory.mktemp("bench")
    sources = {domain: {"path": str(pictures)} for domain, pictures in draw(folder).items()}
    (folder / "plain.json").write_text(json.dumps(merge(merge(TINY, MEASURED), {"data": sources})))
    (folder / "wide.json").write_text(json.dumps({"extends": "plain.json", "generator": {"width": 6}}))
    for name in ("plain", "wide"):
        for seed in range(3):
            ganlab.run(folder / f"{name}.json", [f"seed={seed}"], folder / f"runs/{name}-{seed}")
    return folder


@pytest.fixture
def here(bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory with the two specs."""
    for name in ("plain.json", "wide.json"):
        shutil.copy(bench / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(*specs: str, **options: Any) -> list[str]:
    """Returns the commands of a plan with the seed 0."""
    return [trial.command for trial in plan(Comparison(specs, [0], **options)).trials]


# --- plans


def test_every_system_is_trained_with_every_seed(here: Path) -> None:
    found = plan(Comparison(["plain.json", "wide.json"], [3, 1], steps=7))
    assert [(trial.system, trial.seed) for trial in found.trials] == [
        ("plain", 3),
        ("wide", 3),
        ("plain", 1),
        ("wide", 1),
    ]
    assert [trial.command for trial in found.trials[:2]] == [
        "ganlab run plain.json --set schedule.steps=7 --set seed=3 --out runs/compare-plain-wide/plain/seed-3",
        "ganlab run wide.json --set schedule.steps=7 --set seed=3 --out runs/compare-plain-wide/wide/seed-3",
    ]


def test_a_trial_is_plain_data_and_its_command_trains_it(here: Path) -> None:
    (trial,) = plan(Comparison(["plain.json"], [5], steps=1)).trials
    assert json.loads(json.dumps(trial)) == [
        "plain",
        5,
        "plain.json",
        ["schedule.steps=1", "seed=5"],
        "runs/compare-plain/plain/seed-5",
        1,
        0,
    ]
    done = CliRunner().invoke(app, shlex.split(trial.command)[1:])
    assert done.exit_code == 0, done.output
    found = ganlab.compare(Comparison(["plain.json"], [5], steps=1))
    assert [t["state"] for t in found["trials"]] == ["finished"]
    # the command ran elsewhere
    assert found["systems"][0]["cost"].keys() == {"images", "peak_memory_bytes", "parameters"}
    assert "without timings, because it is not known what ran at the same time" in " ".join(tables.text(found).split())


def test_vary_makes_a_grid(here: Path) -> None:
    vary = ["losses.cycle.weight=1,10", "data.batch=2,4"]
    found = plan(Comparison(["plain.json"], [0], vary=vary, baseline="plain-cycle.weight-10-data.batch-2"))
    assert [*found.systems] == [
        "plain-cycle.weight-10-data.batch-2",
        "plain-cycle.weight-1-data.batch-2",
        "plain-cycle.weight-1-data.batch-4",
        "plain-cycle.weight-10-data.batch-4",
    ]
    spec = found.systems["plain-cycle.weight-1-data.batch-4"].resolved
    assert (spec.losses["cycle"]["weight"]["generator"], spec.data.batch) == (1, 4)
    lists = plan(Comparison(["plain.json"], [0], vary=['evaluation.metrics=["content"],["content","prdc"]']))
    assert [len(system.resolved.evaluation.metrics) for system in lists.systems.values()] == [1, 2]


def test_paths_with_the_same_end_are_named_in_full(here: Path) -> None:
    vary = ["generator.width=2,4", "discriminators.image.width=2"]
    assert [*plan(Comparison(["plain.json"], [0], vary=vary)).systems] == [
        "plain-generator.width-2-image.width-2",
        "plain-generator.width-4-image.width-2",
    ]
    twice = merge(json.loads(Path("plain.json").read_text()), {"losses": {"other": {"type": "cycle", "weight": 1}}})
    Path("twice.json").write_text(json.dumps(twice))
    vary = ["losses.cycle.weight.generator=2", "losses.other.weight.generator=3"]
    assert [*plan(Comparison(["twice.json"], [0], vary=vary)).systems] == [
        "twice-losses.cycle.weight.generator-2-losses.other.weight.generator-3"
    ]


def test_the_baseline_comes_first(here: Path) -> None:
    assert [*plan(Comparison(["plain.json", "wide.json"], [0], baseline="wide.json")).systems] == ["wide", "plain"]
    vary = ["losses.cycle.weight=1,10"]
    # a spec that is not among the others is trained too, and not varied
    assert [*plan(Comparison(["plain.json"], [0], vary=vary, baseline="wide.json")).systems] == [
        "wide",
        "plain-cycle.weight-1",
        "plain-cycle.weight-10",
    ]


def test_a_budget_of_images_counts_every_batch(here: Path) -> None:
    # two critics' turns and one generators' turn, each with a batch of 4: 12 images a step
    critics = {"type": "wgan", "critic_updates": 2}
    wgan = {"extends": "plain.json", "schedule": critics, "losses": {"adversarial": {"type": "wasserstein"}}}
    Path("wgan.json").write_text(json.dumps(wgan))
    commands = planned("plain.json", "wgan.json", images=50)
    assert [re.findall(r"steps=(\d+)", command) for command in commands] == [["13"], ["5"]]


def test_several_jobs_compute_with_one_thread_each(here: Path) -> None:
    assert "runtime.threads=1" not in planned("plain.json")[0]
    assert "--set runtime.threads=1" in planned("plain.json", jobs=2)[0]


def test_on_a_cluster_auto_has_one_meaning_on_all_machines(here: Path) -> None:
    runtime = {"device": "auto", "precision": "auto", "threads": "auto"}
    Path("auto.json").write_text(json.dumps({"extends": "plain.json", "runtime": runtime}))
    (trial,) = plan(Comparison(["auto.json"], [0], on="ray")).trials
    resolved = ganlab.load_spec("auto.json").runtime
    assert trial.set == (
        f"runtime.device={resolved.device}",
        "runtime.threads=1",
        "runtime.compile=false",
        f"runtime.precision={resolved.precision}",
        "seed=0",
    )
    assert (trial.cpus, trial.gpus) == (1, int(resolved.device.startswith("cuda")))
    # what the spec asks for stays, also a device that this machine may not have
    asked = ["runtime.device=cuda", "runtime.threads=3"]
    (trial,) = plan(Comparison(["auto.json"], [0], set=asked, on="ray://head:10001")).trials
    assert trial.set[:2] == tuple(asked)
    assert not any(text.startswith("runtime.threads=1") for text in trial.set)
    assert (trial.cpus, trial.gpus) == (3, 1)


REFUSED: list[tuple[Json, dict[str, Any], str]] = [
    ({"data": {"size": 32}}, {}, "plain and other do not have the same data: data.size: 16 / 32"),
    ({"data": {"a": {"limit": 5}}}, {}, "plain and other do not have the same data: data.a.limit: 0 / 5"),
    ({"schedule": {"steps": 3}}, {}, "plain trains 2 steps and other 3; give both one budget with --steps or --images"),
    (
        {"evaluation": {"metrics": [{"type": "content", "shared": {"x": {"attribute": "y"}}}]}},
        {},
        "plain and other do not have the same options of the metric 'content': ",
    ),
    ({"evaluation": {"metrics": []}}, {}, "other.json: evaluation.metrics: a comparison needs at least one metric"),
    ({"name": "plain"}, {}, "plain.json and other.json are both named 'plain'; give one of them another `name`"),
    ({"seed": -1}, {}, "other.json: seed: -1 is not allowed"),
    ({}, {"steps": 1, "images": 1}, "--steps and --images: only one of them sets the budget"),
    ({}, {"vary": ["seed=1,2"]}, "--vary seed: is not allowed: a comparison sets it; see --seeds"),
    ({}, {"vary": ["data.batch"]}, "--vary data.batch: is not of the form path.to.key=value,value"),
    ({}, {"vary": ["data.batch=1,,2"]}, "--vary data.batch=1,,2: is not of the form path.to.key=value,value"),
    ({}, {"vary": ["data.batch=1", "data.batch=2"]}, "--vary data.batch: is varied twice"),
    ({}, {"vary": ["data.batch=1,2,1"]}, "--vary data.batch=1,2,1: 1 is named twice"),
    ({}, {"baseline": "none.json"}, "none.json: can't be read: No such file or directory"),
]


@pytest.mark.parametrize(("patch", "options", "said"), REFUSED)
def test_what_would_be_no_fair_comparison_is_refused(
    patch: Json, options: dict[str, Any], said: str, here: Path
) -> None:
    Path("other.json").write_text(json.dumps({"extends": "plain.json", **patch}))
    with pytest.raises(SpecError, match=re.escape(said)):
        planned("plain.json", "other.json", **options)


def test_a_metric_may_be_measured_by_several_feature_networks(here: Path) -> None:
    metrics = ["kid", {"type": "kid", "features": "stlpips-alex"}]
    twice = {"extends": "plain.json", "evaluation": {"metrics": metrics, "features": "lite0"}}
    for name in ("one.json", "other.json"):
        Path(name).write_text(json.dumps({**twice, "name": name}))
    assert len(planned("one.json", "other.json")) == 2


def test_a_folder_with_other_runs_is_refused_before_anything_is_trained(here: Path) -> None:
    ganlab.run("plain.json", ["data.batch=2"], "together/plain/seed-1")
    with pytest.raises(SpecError, match=r"seed-1 holds another spec \(there / asked\): data\.batch: 2 / 4"):
        ganlab.compare(Comparison(["plain.json"], [0, 1], out="together"))
    with pytest.raises(SpecError, match=r"--number: 'content' is not measured; did you mean 'content-edges'\?"):
        ganlab.compare(Comparison(["plain.json"], [0, 1], out="together", numbers=["content"]))
    with pytest.raises(SpecError, match="together/plain/seed-1 is a run; choose another folder"):
        ganlab.compare(Comparison(["plain.json"], [0, 1], out="together/plain/seed-1"))
    assert not (here / "together/plain/seed-0").exists()


# --- runs that exist


@pytest.fixture
def runs(bench: Path, here: Path) -> list[Path]:
    """Three runs of each spec, in the working directory."""
    shutil.copytree(bench / "runs", "runs")
    return [Path(f"runs/{name}-{seed}") for seed in range(3) for name in ("plain", "wide")]


def test_the_table_follows_from_the_runs_own_files(runs: list[Path]) -> None:
    found = ganlab.compare_runs(runs, out="table")
    values: dict[tuple[str, str], dict[str, list[float]]] = {}
    for folder in runs:
        for result in json.loads((folder / "evaluation.json").read_text())["results"]:
            place = values.setdefault((result["number"], result["direction"]), {})
            place.setdefault(folder.name.split("-")[0], []).append(result["value"])
    assert {(n["number"], n["direction"]) for n in found["numbers"]} == values.keys()
    rows = list(csv.DictReader(Path("table/comparison.csv").read_text().splitlines()))
    assert len(rows) == 2 * len(values)
    text = tables.text(found)
    for row in rows:
        each = values[row["number"], row["direction"]]
        own, base = each[row["system"]], each["plain"]
        half = STUDENT[3] * statistics.stdev(own) / 3**0.5
        assert float(row["mean"]) == pytest.approx(statistics.mean(own))
        assert float(row["low"]) == pytest.approx(statistics.mean(own) - half, abs=1e-6)
        assert float(row["high"]) == pytest.approx(statistics.mean(own) + half, abs=1e-6)
        if row["system"] == "plain":
            assert row["difference"] == row["p"] == row["verdict"] == ""
            continue
        differences = [a - b for a, b in zip(own, base, strict=True)]
        half = STUDENT[3] * statistics.stdev(differences) / 3**0.5
        assert float(row["difference"]) == pytest.approx(statistics.mean(differences))
        assert float(row["difference_high"]) == pytest.approx(statistics.mean(differences) + half, abs=1e-6)
        # Student's t with two degrees of freedom: p = 1 - |t| / sqrt(t^2 + 2)
        t = statistics.mean(differences) / statistics.stdev(differences) * 3**0.5
        assert float(row["p"]) == pytest.approx(1 - abs(t) / (t * t + 2) ** 0.5)
        assert float(row["p"]) <= float(row["p_holm"]) <= 1
        digits = len(re.findall(rf"^{row['number']} {row['direction']}", text, re.M))
        assert digits == 1
    assert json.loads(Path("table/comparison.json").read_text()) == {k: v for k, v in found.items() if k != "folder"}
    assert Path("table/comparison.md").read_text().count("| wide |") == len(values) + 1


def test_the_systems_are_told_apart_by_their_specs(runs: list[Path]) -> None:
    found = ganlab.compare_runs(runs, baseline="runs/wide-1/", out="table")
    assert [(s["name"], s["finished"], s["differences"]) for s in found["systems"]] == [
        ("wide", 3, []),
        ("plain", 3, ["generator.width: 6 / 4"]),
    ]
    # the same name, but another spec: the folder's name
    ganlab.run("plain.json", ["losses.cycle.weight=1"], "runs/plain-cycle-1")
    found = ganlab.compare_runs([*runs, "runs/plain-cycle-1"], out="table")
    assert [s["name"] for s in found["systems"]] == ["plain", "wide", "plain-cycle-1"]
    assert "plain-cycle-1 (1 of 3 seeds)" in tables.text(found)
    ganlab.run("plain.json", out="again")
    with pytest.raises(SpecError, match="runs/plain-0 and again are the same system with the same seed, 0"):
        ganlab.compare_runs([*runs, "again"], out="table")


def test_the_page_is_written_again_from_any_place(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(ganlab.compare_runs(runs[:4], out="table")["folder"]).absolute()
    pictures = len(re.findall("data:image/", (folder / "report.html").read_text()))
    assert pictures > 1
    monkeypatch.chdir(tmp_path.parent)
    page = ganlab.write_report(folder).read_text()
    assert len(re.findall("data:image/", page)) == pictures
    assert '<code tabindex="0">ganlab compare --from runs/plain-0 ' in page


def test_threads_make_no_other_system(runs: list[Path]) -> None:
    ganlab.run("plain.json", ["runtime.threads=2", "seed=3"], "runs/threads")
    found = ganlab.compare_runs([*runs, "runs/threads"], out="table")
    assert [(s["name"], s["finished"]) for s in found["systems"]] == [("plain", 4), ("wide", 3)]
    assert "note: the runs were not measured with the same threads" in tables.text(found)


def test_runs_are_not_trained_by_mistake(runs: list[Path]) -> None:
    with pytest.raises(SpecError, match=r"^compare: runs/plain-0 is a run; --from compares existing runs, and "):
        plan(Comparison(runs[:2], [0]))
    assert [*plan(Comparison([runs[0] / "spec.json"], [7])).systems] == ["plain"]
    refused = CliRunner().invoke(app, ["compare", "--from", *map(str, runs), "--seeds", "0"])
    assert refused.stderr.startswith("ganlab: compare --from: trains nothing, so only --baseline")
    with pytest.raises(SpecError, match=r"runs/plain-0 is a run; choose another folder for the comparison"):
        ganlab.compare_runs(runs, out=runs[0])


def test_a_run_that_cannot_be_read_is_refused(runs: list[Path]) -> None:
    (runs[1] / "spec.json").write_text("{")
    with pytest.raises(SpecError, match=r"^runs/wide-0: runs/wide-0/spec\.json can't be read: "):
        ganlab.compare_runs(runs, out="table")


def test_unfinished_runs_and_other_budgets_are_named(runs: list[Path]) -> None:
    (runs[3] / "evaluation.json").unlink()
    ganlab.run("wide.json", ["schedule.steps=3", "seed=1"], "runs/longer")
    found = ganlab.compare_runs([*runs, "runs/longer"], out="table")
    text = " ".join(tables.text(found).split())
    assert "unfinished: wide, seed 1: it is not measured" in text
    assert "the runs were not trained with the same number of steps: longer 3, the others 2" in text
    assert "longer against plain: not tested, since no number has two seeds in common" in text
    assert [d["seeds"] for d in found["numbers"][0]["differences"].values()] == [[0, 2]]
    # who ran beside them is not known
    assert found["systems"][0]["cost"].keys() == {"images", "peak_memory_bytes", "parameters"}


def test_runs_that_were_not_measured_alike_are_refused(here: Path, runs: list[Path]) -> None:
    ganlab.run("plain.json", ["data.holdout=0.75"], "runs/other")
    with pytest.raises(
        SpecError, match=r"runs/plain-0 and runs/other were not measured alike: images\.a\.train is 4 / 3"
    ):
        ganlab.compare_runs([*runs, "runs/other"], out="table")
    with pytest.raises(SpecError, match=r"plain\.json is not a run: it has no spec\.json"):
        ganlab.compare_runs(["plain.json"])
    with pytest.raises(SpecError, match=r"--baseline: there is no system 'wid'; did you mean 'wide'\?"):
        ganlab.compare_runs(runs, baseline="wid", out="table")
    with pytest.raises(SpecError, match=r"--number: 'content-color' is not measured; did you mean 'content-colour'\?"):
        ganlab.compare_runs(runs, numbers=["content-color"], out="table")


def test_fewer_numbers_are_fewer_tests(runs: list[Path]) -> None:
    whole = ganlab.compare_runs(runs, out="table")
    one = ganlab.compare_runs(runs, numbers=["content-colour"], out="table")
    assert (whole["tests"]["count"], one["tests"]["count"]) == (4, 2)
    assert {number["number"] for number in one["numbers"]} == {"content-colour"}


def test_one_seed_is_shown_and_not_tested(runs: list[Path]) -> None:
    found = ganlab.compare_runs(runs[:2], out="table")
    assert found["tests"]["count"] == 0
    assert "nothing is tested: a test needs two seeds that both systems have" in tables.text(found)
    assert all("±" not in line for line in tables.text(found).splitlines() if line.startswith("  plain"))


def test_the_command_prints_a_table_of_80_columns(runs: list[Path]) -> None:
    done = CliRunner().invoke(app, ["compare", "--from", *map(str, runs), "--out", "table"])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "wide compared with plain: 3 seeds"
    assert max(map(len, lines)) <= 80
    assert "content-colour ab, higher is better, real 1, identity 1" in lines
    refused = CliRunner().invoke(app, ["compare", "--from", *map(str, runs), "--steps", "3"])
    assert refused.exit_code == 2
    assert refused.stderr.startswith("ganlab: compare --from: trains nothing, so only --baseline")
    as_json = CliRunner().invoke(app, ["compare", "--from", *map(str, runs), "--out", "table", "--json"])
    assert json.loads(as_json.stdout)["baseline"] == "plain"


def test_a_dry_run_prints_a_command_for_each_trial(here: Path) -> None:
    words = ["compare", "plain.json", "wide.json", "--seeds", "0,1", "--dry-run"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert len(done.stdout.splitlines()) == 4
    assert all(line.startswith("ganlab run ") for line in done.stdout.splitlines())
    trials = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert [trial["command"] for trial in trials] == done.stdout.splitlines()
    assert not (here / "runs").exists()


def test_the_command_of_a_comparison_makes_the_same_trials(here: Path) -> None:
    asked = Comparison(
        ["plain.json", "wide.json"],
        [3, 1],
        images=40,
        jobs=2,
        vary=["losses.cycle.weight=1,2"],
        baseline="wide.json",
        set=["data.flip=false", "about=two words"],
        out="a folder",
        numbers=["content-colour"],
    )
    words = shlex.split(asked.command)
    done = CliRunner().invoke(app, [*words[1:], "--dry-run"])
    assert done.stdout.splitlines() == [trial.command for trial in plan(asked).trials]
    assert words[0] == "ganlab"
    assert words[-2:] == ["--number", "content-colour"]


@pytest.mark.parametrize("seeds", ["", "a", "0,,1", "-1", "0,0"])
def test_wrong_seeds_are_refused(seeds: str, here: Path) -> None:
    done = CliRunner().invoke(app, ["compare", "plain.json", "--seeds", seeds, "--dry-run"])
    assert done.exit_code == 2
    assert done.stderr.startswith("ganlab: --seeds: ")


# --- statistics of a whole comparison


Simulated = Callable[[np.random.Generator, int], float]


def found_differences(comparisons: int, seeds: int, systems: int, numbers: int) -> int:
    """Returns how many simulated comparisons of equal systems find a difference.

    The values of a seed share a part, as paired runs do, and so do the numbers of a run.
    """
    random = np.random.default_rng(seeds)
    names = [f"system-{index}" for index in range(systems)]
    places = [(f"number-{index}", "ab") for index in range(numbers)]
    better = dict.fromkeys(places, "lower")
    found = 0
    for _ in range(comparisons):
        shared = random.standard_normal((seeds, 1, 1)) + 0.5 * random.standard_normal((seeds, systems, 1))
        drawn = shared + random.standard_normal((seeds, systems, numbers))
        values = {
            place: {name: dict(enumerate(drawn[:, s, n].tolist())) for s, name in enumerate(names)}
            for n, place in enumerate(places)
        }
        compared, tests = compare_values(values, better, names)
        assert tests["count"] == (systems - 1) * numbers
        found += any(d["verdict"] != "none" for number in compared for d in number["differences"].values())
    return found


def test_equal_systems_seldom_differ() -> None:
    # without the correction about a quarter would; 5 % and three standard errors of a simulated proportion
    assert found_differences(300, seeds=3, systems=3, numbers=3) / 300 <= 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5


@pytest.mark.faults
@pytest.mark.parametrize(("seeds", "systems", "numbers"), [(3, 3, 3), (5, 2, 8), (5, 6, 2)])
def test_of_2000_comparisons_of_equal_systems_at_most_6_percent_find_a_difference(
    seeds: int, systems: int, numbers: int
) -> None:
    found = found_differences(2000, seeds, systems, numbers)
    print(f"{seeds} seeds, {systems} systems, {numbers} numbers: {found} of 2,000 found a difference")
    assert found / 2000 <= 0.06


def test_a_true_difference_is_found_with_its_direction() -> None:
    values = {
        ("distance", "ab"): {"base": {0: 10.0, 1: 11.0, 2: 12.0}, "good": {0: 1.0, 1: 2.1, 2: 2.9}},
        ("share", "ab"): {"base": {0: 0.1, 1: 0.2, 2: 0.3}, "good": {0: 0.9, 1: 0.99, 2: 1.0}},
        ("neither", "ab"): {"base": {0: 10.0, 1: 11.0, 2: 12.0}, "good": {0: 1.0, 1: 2.1, 2: 2.9}},
        ("worse", "ab"): {"base": {0: 1.0, 1: 2.1, 2: 2.9}, "good": {0: 10.0, 1: 11.0, 2: 12.0}},
        # every seed differs by the same amount, as coarse numbers may by chance
        ("coarse", "ab"): {"base": {0: 0.1, 1: 0.2, 2: 0.3}, "good": {0: 0.2, 1: 0.3, 2: 0.4}},
    }
    better = dict.fromkeys(values, "lower") | {("share", "ab"): "higher", ("neither", "ab"): ""}
    numbers, tests = compare_values(values, better, ["base", "good"])
    assert tests["count"] == 4
    assert [number["differences"]["good"]["verdict"] for number in numbers] == ["better", "better", "", "worse", "none"]
    # without a spread between seeds no number of seeds can be given
    assert half_of_the_largest(numbers[-1]["differences"], 3) is None


def test_the_seeds_for_half_of_the_largest_difference() -> None:
    # mean 4, standard deviation 2: half of it is one standard deviation, for which G*Power 3.1 says 10 pairs
    each = {"small": {"mean": 1.0, "deviation": 0.1}, "large": {"mean": -4.0, "deviation": 2.0}}
    assert half_of_the_largest(each, 1) == {"system": "large", "seeds": 10}
