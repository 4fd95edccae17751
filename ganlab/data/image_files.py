"""Finds and reads image files as 8-bit RGB, and converts tensors to 8-bit pixels."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageMode, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor, uint8

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""The formats that are read. Pillow starts another program to read EPS, and takes any file for a TGA."""

Range = tuple[float, float]
"""The values of black and of white."""

_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLES, _SAMPLE_FORMAT = 258, 262, 277, 339
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_KINDS = {_UNSIGNED: "unsigned integers", _SIGNED: "signed integers", _FLOAT: "floats"}

# more samples of a TIFF than Pillow decodes are an error that it logs, and raises too
logging.getLogger("PIL").addHandler(logging.NullHandler())


def found_below(folder: Path) -> list[str]:
    """Returns the paths of all files below a folder, sorted and relative to it.

    Hidden files and folders are left out. A folder is entered once, even if several links lead to it.
    """
    files: list[str] = []
    seen: set[str] = set()
    for inside, folders, names in os.walk(folder, followlinks=True):
        # sorted, so that always the same one of two links to a folder is followed
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if (real := os.path.realpath(inside)) in seen:
            folders.clear()
            continue
        seen.add(real)
        # as text: a path object for each of 100,000 files takes seconds
        start = Path(inside).relative_to(folder).as_posix()
        files += [name if start == "." else f"{start}/{name}" for name in names if not name.startswith(".")]
    return sorted(files)


def declared_size(path: Path) -> tuple[int, int] | None:
    """Returns the width and height that a picture's file declares; None if it is no picture."""
    if not path.is_file():
        # opening a pipe would block
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                return image.size
    # Pillow raises many other errors than OSError for damaged files
    except Exception:
        return None


def picture(path: str | Path, range: Range | None = None) -> Image.Image:
    """Returns the image of a file as `upright_rgb` does.

    Of several images in a file, the first is returned, with a Python warning. Raises ValueError if the file cannot be
    read, or if it holds floats, signed integers or integers of 32 bits and `range` is None.
    """
    with opened(path, FORMATS, "image") as image:
        if image.format == "PNG" and "transparency" in image.info and image.tile[0].args == "RGB;16B":
            _make_transparent(image, path)
        if isinstance(image, TiffImageFile):
            _correct_planes(image)
        pixels = upright_rgb(image, range)
        # a damaged second image must not cost the first
        with suppress(Exception):
            if getattr(image, "is_animated", False):
                warnings.warn("holds several images; the first is used", stacklevel=2)
        return pixels


@contextmanager
def opened(path: str | Path, formats: tuple[str, ...], what: str) -> Iterator[ImageFile]:
    """Opens a file of one of the formats with Pillow. Raises ValueError if it can't be read, also inside the context.

    `what` is expected: "image" or "mask".
    """
    if not os.path.isfile(path):
        # opening a pipe would block
        raise ValueError("is not a file")
    try:
        # given the path, Pillow maps a TIFF into memory, and swaps width and height of one that its orientation turns
        with open(path, "rb") as file, Image.open(file, formats=formats) as image:
            _check_bytes(image)
            yield image
    except UnidentifiedImageError as error:
        raise ValueError(f"is no {what} of a kind that is read ({', '.join(formats)})") from error
    # Pillow's decoders raise many other errors than OSError for damaged files
    except Exception as error:
        # without the file's name, because the caller puts it before the text
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ValueError(" ".join(text.split()) or type(error).__name__) from error


def upright_rgb(image: Image.Image, range: Range | None = None) -> Image.Image:
    """Returns an image as 8-bit RGB, rotated as its EXIF orientation says.

    Grey images of more than 8 bits are scaled: black is 0 and white the largest value of the bits that the image
    declares, or both are those of `range`. Transparent images are laid on white. Raises ValueError if the image holds
    floats, signed integers or integers of 32 bits and `range` is None.
    """
    # the orientation of a PNG may follow its pixels in the file
    image.load()
    turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    # exif_transpose copies images that are upright too
    declared, upright = _declared(image), ImageOps.exif_transpose(image) if turned else image
    return _overlaid(upright) if declared is None else _scaled(upright, declared, range)


