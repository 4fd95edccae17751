"""Picture files and pixels: read as 8-bit RGB whatever they hold, and back from tensors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor, uint8


def found_below(folder: Path) -> list[str]:
    """The paths of all files below a folder, sorted and relative to it; hidden ones are left out; a folder is entered
    once, however many links lead to it."""
    files: list[str] = []
    seen: set[str] = set()
    for inside, folders, names in os.walk(folder, followlinks=True):
        # of two links to one folder always the same is followed
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if (real := os.path.realpath(inside)) in seen:
            folders.clear()
            continue
        seen.add(real)
        files += [(Path(inside) / name).relative_to(folder).as_posix() for name in names if not name.startswith(".")]
    return sorted(files)


def picture(path: Path) -> Image.Image:
    """The picture, upright, as 8-bit RGB: 16 bits a channel are scaled, transparency is laid on white.

    Raises ValueError where it can't be read.
    """
    if not path.is_file():
        # a pipe would be waited for
        raise ValueError("is no file")
    try:
        with Image.open(path) as opened:
            return _eight_bit(ImageOps.exif_transpose(opened))
    # Pillow's decoders raise much more than OSError on damaged files
    except Exception as error:
        raise ValueError(str(error)) from error


def _eight_bit(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # 16 bits a pixel: Pillow's own conversion clips at 255 instead of scaling
        values = np.asarray(image, dtype=np.float64)
        return Image.fromarray(np.clip(np.rint(values / 257), 0, 255).astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def to_uint8(images: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(N, C, H, W) in [-1, 1] -> (N, H, W, 3) 0..255; a single channel three times."""
    scaled = ((images.detach().float().clamp(-1, 1) + 1) * 127.5).round().to(uint8)
    pixels: np.ndarray[Any, np.dtype[np.uint8]] = scaled.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy()
    return pixels
