"""The sampler: batches as a pure function of seed and draw."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ganlab.data.dataset import Dataset
from ganlab.data.sampler import Sampler, cut, cut_at_once
from ganlab.interfaces.networks import Domain
from ganlab.interfaces.sources import Source
from ganlab.parts import Part

CPU = torch.device("cpu")


def dataset(domain: str, count: int, held: int = 2, classes: int = 0, channels: int = 3) -> Dataset:
    """Noise images. Each has its number in the first and in the last column, so that mirroring does not hide it."""
    random = torch.Generator().manual_seed(ord(domain))
    images = torch.randint(0, 256, (count, channels, 4, 4), dtype=torch.uint8, generator=random)
    images[:, :, 0, 0] = images[:, :, 0, 3] = torch.arange(count, dtype=torch.uint8)[:, None]
    images[:, :, 3, 0], images[:, :, 3, 3] = 0, 255
    order = torch.randperm(count, generator=random)
    return Dataset(
        Domain(domain, channels, 4, 4, classes),
        Source(),
        tuple(map(str, range(count))),
        images,
        torch.arange(count) % classes if classes else None,
        order[held:].sort().values,
        order[:held].sort().values,
        (),
    )


def make(
    counts: tuple[int, int] = (12, 9), batch: int = 4, seed: int = 5, flip: bool = True, **options: Any
) -> Sampler:
    dtype = options.pop("dtype", torch.float32)
    datasets = {name: dataset(name, count, **options) for name, count in zip("ab", counts, strict=True)}
    return Sampler(datasets, batch, flip, seed, CPU, dtype)


def numbers(images: Tensor) -> list[int]:
    return ((images[:, 0, 0, 0].double() + 1) * 127.5).round().int().tolist()


def same(one: Sampler, other: Sampler, draw: int) -> bool:
    return all(torch.equal(one(draw).images[d], other(draw).images[d]) for d in "ab")


def test_a_batch_is_a_function_of_seed_and_draw_alone() -> None:
    forwards, backwards, other = make(), make(), make(seed=6)
    taken = {draw: forwards(draw) for draw in range(20)}
    for draw in reversed(range(20)):
        for domain in "ab":
            assert torch.equal(backwards(draw).images[domain], taken[draw].images[domain])
    assert same(make(), forwards, 19)
    assert same(make(), forwards, 10_000)
    assert not same(other, forwards, 0)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    forwards(3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("batch", [1, 3, 4, 10, 25])
def test_each_time_round_has_every_training_image_once_in_another_order(batch: int) -> None:
    sampler = make(batch=batch, flip=False)
    rounds = 5
    for domain, count in (("a", 10), ("b", 7)):
        train = dataset(domain, count + 2).train.tolist()
        assert len(train) == count
        drawn: list[int] = []
        draw = 0
        while len(drawn) < rounds * count:
            indices = sampler.indices(domain, draw)
            images = sampler(draw).images[domain]
            assert len(indices) == batch
            assert numbers(images) == indices
            drawn += indices
            draw += 1
        epochs = [drawn[start : start + count] for start in range(0, rounds * count, count)]
        assert all(sorted(epoch) == train for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) == rounds


def test_the_domains_are_shuffled_independently() -> None:
    sampler = make(counts=(40, 40), batch=38)
    pairs = [list(zip(sampler.indices("a", draw), sampler.indices("b", draw), strict=True)) for draw in range(5)]
    met = {pair for epoch in pairs for pair in epoch}
    # if both domains had one order, the same 38 pairs would meet in each epoch
    assert len(met) > 150


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_are_the_stored_ones_scaled_to_minus_one_and_one_exactly(dtype: torch.dtype) -> None:
    sampler = make(flip=False, dtype=dtype)
    stored = dataset("a", 12).images
    for draw in range(4):
        images = sampler(draw).images["a"]
        assert images.dtype == dtype
        assert images.shape == (4, 3, 4, 4)
        chosen = stored[sampler.indices("a", draw)].numpy()
        expected = chosen.astype("float64" if dtype == torch.float64 else "float32") / 127.5 - 1
        assert (images.numpy() == expected).all()
        assert (images.min().item(), images.max().item()) == (-1.0, 1.0)


def test_about_half_are_mirrored_and_are_then_exact_mirror_images() -> None:
    flipping, plain = make(batch=8), make(batch=8, flip=False)
    draws = 100
    mirrored: dict[str, list[bool]] = {"a": [], "b": []}
    for draw in range(draws):
        for domain, found in mirrored.items():
            x, y = plain(draw).images[domain], flipping(draw).images[domain]
            is_flipped = [torch.equal(j, i.flip(-1)) for i, j in zip(x, y, strict=True)]
            is_same = [torch.equal(j, i) for i, j in zip(x, y, strict=True)]
            # the last row runs from black to white: no image is its own mirror image
            assert all(f != s for f, s in zip(is_flipped, is_same, strict=True))
            found += is_flipped
    total = 8 * draws
    for found in mirrored.values():
        # five standard deviations
        assert abs(sum(found) - total / 2) < 5 * math.sqrt(total) / 2
    assert abs(sum(a == b for a, b in zip(*mirrored.values(), strict=True)) - total / 2) < 5 * math.sqrt(total) / 2


def test_flips_are_the_draws_and_not_the_images() -> None:
    """Another batch size gives other flips; every image is still seen both plain and mirrored."""
    sampler, plain = make(batch=10), make(batch=10, flip=False)
    mirrored: dict[int, set[bool]] = {}
    for draw in range(20):
        x, y = plain(draw).images["a"], sampler(draw).images["a"]
        for number, i, j in zip(sampler.indices("a", draw), x, y, strict=True):
            mirrored.setdefault(number, set()).add(torch.equal(i, j))
    assert all(seen == {True, False} for seen in mirrored.values())


@pytest.mark.parametrize("batch", [4, 25])
def test_labels_follow_their_images(batch: int) -> None:
    sampler = make(batch=batch, classes=5)
    for draw in range(6):
        found = sampler(draw)
        for domain in "ab":
            assert found.labels[domain].tolist() == [number % 5 for number in numbers(found.images[domain])]


def test_a_batch_knows_how_many_classes_there_are() -> None:
    assert make(batch=2, classes=5)(0).classes == {"a": 5, "b": 5}


def test_without_classes_there_are_no_labels() -> None:
    assert make()(0).labels == {}


def test_held_out_images_never_come() -> None:
    sampler = make(counts=(12, 12), batch=10)
    held = set(dataset("a", 12).holdout.tolist())
    assert len(held) == 2
    assert not held & {index for draw in range(10) for index in sampler.indices("a", draw)}


def test_gray_images_have_one_channel() -> None:
    assert make(channels=1)(0).images["a"].shape == (4, 1, 4, 4)


def test_training_on_a_batch_leaves_the_next_one_as_it_was() -> None:
    """Batches are the receiver's own: writing into one changes no stored image."""
    sampler = make(flip=False)
    expected = sampler(0).images["a"].clone()
    sampler(0).images["a"].zero_()
    assert torch.equal(sampler(0).images["a"], expected)


