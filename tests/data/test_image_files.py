"""`picture`: the depth that a file declares decides, and a hostile file is a picture or one sentence."""

from __future__ import annotations

import os
import re
import subprocess
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageFile

from ganlab.data.dataset import load
from ganlab.data.folder import Folder
from ganlab.data.image_files import picture
from ganlab.data.reading import noting_warnings, silent
from ganlab.evaluation.image_folders import Folder as ImageFolder
from helpers.folders import add_special_files
from helpers.pictures import PILLOW_13, colourful, deep_png, hostile, saved, tiff

Array = np.ndarray[Any, np.dtype[Any]]

RAMP = np.linspace(0, 255, 64).round().astype(int).reshape(8, 8)
"""Every picture of this module, in 8 bits: black first, white last."""


def grey(path: Path, range: tuple[float, float] | None = None) -> Array:
    found = np.asarray(picture(path, range)).astype(int)
    assert (found == found[..., :1]).all()
    return found[..., 0]


def packed(values: Array) -> bytes:
    """12 bits each, without gaps."""
    pairs = values.reshape(-1, 2).tolist()
    return b"".join(bytes([one >> 4, (one & 15) << 4 | other >> 8, other & 255]) for one, other in pairs)


def of_depth(bits: int) -> Array:
    return np.round(RAMP / 255 * (2**bits - 1)).astype(np.int64)


def declared(bits: int, kind: str, order: str = "<", **tags: int) -> bytes:
    values = of_depth(bits).astype(f"{order}{kind}")
    return tiff(8, 8, values.tobytes(), {258: bits, **{int(tag[1:]): value for tag, value in tags.items()}}, order)


DEEP: dict[str, bytes] = {
    "16 bits": declared(16, "u2"),
    "16 bits, big-endian": declared(16, "u2", ">"),
    "16 bits, white is zero": tiff(8, 8, (65535 - of_depth(16)).astype("<u2").tobytes(), {258: 16, 262: 0}),
    "12 bits": tiff(8, 8, packed(of_depth(12)), {258: 12}),
    "8 bits, white is zero": tiff(8, 8, (255 - RAMP).astype("u1").tobytes(), {262: 0}),
    "PNG": deep_png(of_depth(16)),
    "JPEG 2000": saved(Image.fromarray(of_depth(16).astype(np.uint16)), "JPEG2000", irreversible=False),
    "PGM": b"P5 8 8 65535\n" + of_depth(16).astype(">u2").tobytes(),
    "PGM to 1023": b"P5 8 8 1023\n" + of_depth(10).astype(">u2").tobytes(),
    "plain PGM to 1023": b"P2 8 8 1023\n" + " ".join(map(str, of_depth(10).ravel())).encode(),
}


@pytest.mark.parametrize("name", DEEP)
def test_black_and_white_are_those_of_the_declared_depth(tmp_path: Path, name: str) -> None:
    (tmp_path / "x").write_bytes(DEEP[name])
    assert np.abs(grey(tmp_path / "x") - RAMP).max() <= (1 if "1023" in name else 0)


UPRIGHT: dict[int, Callable[[Array], Array]] = {
    1: lambda pixels: pixels,
    2: np.fliplr,
    3: lambda pixels: pixels[::-1, ::-1],
    4: np.flipud,
    5: np.transpose,
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).T,
    8: np.rot90,
}
"""{EXIF orientation: makes the stored pixels upright}."""


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_an_oblong_grey_tiff_is_turned_upright(tmp_path: Path, orientation: int, bits: int) -> None:
    oblong = RAMP[:3]
    values = oblong * (257 if bits == 16 else 1)
    (tmp_path / "x").write_bytes(tiff(8, 3, values.astype(f"<u{bits // 8}").tobytes(), {258: bits, 274: orientation}))
    assert np.array_equal(grey(tmp_path / "x"), UPRIGHT[orientation](oblong))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_deep_picture_is_turned_upright(tmp_path: Path, order: str, orientation: int) -> None:
    (tmp_path / "x").write_bytes(declared(16, "u2", order, _274=orientation))
    upright = {1: RAMP, 3: RAMP[::-1, ::-1], 6: np.rot90(RAMP, -1)}[orientation]
    assert (grey(tmp_path / "x") == upright).all()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 16])
def test_colours_in_separate_planes_keep_their_values(tmp_path: Path, bits: int, order: Any) -> None:
    colours = [of_depth(bits), of_depth(bits)[::-1], of_depth(bits)[:, ::-1]]
    planes = np.stack(colours).astype(f"{order}u{bits // 8}")
    tifffile.imwrite(tmp_path / "x", planes, photometric="rgb", planarconfig="separate", byteorder=order)
    assert (np.asarray(picture(tmp_path / "x")) == np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], axis=-1)).all()


