"""`ganlab.evaluate` and the evaluation that a run ends with: whose figures, of which checkpoint, on which images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import ganlab
from ganlab import SpecError, Unavailable
from ganlab.build import build, build_data, build_sources
from ganlab.evaluation.material import split
from ganlab.laboratory import Nobody
from ganlab.registry import registry
from ganlab.spec import Json, merge

BRIGHT = {"type": "brightness", "better": "higher"}


@pytest.fixture
def spec(tiny: Json, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Json]:
    """TINY with half of twelve images held out, measured by a third party's metric; EMA on."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "installed"))
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path / "cache"))
    registry.cache_clear()
    evaluation = {"every": 1, "metrics": [BRIGHT]}
    yield merge(
        tiny,
        {
            "data": {"holdout": 0.5},
            "evaluation": evaluation,
            "schedule": {"lr": 0.05},
            "checkpoints": {"keep": 1},
            "ema_halflife_images": 8,
        },
    )
    registry.cache_clear()


def brightness(spec: Json, folder: Path, step: int, half: str) -> dict[str, float]:
    """{way: mean brightness of the translations of one half of the held-out images}, from the file's own tensors."""
    resolved = ganlab.load_spec(spec)
    stores = build_data(registry(), resolved)
    system = build(registry(), resolved, {name: store.domain for name, store in stores.items()})
    tensors = load_file(folder / f"checkpoints/step-{step:06d}/networks.safetensors")
    images = getattr(split(stores, build_sources(registry(), resolved)), half)
    found = {}
    for way in ("ab", "ba"):
        generator = system.networks.generator(way)
        prefix = f"ema/{way}."
        generator.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        with torch.no_grad():
            real = torch.from_numpy(np.stack(list(images[way[0]].pixels))).permute(0, 3, 1, 2) / 127.5 - 1
            found[way] = float(((generator(real) + 1) * 127.5).round().mean())
    return found


def figures(evaluation: Json) -> dict[tuple[str, str, int], Json]:
    return {(f["number"], f["way"], f["step"]): f for f in evaluation["figures"]}


def test_a_run_ends_with_the_figures_of_its_last_and_its_best_checkpoint(spec: Json, tmp_path: Path) -> None:
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
    # otherwise this shows nothing: another step, kept beyond the one that is to be kept
    assert best != 6
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == [f"step-{best:06d}", "step-000006"]
    protocol = done.evaluation["protocol"]
    assert protocol["checkpoints"]["step-000006"]["is"] == ["last"]
    assert protocol["checkpoints"][f"step-{best:06d}"]["is"] == ["best"]
    assert protocol["best_by"]["number"] == "brightness"
    assert protocol["best_by"]["mean_of_ways"] == pytest.approx(scores[best])
    facts = json.loads((out / "environment.json").read_text())["data"]["a"]
    assert protocol["images"]["a"] == {"measured": 3, "choosing": 3, "training": 6, "sha256": facts["sha256"]}
    found = figures(done.evaluation)
    assert set(found) == {("brightness", way, step) for way in ("ab", "ba") for step in (best, 6)}
    # what chose was measured on one half, the figures are from the other
    chosen = brightness(spec, out, best, "choosing")
    assert sum(chosen.values()) / 2 == pytest.approx(scores[best], abs=0.02)
    for step in (best, 6):
        for way, value in brightness(spec, out, step, "measured").items():
            assert found["brightness", way, step]["value"] == pytest.approx(value, abs=0.02)


def test_the_references_are_real_images_of_the_other_half_and_the_inputs(spec: Json, tmp_path: Path) -> None:
    ganlab.run(spec, out=tmp_path / "run")
    resolved = ganlab.load_spec(spec)
    parts = split(build_data(registry(), resolved), build_sources(registry(), resolved))
    for (_, way, _), figure in figures(ganlab.evaluate(tmp_path / "run")).items():
        real = np.mean(np.stack(list(parts.choosing[way[1]].pixels)))
        nothing = np.mean(np.stack(list(parts.measured[way[0]].pixels)))
        assert figure["references"]["real"]["value"] == pytest.approx(real)
        assert figure["references"]["nothing"]["value"] == pytest.approx(nothing)
        assert figure["references"]["real"]["counts"] == figure["counts"]
        worse = any("worse than doing nothing" in note for note in figure["notes"])
        better = any("better than real images" in note for note in figure["notes"])
        assert (worse, better) == (figure["value"] < nothing, figure["value"] > real)


