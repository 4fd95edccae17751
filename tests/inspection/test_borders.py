"""Borders around photographs are found; photographs, plain backgrounds and drawings have none."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ganlab.components.registry import registry
from ganlab.inspection.borders import letterbox, repeated_edge
from helpers.photographs import boxed, jpeg, photographs, smeared


def has_detail(image: Image.Image, sides: str) -> bool:
    """Returns True if one of the sides is not plain: copies of a plain row can't be told from a plain ground."""
    pixels = np.asarray(image, float)
    rows = {"t": pixels[0], "b": pixels[-1], "l": pixels[:, 0], "r": pixels[:, -1]}
    return any(np.abs(np.diff(rows[side], axis=0)).mean() > 2 for side in sides)


@pytest.mark.parametrize("sides", ["t", "b", "l", "r", "tb", "tblr"])
@pytest.mark.parametrize("quality", [None, 75])
def test_repeated_edges(sides: str, quality: int | None) -> None:
    images = [image for image in photographs() if has_detail(image, sides)][::4]
    found = 0
    for place, image in enumerate(images):
        made = smeared(image, 10 + place % 12, sides)
        pixels = np.asarray(made if quality is None else jpeg(made, quality))
        found += repeated_edge(pixels)
    assert found >= 0.9 * len(images)


@pytest.mark.parametrize("upright", [False, True])
@pytest.mark.parametrize("colour", ["black", "white", "#4060ff"])
def test_bars(colour: str, upright: bool) -> None:
    images = photographs()[::5]
    for quality in (None, 80):
        made = [boxed(image, 6 + place % 12, colour, upright) for place, image in enumerate(images)]
        pixels = [np.asarray(image if quality is None else jpeg(image, quality)) for image in made]
        assert sum(map(letterbox, pixels)) >= 0.85 * len(images)


def test_photographs_have_neither() -> None:
    images = photographs()
    for quality in (None, 90):
        pixels = [np.asarray(image if quality is None else jpeg(image, quality)) for image in images]
        assert sum(map(letterbox, pixels)) <= 0.02 * len(images)
        assert sum(map(repeated_edge, pixels)) <= 0.02 * len(images)


def test_drawings_on_a_plain_ground_have_neither() -> None:
    for style in ("big-ears", "pixel-art"):
        source = registry().find("source", "avatars", "test").cls(style=style, count=12)
        pixels = [source.image(key, 64) for key in source.keys("a")]
        assert sum(map(repeated_edge, pixels)) == 0
        assert sum(map(letterbox, pixels)) <= 1


def test_an_image_of_one_colour_has_no_border() -> None:
    for size in ((1, 1), (3, 50), (40, 40)):
        pixels = np.asarray(Image.new("RGB", size, "grey"))
        assert not letterbox(pixels)
        assert not repeated_edge(pixels)
