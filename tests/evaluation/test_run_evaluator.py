"""`ganlab.evaluate` and the evaluation at the end of a run: its checkpoints, images, references and results."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import ganlab
from ganlab import SpecError, Unavailable
from ganlab.data.reading import silent
from ganlab.evaluation.metric_suite import MetricSuite
from ganlab.evaluation.splits import split
from ganlab.runs import checkpoint
from ganlab.spec.files import merge
from ganlab.spec.models import Evaluation, Json
from ganlab.spec.resolve import resolve_evaluation
from ganlab.system.build import build, build_data
from helpers.callbacks import Recording, stop
from helpers.damage import forge

BRIGHT = {"type": "brightness", "better": "higher"}


@pytest.fixture
def spec(tiny: Json, trial: None) -> Json:
    """TINY with half of twelve images held out, measured by a third party's metric; EMA on."""
    evaluation = {"every": 1, "metrics": [BRIGHT]}
    return merge(  # type: ignore[no-any-return]
        tiny,
        {
            "data": {"holdout": 0.5},
            "evaluation": evaluation,
            "schedule": {"lr": 0.05},
            "checkpoints": {"keep": 1},
            "ema_halflife_images": 8,
        },
    )


def brightness(spec: Json, folder: Path, step: int, half: str) -> dict[str, float]:
    """{direction: mean brightness of the translations of one half of the held-out images}, from its tensors."""
    resolved = ganlab.load_spec(spec)
    datasets = build_data(resolved)
    system = build(resolved, {name: dataset.domain for name, dataset in datasets.items()})
    tensors = load_file(folder / f"checkpoints/step-{step:06d}/networks.safetensors")
    images = getattr(split(datasets), half)
    found = {}
    for direction in ("ab", "ba"):
        generator = system.networks.generator(direction)
        prefix = f"ema/{direction}."
        generator.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        with torch.no_grad():
            real = torch.from_numpy(np.stack(list(images[direction[0]].pixels))).permute(0, 3, 1, 2) / 127.5 - 1
            found[direction] = float(((generator(real) + 1) * 127.5).round().mean())
    return found


def results(evaluation: Json) -> dict[tuple[str, str, int], Json]:
    return {(f["number"], f["direction"], f["step"]): f for f in evaluation["results"]}


