"""A step that does not fit into the memory: a real allocation fails, and a sentence says what would fit."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

import ganlab
from ganlab.engine.memory import explaining_memory_of_two, parts_that_fit
from ganlab.errors import SpecError
from ganlab.spec.files import merge
from ganlab.spec.models import Json, Runtime
from helpers.processes import Forker

LIMITED = """
import resource, sys
from pathlib import Path
import ganlab

class Limit(ganlab.Callback):
    def begin(self, start):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**23, -1))

try:
    ganlab.run(sys.argv[1], ["schedule.steps=4"], sys.argv[2], callbacks=[Limit()])
except ganlab.RunError as error:
    print(type(error).__name__, error)
"""

LIMITED_FROM_THE_START = """
import resource, sys
from pathlib import Path
import ganlab

pages = int(Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**25, -1))
try:
    ganlab.run(sys.argv[1], ["schedule.steps=1"], sys.argv[2])
except ganlab.SpecError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not tell a process its size")
def test_a_step_without_memory_names_parts_that_fit_and_loses_nothing(
    forker: Forker, tiny: Json, tmp_path: Path
) -> None:
    spec, script = tmp_path / "large.json", tmp_path / "limited.py"
    spec.write_text(json.dumps(merge(tiny, {"data": {"batch": 64, "size": 32}, "schedule": {"steps": 2}})))
    script.write_text(LIMITED)
    run = ganlab.run(spec, out=tmp_path / "run")
    assert run.step == 2
    job = {"python": True, "errors": str(forker.errors)}
    done = forker.run(str(script), str(spec), str(run.folder), **job)
    assert done.code == 0, done.errors
    expected = (
        r"OutOfMemory out of memory at step 3: data\.batch 64 keeps about (\d+) MiB of activations at a time; --set"
        r" runtime\.accumulate=2 makes the same update in 2 parts, with about (\d+) MiB; --set"
        r" runtime\.checkpoint_activations=true keeps fewer activations and takes more time; the newest checkpoint is"
        r" that of step 2\n"
    )
    found = re.fullmatch(expected, done.said)
    assert found is not None, done
    whole, part = map(int, found.groups())
    assert 8 < whole == pytest.approx(2 * part, abs=2)
    assert json.loads((run.folder / "failed.json").read_text())["why"] in done.said
    # what is saved is trained further, and gives the bytes of a run that never failed
    again = ganlab.run(spec, ["schedule.steps=4"], run.folder)
    other = ganlab.run(spec, ["schedule.steps=4"], tmp_path / "other")
    one, two = (each.folder / "checkpoints" / "step-000004" / "networks.safetensors" for each in (again, other))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not tell a process its size")
@pytest.mark.parametrize(("size", "width"), [(16, 256), (256, 8)])
def test_networks_that_do_not_fit_are_refused_in_one_sentence(
    forker: Forker, tiny: Json, tmp_path: Path, size: int, width: int
) -> None:
    """The weights do not fit, or what autograd keeps of two images."""
    spec, script = tmp_path / "large.json", tmp_path / "limited.py"
    spec.write_text(json.dumps(merge(tiny, {"data": {"size": size}, "generator": {"width": width}})))
    script.write_text(LIMITED_FROM_THE_START)
    done = forker.run(str(script), str(spec), str(tmp_path / "run"), python=True)
    assert done.said == (
        "SpecError out of memory when the networks are tried on two images: lower data.size or the networks' widths;"
        " --set runtime.checkpoint_activations=true keeps fewer activations and takes more time\n"
    )


@pytest.mark.parametrize(
    ("batch", "parts", "kept", "room", "expected"),
    [
        (8, 1, 100, None, 2),
        (8, 1, 100, 1000, 2),
        (8, 1, 100, 49, 4),
        (8, 2, 100, None, 4),
        (9, 1, 100, None, 3),
        (7, 1, 100, None, 7),
        (12, 3, 40, 11, 12),
        (12, 2, 60, None, 4),
        (8, 1, 100, 11, None),
        (8, 8, 10, None, None),
        (1, 1, 10, None, None),
    ],
)
def test_the_fewest_equal_parts_that_fit(
    batch: int, parts: int, kept: int, room: int | None, expected: int | None
) -> None:
    """By hand: parts divide the batch, are at most half as large as those that did not fit, and keep at most `room`."""
    by_parts = {count: kept * parts // count for count in range(1, batch + 1) if batch % count == 0}
    assert parts_that_fit(parts, by_parts, room) == expected


def test_memory_that_no_component_asked_for_is_explained_too() -> None:
    """The core moves modules to the device, and averages them there."""
    said = "out of memory when the networks are tried on two images"
    with pytest.raises(SpecError, match=said), explaining_memory_of_two(Runtime()):
        raise torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(RuntimeError, match="another"), explaining_memory_of_two(Runtime()):
        raise RuntimeError("another error")


def test_parts_that_are_kept_at_once_do_not_help() -> None:
    assert parts_that_fit(1, {1: 100, 2: 100, 4: 100}, None) is None
