"""A run that is trained to another number of steps, and a run that begins with the weights of another."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import ganlab
from ganlab import Interrupted, SpecError
from ganlab.components.registry import registry
from ganlab.runs.lengthening import obstacle
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from helpers.callbacks import Recording, interrupt
from helpers.folders import draw
from helpers.paths import INSTALLED
from helpers.processes import Forker, moments, networks, records
from helpers.systems import TINY

# pools of past fakes, averages and dropout: more state than weights
PATCH: Json = {
    "schedule": {"pool": 3, "lr": 0.01},
    "ema_halflife_images": 8,
    "discriminators": {"image": {"type": "forgetful"}},
    "evaluation": {"every": 2, "metrics": [{"type": "brightness", "better": "higher"}]},
    "checkpoints": {"keep": 9},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with spec.json, `three` and `six`: its runs of three and of six steps that never stopped."""
    folder = tmp_path_factory.mktemp("lengthening")
    sources = {domain: {"path": str(path)} for domain, path in draw(folder).items()}
    (folder / "spec.json").write_text(json.dumps(merge(TINY, {**PATCH, "data": sources})))
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(INSTALLED))
        registry.cache_clear()
        for steps, name in ((3, "three"), (6, "six")):
            ganlab.run(folder / "spec.json", [f"schedule.steps={steps}"], out=folder / name)
        yield folder
    registry.cache_clear()


@pytest.fixture
def three(home: Path, tmp_path: Path) -> Path:
    """A copy of the run of three steps."""
    shutil.copytree(home / "three", tmp_path / "run")
    return tmp_path / "run"


def tensors(run: Path, step: int) -> dict[str, Tensor]:
    return load_file(run / f"checkpoints/step-{step:06d}/networks.safetensors")


def without_measurements(run: Path) -> list[dict[str, float]]:
    return [{k: v for k, v in record.items() if not k.startswith("evaluation/")} for record in records(run)]


# -- another number of steps ------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", ["the spec", "the run folder"])
def test_a_finished_run_trained_further_is_a_longer_run_to_the_byte(home: Path, three: Path, asked: str) -> None:
    callback = Recording()
    words = {"spec": home / "spec.json", "out": three} if asked == "the spec" else {"spec": three}
    done = ganlab.run(**words, set=["schedule.steps=6"], callback=callback)  # type: ignore[arg-type]
    assert (done.folder, done.step, done.steps, callback.begun) == (three, 6, 6, [3])
    assert networks(three, 6) == networks(home / "six", 6)
    assert without_measurements(three) == without_measurements(home / "six")
    said = f"{three} trains to another number of steps (there / asked): schedule.steps: 3 / 6"
    assert [sentence for sentence in callback.warned if "steps" in sentence] == [said]
    assert ganlab.load_run(three).spec.schedule["steps"] == 6
    # it is measured anew, and its earlier checkpoints can still be used
    assert done.evaluation is not None
    assert 6 in {result["step"] for result in done.evaluation["results"]}
    best = done.evaluation["protocol"]["best_by"]["step"]
    expected = ganlab.load_run(home / "six").generator("ab", "last") if best == 6 else None
    found = ganlab.load_run(three).generator("ab", "best")
    assert expected is None or all(map(torch.equal, found.parameters(), expected.parameters()))
    # and a call of the same is finished
    again = Recording()
    assert ganlab.run(three, callback=again).step == 6
    assert (again.begun, again.warned) == ([], [])