def test_a_run_ends_with_the_results_of_its_last_and_its_best_checkpoint(spec: Json, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = ganlab.run(spec, out=out)
    assert done.evaluation == json.loads((out / "evaluation.json").read_text())
    assert done.evaluation is not None
    scores = {
        int(record["step"]): (record["evaluation/ab/brightness"] + record["evaluation/ba/brightness"]) / 2
        for record in done.records
    }
    assert list(scores) == [1, 2, 3, 4, 5, 6]
    best = max(scores, key=lambda step: scores[step])
    # otherwise the test shows nothing: `keep` is 1, and the best checkpoint is kept besides the last
    assert best != 6
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == [f"step-{best:06d}", "step-000006"]
    protocol = done.evaluation["protocol"]
    assert protocol["checkpoints"]["step-000006"]["is"] == ["last"]
    assert protocol["checkpoints"][f"step-{best:06d}"]["is"] == ["best"]
    assert protocol["best_by"]["number"] == "brightness"
    assert protocol["best_by"]["mean_of_directions"] == pytest.approx(scores[best])
    facts = json.loads((out / "environment.json").read_text())["data"]["a"]
    assert protocol["images"]["a"] == {"test": 3, "validation": 3, "train": 6, "sha256": facts["sha256"]}
    found = results(done.evaluation)
    assert set(found) == {("brightness", direction, step) for direction in ("ab", "ba") for step in (best, 6)}
    # the validation half chose the checkpoint; the results come from the test half
    chosen = brightness(spec, out, best, "validation")
    assert sum(chosen.values()) / 2 == pytest.approx(scores[best], abs=0.02)
    for step in (best, 6):
        for direction, value in brightness(spec, out, step, "test").items():
            assert found["brightness", direction, step]["value"] == pytest.approx(value, abs=0.02)


def test_the_references_are_real_images_of_the_other_half_and_the_inputs(spec: Json, tmp_path: Path) -> None:
    ganlab.run(spec, out=tmp_path / "run")
    resolved = ganlab.load_spec(spec)
    parts = split(build_data(resolved))
    for (_, direction, _), result in results(ganlab.evaluate(tmp_path / "run")).items():
        real = np.mean(np.stack(list(parts.validation[direction[1]].pixels)))
        identity = np.mean(np.stack(list(parts.test[direction[0]].pixels)))
        assert result["references"]["real"]["value"] == pytest.approx(real)
        assert result["references"]["identity"]["value"] == pytest.approx(identity)
        assert result["references"]["real"]["counts"] == result["counts"]
        worse = any("worse than the identity baseline" in note for note in result["notes"])
        better = any("better than real images" in note for note in result["notes"])
        assert (worse, better) == (result["value"] < identity, result["value"] > real)


@pytest.mark.parametrize("fewer", ["a", "b"])
def test_domains_of_other_sizes_are_measured_on_all_of_their_test_images(
    spec: Json, pictures: dict[str, Path], tmp_path: Path, fewer: str
) -> None:
    for name in ("00", "01", "02", "03"):
        (pictures[fewer] / f"{name}.png").unlink()
    done = ganlab.run(spec, ["schedule.steps=2"], out=tmp_path / "run")
    assert done.evaluation is not None
    counts = {domain: 2 if domain == fewer else 3 for domain in "ab"}
    resolved = ganlab.load_spec(spec)
    parts = split(build_data(resolved))
    for part in (parts.validation, parts.test):
        assert {domain: len(images) for domain, images in part.items()} == counts
    for (_, direction, step), result in results(done.evaluation).items():
        source, target = direction
        assert result["counts"] == {"outputs": counts[source]}
        assert result["value"] == pytest.approx(brightness(spec, tmp_path / "run", step, "test")[direction], abs=0.02)
        assert result["references"]["identity"]["counts"] == {"outputs": counts[source]}
        real = result["references"]["real"]
        assert real["counts"] == {"outputs": 2}
        if target == fewer:
            # too few real images: the result stands beside the reference at their count too
            assert real["result_at_these_counts"]["counts"] == {"outputs": 2}
            assert real["value"] == pytest.approx(np.mean(np.stack(list(parts.validation[target].pixels))))
        else:
            assert "result_at_these_counts" not in real


def test_twice_the_same_bytes_whatever_is_kept_on_disk(spec: Json, tmp_path: Path) -> None:
    out = tmp_path / "run"
    spec = merge(spec, {"evaluation": {"metrics": ["kid", "fid", BRIGHT], "features": "averages", "every": 3}})
    spec = merge(spec, {"data": {"a": {"path": spec["data"]["b"]["path"]}, "holdout": 0.8}})
    ganlab.run(spec, out=out)
    first = (out / "evaluation.json").read_bytes()
    assert {f["number"] for f in json.loads(first)["results"]} == {"kid-averages", "fid-averages", "brightness"}
    ganlab.evaluate(out)
    assert (out / "evaluation.json").read_bytes() == first
    shutil.rmtree(tmp_path / "cache")
    ganlab.evaluate(out)
    assert (out / "evaluation.json").read_bytes() == first


def test_some_metrics_are_measured_at_the_end_alone(spec: Json, tmp_path: Path) -> None:
    evaluation = {"metrics": ["kid", BRIGHT], "features": "averages", "during": ["brightness"]}
    done = ganlab.run(merge(spec, {"evaluation": evaluation, "data": {"holdout": 0.8}}), out=tmp_path / "run")
    assert done.evaluation is not None
    during = {name for record in done.records for name in record if name.startswith("evaluation/")}
    assert during == {"evaluation/ab/brightness", "evaluation/ba/brightness"}
    assert {f["number"] for f in done.evaluation["results"]} == {"kid-averages", "brightness"}
    assert done.evaluation["protocol"]["best_by"]["number"] == "brightness"


def test_measuring_does_not_change_what_is_trained(spec: Json, tmp_path: Path) -> None:
    ganlab.run(spec, out=tmp_path / "measured")
    ganlab.run(merge(spec, {"evaluation": None}), out=tmp_path / "plain")
    trained = [(tmp_path / name / "checkpoints/step-000006/networks.safetensors") for name in ("measured", "plain")]
    assert trained[0].read_bytes() == trained[1].read_bytes()
    assert not (tmp_path / "plain/evaluation.json").exists()


@pytest.mark.parametrize("at", [1, 4, 6])
def test_a_run_that_was_stopped_ends_with_the_same_evaluation(spec: Json, tmp_path: Path, at: int) -> None:
    whole = ganlab.run(spec, out=tmp_path / "whole")
    with pytest.raises(ganlab.Interrupted):
        ganlab.run(spec, out=tmp_path / "broken", callback=Recording(at, stop))
    again = ganlab.run(spec, out=tmp_path / "broken")
    assert again.evaluation == whole.evaluation


def test_a_finished_run_that_was_not_measured_is_measured_when_asked_again(spec: Json, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = ganlab.run(spec, out=out)
    for name in ("evaluation.json", "speed.json"):
        (out / name).unlink()
    trained = (out / "checkpoints/step-000006/state.pt").stat().st_mtime_ns
    assert ganlab.run(spec, out=out).evaluation == first.evaluation
    assert (out / "checkpoints/step-000006/state.pt").stat().st_mtime_ns == trained
    assert (out / "speed.json").exists()


def test_other_metrics_are_added_to_what_was_measured_before(spec: Json, tmp_path: Path) -> None:
    out = tmp_path / "run"
    spec = merge(spec, {"data": {"holdout": 0.8}})
    before = ganlab.run(spec, out=out).evaluation
    now = ganlab.evaluate(out, ["kid"], "averages")
    after = ganlab.load_run(out).evaluation
    assert before is not None
    assert after is not None
    assert {f["number"] for f in now["results"]} == {"kid-averages"}
    assert {f["number"] for f in after["results"]} == {"brightness", "kid-averages"}
    assert [f for f in after["results"] if f["number"] == "brightness"] == before["results"]
    assert set(after["protocol"]["metrics"]) == {"brightness", "kid"}
    # a metric that the spec names has the spec's options, so the results are the same to the byte
    assert ganlab.evaluate(out, ["brightness"]) == before
    assert ganlab.load_run(out).evaluation == after
    # with other options the metric gives other results
    darker = [{**BRIGHT, "unavailable": "ab"}]
    assert {f["direction"] for f in ganlab.evaluate(out, darker)["results"]} == {"ba"}
    third = ganlab.load_run(out).evaluation
    assert third is not None
    assert {f["number"] for f in third["results"] if f["direction"] == "ab"} == {"kid-averages"}
    assert [left["direction"] for left in third["left_out"]] == ["ab"]


def test_a_protocol_does_not_name_one_of_several_devices() -> None:
    """Each process of a run has one of its own."""
    evaluation = resolve_evaluation(Evaluation(metrics=()), "eval")
    assert MetricSuite.build(evaluation, torch.device("cpu", 0), silent).protocol()["device"] == "cpu"


def test_results_of_another_protocol_are_replaced_with_a_warning(spec: Json, tmp_path: Path) -> None:
    out, recording = tmp_path / "run", Recording()
    first = ganlab.run(spec, out=out).evaluation
    assert first is not None
    other = {**first, "protocol": {**first["protocol"], "threads": 3}}
    (out / "evaluation.json").write_text(json.dumps(other))
    ganlab.evaluate(out, callback=recording)
    assert ganlab.load_run(out).evaluation == first
    assert recording.warned == [f"earlier results of {out} are replaced, because their protocol differs in: threads"]
    (out / "evaluation.json").write_text("{}")
    assert ganlab.load_run(out).evaluation is None
    assert ganlab.run(spec, out=out).evaluation == first


def test_metrics_can_be_added_to_the_spec_of_a_trained_run(spec: Json, tmp_path: Path) -> None:
    out = tmp_path / "run"
    plain = merge(spec, {"evaluation": None})
    ganlab.run(plain, out=out)
    trained = (out / "checkpoints/step-000006/networks.safetensors").read_bytes()
    done = ganlab.run(merge(spec, {"evaluation": {"every": None}}), out=out)
    assert done.evaluation is not None
    assert done.spec.evaluation.metrics
    assert (out / "checkpoints/step-000006/networks.safetensors").read_bytes() == trained


def test_one_evaluation_measures_with_several_feature_networks(spec: Json, tmp_path: Path) -> None:
    """Each number is the one that an evaluation with that network alone gives, and nothing is measured twice."""
    metrics = ["kid", "fid", {"type": "kid", "features": "stlpips-alex"}]
    spec = merge(spec, {"evaluation": {"metrics": metrics, "features": "averages"}, "data": {"holdout": 0.8}})
    done = ganlab.run(spec, out=tmp_path / "run")
    assert done.evaluation is not None
    found = {key: value["value"] for key, value in results(done.evaluation).items()}
    assert {number for number, *_ in found} == {"kid-averages", "fid-averages", "kid-stlpips-alex"}
    assert all("evaluation/ab/kid-stlpips-alex" in record for record in done.records)
    protocol = done.evaluation["protocol"]
    assert set(protocol["metrics"]) == {"kid", "fid", "kid-stlpips-alex"}
    assert set(protocol["features"]) == {"averages", "stlpips-alex"}
    assert "alex_shift_tolerant.pth" in protocol["weights"]
    assert "stlpips-pytorch" in protocol["packages"]
    measured = (tmp_path / "run/evaluation.json").stat().st_mtime_ns
    ganlab.run(spec, out=tmp_path / "run")
    assert (tmp_path / "run/evaluation.json").stat().st_mtime_ns == measured
    for features in ("averages", "stlpips-alex"):
        alone = results(ganlab.evaluate(tmp_path / "run", [{"type": "kid"}], features))
        assert all(value["value"] == found[key] for key, value in alone.items())
        assert {number for number, *_ in alone} == {f"kid-{features}"}


def test_a_metric_whose_own_feature_network_is_missing_is_left_out(
    spec: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "stlpips_pytorch", None)
    metrics = ["kid", {"type": "kid", "features": "stlpips-alex"}]
    spec = merge(spec, {"evaluation": {"metrics": metrics, "features": "averages"}, "data": {"holdout": 0.8}})
    found = ganlab.run(spec, out=tmp_path / "run").evaluation
    assert found is not None
    assert {result["number"] for result in found["results"]} == {"kid-averages"}
    assert {left["metric"] for left in found["left_out"]} == {"kid-stlpips-alex"}
    assert "'ganlab[stlpips]'" in found["left_out"][0]["why"]
    # the evaluation's own network is a condition
    with pytest.raises(Unavailable, match="'ganlab"):
        ganlab.run(merge(spec, {"evaluation": {"features": "stlpips-alex"}}), out=tmp_path / "other")


def test_other_features_are_measured_when_a_trained_run_is_asked_for_again(spec: Json, tmp_path: Path) -> None:
    out = tmp_path / "run"
    spec = merge(spec, {"evaluation": {"metrics": ["kid"], "features": "averages"}, "data": {"holdout": 0.8}})
    ganlab.run(spec, out=out)
    done = ganlab.run(merge(spec, {"evaluation": {"features": "lite0"}}), out=out)
    assert done.evaluation is not None
    assert "kid-lite0" in {f["number"] for f in done.evaluation["results"]}


def test_a_metric_that_fails_stops_no_training(spec: Json, tmp_path: Path) -> None:
    recording = Recording()
    broken = {"metrics": [{**BRIGHT, "broken": True}, "kid"], "features": "averages"}
    done = ganlab.run(
        merge(spec, {"evaluation": broken, "data": {"holdout": 0.8}}), out=tmp_path / "run", callback=recording
    )
    assert done.finished
    assert done.evaluation is not None
    assert {f["number"] for f in done.evaluation["results"]} == {"kid-averages"}
    assert done.evaluation["left_out"][0]["why"].startswith("KeyError: 'no such thing' (metric 'brightness' of plugin")
    assert recording.warned[0].startswith("brightness can't be measured in direction ab: KeyError")


def test_if_the_file_can_not_be_written_the_results_are_shown(spec: Json, tmp_path: Path) -> None:
    out, recording = tmp_path / "run", Recording()
    first = ganlab.run(spec, out=out).evaluation
    (out / "evaluation.json").unlink()
    (out / "evaluation.json").mkdir()
    assert ganlab.evaluate(out, callback=recording) == first
    assert f"{out / 'evaluation.json'} can't be written" in recording.warned[0]


def test_what_can_not_be_measured_is_left_out_with_the_reason(spec: Json, tmp_path: Path) -> None:
    picky = {**BRIGHT, "unavailable": "ba"}
    spec = merge(spec, {"evaluation": {"metrics": [picky]}})
    recording = Recording()
    found = ganlab.run(spec, out=tmp_path / "run", callback=recording).evaluation
    assert found is not None
    assert found["left_out"] == [{"metric": "brightness", "direction": "ba", "why": "needs another direction"}]
    assert {f["direction"] for f in found["results"]} == {"ab"}
    assert [w for w in recording.warned if "can't be measured" in w] == [
        "brightness can't be measured in direction ba: needs another direction"
    ]


def test_a_run_without_evaluation_every_has_its_last_checkpoint_measured(spec: Json, tmp_path: Path) -> None:
    found = ganlab.run(merge(spec, {"evaluation": {"every": None}}), out=tmp_path / "run").evaluation
    assert found is not None
    assert found["protocol"]["best_by"] is None
    assert {(f["step"], f["checkpoint"]) for f in found["results"]} == {(6, "last")}


def test_one_direction_is_measured_alone(spec: Json, tmp_path: Path) -> None:
    patch = {"directions": ["ab"], "losses": {"cycle": None}}
    found = ganlab.run(merge(spec, patch), out=tmp_path / "run").evaluation
    assert found is not None
    assert {f["direction"] for f in found["results"]} == {"ab"}


def test_speed_counts_parameters_and_multiplications(spec: Json, tmp_path: Path) -> None:
    done = ganlab.run(spec, out=tmp_path / "run")
    speed = json.loads((tmp_path / "run/speed.json").read_text())
    datasets = build_data(done.spec)
    generator = build(done.spec, {n: s.domain for n, s in datasets.items()}).networks.generator("ab")
    flops = 0

    def count(module: torch.nn.Module, given: Any, made: torch.Tensor) -> None:
        nonlocal flops
        # a convolution's multiplications and additions: (Dumoulin and Visin, arXiv:1603.07285)
        if isinstance(module, torch.nn.ConvTranspose2d):
            flops += 2 * given[0][0].numel() * module.weight[0].numel()
        elif isinstance(module, torch.nn.Conv2d):
            flops += 2 * made[0].numel() * module.weight[0].numel()

    for module in generator.modules():
        module.register_forward_hook(count)
    with torch.no_grad():
        generator(torch.zeros(1, 3, 16, 16))
    assert speed["directions"]["ab"]["flops_an_image"] == flops
    assert speed["directions"]["ab"]["parameters"] == sum(p.numel() for p in generator.parameters())
    assert speed["directions"]["ab"]["images_a_second"] > 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peak_memory_is_that_of_the_largest_process(spec: Json, tmp_path: Path) -> None:
    def high_water_mark() -> int:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert found is not None
        return int(found[1]) * 1024

    out, before = tmp_path / "run", high_water_mark()
    ganlab.run(spec, out=out)
    speed = json.loads((out / "speed.json").read_text())
    # the kernel keeps both marks, each with pages that it has not counted yet
    assert 0.98 * before <= speed["peak_memory_bytes"] <= 1.02 * high_water_mark()
    (out / "speed.json").write_text(json.dumps({**speed, "peak_memory_bytes": 2**50}))
    ganlab.evaluate(out)
    assert json.loads((out / "speed.json").read_text())["peak_memory_bytes"] == 2**50


def test_what_can_not_be_evaluated_is_refused_in_a_sentence(
    spec: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the working directory may hold runs
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "run"
    with pytest.raises(SpecError, match=r"nowhere is not a run: it has no spec\.json"):
        ganlab.evaluate(tmp_path / "nowhere")
    with pytest.raises(SpecError, match="there is no run in runs; name one, or train one"):
        ganlab.evaluate()
    ganlab.run(spec, out=out)
    with pytest.raises(SpecError, match=r"metrics\.0: there is no metric 'kidd'; did you mean 'kid'\?"):
        ganlab.evaluate(out, ["kidd"])
    with pytest.raises(SpecError, match=r"features: there is no features 'averagse'; did you mean 'averages'\?"):
        ganlab.evaluate(out, ["kid"], "averagse")
    with pytest.raises(SpecError, match=r"metric 'numberless' has the numbers None, not {name: MetricInfo}"):
        ganlab.evaluate(out, ["numberless"])
    before = (out / "evaluation.json").read_bytes()
    shutil.rmtree(out / "checkpoints")
    with pytest.raises(SpecError, match="has no checkpoint yet; train it with `ganlab run`"):
        ganlab.evaluate(out)
    assert (out / "evaluation.json").read_bytes() == before


def test_a_damaged_checkpoint_is_named(spec: Json, tmp_path: Path) -> None:
    out = tmp_path / "run"
    ganlab.run(spec, out=out)
    path = out / "checkpoints/step-000006/networks.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ganlab.RunError, match=r"networks\.safetensors can't be used: its content is not"):
        ganlab.evaluate(out)


def test_networks_that_are_not_finite_are_refused(spec: Json, tmp_path: Path) -> None:
    out = tmp_path / "run"
    ganlab.run(spec, out=out)
    path = out / "checkpoints/step-000006/networks.safetensors"
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    next(value for name, value in tensors.items() if name.startswith("ema/ba")).fill_(torch.inf)
    save_file(tensors, path, metadata)
    forge(path.parent)
    with pytest.raises(ganlab.RunError, match=r"weights of ema/ba are not finite"):
        ganlab.evaluate(out)


def test_a_checkpoint_that_is_dropped_meanwhile_is_not_missed(
    spec: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    ganlab.run(merge(spec, {"evaluation": {"every": None}, "checkpoints": {"keep": 2}}), out=out)
    verify = checkpoint.verify

    def dropped(folder: Path, step: int, *rest: Any) -> Any:
        if step == 6:
            shutil.rmtree(folder / "step-000006")
        return verify(folder, step, *rest)

    monkeypatch.setattr(checkpoint, "verify", dropped)
    assert list(ganlab.evaluate(out)["protocol"]["checkpoints"]) == ["step-000004"]

    def all_dropped(folder: Path, *rest: Any) -> Any:
        shutil.rmtree(folder)
        return verify(folder, *rest)

    monkeypatch.setattr(checkpoint, "verify", all_dropped)
    with pytest.raises(SpecError, match="has no checkpoint yet"):
        ganlab.evaluate(out)


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole["protocol"].update(checkpoints={"step-000006": {"is": ["last"], "sha256": "0"}}),
        lambda whole: whole.update(protocol=[]),
        lambda whole: whole.update(left_out=[{}]),
        lambda whole: whole["results"][0].update(interval=[1]),
        lambda whole: whole["results"][0]["references"].update(real=None),
    ],
)
def test_results_that_are_damaged_or_of_another_checkpoint_are_measured_again(
    spec: Json, tmp_path: Path, damage: Callable[[Json], Any]
) -> None:
    out = tmp_path / "run"
    ganlab.run(merge(spec, {"schedule": {"steps": 1}, "evaluation": {"every": None}}), out=out)
    path = out / "evaluation.json"
    measured = path.read_bytes()
    whole = json.loads(measured)
    damage(whole)
    path.write_text(json.dumps(whole))
    ganlab.run(merge(spec, {"schedule": {"steps": 1}, "evaluation": {"every": None}}), out=out)
    assert path.read_bytes() == measured


def test_damaged_records_are_told_before_the_best_checkpoint_is_picked(spec: Json, tmp_path: Path) -> None:
    out = tmp_path / "run"
    ganlab.run(spec, out=out)
    lines = (out / "metrics.jsonl").read_bytes().splitlines(True)
    (out / "metrics.jsonl").write_bytes(b"".join([*lines[:2], b"{\n", *lines[3:]]))
    callback = Recording()
    ganlab.evaluate(out, callback=callback)
    assert f"{out / 'metrics.jsonl'}: damaged lines are left out (1): 3" in callback.warned


def test_other_images_than_the_runs_are_refused(spec: Json, tmp_path: Path) -> None:
    out = tmp_path / "run"
    ganlab.run(spec, out=out)
    picture = next(Path(spec["data"]["a"]["path"]).iterdir())
    shutil.copy(next(Path(spec["data"]["b"]["path"]).iterdir()), picture)
    with pytest.raises(SpecError, match=r"data\.a: these are not the images that .* began with"):
        ganlab.evaluate(out)


def test_too_few_held_out_images_are_refused_before_anything_is_trained(spec: Json, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="a has 1; hold out more"):
        ganlab.run(merge(spec, {"data": {"holdout": 0.05}}), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_monitor_is_one_of_the_numbers_that_are_measured(spec: Json, tmp_path: Path) -> None:
    for patch in ({"monitor": "brigthness"}, {"monitor": "brightness", "metrics": [{**BRIGHT, "better": ""}]}):
        with pytest.raises(
            SpecError, match=r"evaluation\.monitor: no number .* for which lower or higher is better is measured"
        ):
            ganlab.run(merge(spec, {"evaluation": patch}), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    found = ganlab.run(merge(spec, {"evaluation": {"metrics": [{**BRIGHT, "better": ""}]}}), out=tmp_path / "run")
    assert found.evaluation is not None
    assert found.evaluation["protocol"]["best_by"] is None


def test_the_newest_run_is_measured_by_default(spec: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("older", "newer"):
        ganlab.run({**spec, "name": name})
    (tmp_path / "runs/older/evaluation.json").unlink()
    (tmp_path / "runs/newer/evaluation.json").unlink()
    ganlab.evaluate()
    assert not (tmp_path / "runs/older/evaluation.json").exists()
    assert (tmp_path / "runs/newer/evaluation.json").exists()
    # of a run without a checkpoint nothing can be measured
    shutil.rmtree(tmp_path / "runs/newer/checkpoints")
    ganlab.evaluate()
    assert (tmp_path / "runs/older/evaluation.json").exists()
    shutil.rmtree(tmp_path / "runs/older/checkpoints")
    with pytest.raises(SpecError, match=r"^no run in runs has a checkpoint yet"):
        ganlab.evaluate()


def test_a_run_of_another_machine_is_read_and_measured_here(spec: Json, tmp_path: Path) -> None:
    out = tmp_path / "run"
    here = ganlab.run(spec, out=out).evaluation
    kept = json.loads((out / "spec.json").read_text())
    kept["runtime"] |= {"device": "cuda:99", "precision": "tf32"}
    (out / "spec.json").write_text(json.dumps(kept))
    for manifest in out.glob("checkpoints/*/manifest.json"):
        saved = json.loads(manifest.read_text())
        saved["spec"]["runtime"]["precision"] = "tf32"
        manifest.write_text(json.dumps(saved))
    found = ganlab.load_run(out).spec.runtime
    assert (found.device, found.precision) == (("cuda", "tf32") if torch.cuda.is_available() else ("cpu", "float32"))
    assert torch.cuda.is_available() or ganlab.evaluate(out) == here
    # the run can't be trained further here
    with pytest.raises(SpecError, match=r"runtime\.device: 'cuda:99' is not available here"):
        ganlab.run(merge(spec, {"schedule": {"steps": 9}}), out=out)
