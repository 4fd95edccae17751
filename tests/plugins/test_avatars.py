"""The avatars: drawn from seeds alone, with labels that agree with the pictures."""

import json
import threading
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import ganlab_avatars
import numpy as np
import pytest
from dicebear.style import _style
from ganlab_avatars import HAIR, PAIR, SKIN, Avatars, attribution

from ganlab.components.options import schema

Look = Literal["portrait", "style"]
Image = np.ndarray[Any, np.dtype[Any]]

# pixel-art draws the face in the skin's colour under a tenth of white
LIGHTENED = 21


def near(image: Image, color: str, within: int = 0) -> Image:
    """Returns a mask (H, W) of the pixels with the colour "#rrggbb"; each channel may differ by `within` of 255."""
    wanted = [int(color[start : start + 2], 16) for start in (1, 3, 5)]
    return np.asarray((np.abs(image.astype(int) - wanted) <= within).all(axis=-1))


def share(image: Image, color: str, within: int = 0) -> float:
    """The share of the pixels that have this colour."""
    return float(near(image, color, within).mean())


@pytest.mark.parametrize("style", PAIR)
@pytest.mark.parametrize("size", [32, 64, 100])
def test_an_image_has_the_documented_shape_and_is_more_than_its_background(style: str, size: int) -> None:
    image = Avatars(style).image("a-00000", size)
    assert image.shape == (size, size, Avatars.channels)
    assert image.dtype == np.uint8
    assert 0.2 < share(image, "#ffffff") < 0.8


@pytest.mark.parametrize("look", ["portrait", "style"])
@pytest.mark.parametrize("style", PAIR)
def test_another_source_draws_the_same_images(style: str, look: Look) -> None:
    one = Avatars(style, look=look)
    keys = one.keys("b")[:40]
    images = [one.image(key, 64) for key in keys]
    ganlab_avatars._load.cache_clear()
    other = Avatars(style, look=look)
    np.testing.assert_array_equal(images, [other.image(key, 64) for key in keys])


