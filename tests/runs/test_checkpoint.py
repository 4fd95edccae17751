"""Checkpoints: their content, which of them are kept, and the errors for damaged ones."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from ganlab_cyclegan.schedules import Alternating
from torch import Tensor, nn

from ganlab.engine.state import TrainingState
from ganlab.engine.trainer import Trainer
from ganlab.errors import RunError
from ganlab.runs import checkpoint
from ganlab.runs.models import Origin
from ganlab.spec.models import Json

Make = Callable[..., Trainer]
ORIGIN: Origin = {"spec": {"seed": 0}, "data": {"a": {"images": 12, "sha256": "0"}}, "weights": {}}


def save(folder: Path, step: int, modules: dict[str, nn.Module], state: dict[str, Any], keep: int) -> Path:
    return checkpoint.save(folder, step, modules, state, ORIGIN, keep)


def header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file, read as the format defines it."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    found: dict[str, Any] = json.loads(content[8 : 8 + length])
    return found


def sharing(seed: int) -> dict[str, nn.Module]:
    """Two networks that share a layer; each has a layer and a batch norm of its own."""
    torch.manual_seed(seed)
    shared = nn.Conv2d(4, 4, 3)
    return {
        name: nn.Sequential(nn.Conv2d(3, 4, 3), shared, nn.BatchNorm2d(4)) for name in ("generator/ab", "generator/ba")
    }


def values(modules: dict[str, nn.Module]) -> dict[str, Tensor]:
    return {f"{n}.{k}": v.clone() for n, module in modules.items() for k, v in module.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_shared_layer_is_stored_once_and_restored_in_both(tmp_path: Path) -> None:
    modules = sharing(1)
    saved = save(tmp_path, 3, modules, {}, 2)
    stored = header(saved / "networks.safetensors")
    described = json.loads(stored.pop("__metadata__")["ganlab"])
    aliases = described["aliases"]
    assert described["samples"] == {"ab": "generator/ab", "ba": "generator/ba"}
    assert aliases == {f"generator/ba.1.{name}": f"generator/ab.1.{name}" for name in ("weight", "bias")}
    assert {*stored, *aliases} == set(values(modules))
    assert not set(stored) & set(aliases)
    other = sharing(2)
    assert not same(values(other), values(modules))
    checkpoint.load_networks(saved, other)
    assert same(values(other), values(modules))
    assert other["generator/ab"][1] is other["generator/ba"][1]
    # whoever may read one file of a checkpoint may read all
    assert len({path.stat().st_mode for path in saved.iterdir()}) == 1


def test_a_tied_weight_that_is_transposed_keeps_its_values(tmp_path: Path) -> None:
    def tied(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        encoder, decoder = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        decoder.weight = nn.Parameter(encoder.weight.detach().t())
        return nn.Sequential(encoder, decoder)

    one, other = tied(1), tied(2)
    saved = save(tmp_path, 1, {"tied": one}, {}, 1)
    checkpoint.load_networks(saved, {"tied": other})
    assert torch.equal(other[0].weight, one[0].weight)
    assert torch.equal(other[1].weight, one[0].weight.t())


def test_empty_tensors_are_no_aliases_of_each_other(tmp_path: Path) -> None:
    class Empty(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("one", torch.zeros(0, 2))
            self.register_buffer("other", torch.zeros(0, 2))

    saved = save(tmp_path, 1, {"empty": Empty()}, {}, 1)
    assert set(header(saved / "networks.safetensors")) == {"__metadata__", "empty.one", "empty.other"}
    checkpoint.load_networks(saved, {"empty": Empty()})


def test_the_same_networks_give_the_same_bytes(tmp_path: Path) -> None:
    files = [
        save(tmp_path / name, step, sharing(1), {}, 1) / "networks.safetensors"
        for name, step in (("one", 1), ("other", 2))
    ]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("keep", [1, 2, 3, 9])
def test_the_last_are_kept(tmp_path: Path, keep: int) -> None:
    taken = [4, 8, 12, 999_996, 1_000_000]
    for index, step in enumerate(taken, 1):
        save(tmp_path, step, sharing(1), {}, keep)
        assert checkpoint.steps(tmp_path) == taken[:index][-keep:]
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {f"step-{step:06d}" for step in taken[-keep:]}


def test_one_under_construction_is_not_taken_for_complete_and_is_cleared_away(tmp_path: Path) -> None:
    assert checkpoint.steps(tmp_path / "missing") == []
    done = save(tmp_path, 4, sharing(1), {}, 2)
    for name in (".step-000008", "step-8", "step-000008.old", "step-x00008"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "networks.safetensors").write_bytes((done / "networks.safetensors").read_bytes()[:100])
    assert checkpoint.steps(tmp_path) == [4]
    save(tmp_path, 6, sharing(1), {}, 2)
    assert checkpoint.steps(tmp_path) == [4, 6]
    assert not (tmp_path / ".step-000008").exists()
    # folders with other names are not ganlab's and stay
    assert (tmp_path / "step-8").exists()


class Stop(BaseException):
    """Acts like a kill: no code catches it."""


def test_saving_can_be_stopped_anywhere_and_what_is_listed_can_be_read(tmp_path: Path) -> None:
    modules, at, stops = sharing(1), 1, 0

    def count(frame: FrameType, event: str, arg: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")
        if calls == at:
            raise Stop

    save(tmp_path, 1, modules, {"done": 1}, 1)
    for step in range(2, 2000):
        calls = 0
        sys.setprofile(count)
        try:
            save(tmp_path, step, modules, {"done": step}, 1)
            break
        except Stop:
            stops += 1
        finally:
            sys.setprofile(None)
        found = checkpoint.steps(tmp_path)
        assert found
        for listed in found:
            place = checkpoint.path_of(tmp_path, listed)
            checkpoint.load_networks(place, sharing(2))
            assert checkpoint.load_state(place) == {"done": listed}
        at += 17
    assert stops > 20
    assert [path.name for path in tmp_path.iterdir()] == [f"step-{step:06d}"]


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "a folder":
        path.unlink()
        path.mkdir()
    elif how == "noise":
        path.write_bytes(bytes(range(256)) * 8)
    else:
        path.write_bytes(content[: int(len(content) * float(how))])


@pytest.mark.parametrize("how", ["missing", "a folder", "noise", "0", "0.02", "0.5", "0.999"])
@pytest.mark.parametrize("name", ["networks.safetensors", "state.pt"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, how: str) -> None:
    saved = save(tmp_path, 4, sharing(1), {"done": 4, "values": torch.ones(1000)}, 2)
    damage(saved / name, how)
    with pytest.raises(RunError) as caught:
        checkpoint.load_networks(saved, sharing(1)) if name[0] == "n" else checkpoint.load_state(saved)
    told = str(caught.value)
    assert told.startswith(f"{saved / name} can't be read: ")
    assert "\n" not in told
    assert len(told.split("can't be read: ")[1]) > 5
    assert caught.value.exit_code == 1


def test_other_networks_are_refused_and_the_first_difference_is_named(tmp_path: Path) -> None:
    saved = save(tmp_path, 4, sharing(1), {}, 2)
    lacking = {"generator/ab": nn.Sequential(nn.Conv2d(3, 4, 3))}
    with pytest.raises(RunError, match=r"networks.safetensors can't be read: .*1\.weight"):
        checkpoint.load_networks(saved, lacking)
    larger = {"generator/ab": nn.Sequential(nn.Conv2d(3, 5, 3), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))}
    with pytest.raises(RunError, match=r"networks.safetensors can't be read: .*0\.weight"):
        checkpoint.load_networks(saved, larger)


class Malicious:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.path),)


@pytest.mark.parametrize("write", [torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing))])
def test_nobodys_code_is_run(tmp_path: Path, write: Callable[[Any, Path], Any]) -> None:
    saved = save(tmp_path, 4, sharing(1), {"done": 4}, 2)
    trace = tmp_path / "trace"
    write({"done": Malicious(str(trace))}, saved / "state.pt")
    # an unsafe load runs the code
    with suppress(RuntimeError):
        torch.load(saved / "state.pt", weights_only=False)
    assert trace.exists()
    trace.unlink()
    with pytest.raises(RunError, match=r"state\.pt can't be read"):
        checkpoint.load_state(saved)
    assert not trace.exists()


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(RunError) as caught:
        save(tmp_path / "checkpoints", 4, sharing(1), {}, 2)
    assert str(caught.value) == f"step 4 can't be saved to {tmp_path / 'checkpoints'}: File exists"
    assert (tmp_path / "checkpoints").read_text() == "in the way"


def test_what_cannot_be_completed_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 4, sharing(1), {}, 2)
    (tmp_path / ".step-000006").symlink_to(tmp_path / "step-000004")
    monkeypatch.setattr(checkpoint, "_save_state", lambda path, state: path.mkdir())
    with pytest.raises(RunError, match=r"step 8 can't be saved to .*: it is not a regular file"):
        save(tmp_path, 8, sharing(1), {}, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000004"]


SYSTEMS: dict[str, dict[str, Any]] = {
    "cyclegan": {
        "schedule": {"pool": 3, "decay_from": 0.5},
        "losses": {"identity": {"type": "identity"}},
        "ema_halflife_images": 8,
    },
    "face2comic": {
        "generator": {"type": "large_kernel", "width": 4, "blocks": 2, "kernel": 5},
        "discriminators": {"embedding": {"type": "embedding", "width": 2}},
        "losses": {"adversarial": {"type": "noisy_lsgan"}, "embedding": {"type": "embedding_lsgan"}},
        "schedule": {"type": "alternating"},
    },
    "wgan": {
        "discriminators": {"image": {"type": "critic", "of": {"type": "patch", "width": 2, "layers": 1}}},
        "losses": {"adversarial": {"type": "wasserstein"}, "penalty": {"type": "gradient_penalty"}},
        "schedule": {"type": "wgan", "steps": 6, "critic_updates": 2},
    },
    "batch norms": {"generator": {"norm": "batch"}, "discriminators": {"image": {"norm": "batch"}}},
}


def whole(trainer: Trainer) -> dict[str, Any]:
    """Returns the whole state of a trainer except the seconds."""
    state = {k: v for k, v in trainer.state.state_dict().items() if k != "seconds"}
    for optimizer in state["optimizers"].values():
        for group in optimizer["param_groups"]:
            # assert_close compares no strings
            del group["param_names"]
    return {"networks": {name: dict(m.state_dict()) for name, m in trainer.state.modules().items()}, **state}


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_shipped_system_resumes_as_if_never_stopped(tmp_path: Path, make_trainer: Make, name: str) -> None:
    never, first, second = (make_trainer(SYSTEMS[name]) for _ in range(3))
    with torch.random.fork_rng([]):
        for trainer in (never, first):
            torch.manual_seed(7)
            trainer.step()
            trainer.step()
        saved = save(tmp_path, 2, first.state.modules(), first.state.state_dict(), 1)
        torch.manual_seed(7)
        never.step()
        kept = whole(never)
        torch.manual_seed(8)
        checkpoint.load_networks(saved, second.state.modules())
        second.state.load_state_dict(checkpoint.load_state(saved))
        torch.manual_seed(7)
        second.step()
        torch.testing.assert_close(whole(second), kept, rtol=0, atol=0)


# -- what is no checkpoint of the run -----------------------------------------------------------------------------


def test_a_manifest_vouches_for_both_files(tmp_path: Path) -> None:
    saved = save(tmp_path, 4, sharing(1), {"done": 4}, 2)
    manifest = checkpoint.verify(tmp_path, 4, {"seed": 0, "option": "new"}, 6)
    assert {name: manifest[name] for name in ORIGIN} == ORIGIN  # type: ignore[literal-required]
    assert manifest["step"] == 4
    for name, kept in manifest["files"].items():
        content = (saved / name).read_bytes()
        assert kept == {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def expect_refusal(folder: Path, step: int, told: str, spec: Json = ORIGIN["spec"], steps: int = 6) -> None:
    with pytest.raises(RunError, match=told) as caught:
        checkpoint.verify(folder, step, spec, steps)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.startswith(f"{checkpoint.path_of(folder, step)}/")
    assert sentence.endswith("to resume from the checkpoint before it, or start over with --fresh")


def test_a_checkpoint_of_another_run_or_step_is_refused(tmp_path: Path) -> None:
    saved = save(tmp_path, 4, sharing(1), {"done": 4}, 2)
    for spec, told in (({"seed": 1}, "seed: 0 / 1"), ({}, "seed: 0 / absent")):
        expect_refusal(tmp_path, 4, rf"manifest\.json can't be used: another spec saved it .*: {told}", spec=spec)
    expect_refusal(tmp_path, 4, r"manifest\.json can't be used: the run ends at step 3", steps=3)
    saved.rename(tmp_path / "step-000005")
    expect_refusal(tmp_path, 5, r"manifest\.json can't be used: it is the manifest of step 4")
    expect_refusal(tmp_path, 6, r"manifest\.json can't be used: No such file or directory")


@pytest.mark.parametrize("name", [checkpoint.NETWORKS, checkpoint.STATE])
def test_every_flipped_bit_is_found(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, 4, sharing(1), {"done": 4}, 2) / name
    whole = path.read_bytes()
    for at in range(0, len(whole), max(len(whole) // 25, 1)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 64]) + whole[at + 1 :])
        expect_refusal(tmp_path, 4, f"{name} can't be used: its content is not what was saved")
    for damaged in (whole[:-1], whole + b"x", b""):
        path.write_bytes(damaged)
        expect_refusal(tmp_path, 4, f"{name} can't be used: its content is not what was saved")
    path.unlink()
    expect_refusal(tmp_path, 4, f"{name} can't be used: No such file or directory")


@pytest.mark.parametrize(
    ("manifest", "told"),
    [
        ("", "Expecting value"),
        ("[]", "dictionary"),
        ("{}", "spec: Field required"),
        ('{"step": "4", "spec": {}, "data": {}, "weights": {}, "files": {}}', "step: Input should be"),
        ('{"step": 4, "spec": {}, "data": {}, "weights": {}, "files": []}', "files: Input should be"),
    ],
)
def test_a_damaged_manifest_is_one_sentence(tmp_path: Path, manifest: str, told: str) -> None:
    saved = save(tmp_path, 4, sharing(1), {"done": 4}, 2)
    (saved / "manifest.json").write_text(manifest)
    expect_refusal(tmp_path, 4, told)
    (saved / "manifest.json").write_text('{"step": 4, "spec": {}, "data": {}, "weights": {}, "files": {}}')
    expect_refusal(tmp_path, 4, "its content is not what was saved")


def test_weights_of_another_type_or_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    saved = save(tmp_path, 1, {"net": nn.Linear(2, 2).half()}, {}, 2)
    with pytest.raises(RunError, match=r"can't be read: .*expected torch\.float32, got torch\.float16"):
        checkpoint.load_networks(saved, {"net": nn.Linear(2, 2)})
    spoilt = nn.Linear(2, 2)
    with torch.no_grad():
        spoilt.bias[1] = torch.nan
    saved = save(tmp_path, 2, {"net": spoilt}, {}, 2)
    with pytest.raises(RunError, match="can't be read: weights of net are not finite"):
        checkpoint.load_networks(saved, {"net": nn.Linear(2, 2)})


def first_moment(change: Callable[[Tensor], Any], name: str = "exp_avg") -> Callable[[Any], None]:
    def forge(state: Any) -> None:
        moments = state["optimizers"]["generator"]["state"][0]
        moments[name] = change(moments[name])

    return forge


def setting(name: str, value: Any) -> Callable[[Any], None]:
    return lambda state: state["optimizers"]["generator"]["param_groups"][0].update({name: value})


def replaced(name: str, value: Any) -> Callable[[Any], None]:
    return lambda state: state.update({name: value})


class Unnamed(Alternating):
    """Gives its optimizers parameters without names, in an order of its own."""

    backwards = False

    def optimizer(self, player: str, parameters: list[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
        plain = [parameter for _, parameter in parameters]
        return torch.optim.Adam(plain[::-1] if self.backwards else plain)


def test_parameters_in_another_order_are_refused(make_trainer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """An author may edit a schedule between the processes of a run."""

    def trainer() -> Any:
        made = make_trainer(SYSTEMS["face2comic"])
        made.schedule.__class__ = Unnamed
        return TrainingState(made.system, made.batches)

    state = trainer().state_dict()
    trainer().load_state_dict(copy.deepcopy(state))
    monkeypatch.setattr(Unnamed, "backwards", True)
    told = "optimizers.generator: the parameters have another order: 'generator/ab.encoder"
    with torch.random.fork_rng([]), pytest.raises(ValueError, match=told):
        trainer().load_state_dict(state)


@pytest.mark.parametrize(
    ("forge", "told"),
    [
        (first_moment(lambda m: torch.zeros(3)), "exp_avg of parameter 0: expected float64"),
        (first_moment(lambda m: torch.zeros((), dtype=m.dtype)), "exp_avg of parameter 0"),
        (first_moment(lambda m: torch.zeros(1, dtype=m.dtype).expand(m.shape)), "exp_avg of parameter 0"),
        (first_moment(lambda m: m.transpose(0, 1).contiguous().transpose(0, 1)), "exp_avg of parameter 0"),
        (first_moment(lambda m: m.float()), "got float32"),
        (first_moment(lambda m: m.to_sparse()), "strides"),
        (first_moment(lambda m: m.to("meta")), "meta"),
        (first_moment(lambda m: None), "got NoneType"),
        (first_moment(lambda m: m.repeat(3), "step"), "step of parameter 0"),
        (first_moment(lambda m: m.long(), "step"), "step of parameter 0"),
        (lambda state: state["optimizers"]["generator"]["state"].update({0: 3}), "the state of parameter 0"),
        (setting("params", [0, 0]), "its parameters are others"),
        (setting("fused", False), "fused: False does not fit True"),
        (setting("amsgrad", True), "amsgrad: True does not fit False"),
        (setting("betas", ("x", 0.9)), "betas"),
        (setting("lr", None), "lr: None does not fit"),
        (replaced("optimizers", {"generator": 3}), "optimizers.generator"),
        (replaced("step", None), "step"),
        (replaced("step", True), "step"),
        (replaced("step", -1), "step"),
        (replaced("draws", "x"), "draws"),
        (replaced("seconds", float("nan")), "seconds"),
        (replaced("losses", torch.ones(2)), "losses"),
        (replaced("pools", {"ab": {}}), "Missing key"),
        (replaced("random", torch.zeros(3, dtype=torch.uint8)), "RNG state size"),
        (replaced("random", "x"), "random"),
        (lambda state: state["pools"]["ab"].update(images=state["pools"]["ab"]["images"].float()), "images"),
    ],
)
def test_a_forged_state_is_refused_before_it_is_loaded(
    make_trainer: Make, forge: Callable[[Any], None], told: str
) -> None:
    trainer = _stepped(make_trainer)
    state = copy.deepcopy(trainer.state.state_dict())
    trainer.state.load_state_dict(state)
    forge(state)
    with torch.random.fork_rng([]), pytest.raises(Exception, match=told) as caught:
        trainer.state.load_state_dict(state)
    assert not isinstance(caught.value, AssertionError)


_TRAINERS: list[Trainer] = []


def _stepped(make_trainer: Make) -> Trainer:
    """One trainer for all forged states, since none of them changes it."""
    if not _TRAINERS:
        _TRAINERS.append(make_trainer({"schedule": {"pool": 3}}))
        _TRAINERS[0].step()
    return _TRAINERS[0]
