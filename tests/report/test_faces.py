"""The images of sample grids, cut out again, pixel by pixel."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ganlab.data.dataset import normalised
from ganlab.report.faces import COLUMNS, Faces, side_by_side, spread, strip
from ganlab.report.grids import cut, sample_grid

Array = np.ndarray[Any, np.dtype[Any]]
SIZE = 8


def drawn(counts: dict[str, int], seed: int = 0) -> tuple[Image.Image, dict[str, tuple[Array, Array]]]:
    """Returns a sample grid of noise, and {direction: (inputs, outputs)} as (N, H, W, 3); `seed` is of the outputs."""
    held_out, made = torch.Generator().manual_seed(1), torch.Generator().manual_seed(seed)

    def noise(count: int, random: torch.Generator) -> torch.Tensor:
        return torch.randint(0, 256, (count, 3, SIZE, SIZE), dtype=torch.uint8, generator=random)

    stored = {direction: (noise(count, held_out), noise(count, made)) for direction, count in counts.items()}
    grid = sample_grid(
        {d: (normalised(a, torch.float32), normalised(b, torch.float32)) for d, (a, b) in stored.items()}
    )
    shown = {d: tuple(x.permute(0, 2, 3, 1).numpy() for x in pair) for d, pair in stored.items()}
    return grid, shown  # type: ignore[return-value]


def pixels(uri: str, count: int) -> Array:
    """Returns the images of a strip as (N, H, W, 3)."""
    head, content = uri.split(",")
    assert head == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        whole = np.array(image.convert("RGB"))
    size = whole.shape[1] // COLUMNS
    corners = [(index // COLUMNS * size, index % COLUMNS * size) for index in range(count)]
    return np.stack([whole[y : y + size, x : x + size] for y, x in corners])


@pytest.mark.parametrize("counts", [{"ab": 4, "ba": 4}, {"ab": 1}, {"ab": 3, "ba": 6}, {"ba": 17}])
def test_the_images_of_a_grid_are_cut_out_again(counts: dict[str, int]) -> None:
    grid, shown = drawn(counts)
    found = cut(grid, SIZE, counts)
    assert list(found) == list(counts)
    for direction, pair in found.items():
        for side in (0, 1):
            np.testing.assert_array_equal(np.stack([np.array(i) for i in pair[side]]), shown[direction][side])


@pytest.mark.parametrize("counts", [{"ab": 5, "ba": 4}, {"ab": 4}, {"ab": 2, "ba": 2}])
def test_a_grid_of_another_number_of_pairs_is_refused(counts: dict[str, int]) -> None:
    grid, _ = drawn({"ab": 4, "ba": 4})
    with pytest.raises(ValueError, match="the sheet has"):
        cut(grid, SIZE, counts)


def saved(folder: Path, counts: dict[str, int], steps: range) -> tuple[dict[int, Path], dict[int, Any]]:
    sheets, shown = {}, {}
    for step in steps:
        grid, shown[step] = drawn(counts, step)
        sheets[step] = folder / f"{step}.png"
        grid.save(sheets[step])
    return sheets, shown


def test_a_strip_has_the_pixels_of_the_grid(tmp_path: Path) -> None:
    counts = {"ab": 9, "ba": 3}
    sheets, shown = saved(tmp_path, counts, range(1, 4))
    faces = Faces(SIZE, counts)
    faces.read(sheets)
    found = side_by_side(7, [faces])
    assert (found["seed"], found["steps"]) == (7, [1, 2, 3])
    for direction in found["directions"]:
        name, count = direction["name"], direction["count"]
        assert count == counts[name]
        np.testing.assert_array_equal(pixels(direction["inputs"], count), shown[1][name][0])
        for step, uri in zip(found["steps"], direction["outputs"][0], strict=True):
            np.testing.assert_array_equal(pixels(uri, count), shown[step][name][1])


def test_only_some_images_and_samples_are_kept(tmp_path: Path) -> None:
    counts = {"ab": 9}
    sheets, shown = saved(tmp_path, counts, range(10, 110, 10))
    faces = Faces(SIZE, counts, samples=4, faces=5)
    # as a run trains on, samples that were kept make room; none is read again
    faces.read({step: sheets[step] for step in range(10, 60, 10)})
    assert sorted(faces.outputs) == [10, 30, 40, 50]
    sheets[10].unlink()
    faces.read(sheets)
    assert sorted(faces.outputs) == [10, 40, 70, 100]
    np.testing.assert_array_equal(pixels(faces.outputs[40]["ab"], 5), shown[40]["ab"][1][[0, 2, 4, 6, 8]])


def test_what_is_no_grid_is_left_out(tmp_path: Path) -> None:
    counts = {"ab": 4}
    sheets, _ = saved(tmp_path, counts, range(1, 3))
    drawn({"ab": 7})[0].save(tmp_path / "other.png")
    (tmp_path / "noise.png").write_bytes(b"noise")
    faces = Faces(SIZE, counts)
    faces.read({**sheets, 3: tmp_path / "other.png", 4: tmp_path / "noise.png", 5: tmp_path / "missing.png"})
    assert sorted(faces.outputs) == [1, 2]


def test_systems_stand_side_by_side_at_the_steps_that_all_have(tmp_path: Path) -> None:
    def read(folder: str, counts: dict[str, int], steps: range) -> Faces:
        (tmp_path / folder).mkdir()
        faces = Faces(SIZE, counts)
        faces.read(saved(tmp_path / folder, counts, steps)[0])
        return faces

    one, other, third = read("a", {"ab": 2, "ba": 2}, range(1, 5)), read("b", {"ab": 2}, range(2, 9)), None
    found = side_by_side(0, [one, third, other])
    assert found["steps"] == [2, 3, 4]
    ab, ba = found["directions"]
    assert [len(strips) for strips in ab["outputs"]] == [3, 0, 3]
    assert [len(strips) for strips in ba["outputs"]] == [3, 0, 0]
    # a direction that the first system lacks
    assert side_by_side(0, [other, one])["directions"][1]["outputs"] == [[], [one.outputs[s]["ba"] for s in (2, 3, 4)]]
    # other inputs are not shown as the same
    few = Faces(SIZE, {"ab": 2}, faces=1)
    few.read(saved(tmp_path / "b", {"ab": 2}, range(2, 5))[0])
    assert [len(strips) for strips in side_by_side(0, [one, few])["directions"][0]["outputs"]] == [3, 0]
    # no step in common
    apart = side_by_side(0, [one, read("c", {"ab": 2}, range(6, 8))])
    assert apart["steps"] == [1, 2, 3, 4, 6, 7]
    assert apart["directions"][0]["outputs"][0] == [*(one.outputs[step]["ab"] for step in range(1, 5)), None, None]


def test_trainings_of_different_lengths_are_aligned_by_their_shares(tmp_path: Path) -> None:
    def read(folder: str, steps: range, end: int) -> Faces:
        (tmp_path / folder).mkdir()
        faces = Faces(SIZE, {"ab": 2}, end=end)
        faces.read(saved(tmp_path / folder, {"ab": 2}, steps)[0])
        return faces

    # samples at 10, 20, ... 100 of 100 steps; at 12 and 20 of 20; at 50 of 100, not finished
    long, short, begun = (
        read("a", range(10, 101, 10), 100),
        read("b", range(12, 21, 8), 20),
        read("c", range(50, 51), 100),
    )
    found = side_by_side(0, [long, short, begun])
    assert (found["unit"], found["steps"]) == ("percent", [60, 100])
    assert found["directions"][0]["outputs"] == [
        [long.outputs[60]["ab"], long.outputs[100]["ab"]],
        [short.outputs[12]["ab"], short.outputs[20]["ab"]],
        [None, None],
    ]
    # a run that has not finished limits no other
    found = side_by_side(0, [long, begun])
    assert (found["unit"], found["steps"]) == ("step", [*range(10, 101, 10)])
    assert [strip is not None for strip in found["directions"][0]["outputs"][1]] == [
        step == 50 for step in found["steps"]
    ]


@pytest.mark.parametrize("most", [2_000_000, 60_000, 4_000, 2_000])
def test_a_strip_takes_no_more_than_it_may(most: int) -> None:
    random = np.random.default_rng(0)
    images = [Image.fromarray(random.integers(0, 256, (128, 128, 3), dtype=np.uint8)) for _ in range(11)]
    content = base64.b64decode(strip(images, most).split(",")[1])
    assert len(content) <= most
    with Image.open(io.BytesIO(content)) as image:
        assert image.height * COLUMNS == image.width * 2


@pytest.mark.parametrize(
    ("count", "most", "expected"), [(3, 5, [0, 1, 2]), (9, 3, [0, 4, 8]), (9, 1, [8]), (40, 40, range(40))]
)
def test_steps_are_spread_evenly(count: int, most: int, expected: list[int]) -> None:
    assert spread(range(count), most) == list(expected)