def test_an_interrupted_run_may_get_another_number_of_steps(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        ganlab.run(home / "spec.json", ["schedule.steps=9"], out=out, callback=Recording(3, interrupt))
    ganlab.run(out, ["schedule.steps=6"])
    assert networks(out, 6) == networks(home / "six", 6)


def test_a_run_may_end_where_it_is(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        ganlab.run(home / "spec.json", ["schedule.steps=9"], out=out, callback=Recording(2, interrupt))
    (step,) = {ganlab.load_run(out).step}
    done = ganlab.run(out, [f"schedule.steps={step}"])
    assert done.finished
    assert done.evaluation is not None
    assert (out / f"samples/step-{step:06d}.png").exists()


def state(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


REFUSED: list[tuple[list[str], str]] = [
    (["schedule.steps=2"], "schedule.steps: 3 / 2; 3 steps are done already; start over with --fresh"),
    (["schedule.steps=6", "seed=1"], "schedule.steps: 3 / 6; seed: 0 / 1; start over with --fresh"),
    (["schedule.steps=6", "schedule.lr=0.02"], "schedule.lr: 0.01 / 0.02; schedule.steps: 3 / 6; start over"),
]


@pytest.mark.parametrize(("changes", "sentence"), REFUSED)
def test_anything_else_is_refused(three: Path, changes: list[str], sentence: str) -> None:
    before = state(three)
    with pytest.raises(SpecError) as caught:
        ganlab.run(three, changes)
    assert f"{three} holds another spec (there / asked): {sentence}" in str(caught.value)
    assert state(three) == before


def test_a_schedule_whose_rates_depend_on_the_total_is_refused_with_the_reason(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    ganlab.run(home / "spec.json", ["schedule.steps=4", "schedule.decay_from=0.5"], out=out)
    before = state(out)
    with pytest.raises(SpecError) as caught:
        ganlab.run(out, ["schedule.steps=8"])
    # with four steps in all, the rate of the fourth is half of the first's; with eight, it is the first's
    why = "a run of 8 steps would have trained differently: the learning rate of the generator in step 4: 0.5 / 1.0"
    assert f"schedule.steps: 4 / 8; {why}; start over with --fresh" in str(caught.value)
    assert str(caught.value).endswith(f" with --out; there, --set init.run={out} starts from its weights")
    assert state(out) == before


def test_before_the_rates_fall_the_total_may_change(home: Path, tmp_path: Path) -> None:
    longer = ["schedule.steps=8", "schedule.decay_from=0.5"]
    ganlab.run(home / "spec.json", longer, out=tmp_path / "whole")
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        ganlab.run(home / "spec.json", ["schedule.steps=6", longer[1]], out=out, callback=Recording(2, interrupt))
    assert ganlab.load_run(out).step == 3
    ganlab.run(out, longer)
    assert networks(out, 8) == networks(tmp_path / "whole", 8)


def schedule(**options: Any) -> Json:
    """The part of `Spec.trains` that schedules are compared by."""
    return {
        "schedule": {"type": "alternating", **options},
        "directions": ["ab", "ba"],
        "losses": {"cycle": {}, "identity": {}},
    }


def test_a_loss_that_fades_out_in_its_own_steps_does_not_depend_on_the_total() -> None:
    fading = {"fade_out": {"identity": 4}}
    assert obstacle(schedule(steps=6, **fading), schedule(steps=9, **fading), 6) is None
    # in the second step 1 - 1/4 and 1 - 1/2
    different = obstacle(schedule(steps=6, **fading), schedule(steps=6, fade_out={"identity": 2}), 6)
    assert different == "the weight of identity for the generator in step 2: 0.75 / 0.5"
    pools = obstacle(schedule(steps=6, pool=3), schedule(steps=6, pool=0), 6)
    assert pools is not None
    assert re.fullmatch(r"the pool of ab: Pool \(.*\(3, 3, 64, 64\).*\) / None", pools)


def test_a_checkpoint_of_other_rates_is_not_of_this_run(home: Path, tmp_path: Path) -> None:
    """Its spec differs in the number of steps alone, and its last steps were others."""
    runs = {}
    for steps in (4, 6):
        runs[steps] = tmp_path / str(steps)
        ganlab.run(home / "spec.json", [f"schedule.steps={steps}", "schedule.decay_from=0.5"], out=runs[steps])
    shutil.rmtree(runs[6] / "checkpoints/step-000006")
    shutil.rmtree(runs[6] / "checkpoints/step-000004")
    shutil.copytree(runs[4] / "checkpoints/step-000004", runs[6] / "checkpoints/step-000004")
    with pytest.raises(ganlab.RunError, match=r"another spec saved it \(there / here\): schedule.steps: 4 / 6"):
        ganlab.run(runs[6])


def test_a_lengthened_run_that_is_killed_is_as_one_that_was_not(
    forker: Forker, home: Path, three: Path, tmp_path: Path
) -> None:
    words = ("run", str(home / "spec.json"), "--set", "schedule.steps=6", "--out", str(three))
    whole, counted = tmp_path / "whole", tmp_path / "marks.json"
    shutil.copytree(three, whole)
    assert forker.run(*words[:-1], str(whole), counted=str(counted)).code == 0
    marks = json.loads(counted.read_text())
    assert len(marks) == 3
    at = moments().randrange(marks[0] // 2, marks[-1])
    done = forker.run(*words, at=[signal.SIGKILL, at])
    assert done.code == -signal.SIGKILL, done.said
    assert forker.run(*words).code == 0
    assert networks(three, 6) == networks(whole, 6) == networks(home / "six", 6)
    assert without_measurements(three) == without_measurements(home / "six")


# -- the weights of another run ---------------------------------------------------------------------------------


def tuned(home: Path, three: Path, **init: Any) -> Json:
    """The spec with other data order and rate, which begins with the weights of `three`."""
    spec = json.loads((home / "spec.json").read_text())
    return merge(spec, {"seed": 7, "schedule": {"lr": 1e-30}, "init": {"run": str(three), **init}})  # type: ignore[no-any-return]


@pytest.mark.parametrize("which", ["last", "best"])
def test_a_run_begins_with_the_averaged_weights_of_another(home: Path, tmp_path: Path, which: str) -> None:
    source, out = home / "six", tmp_path / "run"
    best = json.loads((source / "evaluation.json").read_text())["protocol"]["best_by"]["step"]
    step = 6 if which == "last" else best
    # a rate at which nothing moves
    ganlab.run(merge(tuned(home, source, checkpoint=which), {"schedule": {"steps": 1}}), out=out)
    before, after = tensors(source, step), tensors(out, 1)
    assert before.keys() == after.keys()
    for name, weight in after.items():
        if "running" in name or "batches" in name:
            # statistics of batch norms move without a rate
            continue
        kind, _, rest = name.partition("/")
        expected = before[f"ema/{rest}" if kind == "generator" else name]
        torch.testing.assert_close(weight, expected, rtol=1e-6, atol=1e-12, msg=name)
    sha256 = hashlib.sha256((source / f"checkpoints/step-{step:06d}/networks.safetensors").read_bytes()).hexdigest()
    facts = json.loads((out / "environment.json").read_text())
    hashed = {"networks.safetensors": sha256}
    assert facts["init"] == {"run": str(source.resolve()), "step": step, "sha256": hashed}
    assert ganlab.load_run(out).spec.init.model_dump() == {"run": str(source), "checkpoint": which}


def test_without_averages_the_weights_are_those_that_were_trained(tiny: Json, tmp_path: Path) -> None:
    ganlab.run(tiny, ["schedule.steps=2"], out=tmp_path / "source")
    spec = merge(tiny, {"init": {"run": str(tmp_path / "source")}, "schedule": {"steps": 1, "lr": 1e-30}})
    ganlab.run(merge(spec, {"ema_halflife_images": 8}), out=tmp_path / "run")
    before, after = tensors(tmp_path / "source", 2), tensors(tmp_path / "run", 1)
    assert {name for name in after if name not in before} == {
        name.replace("generator/", "ema/") for name in before if name.startswith("generator/")
    }
    for name, weight in after.items():
        torch.testing.assert_close(weight, before[name.replace("ema/", "generator/")], rtol=1e-6, atol=1e-12)


def test_a_tuned_run_that_stops_and_resumes_is_one_that_never_stopped(home: Path, three: Path, tmp_path: Path) -> None:
    spec = merge(tuned(home, three), {"schedule": {"lr": 0.01}})
    ganlab.run(spec, out=tmp_path / "whole")
    with pytest.raises(Interrupted):
        ganlab.run(spec, out=tmp_path / "stopped", callback=Recording(2, interrupt))
    # what it began with is not needed any more
    shutil.rmtree(three)
    ganlab.run(spec, out=tmp_path / "stopped")
    assert networks(tmp_path / "stopped", 6) == networks(tmp_path / "whole", 6)
    assert networks(tmp_path / "whole", 6) != networks(home / "six", 6)
    facts = [json.loads((tmp_path / name / "environment.json").read_text()) for name in ("stopped", "whole")]
    assert facts[0]["init"] == facts[1]["init"]


def test_a_discriminator_that_is_new_begins_with_random_weights(home: Path, tmp_path: Path) -> None:
    new = {"discriminators": {"embedding": {"type": "embedding", "width": 2, "layers": 1}}}
    spec = merge(tuned(home, home / "three"), {**new, "losses": {"embedding": {"type": "embedding_lsgan"}}})
    callback = Recording()
    ganlab.run(merge(spec, {"schedule": {"steps": 1}}), out=tmp_path / "run", callback=callback)
    said = f"{home / 'three'} has no discriminator/embedding, which begins with random weights"
    assert [sentence for sentence in callback.warned if "random weights" in sentence] == [said]


WRONG: list[tuple[Json, str]] = [
    ({"init": {"run": "nowhere"}}, r"init.run: .*/nowhere is not a run: it has no spec.json"),
    ({"init": {"run": ""}}, r"init.run: "),
    ({"init": {"checkpoint": "first"}}, r"init.checkpoint: \"first\" is not allowed"),
    ({"generator": {"width": 6}}, r"init.run: .*networks.safetensors can't be read: .*size mismatch"),
    ({"generator": {"blocks": 3}}, r"init.run: .*networks.safetensors can't be read: "),
    ({"runtime": {"precision": "float64"}}, r"init.run: .*expected torch.float64, got torch.float32"),
]


@pytest.mark.parametrize(("patch", "sentence"), WRONG)
def test_weights_that_do_not_fit_are_refused(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patch: Json, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = merge(tuned(home, home / "three"), patch)
    for call in (ganlab.run, ganlab.experiment.check):
        with pytest.raises(SpecError, match=sentence):
            call(spec)
    assert [path for path in tmp_path.rglob("*") if path.name not in ("runs", "tiny", ".lock", "spec.json")] == []


def test_a_run_does_not_begin_with_itself(home: Path, three: Path) -> None:
    before = state(three)
    with pytest.raises(SpecError, match=re.escape(f"init.run: {three} is the folder of this run; choose another")):
        ganlab.run(tuned(home, three), out=three, fresh=True)
    assert state(three) == before


def test_a_path_in_a_file_starts_at_the_file(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs/mine.json").write_text(
        json.dumps({"extends": str(home / "spec.json"), "init": {"run": "../elsewhere"}})
    )
    monkeypatch.chdir(tmp_path)
    assert Path(ganlab.load_spec("specs/mine.json").init.run or "").resolve() == tmp_path / "elsewhere"
    assert ganlab.load_spec("specs/mine.json", ["init.run=here"]).init.run == str(tmp_path / "here")