UNDECLARED: dict[str, tuple[bytes, str, tuple[float, float]]] = {
    "floats to 1": (tiff(8, 8, (RAMP / 255).astype("<f4").tobytes(), {258: 32, 339: 3}), "floats of 32", (0, 1)),
    "floats from -1": (tiff(8, 8, (RAMP / 127.5 - 1).astype("<f4").tobytes(), {258: 32, 339: 3}), "floats", (-1, 1)),
    "floats, white is zero": (
        tiff(8, 8, (1 - RAMP / 255).astype("<f4").tobytes(), {258: 32, 339: 3, 262: 0}),
        "floats of 32",
        (0, 1),
    ),
    "PFM": (b"Pf 8 8 -1.0\n" + (RAMP[::-1] / 255).astype("<f4").tobytes(), "floats of 32", (0, 1)),
    "CT": (
        tiff(8, 8, (RAMP * 4 - 200).astype("<i2").tobytes(), {258: 16, 339: 2}),
        "signed integers of 16",
        (-200, 820),
    ),
    "int8": (tiff(8, 8, (RAMP - 128).astype("i1").tobytes(), {339: 2}), "signed integers of 8", (-128, 127)),
    "int32 to 255": (tiff(8, 8, RAMP.astype("<i4").tobytes(), {258: 32, 339: 2}), "signed integers of 32", (0, 255)),
    "uint32": (declared(32, "u4"), "unsigned integers of 32", (0, 2.0**32 - 1)),
}


@pytest.mark.parametrize("name", UNDECLARED)
def test_a_file_that_declares_no_black_and_white_is_refused_and_read_with_a_range(tmp_path: Path, name: str) -> None:
    content, said, within = UNDECLARED[name]
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(
        ValueError, match=rf"holds {said}.* bits, and the file does not say which .* `range: \[low, high\]` of `folder`"
    ):
        picture(tmp_path / "x")
    assert np.abs(grey(tmp_path / "x", within) - RAMP).max() <= 1


