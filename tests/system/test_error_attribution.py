"""An error inside a plugin is one sentence: it names the component, its owner, the direction, the step and shapes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor
from typer.testing import CliRunner

import ganlab
from ganlab import RunError, SpecError, Translation
from ganlab.cli.commands import app
from ganlab.components.registry import Registry, installed, registry
from ganlab.engine.summary import state_bytes
from ganlab.engine.trainer import Trainer
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from ganlab.spec.resolve import resolve
from ganlab.system.build import build
from helpers import faulty
from helpers.faulty import Late
from helpers.systems import TINY, RandomImages

Start = Callable[[Json], Trainer]

OWNER = "of plugin 'faulty' of unknown unknown"
SCORES = "losses.mine's generator term in direction ab at step 2: asks discriminator/image/b to score"
ASKED = "asked by loss 'lsgan' of plugin 'cyclegan' of ganlab 0.1.0"
IMAGES = "(4, 3, 16, 16)"
FIRST = ", ".join(f"t.{name} (2, 3, 16, 16)" for name in ("source", "target", "fake", "cycled"))
HELD = f"t.source {IMAGES}, t.target {IMAGES}, t.fake {IMAGES}, t.cycled {IMAGES}"
TWICE = (
    "Trying to backward through the graph a second time (or directly access saved tensors after they have already been"
    " freed). Saved intermediate values of the graph are freed when you call .backward() or autograd.grad(). Specify"
    " retain_graph=True if you need to backward through the graph a second tim"
)


@pytest.fixture(scope="module")
def start() -> Start:
    known = Registry([*installed(), EntryPoint("faulty", faulty.__name__, "ganlab")])
    assert known.broken == []

    def make(patch: Json) -> Trainer:
        spec = resolve(merge(merge(TINY, {"runtime": {"precision": "float64"}}), patch), registry=known)
        images = RandomImages(size=spec.data.size)
        return Trainer(build(spec, images.domains), images)

    return make


def train(trainer: Trainer) -> None:
    for _ in range(3):
        trainer.step()


def late(**options: Any) -> Json:
    return {"losses": {"mine": {"type": "late", **options}}}


def bad(how: str) -> Json:
    return {"schedule": {"type": "bad", "how": how}}


def shy(**options: Any) -> Json:
    return {"discriminators": {"image": {"type": "shy", "of": TINY["discriminators"]["image"], **options}}}


@pytest.mark.parametrize(
    ("patch", "sentence"),
    [
        (
            late(how="prepare"),
            "losses.mine's preparation in direction ab: mat1 and mat2 shapes cannot be multiplied (2x3 and 2x768) "
            f"(loss 'late' {OWNER}; t.source (2, 3, 16, 16), t.target (2, 3, 16, 16))",
        ),
        (
            late(at=1),
            "losses.mine's generator term in direction ab: The size of tensor a (5) must match the size of tensor b"
            " (16) at"
            f" non-singleton dimension 3 (loss 'late' {OWNER}; t.source (2, 3, 16, 16), t.target (2, 3, 16, 16), "
            "t.fake (2, 3, 16, 16), t.cycled (2, 3, 16, 16), fake (2, 3, 16, 16), weights (5,))",
        ),
        (
            late(how="encode", at=1),
            "losses.mine's generator term in direction ab: asks generator/ab to encode (2, 2, 16, 16), unlike the (N,"
            " 3, 16, 16) that it has encoded before: Given groups=1, weight of size [4, 3, 7, 7], expected input[2, 2,"
            f" 22, 22] to have 3 channels, but got 2 channels instead (loss 'late' {OWNER})",
        ),
        (
            late(how="missing", at=1),
            "losses.mine's generator term in direction ab: 'Patch' object has no attribute 'cam' "
            f"(loss 'late' {OWNER}; {FIRST}, fake (2, 3, 16, 16))",
        ),
        (
            late(how="tensor", at=1),
            "losses.mine's generator term in direction ab: KeyError: tensor of shape (4, 4) and type torch.float32 "
            f"(loss 'late' {OWNER}; {FIRST})",
        ),
        (
            late(how="printed", at=1),
            f"losses.mine's generator term in direction ab: odd: tensor(...), even (loss 'late' {OWNER}; {FIRST})",
        ),
        (
            late(how="name", at=1),
            "losses.mine's generator term in direction ab: asks for a discriminator on images named tensor of shape"
            f" (4, 4) and type float32; there is 'image' (loss 'late' {OWNER})",
        ),
        (
            late(how="labels", at=1),
            "losses.mine's generator term in direction ab: asks for labels of domain a, and its source has none "
            f"(loss 'late' {OWNER})",
        ),
        (
            shy(),
            "discriminators.image: can't score what is (3, 16, 16): mat1 and mat2 shapes cannot be multiplied (2x3 and"
            f" 7x7) (discriminator 'shy' {OWNER}; x (2, 3, 16, 16), pooled (2, 3))",
        ),
        (
            {"generator": {"type": "odd", "at": 1}},
            "generator: can't translate images of (3, 16, 16): The size of tensor a (16) must match the size of tensor"
            f" b (8) at non-singleton dimension 2 (generator 'odd' {OWNER}; images (2, 3, 16, 16), half (2, 3, 8, 16))",
        ),
        (
            bad("optimizer"),
            "schedule's optimizer of the generator: expected a torch.optim.Optimizer, got None "
            f"(schedule 'bad' {OWNER})",
        ),
        (
            # the loss takes gradients itself, through another plugin's function
            merge(shy(how="backward"), {"losses": {"penalty": {"type": "r1"}}}),
            "discriminators.image, in losses.penalty's discriminator term in direction ab: mat1 and mat2 shapes"
            " cannot be"
            f" multiplied (96x16 and 2x2) (discriminator 'shy' {OWNER}; gradient (2, 3, 16, 16); asked by loss 'r1' of"
            " plugin 'regularisers' of ganlab 0.1.0)",
        ),
        (bad("pool"), f"schedule's pool of direction ab: no room (schedule 'bad' {OWNER})"),
        (
            {"losses": {"mine": {"type": "forgetful"}}},
            f"losses.mine: loss 'forgetful' {OWNER}: Forgetful.__init__ doesn't call super().__init__()",
        ),
        (
            {"losses": {"mine": {"type": "early"}}},
            f"losses.mine: loss 'early' {OWNER}: Block.__init__ must call super().__init__() before it sets layers,"
            " parameters or buffers",
        ),
        (
            late(how="number", at=1),
            "losses.mine's generator term in direction ab: expected a scalar tensor, got float; return the tensor"
            f" itself, without .item() or float() (loss 'late' {OWNER})",
        ),
        (
            late(how="list", at=1),
            "losses.mine's generator term in direction ab: expected a scalar tensor, got list; add the terms up, or"
            f" return {{part: scalar}} (loss 'late' {OWNER})",
        ),
        (
            {"discriminators": {"image": {"type": "scales"}}},
            "discriminators.image: can't score what is (3, 16, 16): expected a tensor, got list of 2 tensors; resize"
            f" maps of several scales to one size and stack them as channels (discriminator 'scales' {OWNER}; output[0]"
            " (2, 3, 16, 16), output[1] (2, 3, 8, 8))",
        ),
        (
            {"discriminators": {"image": {"type": "hasty"}}},
            f"discriminators.image: discriminator 'hasty' {OWNER}: Hasty.__init__ doesn't call super().__init__()",
        ),
    ],
)
def test_before_training(start: Start, patch: Json, sentence: str) -> None:
    with pytest.raises(SpecError) as failed:
        start(patch)
    assert str(failed.value) == sentence


def test_an_optimizer_that_needs_more_than_gradients_is_named_in_a_check(start: Start) -> None:
    with pytest.raises(SpecError) as failed:
        state_bytes(start(bad("closure")))
    told = "schedule's optimizer of the generator: LBFGS.step() missing 1 required positional argument: 'closure'"
    assert str(failed.value) == f"{told} (schedule 'bad' {OWNER})"


@pytest.mark.parametrize(
    ("patch", "sentence"),
    [
        (
            late(),
            "losses.mine's generator term in direction ab at step 2: The size of tensor a (5) must match the size of"
            " tensor b"
            f" (16) at non-singleton dimension 3 (loss 'late' {OWNER}; {HELD}, fake {IMAGES}, "
            "weights (5,))",
        ),
        (
            late(how="no tensors"),
            f"losses.mine's generator term in direction ab at step 2: KeyError (loss 'late' {OWNER}; {HELD})",
        ),
        (
            late(how="long"),
            f"losses.mine's generator term in direction ab at step 2: {('long ' * 60)[:297]}..."
            f" (loss 'late' {OWNER}; {HELD})",
        ),
        (
            late(how="mute"),
            f"losses.mine's generator term in direction ab at step 2: Mute (loss 'late' {OWNER}; {HELD})",
        ),
        (
            late(how="assertion"),
            f"losses.mine's generator term in direction ab at step 2: AssertionError: no colours"
            f" (loss 'late' {OWNER}; {HELD})",
        ),
        (
            late(how="greedy"),
            f"the generator's gradients of adversarial+cycle+mine in direction ab+ba at step 2: {TWICE}... (loss"
            f" 'lsgan' of"
            " plugin 'cyclegan' of ganlab 0.1.0, loss 'cycle' of plugin 'cyclegan' of ganlab 0.1.0, loss 'late'"
            f" {OWNER})",
        ),
        (
            late(how="half"),
            f"{SCORES} (4, 2, 16, 16), unlike the (N, 3, 16, 16) that it has scored before: Given groups=1, weight of"
            " size [4, 3, 4, 4], expected input[4, 2, 16, 16] to have 3 channels, but got 2 channels instead"
            f" (loss 'late' {OWNER})",
        ),
        (
            late(how="single"),
            f"{SCORES} torch.float32 on cpu, unlike the torch.float64 on cpu that it has scored before: Input type"
            f" (float) and bias type (double) should be the same (loss 'late' {OWNER})",
        ),
        (
            late(how="alone"),
            f"{SCORES} (16, 16), unlike the (N, 3, 16, 16) that it has scored before: Expected 3D (unbatched) or 4D"
            f" (batched) input to conv2d, but got input of size: [16, 16] (loss 'late' {OWNER})",
        ),
        (
            merge(late(how="shallow"), {"discriminators": {"deep": {"type": "embedding"}}}),
            f"{SCORES.replace('image/b', 'deep')} (4, 4, 16, 16), unlike the (N, 16, 4, 4) that it has scored before:"
            " Given groups=1, weight of size [64, 16, 3, 3], expected input[4, 4, 16, 16] to have 16 channels, but got"
            f" 4 channels instead (loss 'late' {OWNER})",
        ),
        (
            late(how="vector"),
            "losses.mine's generator term in direction ab at step 2: expected a scalar tensor, got a tensor of shape"
            " (4,)"
            f" (loss 'late' {OWNER})",
        ),
        (
            late(how="whole"),
            "losses.mine's generator term in direction ab at step 2: expected a floating-point scalar, got torch.int64"
            f" (loss 'late' {OWNER})",
        ),
        (
            late(how="backward"),
            "losses.mine, in the generator's gradients of adversarial+cycle+mine in direction ab+ba at step 2: mat1"
            " and mat2"
            f" shapes cannot be multiplied (192x16 and 2x2) (loss 'late' {OWNER}; gradient {IMAGES})",
        ),
        (
            shy(at=9),
            "discriminators.image, in losses.adversarial's discriminator term in direction ab at step 2: mat1 and"
            " mat2 shapes"
            f" cannot be multiplied (4x3 and 7x7) (discriminator 'shy' {OWNER}; x {IMAGES}, pooled (4, 3); {ASKED})",
        ),
        (
            shy(how="tuple", at=9),
            "discriminators.image, in losses.adversarial's discriminator term in direction ab at step 2: expected a"
            " tensor, got tuple of 2 tensors; resize maps of several scales to one size and stack them as channels"
            f" (discriminator 'shy' {OWNER}; output[0] {IMAGES}, output[1] {IMAGES}; {ASKED})",
        ),
        (
            # a size that the discriminator has scored before
            merge(late(how="small", at=1), shy(how="small", at=3)),
            "discriminators.image, in losses.mine's generator term in direction ab at step 2: mat1 and mat2 shapes"
            " cannot be"
            f" multiplied (4x3 and 7x7) (discriminator 'shy' {OWNER}; x (4, 3, 8, 8), pooled (4, 3); asked by loss"
            f" 'late' {OWNER})",
        ),
        (
            shy(how="after_update", at=2),
            f"discriminators.image's after_update at step 2: enough of this (discriminator 'shy' {OWNER})",
        ),
        (
            {"generator": {"type": "odd", "at": 7}},
            "generator, in losses.adversarial's generator term in direction ab at step 2: The size of tensor a (16)"
            " must"
            f" match the size of tensor b (8) at non-singleton dimension 2 (generator 'odd' {OWNER}; "
            f"images {IMAGES}, half (4, 3, 8, 16); {ASKED})",
        ),
        (bad("turns"), f"schedule's turns at step 2: 'NoneType' object is not iterable (schedule 'bad' {OWNER})"),
        (
            bad("no turn"),
            f"schedule's turns at step 2: expected a Turn, got ('generator', ('ab',)) (schedule 'bad' {OWNER})",
        ),
        (
            bad("unknown"),
            "schedule's turns at step 2: expected directions of ab, ba, got Turn(player='generator',"
            " directions=('ab', 'ac'),"
            f" moves=None, losses=None, new_batch=False, sees=None) (schedule 'bad' {OWNER})",
        ),
        (
            bad("rate"),
            "schedule's learning rate of the discriminator at step 2: expected a number, got 'fast' "
            f"(schedule 'bad' {OWNER})",
        ),
        (
            bad("endless"),
            "schedule's learning rate of the discriminator at step 2: expected a finite number, got inf "
            f"(schedule 'bad' {OWNER})",
        ),
        (
            bad("weight"),
            "schedule's weight of adversarial for the discriminator at step 2: expected a number, got None "
            f"(schedule 'bad' {OWNER})",
        ),
        (
            bad("nan"),
            "schedule's weight of adversarial for the discriminator at step 2: expected a finite number, got nan "
            f"(schedule 'bad' {OWNER})",
        ),
        (
            bad("shrunk"),
            "schedule, in losses.adversarial's discriminator term in direction ab at step 1: its pool returns"
            f" (2, 3, 16, 16) for fakes {IMAGES} (schedule 'bad' {OWNER}; {ASKED})",
        ),
        (
            bad("spoilt"),
            "schedule, in losses.adversarial's discriminator term in direction ab at step 1: its pool changes the fakes"
            f" in place (schedule 'bad' {OWNER}; {ASKED})",
        ),
        (
            # the same plugin's loss has nothing to do with it
            merge(bad("step"), late(at=100)),
            f"schedule's optimizer of the discriminator at step 1: it sticks (schedule 'bad' {OWNER})",
        ),
        (bad("step"), f"schedule's optimizer of the discriminator at step 1: it sticks (schedule 'bad' {OWNER})"),
        (
            bad("pooled"),
            "schedule, in losses.adversarial's discriminator term in direction ab at step 1: mat1 and mat2 shapes"
            " cannot be"
            f" multiplied (192x16 and 4x2) (schedule 'bad' {OWNER}; fakes {IMAGES}, draws (4, 2); {ASKED})",
        ),
    ],
)
def test_during_training(start: Start, patch: Json, sentence: str) -> None:
    with pytest.raises(RunError) as failed:
        train(start(patch))
    assert str(failed.value) == sentence
    assert failed.value.__cause__ is not None


def test_a_nested_component_is_named_by_its_place(start: Start) -> None:
    classes = {"adversarial": {"type": "acgan_source", "of": {"type": "late"}}}
    with pytest.raises(RunError) as failed:
        train(start({"losses": classes}))
    place = "losses.adversarial.of, in losses.adversarial's generator term in direction ab at step 2: "
    assert str(failed.value).startswith(place)
    shapes = f"t.source {IMAGES}, t.target {IMAGES}, t.fake {IMAGES}, fake {IMAGES}, weights (5,)"
    asked = "asked by loss 'acgan_source' of plugin 'acgan' of ganlab 0.1.0"
    assert str(failed.value).endswith(f" (loss 'late' {OWNER}; {shapes}; {asked})")


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_what_stops_a_process_is_no_ones_fault(start: Start, stop: type[BaseException], monkeypatch: Any) -> None:
    trainer = start(late(at=100))

    def stopped(self: Late, t: Translation) -> Tensor:
        raise stop

    monkeypatch.setattr(Late, "generator", stopped)
    with pytest.raises(stop):
        trainer.step()


@pytest.mark.parametrize("averaged", [True, False])
@pytest.mark.parametrize(
    ("patch", "doing"),
    [
        ({"samples": {"every": 1}}, "the samples at step 1"),
        ({"evaluation": {"metrics": ["content"], "every": 2}, "data": {"holdout": 0.5}}, "the evaluation at step 2"),
        (
            {
                "evaluation": {"metrics": ["content"], "every": None},
                "data": {"holdout": 0.5},
                "samples": {"every": 100},
                "generator": {"calls": 4},
            },
            "the evaluation at step 6",
        ),
    ],
)
def test_a_network_that_fails_outside_of_training(
    tiny: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patch: Json, doing: str, averaged: bool
) -> None:
    install(tmp_path, "faulty", faulty.__name__)
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.cache_clear()
    generator = {"generator": {"type": "odd", "shy": True}, "ema_halflife_images": 10 if averaged else None}
    # the same plugin's loss has nothing to do with it
    spec = merge(merge(tiny, generator), late(at=1000))
    try:
        with pytest.raises(RunError) as failed:
            ganlab.run(merge(spec, patch), out=tmp_path / "run")
    finally:
        registry.cache_clear()
    whose = "(generator 'odd' of plugin 'faulty' of ganlab-faulty 0.3; embedding ("
    assert str(failed.value).startswith(f"generator, in {doing}: KeyError: 'nothing' {whose}")


def install(folder: Path, name: str, module: str) -> None:
    """Writes the metadata that pip would write, with the entry point."""
    info = folder / f"ganlab_{name}-0.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: ganlab-{name}\nVersion: 0.3\n")
    (info / "entry_points.txt").write_text(f"[ganlab]\n{name} = {module}\n")


@pytest.fixture
def writes(tiny: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Writes and installs a plugin with a loss, and writes a spec.json with the loss, in the working directory."""

    def write(generator: str) -> None:
        (tmp_path / "mine.py").write_text(
            "from pathlib import Path\nimport ganlab\n"
            "class Mine(ganlab.Loss):\n"
            "    calls = 0\n"
            "    def generator(self, t):\n"
            f"{generator}"
            "@ganlab.hookimpl\n"
            "def ganlab_losses():\n"
            "    return {'mine': Mine}\n"
        )
        install(tmp_path, "mine", "mine")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.chdir(tmp_path)
        (tmp_path / "spec.json").write_text(json.dumps(merge(tiny, {"losses": {"mine": {"type": "mine"}}})))
        registry.cache_clear()

    yield write
    registry.cache_clear()
    sys.modules.pop("mine", None)