# -- random crops


def cropping(seed: int = 5, flip: bool = False, ordered_as: str = "", draws_from: str = "ab") -> tuple[Sampler, Tensor]:
    """A sampler that cuts 4 x 4 out of 7 x 7 pixels, and the images that it cuts. Both domains have the same."""
    larger = torch.randint(0, 256, (12, 3, 7, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    datasets = {}
    for name in draws_from:
        small = replace(dataset("a", 12), domain=Domain(name, 3, 4, 4), ordered_as=ordered_as)
        datasets[name] = replace(small, larger=replace(small, layers=larger))
    return Sampler(datasets, 8, flip, seed, CPU, torch.float32), larger


def corners(cut: tuple[Sampler, Tensor], domain: str, draw: int) -> list[tuple[int, int]]:
    """The row and the column at which each image of a batch was cut, found by looking at every place."""
    sampler, larger = cut
    images = ((sampler(draw).images[domain].double() + 1) * 127.5).round().byte()
    found = []
    for image, index in zip(images, sampler.indices(domain, draw), strict=True):
        places = [
            (row, column)
            for row in range(4)
            for column in range(4)
            if torch.equal(larger[index, :, row : row + 4, column : column + 4], image)
        ]
        assert len(places) == 1
        found += places
    return found


def test_training_images_are_cut_at_every_place_and_as_often_at_each() -> None:
    made = cropping(draws_from="a")
    counts = torch.zeros(4, 4)
    for draw in range(100):
        for row, column in corners(made, "a", draw):
            counts[row, column] += 1
    expected = counts.sum() / 16
    # five standard deviations of a count
    assert ((counts - expected).abs() < 5 * expected.sqrt()).all()


def test_cuts_are_a_function_of_seed_domain_and_draw_alone() -> None:
    made = cropping()
    expected = [corners(made, "a", draw) for draw in range(5)]
    again = cropping()
    assert [corners(again, "a", draw) for draw in reversed(range(5))] == expected[::-1]
    assert [corners(cropping(seed=6), "a", draw) for draw in range(5)] != expected
    assert [corners(made, "b", draw) for draw in range(5)] != expected


def test_pairs_are_cut_at_one_place_and_then_mirrored() -> None:
    made, (flipping, _) = cropping(ordered_as="a"), cropping(ordered_as="a", flip=True)
    mirrored = []
    for draw in range(5):
        assert corners(made, "a", draw) == corners(made, "b", draw)
        a, b, plain = flipping(draw).images["a"], flipping(draw).images["b"], made[0](draw).images["a"]
        assert torch.equal(a, b)
        mirrored += [torch.equal(i, j.flip(-1)) for i, j in zip(a, plain, strict=True)]
        assert all(m or torch.equal(i, j) for m, i, j in zip(mirrored[-8:], a, plain, strict=True))
    assert {*mirrored} == {True, False}


def test_images_are_cut_by_one_operation_as_one_by_one() -> None:
    """On a GPU one operation cuts all images of a batch."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5, 3, 9, 7), dtype=torch.uint8, generator=random)
    places = [(0, 0), (5, 3), (2, 1), (5, 0), (0, 3)]
    one_by_one = [image[:, y : y + 4, x : x + 4] for image, (y, x) in zip(images, places, strict=True)]
    assert torch.equal(cut_at_once(images, torch.tensor(places), 4), torch.stack(one_by_one))
    assert torch.equal(cut(images, np.array(places), 4), torch.stack(one_by_one))


# -- parts


@pytest.mark.parametrize("count", [2, 4, 8])
def test_the_parts_of_a_batch_are_its_rows(count: int) -> None:
    cutting, _ = cropping(flip=True)
    for sampler in (make(batch=8, classes=3), cutting):
        whole, parts = sampler(7), [sampler(7, Part(number, count)) for number in range(count)]
        for domain in "ab":
            assert torch.equal(torch.cat([part.images[domain] for part in parts]), whole.images[domain])
        for domain in whole.labels:
            assert torch.equal(torch.cat([part.labels[domain] for part in parts]), whole.labels[domain])
