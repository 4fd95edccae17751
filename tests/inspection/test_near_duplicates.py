"""Pairs of images against a plain loop over all pairs, and the comparison of pixels against drawings that differ."""

from __future__ import annotations

import itertools

import imagehash
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from ganlab.inspection import near_duplicates
from ganlab.inspection.near_duplicates import BITS, CLOSE, VIEWS, groups, hashes, reduced, thumbnail
from helpers.photographs import COPIES, photographs


def test_the_hashes_are_those_of_the_library() -> None:
    small = reduced(photographs()[0])
    bits = np.unpackbits(hashes(small), axis=1)
    assert bits.shape == (VIEWS, BITS)
    for place, view in ((0, small), (VIEWS - 1, ImageOps.mirror(small))):
        assert (bits[place] == imagehash.phash(view, 12).hash.ravel()).all()


@pytest.mark.parametrize("block", [3, 2048])
def test_pairs_are_those_of_a_loop_over_all(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "_BLOCK", block)
    monkeypatch.setattr(near_duplicates, "shows_the_same", lambda one, other: np.ones(len(one), bool))
    originals = photographs()[:10]
    images = [reduced(image) for image in [*originals, *map(COPIES["all"], originals[:4])]]
    images.append(reduced(ImageOps.mirror(originals[5])))
    packed = np.stack([hashes(image) for image in images])
    found, bits = near_duplicates.near_duplicates(packed, np.stack([thumbnail(image) for image in images]))
    views = np.unpackbits(packed, axis=2)
    expected = {
        (one, other, view == VIEWS - 1)
        for one, other in itertools.combinations(range(len(images)), 2)
        for view in range(VIEWS)
        for first, second in ((one, other), (other, one))
        if np.count_nonzero(views[first, view] != views[second, 0]) <= CLOSE
    }
    assert bits == CLOSE
    assert {*zip(found.first.tolist(), found.second.tolist(), found.mirrored.tolist(), strict=True)} == expected
    assert {(0, 10, False), (3, 13, False), (5, 14, True)} <= expected


def test_the_closest_pairs_are_compared_if_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    small = [reduced(image) for image in photographs()[:6]]
    # five images of one picture, and a copy of each of the others
    images = [small[0]] * 5 + [image for image in small[1:] for _ in range(2)]
    packed = np.stack([hashes(image) for image in images])
    # a few bits of the five differ from one to the next
    packed[:5, :, 0] ^= np.array([0, 3, 15, 63, 255], np.uint8)[:, None]
    thumbnails = np.stack([thumbnail(image) for image in images])
    monkeypatch.setattr(near_duplicates, "PROPOSED", 0.5)
    found, bits = near_duplicates.near_duplicates(packed, thumbnails)
    assert bits < CLOSE
    assert {(place, place + 1) for place in range(5, 15, 2)} <= {
        *zip(found.first.tolist(), found.second.tolist(), strict=True)
    }


def drawing(mouth: int, winks: bool = False) -> Image.Image:
    image = Image.new("RGB", (96, 96), "white")
    draw = ImageDraw.Draw(image)
    draw.ellipse((16, 10, 80, 90), fill="#e6ac7b", outline="black", width=2)
    draw.ellipse((32, 40 if winks else 36, 40, 41 if winks else 44), fill="black")
    draw.ellipse((56, 36, 64, 44), fill="black")
    draw.arc((32, 54 - mouth, 64, 72 + mouth), 0 if mouth else 180, 180 if mouth else 360, fill="#801020", width=5)
    return image


def test_drawings_that_differ_in_an_eye_are_two_pictures() -> None:
    images = [reduced(drawing(0)), reduced(drawing(0, winks=True))]
    # as if their hashes were equal: the pixels decide
    packed = np.stack([hashes(images[0])] * 2)
    found, _ = near_duplicates.near_duplicates(packed, np.stack([thumbnail(image) for image in images]))
    assert found.first.tolist() == []


def test_drawings_that_differ_in_the_mouth_are_two_pictures() -> None:
    images = [drawing(0), drawing(4), COPIES["all"](drawing(0)).convert("RGB")]
    small = [reduced(image) for image in images]
    packed = np.stack([hashes(image) for image in small])
    found, _ = near_duplicates.near_duplicates(packed, np.stack([thumbnail(image) for image in small]))
    assert [*zip(found.first.tolist(), found.second.tolist(), strict=True)] == [(0, 2)]
    # the hashes alone do not tell them apart
    views = np.unpackbits(packed, axis=2)
    assert np.count_nonzero(views[0, 0] != views[1, 0]) <= CLOSE


def test_groups_are_what_pairs_connect() -> None:
    assert groups(8, [(0, 3), (5, 3), (1, 2), (6, 7), (7, 6)]) == [[0, 3, 5], [1, 2], [6, 7]]
    assert groups(3, []) == []