def test_a_term_that_nothing_learns_from_is_a_warning(writes: Callable[[str], None]) -> None:
    writes("        return 0 * t.score(t.fake).mean().detach() + 0.25\n")
    said = (
        "warning: losses.mine: its generator terms are ab 0.25, ba 0.25 and have no gradient: while that is so, no"
        " generator learns from them (loss 'mine' of plugin 'mine' of ganlab-mine 0.3)"
    )
    for words in (["check", "spec.json", "--json"], ["run", "spec.json"]):
        done = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
        assert done.exit_code == 0, done.output
        assert done.stderr.splitlines().count(said) == 1
    assert ganlab.load_run("runs/tiny").finished


def test_a_run_resumes_when_the_plugin_is_mended(writes: Callable[[str], None]) -> None:
    """The command line resumes the run."""
    writes(
        "        self.calls += 1\n"
        "        if Path('broken').exists() and self.calls > 7:\n"
        "            raise ValueError('half done')\n"
        "        return t.fake.mean()\n"
    )
    Path("broken").touch()
    done = CliRunner().invoke(app, ["run", "spec.json"])
    assert done.exit_code == 1
    told = "ganlab: losses.mine's generator term in direction ba at step 3: half done "
    assert done.stderr.splitlines()[-1].startswith(f"{told}(loss 'mine' of plugin 'mine' of ganlab-mine 0.3; t.source")
    assert "Traceback" not in done.output
    assert [path.name for path in Path("runs/tiny/checkpoints").iterdir()] == ["step-000002"]
    shown = CliRunner().invoke(app, ["--debug", "run", "spec.json", "--fresh"])
    assert "ValueError: half done" in shown.stderr
    Path("broken").unlink()
    done = CliRunner().invoke(app, ["run", "spec.json"])
    assert done.exit_code == 0, done.output
    assert "resumes after step 2" in done.output
    assert ganlab.load_run("runs/tiny").finished
