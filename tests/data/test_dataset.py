"""The dataset: the images that are read from a source, their order, and the split."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ganlab
from ganlab.data.dataset import Dataset, load
from ganlab.errors import SpecError
from ganlab.interfaces.callbacks import TrainingStart
from ganlab.interfaces.sources import Source
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from ganlab.spec.resolve import resolve
from ganlab.system.build import build_data
from helpers.callbacks import Recording

SIZE = 4


class Numbered(Source):
    """The image of key "n" has n in its first pixel, n // 256 in its second; its class is n modulo `classes`."""

    def __init__(self, count: int, classes: int = 0, channels: int = 3, broken: Iterable[int] = ()) -> None:
        self.count, self.classes, self.channels, self.broken = count, classes, channels, set(broken)

    def keys(self, domain: str) -> list[str]:
        return [str(number) for number in range(self.count)]

    def image(self, key: str, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        if int(key) in self.broken:
            raise OSError(f"no picture {key}") if int(key) % 2 else ValueError(f"no picture {key}")
        image = np.zeros((size, size, self.channels), np.uint8)
        image[0, 0], image[0, 1] = int(key) % 256, int(key) // 256
        return image

    def label(self, key: str) -> int:
        return int(key) % self.classes


def numbers(dataset: Dataset) -> list[int]:
    """Returns the numbers of the images in a dataset, read from their pixels."""
    pixels = dataset.images[:, 0, 0].int()
    return (pixels[:, 0] + 256 * pixels[:, 1]).tolist()


@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_is_kept_as_it_was_given_in_the_order_of_the_keys(channels: int) -> None:
    # more than one piece of reading, by several threads
    dataset = load(Numbered(600, channels=channels), "a", SIZE, 0.1)
    assert numbers(dataset) == list(range(600))
    assert dataset.keys == tuple(str(n) for n in range(600))
    assert dataset.images.dtype == torch.uint8
    assert dataset.images.shape == (600, channels, SIZE, SIZE)
    assert dataset.domain == ("a", channels, SIZE, SIZE, 0)
    assert dataset.labels is None


@pytest.mark.parametrize("holdout", [0.01, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("count", [2, 3, 10, 101])
def test_the_split_is_complete_disjoint_and_leaves_neither_side_empty(count: int, holdout: float) -> None:
    dataset = load(Numbered(count), "a", SIZE, holdout)
    train, held = dataset.train.tolist(), dataset.holdout.tolist()
    assert sorted(train + held) == list(range(count))
    assert train == sorted(train)
    assert held == sorted(held)
    assert 1 <= len(held) < count
    assert abs(len(held) - count * holdout) <= 0.5 or len(held) in (1, count - 1)


def test_the_split_is_the_same_each_time_and_another_for_the_other_domain() -> None:
    one, again, other = (load(Numbered(100), domain, SIZE, 0.2) for domain in "aab")
    assert one.holdout.tolist() == again.holdout.tolist()
    assert one.holdout.tolist() != other.holdout.tolist()
    # drawn at random, not the first or every fifth
    assert len(set(np.diff(one.holdout.tolist()))) > 3


def test_the_split_is_the_same_whatever_the_runs_seed_and_batch(tiny: Json) -> None:
    held = []
    for seed, batch in ((0, 4), (1, 2)):
        spec = resolve(merge(tiny, {"seed": seed, "data": {"batch": batch}}))
        held.append({domain: found.holdout.tolist() for domain, found in build_data(spec).items()})
    assert held[0] == held[1]
    assert [len(found) for found in held[0].values()] == [3, 3]


def test_a_larger_holdout_keeps_what_a_smaller_one_kept() -> None:
    smaller, larger = (load(Numbered(100), "a", SIZE, holdout) for holdout in (0.1, 0.3))
    assert set(smaller.holdout.tolist()) < set(larger.holdout.tolist())


def test_what_cannot_be_read_is_named_with_its_reason_and_left_out() -> None:
    broken = [0, 3, 4, 299]
    dataset = load(Numbered(300, broken=broken), "a", SIZE, 0.1)
    assert numbers(dataset) == [n for n in range(300) if n not in broken]
    assert dataset.keys == tuple(str(n) for n in range(300) if n not in broken)
    assert dataset.skipped == tuple(f"{n}: no picture {n}" for n in broken)
    assert sorted([*dataset.train.tolist(), *dataset.holdout.tolist()]) == list(range(296))
    assert dataset.fingerprint()["skipped"] == [f"{n}: no picture {n}" for n in broken]
    assert dataset.fingerprint()["images"] == 296


@pytest.mark.parametrize(("count", "broken"), [(0, []), (1, []), (3, [0, 2])])
def test_fewer_than_two_images_are_refused(count: int, broken: list[int]) -> None:
    with pytest.raises(SpecError, match=rf"data\.b: {count - len(broken)} of {count} images can be read") as caught:
        load(Numbered(count, broken=broken), "b", SIZE, 0.1)
    assert ("no picture 0" in str(caught.value)) == bool(broken)


def test_labels_stay_with_their_images() -> None:
    dataset = load(Numbered(50, classes=7, broken=[2, 30]), "a", SIZE, 0.1)
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [number % 7 for number in numbers(dataset)]
    assert dataset.domain.classes == 7


@pytest.mark.parametrize("label", [-1, 7])
def test_labels_out_of_range_are_refused(label: int) -> None:
    class Mislabelled(Numbered):
        def label(self, key: str) -> int:
            return label if key == "5" else 3

    with pytest.raises(SpecError, match=rf"data\.a: labels go from .*{label}.*; 0 to 6 are allowed"):
        load(Mislabelled(10, classes=7), "a", SIZE, 0.1)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((SIZE, SIZE, 3), np.float32), "float32"),
        (np.zeros((3, SIZE, SIZE), np.uint8), r"\(3, 4, 4\)"),
        (np.zeros((SIZE, SIZE), np.uint8), r"\(4, 4\)"),
    ],
)
def test_a_source_that_gives_something_else_is_named(image: np.ndarray[Any, Any], said: str) -> None:
    class Wrong(Numbered):
        def image(self, key: str, size: int) -> np.ndarray[Any, Any]:
            return image if key == "1" else super().image(key, size)

    with pytest.raises(SpecError, match=rf"data\.a: image '1' of the source: expected uint8 \(4, 4, 3\), got .*{said}"):
        load(Wrong(4), "a", SIZE, 0.1)