def test_a_range_says_more_than_the_depth_and_clips(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x", np.array([[0, 100, 700, 1400, 1401, 65535]], np.uint16))
    assert grey(tmp_path / "x").tolist() == [[0, 0, 3, 5, 5, 255]]
    assert grey(tmp_path / "x", (0, 1400)).tolist() == [[0, 18, 128, 255, 255, 255]]
    tifffile.imwrite(tmp_path / "x", np.full((4, 4), 700, np.uint16))
    assert (Folder(str(tmp_path), range=(0, 1400)).image("x", 4) == 128).all()


def test_pictures_of_eight_bits_keep_their_values_whatever_the_range(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(saved(colourful(), "PNG"))
    assert (np.asarray(picture(tmp_path / "x", (0, 1))) == np.asarray(colourful())).all()


def test_what_is_not_a_number_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x", np.full((4, 4), np.nan, np.float32))
    with pytest.raises(ValueError, match="holds values that are not a number"):
        picture(tmp_path / "x", (0, 1))
    tifffile.imwrite(tmp_path / "x", np.array([[-np.inf, np.inf]], np.float32))
    assert grey(tmp_path / "x", (0, 1)).tolist() == [[0, 255]]


@pytest.mark.parametrize("given", [(1.0, 1.0), (1.0, 0.0)])
def test_a_range_goes_up(given: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"range is \[1\.0, .*\]; the first must be below the second"):
        Folder("x", range=given)


def test_the_transparent_colour_of_sixteen_bits_is_laid_on_white(tmp_path: Path) -> None:
    values = of_depth(16)
    # the neighbours have the same high byte: they are not transparent
    values[0, :3] = 5000, 5001, 4999
    (tmp_path / "grey").write_bytes(deep_png(values, [5000]))
    found = grey(tmp_path / "grey")
    assert found[0, :3].tolist() == [255, 19, 19]
    assert (found[1:] == RAMP[1:]).all()
    colours = np.stack([values, values[::-1], values[:, ::-1]], axis=-1)
    colours[0, :2] = (5000, 6000, 7000), (5000, 6000, 7001)
    (tmp_path / "colour").write_bytes(deep_png(colours, [5000, 6000, 7000]))
    found = np.asarray(picture(tmp_path / "colour"))
    assert found[0, :2].tolist() == [[255, 255, 255], [19, 23, 27]]
    assert (found.reshape(-1, 3)[2:] == (colours // 256).reshape(-1, 3)[2:]).all()


@pytest.mark.skipif(not PILLOW_13, reason="Pillow reads it since 13")
def test_grey_that_is_premultiplied_is_read(tmp_path: Path) -> None:
    both = np.stack([RAMP // 2, np.full_like(RAMP, 128)], axis=-1).astype(np.uint8)
    tifffile.imwrite(tmp_path / "x", both, photometric="minisblack", extrasamples=["assocalpha"])
    assert np.abs(grey(tmp_path / "x") - (RAMP / 2 + 127)).max() <= 2


def images_of(folder: Path) -> ImageFolder:
    with noting_warnings():
        return ImageFolder(folder, True, silent)


def forbidden(*given: object, **named: object) -> NoReturn:
    raise AssertionError(f"called with {given}")


@pytest.fixture
def no_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be started, not even to ask whether Ghostscript is there."""
    for module, name in ((subprocess, "Popen"), (os, "system"), (os, "posix_spawn"), (os, "execv")):
        monkeypatch.setattr(module, name, forbidden, raising=False)


@pytest.mark.usefixtures("no_programs")
@pytest.mark.parametrize("as_training_set", [True, False])
def test_hostile_files_are_pictures_or_one_sentence(
    tmp_path: Path,
    as_training_set: bool,
    capfd: pytest.CaptureFixture[str],
    record_property: Callable[[str, object], None],
) -> None:
    folder, files = tmp_path / "set", hostile()
    folder.mkdir()
    for name, (content, _) in files.items():
        (folder / name).write_bytes(content)
    special = add_special_files(folder)
    pictures = sorted(name for name, (_, is_picture) in files.items() if is_picture)
    others = sorted({*files, *special} - {*pictures})
    assert len(files) > 50
    record_property("counted", f"{len(others)} hostile files and {len(pictures)} unusual pictures")
    if as_training_set:
        dataset = load(Folder(str(folder)), "a", 8, 0.1)
        kept, skipped, said = list(dataset.keys), list(dataset.skipped), dataset.warnings()
    else:
        read = images_of(folder)
        kept, skipped, said = read.keys, read.skipped, read.warnings
    assert kept == pictures
    assert [text.split(": ")[0] for text in skipped] == others
    assert all(re.fullmatch(r"[^\n]+: [^\n]+", text) for text in skipped)
    too_large = {text.split(": ")[0] for text in skipped if re.search(TOO_LARGE, text)}
    # Pillow 12 has one sentence for both
    assert too_large - {"cut.webp"} == {name for name in files if name.startswith("billions")}
    # Pillow's own warning, with the file's name; and one for all the files of several pages
    assert [text.split(": ", 1)[1] for text in said[1:]] == [
        "broken exif.jpg: Corrupt EXIF data. Expecting to read 2 bytes but only got 0.",
        "moving.gif, moving.png, moving.webp, ...: holds several images; the first is used",
    ]
    assert capfd.readouterr() == ("", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


TOO_LARGE = r"Image size \(\d+ pixels\) exceeds limit" + ("" if PILLOW_13 else "|could not create decoder object")
"""Before Pillow 13, a decoder refuses before the size is checked."""


@pytest.mark.skipif(not Path("/proc/self/mem").is_file(), reason="this system has no file that fails to be read")
def test_an_error_of_the_disk_is_said_without_its_number_and_path() -> None:
    with pytest.raises(ValueError, match=r"^Input/output error$"):
        picture(Path("/proc/self/mem"))


def test_billions_of_pixels_take_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load_prepare", forbidden)
    for name, (content, _) in hostile().items():
        if name.startswith("billions"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(ValueError, match=TOO_LARGE):
                picture(tmp_path / name)


PIXELS: dict[str, tuple[int, bytes]] = {
    "RGBA": (4, saved(Image.new("RGBA", (10, 15), "red"), "PNG")),
    "floats": (4, tiff(10, 15, bytes(600), {258: 32, 339: 3})),
    "int32": (4, tiff(10, 15, bytes(600), {258: 32, 339: 2})),
    "PFM": (4, b"Pf 10 15 -1.0\n" + bytes(600)),
    "RGB of 16 bits": (6, tiff(10, 10, bytes(600), {258: 16, 262: 2, 277: 3})),
}
"""{name: (bytes of a pixel, file)}. Each has 600 bytes of pixels, as many as 200 pixels of 8-bit RGB."""


@pytest.mark.filterwarnings("ignore:Image size")
@pytest.mark.parametrize("name", PIXELS)
def test_a_picture_is_too_large_by_its_bytes(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    per_pixel, content = PIXELS[name]
    (tmp_path / "x").write_bytes(content)
    pixels = 600 // per_pixel
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert picture(tmp_path / "x", (0, 1)).size == (10, pixels // 10)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 99)
    monkeypatch.setattr(ImageFile.ImageFile, "load_prepare", forbidden)
    said = f"Image size ({pixels} pixels) exceeds limit of {594 // per_pixel} pixels of {per_pixel} bytes, could be"
    with pytest.raises(ValueError, match=re.escape(said)):
        picture(tmp_path / "x", (0, 1))


def test_a_large_picture_is_read_and_its_warning_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for size in (8, 9, 12):
        colourful(12, size).save(tmp_path / f"{size}.png")
    colourful(30, 30).save(tmp_path / "30.png")
    dataset = load(Folder(str(tmp_path)), "a", 8, 0.1)
    assert dataset.keys == ("12.png", "8.png", "9.png")
    assert dataset.notes.keys() == {
        f"Image size ({12 * size} pixels) exceeds limit of 100 pixels, could be decompression bomb DOS attack."
        for size in (9, 12)
    }
    assert list(dataset.notes.values()) == [["12.png"], ["9.png"]]
    assert dataset.skipped[0].startswith("30.png: Image size (900 pixels) exceeds limit of 200 pixels")


def test_warnings_of_other_threads_go_where_they_went(tmp_path: Path) -> None:
    for number in range(3):
        colourful().save(tmp_path / f"{number}.png")

    def progress(items: Any, what: str, total: int) -> Any:
        for item in items:
            warnings.warn("from somewhere else", UserWarning, stacklevel=1)
            yield item

    with pytest.warns(UserWarning, match="from somewhere else") as heard:
        dataset = load(Folder(str(tmp_path)), "a", 8, 0.1, progress)
    assert len(heard) == 3
    assert dataset.notes == {}


def test_warnings_of_images_that_are_read_ahead_of_the_last_one_reach_nobody(tmp_path: Path) -> None:
    class Noisy(Folder):
        def image(self, key: str, size: int) -> Array:
            # the last ones are still being read when enough are there
            time.sleep(0.02)
            warnings.warn("read", UserWarning, stacklevel=1)
            return super().image(key, size)

    for number in range(12):
        colourful().save(tmp_path / f"{number:02}.png")
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        dataset = load(Noisy(str(tmp_path)), "a", 8, 0.5, most=2)
    assert dataset.notes == {"read": ["00.png", "01.png"]}
    assert heard == []


DULL: dict[str, tuple[Callable[[int], Array], str]] = {
    "dark": (lambda index: of_depth(4) + index % 2, "the brightest value of all 12 images is 15 of 255; if the files"),
    "constant": (lambda index: np.full((8, 8), 100 + index), "each of the 12 images has one colour only"),
}


@pytest.mark.parametrize("name", DULL)
def test_a_set_that_is_dark_or_constant_is_a_warning(tmp_path: Path, name: str) -> None:
    draw, said = DULL[name]
    for index in range(12):
        values = draw(index).clip(0, 15 if name == "dark" else 255)
        Image.fromarray(values.astype(np.uint8)).save(tmp_path / f"{index:02}.png")
    read = images_of(tmp_path)
    for warned in (load(Folder(str(tmp_path)), "a", 8, 0.1).warnings(), read.warnings):
        assert len(warned) == 1
        assert said in warned[0]
    # one picture with a bright pixel and two colours
    Image.fromarray(np.eye(8, dtype=np.uint8) * 16).save(tmp_path / "00.png")
    assert load(Folder(str(tmp_path)), "a", 8, 0.1).warnings() == []
    assert images_of(tmp_path).warnings == []


@pytest.mark.faults
def test_damaged_pictures_are_pictures_or_one_sentence(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    random, count = np.random.default_rng(0), 3000
    undamaged = [content for content, _ in hostile().values() if 0 < len(content) < 2000]
    undamaged += [*DEEP.values(), *(content for content, _, _ in UNDECLARED.values())]
    record_property("counted", f"{count} damaged pictures")
    for number in range(count):
        content = bytearray(undamaged[number % len(undamaged)])
        for place in random.integers(len(content), size=random.integers(1, 6)).tolist():
            damage = (b"\xff\xff\xff\x7f", b"", random.bytes(1), random.bytes(9))[random.integers(4)]
            content[place : place + len(damage) % 8] = damage
        (tmp_path / "x").write_bytes(content)
        said = "a picture"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                picture(tmp_path / "x", (0, 1) if number % 3 else None)
            except ValueError as error:
                said = str(error)
        assert re.fullmatch(r".+", said), (number, bytes(content))
