"""Finds and reads image files as 8-bit RGB, and converts tensors to 8-bit pixels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor, uint8


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
        files += [(Path(inside) / name).relative_to(folder).as_posix() for name in names if not name.startswith(".")]
    return sorted(files)


def picture(path: Path) -> Image.Image:
    """Returns the image of a file as 8-bit RGB, rotated as its EXIF orientation says.

    Images of 16 bits per pixel are scaled. Transparent images are laid on white.

    Raises ValueError if the file cannot be read.
    """
    if not path.is_file():
        # opening a pipe would block
        raise ValueError("is not a file")
    try:
        with Image.open(path) as opened:
            return _eight_bit(ImageOps.exif_transpose(opened))
    # Pillow's decoders raise many other errors than OSError for damaged files
    except Exception as error:
        raise ValueError(str(error)) from error


def _eight_bit(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow's own conversion of 16-bit images clips at 255 instead of scaling
        values = np.asarray(image, dtype=np.float64)
        return Image.fromarray(np.clip(np.rint(values / 257), 0, 255).astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def to_uint8(images: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(N, C, H, W) in [-1, 1] -> (N, H, W, 3), 0 to 255. A single channel is repeated three times."""
    scaled = ((images.detach().float().clamp(-1, 1) + 1) * 127.5).round().to(uint8)
    pixels: np.ndarray[Any, np.dtype[np.uint8]] = scaled.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy()
    return pixels