def test_a_source_of_images_that_are_neither_grey_nor_coloured_is_refused() -> None:
    with pytest.raises(SpecError, match=r"^data\.b: the source has 4 channels; 1 \(grey\) and 3 \(RGB\) are allowed$"):
        load(Numbered(4, channels=4), "b", SIZE, 0.1)


def test_a_bug_in_a_source_is_not_taken_for_a_damaged_image() -> None:
    class Buggy(Numbered):
        def image(self, key: str, size: int) -> np.ndarray[Any, Any]:
            raise AttributeError("misspelt")

    with pytest.raises(AttributeError, match="misspelt"):
        load(Buggy(4), "a", SIZE, 0.1)


def test_the_hash_tells_any_other_set_of_images() -> None:
    class Changed(Numbered):
        def image(self, key: str, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
            image = super().image(key, size)
            image[3, 3, 2] = key == "17"
            return image

    class Renamed(Numbered):
        def keys(self, domain: str) -> list[str]:
            return ["00", *super().keys(domain)[1:]]

    class Swapped(Numbered):
        def keys(self, domain: str) -> list[str]:
            return ["1", "0", *super().keys(domain)[2:]]

    sources = [Numbered(20), Numbered(21), Numbered(20, channels=1), Changed(20), Renamed(20), Swapped(20)]
    hashes = [load(source, "a", SIZE, 0.1).fingerprint()["sha256"] for source in sources]
    assert len(set(hashes)) == len(sources)
    assert load(Numbered(20), "a", SIZE, 0.1).fingerprint()["sha256"] == hashes[0]


def test_reading_shows_progress_and_can_be_cut_short() -> None:
    seen: list[Any] = []

    def progress(items: Iterable[Any], what: str, total: int) -> Iterable[Any]:
        seen.append((what, total))
        for item in items:
            seen.append(item[0])
            yield item

    dataset = load(Numbered(600), "b", SIZE, 0.5, progress, most=4)
    assert seen == [("images of b", 4), "0", "1", "2", "3"]
    assert len(dataset.keys) == 4


def test_pixels_reach_both_ends_exactly() -> None:
    dataset = load(Numbered(256), "a", SIZE, 0.1)
    values = dataset.pixels(torch.arange(256))[:, :, 0, 0]
    assert values.dtype == torch.float32
    assert (values.min().item(), values.max().item()) == (-1.0, 1.0)
    expected = torch.linspace(-1, 1, 256, dtype=torch.float64)
    torch.testing.assert_close(values.double(), expected[:, None].expand(-1, 3), rtol=0, atol=1e-7)
    # uint8 -> float -> uint8 loses nothing
    assert ((values.double() + 1) * 127.5).round().int()[:, 0].tolist() == list(range(256))


@pytest.mark.usefixtures("trial")
def test_a_dark_set_is_a_warning_before_training_and_before_measuring(tiny: Json, tmp_path: Path) -> None:
    dark = tmp_path / "dark"
    dark.mkdir()
    for number in range(12):
        values = np.random.default_rng(number).integers(0, 1401, (20, 20), dtype=np.uint16)
        Image.fromarray(values).save(dark / f"{number:02}.tif")
    spec = merge(tiny, {"data": {"a": {"path": str(dark)}}, "schedule": {"steps": 1}})

    class Stops(Recording):
        def begin(self, start: TrainingStart) -> None:
            super().begin(start)
            self.before = list(self.warned)

    training = Stops()
    ganlab.run(spec, out=tmp_path / "run", callback=training)
    (told,) = training.before
    assert told.startswith("data.a: the brightest value of all 12 images is 5 of 255; if the files ")
    measuring = Recording()
    with suppress(ganlab.Unavailable):
        ganlab.evaluate(tmp_path / "run", metrics=["fid"], features="averages", callback=measuring)
    assert measuring.warned[0] == training.warned[0]
    # with the values that they use
    scaled = build_data(resolve(merge(spec, {"data": {"a": {"range": [0, 1400]}}})))
    assert scaled["a"].warnings() == []
