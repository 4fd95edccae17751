"""The source `folder`: which files it finds, and every kind of picture against an independent reading of it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.io
import tifffile
from PIL import Image

from ganlab.data.dataset import load
from ganlab.data.folder import Folder
from ganlab.errors import SpecError
from helpers.folders import add_special_files

Array = np.ndarray[Any, np.dtype[Any]]
SIZE = 8


def noise(*shape: int, seed: int = 0, high: int = 256, dtype: type = np.uint8) -> Array:
    return np.random.default_rng(seed).integers(0, high, shape).astype(dtype)


def save(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(SIZE, SIZE, 3, seed=seed)).save(path)


def read(path: Path, channels: int = 3, size: int = SIZE) -> Array:
    """Reads one file with the source."""
    found = Folder(path.parent, channels=channels).image(path.name, size)  # type: ignore[arg-type]
    assert found.dtype == np.uint8
    assert found.shape == (size, size, channels)
    return found.astype(int)


def close(one: Array, other: Array, within: float = 1.0) -> bool:
    assert one.shape == other.shape
    return bool(np.abs(one.astype(float) - other).max() <= within)


# -- which files ------------------------------------------------------------------------------------------------


def test_files_of_all_folders_below_come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    names = [
        "b.png",
        "a/z.png",
        "a/b/c.png",
        "a.png",
        "B.png",
        "10.png",
        "9.png",
        "a b.png",
        "ü/ß 漢字.png",
        "a/😀.jpg",
    ]
    for name in reversed(names):
        save(tmp_path / name)
    keys = Folder(tmp_path).keys("a")
    assert keys == sorted(names)
    dataset = load(Folder(tmp_path), "a", SIZE, 0.1)
    assert dataset.keys == tuple(sorted(names))
    assert dataset.skipped == ()


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    for name in ("1.png", "2.png", ".3.png", ".ipynb_checkpoints/1-checkpoint.png", "deep/.thumbnails/1.png"):
        save(tmp_path / name)
    (tmp_path / ".DS_Store").write_bytes(b"\x00\x00\x00\x01Bud1")
    assert Folder(tmp_path).keys("a") == ["1.png", "2.png"]


def test_links_that_lead_round_in_a_circle_are_followed_once(tmp_path: Path) -> None:
    save(tmp_path / "set/1.png")
    save(tmp_path / "set/deep/2.png")
    save(tmp_path / "elsewhere/3.png")
    (tmp_path / "set/loop").symlink_to(tmp_path / "set", target_is_directory=True)
    (tmp_path / "set/deep/up").symlink_to("..", target_is_directory=True)
    for name in ("m", "k", "l"):
        (tmp_path / "set" / name).symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "set/self.png").symlink_to("self.png")
    keys = Folder(tmp_path / "set").keys("a")
    assert keys == ["1.png", "deep/2.png", "k/3.png", "self.png"]
    dataset = load(Folder(tmp_path / "set"), "a", SIZE, 0.1)
    assert dataset.keys == ("1.png", "deep/2.png", "k/3.png")
    assert [text.split(":")[0] for text in dataset.skipped] == ["self.png"]


def jpeg(path: Path) -> bytes:
    Image.fromarray(noise(64, 64, 3)).save(path, "JPEG")
    return path.read_bytes()


def test_what_is_no_picture_is_named_and_counted_and_never_fatal(tmp_path: Path) -> None:
    for number in range(4):
        save(tmp_path / f"good {number}.png", number)
    whole = (tmp_path / "good 0.png").read_bytes()
    broken = {
        "empty.png": b"",
        "half.png": whole[: len(whole) // 2],
        "half.jpg": jpeg(tmp_path / "half.jpg")[:700],
        "header.png": whole[:20],
        "noise.jpg": bytes(range(256)) * 4,
        "flipped.png": whole[:45] + bytes(255 - byte for byte in whole[45:90]) + whole[90:],
        "notes.txt": b"these are the faces",
        "page.html": b"<html>404</html>",
        "\udcff\udcfe.png": b"\xff",
    }
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    named = {*broken, "gone.png", *add_special_files(tmp_path)}
    dataset = load(Folder(tmp_path), "a", SIZE, 0.25)
    assert dataset.keys == tuple(f"good {number}.png" for number in range(4))
    assert len(dataset.skipped) == len(named)
    reasons = dict(text.split(": ", 1) for text in dataset.skipped)
    assert set(reasons) == named
    assert all(reasons.values())


@pytest.mark.skipif(
    getattr(os, "geteuid", lambda: 0)() == 0, reason="the superuser, and every user of Windows, reads what is forbidden"
)
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / f"{number}.png", number)
    (tmp_path / "1.png").chmod(0)
    dataset = load(Folder(tmp_path), "a", SIZE, 0.25)
    assert dataset.keys == ("0.png", "2.png")
    assert "1.png" in dataset.skipped[0]


def test_one_picture_is_too_few_and_none_is_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"data\.b: the folder '.*' is empty"):
        load(Folder(tmp_path), "b", SIZE, 0.1)
    save(tmp_path / "1.png")
    with pytest.raises(SpecError, match=r"data\.b: 1 of 1 images can be read; at least two are needed"):
        load(Folder(tmp_path), "b", SIZE, 0.1)
    (tmp_path / "2.png").write_text("no picture")
    with pytest.raises(SpecError, match=r"data\.b: 1 of 2 images can be read; .*; 2\.png: "):
        load(Folder(tmp_path), "b", SIZE, 0.1)


@pytest.mark.parametrize(("name", "said"), [("missing", "does not exist"), ("1.png", "is not a folder")])
def test_a_path_that_is_no_folder_is_said_so(tmp_path: Path, name: str, said: str) -> None:
    save(tmp_path / "1.png")
    with pytest.raises(SpecError, match=rf"data\.a: the folder '.*{name}' {said}"):
        Folder(tmp_path / name).keys("a")


def test_a_limit_keeps_so_many_chosen_by_the_seed_alone(tmp_path: Path) -> None:
    names = [f"{number:02}.png" for number in range(30)]
    for name in names:
        (tmp_path / name).touch()

    def keys(limit: int, seed: int) -> list[str]:
        return Folder(tmp_path, limit=limit, seed=seed).keys("a")

    assert keys(0, 1) == keys(30, 1) == keys(31, 1) == names
    assert len(keys(10, 1)) == 10
    assert keys(10, 1) == keys(10, 1) == sorted(set(keys(10, 1)))
    assert set(keys(10, 1)) < set(names)
    assert keys(10, 1) != keys(10, 2)
    assert keys(10, 1) != names[:10]


# -- every kind of picture --------------------------------------------------------------------------------------


def test_a_picture_of_the_right_size_is_left_as_it_is(tmp_path: Path) -> None:
    pixels = noise(SIZE, SIZE, 3)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    assert (read(tmp_path / "x.png") == pixels).all()


def test_gray_is_the_same_in_all_channels_and_unchanged_in_one(tmp_path: Path) -> None:
    pixels = noise(SIZE, SIZE)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    assert (read(tmp_path / "x.png") == pixels[..., None]).all()
    assert (read(tmp_path / "x.png", channels=1)[..., 0] == pixels).all()


def test_colour_becomes_gray_by_its_luma(tmp_path: Path) -> None:
    pixels = noise(SIZE, SIZE, 3)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    assert close(read(tmp_path / "x.png", channels=1)[..., 0], pixels @ [0.299, 0.587, 0.114])


def tiff16(path: Path, pixels: Array) -> None:
    tifffile.imwrite(path, pixels, byteorder=">")


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("x.png", lambda path, pixels: skimage.io.imsave(path, pixels, check_contrast=False)),
        ("little.tif", lambda path, pixels: tifffile.imwrite(path, pixels, byteorder="<")),
        ("big.tif", tiff16),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_scaled_and_not_clipped(
    tmp_path: Path, name: str, write: Callable[[Path, Array], None], channels: int
) -> None:
    pixels = noise(SIZE, SIZE, high=65536, dtype=np.uint16)
    pixels[0, :4] = 0, 255, 256, 65535
    write(tmp_path / name, pixels)
    assert (skimage.io.imread(tmp_path / name) == pixels).all()
    expected = np.repeat(np.floor(pixels / 257 + 0.5)[..., None], channels, axis=2)
    assert (read(tmp_path / name, channels) == expected).all()
    # a mean, and not white: what clipping gives
    assert 80 < read(tmp_path / name, channels).mean() < 175


def over_white(colour: Array, alpha: Array) -> Array:
    part = alpha[..., None] / 255
    return colour * part + 255 * (1 - part)


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    rgba = noise(SIZE, SIZE, 4)
    rgba[0, :2, 3] = 0, 255
    Image.fromarray(rgba).save(tmp_path / "x.png")
    found = read(tmp_path / "x.png")
    assert close(found, over_white(rgba[..., :3], rgba[..., 3]))
    assert (found[0, 0] == 255).all()
    assert (found[0, 1] == rgba[0, 1, :3]).all()


def test_transparency_of_gray_is_laid_on_white(tmp_path: Path) -> None:
    both = noise(SIZE, SIZE, 2)
    Image.fromarray(both, "LA").save(tmp_path / "x.png")
    assert close(read(tmp_path / "x.png"), over_white(both[..., :1].repeat(3, 2), both[..., 1]))


@pytest.mark.parametrize("kind", ["none", "a colour", "each colour"])
def test_a_palettes_transparency_is_laid_on_white(tmp_path: Path, kind: str) -> None:
    palette, places = noise(16, 3), noise(SIZE, SIZE, high=16)
    places[0, :2] = 3, 4
    image = Image.fromarray(places, "P")
    image.putpalette(palette.tobytes())
    alphas = np.full(16, 255)
    options: dict[str, Any] = {}
    if kind == "a colour":
        alphas[3], options["transparency"] = 0, 3
    elif kind == "each colour":
        alphas = noise(16, seed=9)
        options["transparency"] = alphas.astype(np.uint8).tobytes()
    image.save(tmp_path / "x.png", **options)
    expected = over_white(palette[places], alphas[places])
    assert close(read(tmp_path / "x.png"), expected)


def test_a_colour_that_stands_for_transparent_becomes_white(tmp_path: Path) -> None:
    gray, colour = noise(SIZE, SIZE, high=200), noise(SIZE, SIZE, 3, high=200)
    gray[2, 3] = 77
    colour[2, 3] = 7, 8, 9
    Image.fromarray(gray).save(tmp_path / "gray.png", transparency=77)
    Image.fromarray(colour).save(tmp_path / "colour.png", transparency=(7, 8, 9))
    expected = np.where((gray == 77)[..., None], 255, gray[..., None].repeat(3, 2))
    assert (read(tmp_path / "gray.png") == expected).all()
    colour[2, 3] = 255
    assert (read(tmp_path / "colour.png") == colour).all()


# {orientation: what undoes it}, by EXIF's definition of where the first row and column are
UPRIGHT: dict[int, Callable[[Array], Array]] = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x.swapaxes(0, 1)[:, ::-1],
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: x.swapaxes(0, 1)[::-1],
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_pictures_are_turned_upright(tmp_path: Path, orientation: int) -> None:
    pixels = noise(SIZE, SIZE, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    assert (read(tmp_path / "x.png") == UPRIGHT[orientation](pixels)).all()


def test_print_colours_become_screen_colours(tmp_path: Path) -> None:
    cmyk = noise(SIZE, SIZE, 4)
    Image.fromarray(cmyk, "CMYK").save(tmp_path / "x.tif")
    expected = (255 - cmyk[..., :3].astype(float)) * (255 - cmyk[..., 3:].astype(float)) / 255
    assert close(read(tmp_path / "x.tif"), expected, 1.5)


def test_one_bit_is_black_or_white(tmp_path: Path) -> None:
    bits = noise(SIZE, SIZE, high=2)
    Image.fromarray(bits * 255).convert("1").save(tmp_path / "x.png")
    assert (read(tmp_path / "x.png") == bits[..., None].astype(int) * 255).all()


def test_of_an_animation_the_first_picture_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (SIZE, SIZE), colour) for colour in ("#ff0000", "#00ff00", "#0000ff")]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / "x.gif") as opened:
        assert opened.n_frames == 3  # type: ignore[attr-defined]
    assert (read(tmp_path / "x.gif") == [255, 0, 0]).all()


# -- crop and size ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(SIZE, SIZE + 6), (SIZE + 6, SIZE), (SIZE, 5 * SIZE)])
def test_the_middle_square_is_cut_out(tmp_path: Path, shape: tuple[int, int]) -> None:
    pixels = noise(*shape, 3)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    top, left = ((length - SIZE) // 2 for length in shape)
    assert (read(tmp_path / "x.png") == pixels[top : top + SIZE, left : left + SIZE]).all()


def bicubic(x: Array, size: int, cut: bool = True, across_to: int | None = None) -> Array:
    """(H, W, C), resized by Keys' cubic (a = -1/2), widened with the scale: written out.

    With `cut`, the middle square alone. The width becomes `across_to`, by default `size` too.
    """

    def kernel(t: float) -> float:
        t = abs(t)
        if t < 1:
            return 1.5 * t**3 - 2.5 * t**2 + 1
        return -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0.0

    def weights(length: int, square: int, size: int) -> Array:
        scale = square / size
        wide = max(scale, 1)
        found = np.zeros((size, length))
        for index in range(size):
            centre = (length - square) / 2 + (index + 0.5) * scale
            first, last = max(math.floor(centre - 2 * wide), 0), min(math.ceil(centre + 2 * wide), length)
            for place in range(first, last):
                found[index, place] = kernel((place + 0.5 - centre) / wide)
        return found / found.sum(1, keepdims=True)

    sides = [min(x.shape[:2])] * 2 if cut else x.shape[:2]
    sizes = (size, across_to or size)
    down, across = (weights(*each) for each in zip(x.shape[:2], sides, sizes, strict=True))
    result: Array = np.einsum("ih,hwc,jw->ijc", down, x.astype(float), across)
    return result


@pytest.mark.parametrize("shape", [(40, 40), (41, 64), (64, 41), (5, 5), (8, 11), (100, 9)])
@pytest.mark.parametrize("size", [8, 16])
def test_resizing_is_bicubic_and_antialiased(tmp_path: Path, shape: tuple[int, int], size: int) -> None:
    # far enough from both ends that nothing overshoots them; bytes between the two directions cost another rounding
    pixels = noise(*shape, 3, high=129) + np.uint8(64)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    assert close(read(tmp_path / "x.png", size=size), bicubic(pixels, size), 1.3)


def test_fine_stripes_become_gray_and_not_other_stripes(tmp_path: Path) -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "x.png")
    assert close(read(tmp_path / "x.png"), np.full((SIZE, SIZE, 3), 127.5), 6)


@pytest.mark.parametrize("shape", [(40, 24), (24, 40), (30, 30), (3, 50)])
def test_an_image_is_stretched_to_a_square(tmp_path: Path, shape: tuple[int, int]) -> None:
    pixels = noise(*shape, 3, high=129) + np.uint8(64)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    found = Folder(tmp_path, fit="stretch").image("x.png", SIZE)
    assert close(found, bicubic(pixels, SIZE, cut=False), 1.3)


@pytest.mark.parametrize("shape", [(64, 32), (32, 64), (40, 40), (100, 1)])
def test_an_image_is_padded_with_white_at_two_sides(tmp_path: Path, shape: tuple[int, int]) -> None:
    pixels = noise(*shape, 3, high=129) + np.uint8(64)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    height, width = (max(1, SIZE * side // max(shape)) for side in shape)
    top, left = (SIZE - height) // 2, (SIZE - width) // 2
    expected = np.full((SIZE, SIZE, 3), 255.0)
    expected[top : top + height, left : left + width] = bicubic(pixels, height, False, width)
    found = Folder(tmp_path, fit="pad").image("x.png", SIZE)
    assert close(found, expected, 1.3)


# -- held-out images --------------------------------------------------------------------------------------------


def with_split(folder: Path, train: int = 5, held: int = 3) -> tuple[Path, Path]:
    """Returns two folders of different pictures that have the same names."""
    for name, count, first in (("train", train, 0), ("held", held, 100)):
        for number in range(count):
            save(folder / name / f"{number}.png", first + number)
    return folder / "train", folder / "held"


def test_the_images_of_a_second_folder_are_held_out(tmp_path: Path) -> None:
    train, held = with_split(tmp_path)
    dataset = load(Folder(train, held_out=held), "a", SIZE, 0.9)
    assert (dataset.train.tolist(), dataset.holdout.tolist()) == ([0, 1, 2, 3, 4], [5, 6, 7])
    for place, seed in enumerate([0, 1, 2, 3, 4, 100, 101, 102]):
        assert (dataset.images[place].permute(1, 2, 0).numpy() == noise(SIZE, SIZE, 3, seed=seed)).all()
    assert dataset.keys == (*(f"{n}.png" for n in range(5)), *(f"held_out//{n}.png" for n in range(3)))


@pytest.mark.parametrize("linked", [False, True])
def test_held_out_images_inside_the_folder_are_not_trained_on(tmp_path: Path, linked: bool) -> None:
    train, held = with_split(tmp_path)
    inside = train / "a" / "test"
    inside.parent.mkdir()
    if linked:
        inside.symlink_to(held, target_is_directory=True)
    else:
        held.rename(inside)
    source = Folder(train, held_out=inside)
    assert source.keys("a") == [*(f"{n}.png" for n in range(5)), *(f"held_out//{n}.png" for n in range(3))]


def test_a_folder_that_is_held_out_whole_is_refused(tmp_path: Path) -> None:
    train, _ = with_split(tmp_path)
    with pytest.raises(SpecError, match=r"^data\.a: every image of .*/train is below held_out, .*$"):
        Folder(train, held_out=tmp_path).keys("a")


def test_a_limit_is_one_of_training_images(tmp_path: Path) -> None:
    train, held = with_split(tmp_path)
    keys = Folder(train, held_out=held, limit=2).keys("a")
    assert [key.startswith("held_out//") for key in keys] == [False, False, True, True, True]


def test_held_out_images_have_labels_of_their_own(tmp_path: Path) -> None:
    train, held = with_split(tmp_path, 2, 2)
    (train / "labels.csv").write_text("file,hair\n0.png,red\n1.png,black\n")
    with pytest.raises(SpecError, match=r"^data\.a: labels is 'hair', and .*held has no labels\.csv$"):
        Folder(train, held_out=held, labels="hair", classes=("red", "black")).keys("a")
    (held / "labels.csv").write_text("file,hair\n0.png,black\n1.png,grey\n")
    dataset = load(Folder(train, held_out=held, labels="hair", classes=("red", "black")), "a", SIZE, 0.5)
    assert dataset.keys == ("0.png", "1.png", "held_out//0.png")
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize(("broken", "which"), [("train", "training"), ("held", "held-out")])
def test_a_side_without_a_readable_image_is_refused(tmp_path: Path, broken: str, which: str) -> None:
    train, held = with_split(tmp_path)
    for path in (tmp_path / broken).iterdir():
        path.write_text("no picture")
    with pytest.raises(SpecError, match=rf"^data\.b: none of the {which} images can be read, and \d of the others; "):
        load(Folder(train, held_out=held), "b", SIZE, 0.5)


@pytest.mark.parametrize(("name", "said"), [("missing", "does not exist"), ("empty", "is empty")])
def test_a_folder_of_held_out_images_that_has_none_is_said_so(tmp_path: Path, name: str, said: str) -> None:
    train, _ = with_split(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SpecError, match=rf"^data\.a: the folder '.*{name}' {said}$"):
        Folder(train, held_out=tmp_path / name).keys("a")