def _check_bytes(image: Image.Image) -> None:
    """Raises ValueError if a picture's pixels take more bytes than 8-bit RGB takes at the most pixels that are read."""
    if Image.MAX_IMAGE_PIXELS is None:
        return
    mode = ImageMode.getmode(image.mode)
    per_pixel = len(mode.bands) * np.dtype(mode.typestr).itemsize
    if isinstance(image, TiffImageFile):
        bits = image.tag_v2.get(_BITS_PER_SAMPLE, (1,))
        declared = sum(bits) * (image.tag_v2.get(_SAMPLES, 1) if len(bits) == 1 else 1)
        per_pixel = max(per_pixel, declared // 8)
    most = 2 * Image.MAX_IMAGE_PIXELS * 3 // per_pixel
    if (pixels := image.width * image.height) > most:
        raise ValueError(
            f"Image size ({pixels} pixels) exceeds limit of {most} pixels of {per_pixel} bytes, could be decompression"
            " bomb DOS attack."
        )


class _Declared(NamedTuple):
    """The grey values of an image that are not of 8 unsigned bits."""

    bits: int
    kind: int
    inverted: bool
    """True if white is the smallest value."""


def _declared(image: Image.Image) -> _Declared | None:
    """Returns what a file declares of its grey values; None for 8 bits or colour."""
    deep = image.mode.startswith(("I", "F"))
    if not isinstance(image, TiffImageFile):
        # Pillow scales grey values of every other format to 16 bits; floats are those of PFM
        return _Declared(*((32, _FLOAT) if image.mode == "F" else (16, _UNSIGNED)), False) if deep else None
    tags = image.tag_v2
    bits, kind = tags.get(_BITS_PER_SAMPLE, (1,))[0], tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))[0]
    return _Declared(bits, kind, tags.get(_PHOTOMETRIC, 0) == 0) if deep or kind != _UNSIGNED else None


def _scaled(image: Image.Image, declared: _Declared, range: Range | None) -> Image.Image:
    bits, kind, inverted = declared
    if range is None and (kind != _UNSIGNED or bits > 16):
        raise ValueError(
            f"holds {_KINDS[kind]} of {bits} bits, and the file does not say which values are black and white; give"
            " both as the option `range: [low, high]` of `folder`, or save it with 8 or 16 bits"
        )
    values = np.asarray(image)
    # Pillow has one type of 32 bits and one of 8
    values = values.view({(32, _UNSIGNED): np.uint32, (8, _SIGNED): np.int8}.get((bits, kind), values.dtype))
    low, high = range or (0, 2**bits - 1)
    grey = np.empty(values.shape, np.uint8)
    # row by row, because a large picture is gigabytes in float64
    for row, out in zip(values, grey, strict=True):
        if np.isnan(row).any():
            raise ValueError("holds values that are not a number")
        scaled = (row.astype(np.float64) - low) * (255 / (high - low))
        out[:] = np.rint(scaled).clip(0, 255)
    if inverted:
        grey = 255 - grey
    if "transparency" in image.info:
        grey[values == image.info["transparency"]] = 255
    return Image.fromarray(grey).convert("RGB")


def _correct_planes(image: TiffImageFile) -> None:
    """Lets Pillow read 16 bits a sample from a TIFF with a plane for each colour. It takes them for samples of 8."""
    if image.tag_v2.get(_BITS_PER_SAMPLE, (1,))[0] == 16:
        order = "L" if image.tag_v2.prefix == b"II" else "B"
        image.tile = [
            tile._replace(args=(f"{tile.args[0]};16{order}", *tile.args[1:]))
            if tile.codec_name == "raw" and isinstance(tile.args, tuple) and tile.args[0] in tuple("RGBACMYK")
            else tile
            for tile in image.tile
        ]


def _make_transparent(image: Image.Image, path: str | Path) -> None:
    """Gives a PNG of 16 bits in each colour an alpha channel from its transparent colour.

    Pillow keeps the high bytes of the pixels and compares them with all 16 bits of the transparent colour.
    """
    high = np.asarray(image)
    with Image.open(path, formats=FORMATS) as again:
        again.tile = [tile._replace(args="RGB;16L") for tile in again.tile]
        low = np.asarray(again)
    transparent = (high.astype(np.uint16) * 256 + low == image.info.pop("transparency")).all(axis=-1)
    image.putalpha(Image.fromarray(np.where(transparent, np.uint8(0), np.uint8(255))))


def _overlaid(image: Image.Image) -> Image.Image:
    if image.mode == "La":
        # from premultiplied grey, Pillow converts to nothing else
        image = image.convert("LA")
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    # converting an RGB image copies it
    return image if image.mode == "RGB" else image.convert("RGB")


def to_uint8(images: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(N, C, H, W) in [-1, 1] -> (N, H, W, 3), 0 to 255. A single channel is repeated three times."""
    pixels: np.ndarray[Any, np.dtype[np.uint8]] = (
        as_uint8(images).expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy()
    )
    return pixels


def as_uint8(images: Tensor) -> Tensor:
    """(N, C, H, W) in [-1, 1] -> (N, C, H, W) uint8, 0 to 255."""
    return ((images.detach().float().clamp(-1, 1) + 1) * 127.5).round().to(uint8)