def test_twice_the_same_bytes_whatever_is_kept_on_disk(spec: Json, tmp_path: Path) -> None:
    out = tmp_path / "run"
    spec = merge(spec, {"evaluation": {"metrics": ["kid", "fid", BRIGHT], "features": "averages", "every": 3}})
    spec = merge(spec, {"data": {"a": {"path": spec["data"]["b"]["path"]}, "holdout": 0.8}})
    ganlab.run(spec, out=out)
    first = (out / "evaluation.json").read_bytes()
    assert {f["number"] for f in json.loads(first)["figures"]} == {"kid-averages", "fid-averages", "brightness"}
    ganlab.evaluate(out)
    assert (out / "evaluation.json").read_bytes() == first
    shutil.rmtree(tmp_path / "cache")
    ganlab.evaluate(out)
    assert (out / "evaluation.json").read_bytes() == first


def test_measuring_does_not_change_what_is_trained(spec: Json, tmp_path: Path) -> None:
    ganlab.run(spec, out=tmp_path / "measured")
    ganlab.run(merge(spec, {"evaluation": None}), out=tmp_path / "plain")
    trained = [(tmp_path / name / "checkpoints/step-000006/networks.safetensors") for name in ("measured", "plain")]
    assert trained[0].read_bytes() == trained[1].read_bytes()
    assert not (tmp_path / "plain/evaluation.json").exists()


class Stopping(Nobody):
    def __init__(self, at: int) -> None:
        self.at = at

    def steps(self, records: list[Any]) -> None:
        if records[-1]["step"] == self.at:
            raise KeyboardInterrupt


