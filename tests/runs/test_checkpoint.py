"""Checkpoints: their content, which of them are kept, and the errors for damaged ones."""

from __future__ import annotations

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
from torch import Tensor, nn

from ganlab.engine.trainer import Trainer
from ganlab.errors import RunError
from ganlab.runs import checkpoint

Make = Callable[..., Trainer]


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
    saved = checkpoint.save(tmp_path, 3, modules, {}, 2)
    stored = header(saved / "networks.safetensors")
    aliases = json.loads(stored.pop("__metadata__")["aliases"])
    assert aliases == {f"generator/ba.1.{name}": f"generator/ab.1.{name}" for name in ("weight", "bias")}
    assert {*stored, *aliases} == set(values(modules))
    assert not set(stored) & set(aliases)
    other = sharing(2)
    assert not same(values(other), values(modules))
    checkpoint.load_networks(saved, other)
    assert same(values(other), values(modules))
    assert other["generator/ab"][1] is other["generator/ba"][1]


def test_a_tied_weight_that_is_transposed_keeps_its_values(tmp_path: Path) -> None:
    def tied(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        encoder, decoder = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        decoder.weight = nn.Parameter(encoder.weight.detach().t())
        return nn.Sequential(encoder, decoder)

    one, other = tied(1), tied(2)
    saved = checkpoint.save(tmp_path, 1, {"tied": one}, {}, 1)
    checkpoint.load_networks(saved, {"tied": other})
    assert torch.equal(other[0].weight, one[0].weight)
    assert torch.equal(other[1].weight, one[0].weight.t())


def test_empty_tensors_are_no_aliases_of_each_other(tmp_path: Path) -> None:
    class Empty(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("one", torch.zeros(0, 2))
            self.register_buffer("other", torch.zeros(0, 2))

    saved = checkpoint.save(tmp_path, 1, {"empty": Empty()}, {}, 1)
    assert set(header(saved / "networks.safetensors")) == {"__metadata__", "empty.one", "empty.other"}
    checkpoint.load_networks(saved, {"empty": Empty()})


def test_the_same_networks_give_the_same_bytes(tmp_path: Path) -> None:
    files = [
        checkpoint.save(tmp_path / name, step, sharing(1), {}, 1) / "networks.safetensors"
        for name, step in (("one", 1), ("other", 2))
    ]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("keep", [1, 2, 3, 9])
def test_the_last_are_kept(tmp_path: Path, keep: int) -> None:
    taken = [4, 8, 12, 999_996, 1_000_000]
    for index, step in enumerate(taken, 1):
        checkpoint.save(tmp_path, step, sharing(1), {}, keep)
        assert checkpoint.steps(tmp_path) == taken[:index][-keep:]
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {f"step-{step:06d}" for step in taken[-keep:]}


def test_one_under_construction_is_not_taken_for_complete_and_is_cleared_away(tmp_path: Path) -> None:
    assert checkpoint.steps(tmp_path / "missing") == []
    done = checkpoint.save(tmp_path, 4, sharing(1), {}, 2)
    for name in (".step-000008", "step-8", "step-000008.old", "step-x00008"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "networks.safetensors").write_bytes((done / "networks.safetensors").read_bytes()[:100])
    assert checkpoint.steps(tmp_path) == [4]
    checkpoint.save(tmp_path, 6, sharing(1), {}, 2)
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

    checkpoint.save(tmp_path, 1, modules, {"done": 1}, 1)
    for step in range(2, 2000):
        calls = 0
        sys.setprofile(count)
        try:
            checkpoint.save(tmp_path, step, modules, {"done": step}, 1)
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
    saved = checkpoint.save(tmp_path, 4, sharing(1), {"done": 4, "values": torch.ones(1000)}, 2)
    damage(saved / name, how)
    with pytest.raises(RunError) as caught:
        checkpoint.load_networks(saved, sharing(1)) if name[0] == "n" else checkpoint.load_state(saved)
    told = str(caught.value)
    assert told.startswith(f"{saved / name} can't be read: ")
    assert "\n" not in told
    assert len(told.split("can't be read: ")[1]) > 5
    assert caught.value.exit_code == 1


def test_other_networks_are_refused_and_the_first_difference_is_named(tmp_path: Path) -> None:
    saved = checkpoint.save(tmp_path, 4, sharing(1), {}, 2)
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
    saved = checkpoint.save(tmp_path, 4, sharing(1), {"done": 4}, 2)
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
        checkpoint.save(tmp_path / "checkpoints", 4, sharing(1), {}, 2)
    assert str(caught.value) == f"step 4 can't be saved to {tmp_path / 'checkpoints'}: Not a directory"
    assert (tmp_path / "checkpoints").read_text() == "in the way"


def test_what_cannot_be_completed_leaves_nothing(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 4, sharing(1), {}, 2)
    (tmp_path / "step-000008").write_text("in the way")
    (tmp_path / "step-000008").rename(tmp_path / ".step-000008")
    with pytest.raises(RunError, match=r"step 8 can't be saved to .*: Not a directory"):
        checkpoint.save(tmp_path, 8, sharing(1), {}, 2)
    assert checkpoint.steps(tmp_path) == [4]


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
    return {"networks": {name: dict(m.state_dict()) for name, m in trainer.state.modules().items()}, **state}


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_shipped_system_resumes_as_if_never_stopped(tmp_path: Path, make_trainer: Make, name: str) -> None:
    never, first, second = (make_trainer(SYSTEMS[name]) for _ in range(3))
    with torch.random.fork_rng([]):
        for trainer in (never, first):
            torch.manual_seed(7)
            trainer.step()
            trainer.step()
        saved = checkpoint.save(tmp_path, 2, first.state.modules(), first.state.state_dict(), 1)
        torch.manual_seed(7)
        never.step()
        kept = whole(never)
        torch.manual_seed(8)
        checkpoint.load_networks(saved, second.state.modules())
        second.state.load_state_dict(checkpoint.load_state(saved))
        torch.manual_seed(7)
        second.step()
        torch.testing.assert_close(whole(second), kept, rtol=0, atol=0)