def test_a_thread_does_not_draw_with_half_of_a_style(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a style's first use dicebear fills a table of its parts, which other threads see while it is not full."""
    alone = Avatars("toon-head").image("a-00000", 16)
    ganlab_avatars._load.cache_clear()
    source = Avatars("toon-head")
    drawn: list[Image] = []
    second = threading.Thread(target=lambda: drawn.append(source.image("a-00000", 16)))

    class Part(_style.Component):
        def __init__(self, *options: Any) -> None:
            if second.ident is None:
                second.start()
                # without the lock it draws now; with it, it waits for more than this
                second.join(0.2)
            super().__init__(*options)

    monkeypatch.setattr(_style, "Component", Part)
    drawn.append(source.image("a-00000", 16))
    second.join()
    np.testing.assert_array_equal(drawn, [alone, alone])


@pytest.mark.parametrize("style", PAIR)
def test_each_domain_has_as_many_keys_as_asked_for_and_shares_no_image(style: str) -> None:
    source = Avatars(style, count=150)
    a, b = source.keys("a"), source.keys("b")
    assert len(a) == len(b) == 150
    assert a == source.keys("a")
    assert not set(a) & set(b)
    assert len({source.image(key, 64).tobytes() for key in a + b}) == 300


def test_the_default_count_gives_a_thousand_or_more() -> None:
    assert len(Avatars(PAIR[0]).keys("a")) >= 1000


def test_the_domains_draw_their_colours_independently() -> None:
    a, b = (Avatars(style, count=400) for style in PAIR)
    same = [
        a.attributes(one)["hair_color"] == b.attributes(other)["hair_color"]
        for one, other in zip(a.keys("a"), b.keys("b"), strict=True)
    ]
    # by chance one in len(HAIR) is equal; five standard deviations above or below are allowed
    chance = 1 / len(HAIR)
    assert abs(np.mean(same) - chance) < 5 * np.sqrt(chance * (1 - chance) / len(same))


@pytest.mark.parametrize("style", PAIR)
def test_a_portrait_shows_the_stated_hair_and_skin_more_than_any_other(style: str) -> None:
    source = Avatars(style, count=60)
    for key in source.keys("a"):
        image, stated = source.image(key, 64), source.attributes(key)
        for part, palette, within in (("hair", HAIR, 0), ("skin", SKIN, LIGHTENED)):
            shares = {color: share(image, color, within) for color in palette.values()}
            color = max(shares, key=lambda color: shares[color])
            assert color == stated[f"{part}_color"], (key, part)
            assert shares[color] > (0.01 if part == "hair" else 0.05), (key, part)


def test_both_styles_have_all_colours_of_the_palettes() -> None:
    for style in PAIR:
        source = Avatars(style, count=100)
        stated = [source.attributes(key) for key in source.keys("a")]
        assert {attributes["hair_color"] for attributes in stated} == set(HAIR.values())
        assert {attributes["skin_color"] for attributes in stated} == set(SKIN.values())


@pytest.mark.parametrize(("labels", "palette"), [("hair_color", HAIR), ("skin_color", SKIN)])
@pytest.mark.parametrize("style", PAIR)
def test_a_label_is_the_colour_that_is_stated(
    style: str, labels: Literal["hair_color", "skin_color"], palette: dict[str, str]
) -> None:
    source = Avatars(style, count=60, labels=labels)
    assert source.classes == 5
    colors = {source.label(key): source.attributes(key)[labels] for key in source.keys("b")}
    assert [colors[place] for place in range(5)] == list(palette.values())


def test_without_labels_there_are_no_classes() -> None:
    assert Avatars("big-ears").classes == 0


@pytest.mark.parametrize(
    ("style", "look"), [("personas", "portrait"), ("big-ears", "style"), ("fun-emoji", "portrait")]
)
def test_a_picture_whose_colour_is_no_class_is_named(style: str, look: Look) -> None:
    source = Avatars(style, count=60, look=look, labels="hair_color")
    with pytest.raises(ValueError, match=r"a-000\d\d has the hair_color .*; a label is one of #1f1a1a, #4a2413, "):
        [source.label(key) for key in source.keys("a")]


def test_glasses_are_stated_where_the_illustrator_has_them_and_left_out_of_portraits() -> None:
    worn, portraits = Avatars("pixel-art", count=60, look="style"), Avatars("pixel-art", count=60)
    stated = [worn.attributes(key)["glasses"] for key in worn.keys("a")]
    assert 0 < stated.count("none") < 60
    for key, glasses in zip(worn.keys("a"), stated, strict=True):
        attributes = worn.attributes(key)
        assert ("glasses_color" in attributes) == (glasses != "none")
        if glasses.startswith("dark"):
            assert share(worn.image(key, 64), attributes["glasses_color"]) > 0.002, key
    assert {portraits.attributes(key)["glasses"] for key in portraits.keys("a")} == {"none"}


def test_a_colour_that_is_chosen_but_not_drawn_is_not_stated() -> None:
    source = Avatars("micah", count=60)
    stated = [source.attributes(key) for key in source.keys("a")]
    bald = [attributes for attributes in stated if attributes["hair"] == "mrClean"]
    assert bald
    assert any("hair_color" not in attributes for attributes in bald)
    assert all("hair_color" in attributes for attributes in stated if attributes["hair"] == "full")


def test_portraits_bring_the_faces_to_about_the_same_place() -> None:
    def apart(look: Look) -> float:
        """Returns the distance between two styles' mean centres of the skin, in pixels of an image of 64 x 64."""
        middles = []
        for style in PAIR:
            source = Avatars(style, count=100, look=look)
            colors = {key: source.attributes(key)["skin_color"] for key in source.keys("a")}
            skin = [near(source.image(key, 64), color, LIGHTENED) for key, color in colors.items()]
            middles.append(np.argwhere(skin)[:, 1:].mean(axis=0))
        return float(np.abs(np.subtract(*middles)).max())

    assert apart("portrait") < 4 < 8 < apart("style")


@pytest.mark.parametrize("style", ["adventurer", "dylan", "personas", "toon-head", "voxel-art"])
def test_portraits_of_other_styles_have_the_face_in_the_middle(style: str) -> None:
    source = Avatars(style, count=20)
    images = np.array([source.image(key, 64) for key in source.keys("a")])
    assert share(images[:, 24:56, 20:44], "#ffffff") < 0.1


def test_pixel_art_keeps_its_grid_of_four_pixels() -> None:
    image = Avatars("pixel-art").image("a-00003", 64)
    np.testing.assert_array_equal(image, image[::4, ::4].repeat(4, axis=0).repeat(4, axis=1))


def test_a_style_without_skin_looks_the_same_as_a_portrait() -> None:
    portrait, style = Avatars("fun-emoji"), Avatars("fun-emoji", look="style")
    np.testing.assert_array_equal(portrait.image("a-00000", 64), style.image("a-00000", 64))


@pytest.mark.parametrize(("wrong", "nearest"), [("bigears", "big-ears"), ("Pixel_Art", "pixel-art"), ("../x", None)])
def test_an_unknown_style_is_named_with_the_nearest(wrong: str, nearest: str | None) -> None:
    with pytest.raises(ValueError, match="there is no avatar style") as caught:
        Avatars(wrong)
    text = str(caught.value)
    assert repr(wrong) in text
    assert "dicebear-styles" in text
    assert "\n" not in text
    assert nearest is None or f"did you mean {nearest!r}?" in text


def test_the_credits_of_the_default_styles_are_in_the_folder() -> None:
    path = Path(ganlab_avatars.__file__).with_name("ATTRIBUTION.md")
    assert path.read_text("utf-8") == attribution(PAIR)


@pytest.mark.parametrize("style", PAIR)
def test_the_default_styles_have_clear_licences_and_full_credits(style: str) -> None:
    meta = json.loads(files("dicebear_styles").joinpath(f"{style}.json").read_text("utf-8"))["meta"]
    assert meta["license"]["name"] in {"CC0 1.0", "CC BY 4.0"}
    for said in ("license", "creator", "source"):
        assert f"[{meta[said]['name']}]({meta[said]['url']})" in attribution([style])


def test_the_schema_lists_every_style() -> None:
    listed = schema(Avatars)["properties"]["style"]["enum"]
    found = {path.name for path in files("dicebear_styles").iterdir() if path.name.endswith(".json")}
    assert {f"{style}.json" for style in listed} == found
    assert {*PAIR} < {*listed}


@pytest.mark.faults
@pytest.mark.parametrize("style", sorted({*ganlab_avatars._styles()} - {*PAIR}))
def test_every_other_style_can_be_drawn_too(style: str) -> None:
    assert np.ptp(Avatars(style).image("a-00000", 32)) > 0