@pytest.mark.parametrize("at", [1, 4, 6])
def test_a_run_that_was_broken_off_ends_with_the_same_evaluation(spec: Json, tmp_path: Path, at: int) -> None:
    whole = ganlab.run(spec, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        ganlab.run(spec, out=tmp_path / "broken", watcher=Stopping(at))
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
    assert {f["number"] for f in now["figures"]} == {"kid-averages"}
    assert {f["number"] for f in after["figures"]} == {"brightness", "kid-averages"}
    assert [f for f in after["figures"] if f["number"] == "brightness"] == before["figures"]
    assert set(after["protocol"]["metrics"]) == {"brightness", "kid"}
    # the spec's own options, where the spec names it; and again the same bytes
    assert ganlab.evaluate(out, ["brightness"]) == before
    assert ganlab.load_run(out).evaluation == after
    # with other options it is another number
    darker = [{**BRIGHT, "unavailable": "ab"}]
    assert {f["way"] for f in ganlab.evaluate(out, darker)["figures"]} == {"ba"}
    third = ganlab.load_run(out).evaluation
    assert third is not None
    assert {f["number"] for f in third["figures"] if f["way"] == "ab"} == {"kid-averages"}
    assert [left["way"] for left in third["left_out"]] == ["ab"]


class Listening(Nobody):
    def __init__(self) -> None:
        self.warned: list[str] = []

    def warns(self, sentence: str) -> None:
        self.warned.append(sentence)


def test_figures_of_another_protocol_are_replaced_with_a_warning(spec: Json, tmp_path: Path) -> None:
    out, listening = tmp_path / "run", Listening()
    first = ganlab.run(spec, out=out).evaluation
    assert first is not None
    other = {**first, "protocol": {**first["protocol"], "threads": 3}}
    (out / "evaluation.json").write_text(json.dumps(other))
    ganlab.evaluate(out, watcher=listening)
    assert ganlab.load_run(out).evaluation == first
    assert listening.warned == [f"earlier figures of {out} are replaced: they had another threads"]
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


def test_other_features_are_measured_when_a_trained_run_is_asked_for_again(spec: Json, tmp_path: Path) -> None:
    out = tmp_path / "run"
    spec = merge(spec, {"evaluation": {"metrics": ["kid"], "features": "averages"}, "data": {"holdout": 0.8}})
    ganlab.run(spec, out=out)
    done = ganlab.run(merge(spec, {"evaluation": {"features": "lite0"}}), out=out)
    assert done.evaluation is not None
    assert "kid-lite0" in {f["number"] for f in done.evaluation["figures"]}


def test_a_metric_that_fails_stops_no_training(spec: Json, tmp_path: Path) -> None:
    listening = Listening()
    broken = {"metrics": [{**BRIGHT, "broken": True}, "kid"], "features": "averages"}
    done = ganlab.run(
        merge(spec, {"evaluation": broken, "data": {"holdout": 0.8}}), out=tmp_path / "run", watcher=listening
    )
    assert done.finished
    assert done.evaluation is not None
    assert {f["number"] for f in done.evaluation["figures"]} == {"kid-averages"}
    assert done.evaluation["left_out"][0]["why"].startswith("KeyError: 'no such thing' (metric 'brightness' of plugin")
    assert listening.warned[0].startswith("brightness can't be measured on way ab: KeyError")


def test_where_the_file_can_not_be_written_the_figures_are_shown(spec: Json, tmp_path: Path) -> None:
    out, listening = tmp_path / "run", Listening()
    first = ganlab.run(spec, out=out).evaluation
    (out / "evaluation.json").unlink()
    (out / "evaluation.json").mkdir()
    assert ganlab.evaluate(out, watcher=listening) == first
    assert f"{out / 'evaluation.json'} can't be written" in listening.warned[0]


def test_what_can_not_be_measured_is_left_out_with_the_reason(spec: Json, tmp_path: Path) -> None:
    picky = {**BRIGHT, "unavailable": "ba"}
    spec = merge(spec, {"evaluation": {"metrics": [picky]}})
    listening = Listening()
    found = ganlab.run(spec, out=tmp_path / "run", watcher=listening).evaluation
    assert found is not None
    assert found["left_out"] == [{"metric": "brightness", "way": "ba", "why": "needs another way"}]
    assert {f["way"] for f in found["figures"]} == {"ab"}
    assert [w for w in listening.warned if "measured" in w] == [
        "brightness can't be measured on way ba: needs another way"
    ]


def test_a_run_without_evaluation_every_has_its_last_checkpoint_measured(spec: Json, tmp_path: Path) -> None:
    found = ganlab.run(merge(spec, {"evaluation": {"every": None}}), out=tmp_path / "run").evaluation
    assert found is not None
    assert found["protocol"]["best_by"] is None
    assert {(f["step"], f["checkpoint"]) for f in found["figures"]} == {(6, "last")}


def test_one_way_is_measured_alone(spec: Json, tmp_path: Path) -> None:
    patch = {"translations": ["ab"], "losses": {"cycle": None}}
    found = ganlab.run(merge(spec, patch), out=tmp_path / "run").evaluation
    assert found is not None
    assert {f["way"] for f in found["figures"]} == {"ab"}


def test_speed_counts_parameters_and_multiplications(spec: Json, tmp_path: Path) -> None:
    done = ganlab.run(spec, out=tmp_path / "run")
    speed = json.loads((tmp_path / "run/speed.json").read_text())
    stores = build_data(registry(), done.spec)
    generator = build(registry(), done.spec, {n: s.domain for n, s in stores.items()}).networks.generator("ab")
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
    assert speed["ways"]["ab"]["flops_an_image"] == flops
    assert speed["ways"]["ab"]["parameters"] == sum(p.numel() for p in generator.parameters())
    assert speed["ways"]["ab"]["images_a_second"] > 0


def test_what_can_not_be_evaluated_is_refused_in_a_sentence(
    spec: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # where it is run from there may be runs
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
    with pytest.raises(SpecError, match=r"metric 'numberless' has the numbers None, not {name: Number}"):
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
    with pytest.raises(ganlab.RunError, match=r"networks\.safetensors can't be read"):
        ganlab.evaluate(out)


def test_other_images_than_the_runs_are_refused(spec: Json, tmp_path: Path) -> None:
    out = tmp_path / "run"
    ganlab.run(spec, out=out)
    picture = next(Path(spec["data"]["a"]["path"]).iterdir())
    shutil.copy(next(Path(spec["data"]["b"]["path"]).iterdir()), picture)
    with pytest.raises(SpecError, match=r"data\.a: these are not the images that .* began with"):
        ganlab.evaluate(out)


def test_too_few_held_out_images_are_refused_before_anything_is_trained(spec: Json, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"raise data\.holdout"):
        ganlab.run(merge(spec, {"data": {"holdout": 0.05}}), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_number_that_chooses_is_one_of_those_that_are_measured(spec: Json, tmp_path: Path) -> None:
    for patch in ({"choose": "brigthness"}, {"choose": "brightness", "metrics": [{**BRIGHT, "better": ""}]}):
        with pytest.raises(SpecError, match=r"evaluation\.choose: no number .* with a better end is measured"):
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


def test_a_run_of_another_machine_is_read_and_measured_here(spec: Json, tmp_path: Path) -> None:
    out = tmp_path / "run"
    here = ganlab.run(spec, out=out).evaluation
    kept = json.loads((out / "spec.json").read_text())
    kept["runtime"] |= {"device": "cuda:99", "precision": "tf32"}
    (out / "spec.json").write_text(json.dumps(kept))
    found = ganlab.load_run(out).spec.runtime
    assert (found.device, found.precision) == (("cuda", "tf32") if torch.cuda.is_available() else ("cpu", "float32"))
    assert torch.cuda.is_available() or ganlab.evaluate(out) == here
    # to train it further is another matter
    with pytest.raises(SpecError, match=r"runtime\.device: 'cuda:99' is not available here"):
        ganlab.run(merge(spec, {"schedule": {"steps": 9}}), out=out)
