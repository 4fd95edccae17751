"""Small photographs that differ from one another, and copies of them as they are found in collections."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import skimage.data
from PIL import Image, ImageEnhance, ImageOps
from sklearn.datasets import load_sample_images

SIDE = 100


def photographs(side: int = SIDE) -> list[Image.Image]:
    """Squares cut out of photographs that packages ship, none of them overlapping another, without those of the sky."""
    wholes = [skimage.data.astronaut(), skimage.data.chelsea(), skimage.data.coffee(), *load_sample_images().images]
    squares = [
        Image.fromarray(whole[top : top + side, left : left + side])
        for whole in wholes
        for top in range(0, whole.shape[0] - side + 1, side)
        for left in range(0, whole.shape[1] - side + 1, side)
    ]
    return [square for square in squares if np.asarray(square.convert("L")).std() > 15]


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=quality)
    return Image.open(content)


def cut(image: Image.Image, share: float, left: float, top: float) -> Image.Image:
    """Cuts a share of the width and height off, `left` and `top` of it on those sides."""
    width, height = image.width * (1 - share), image.height * (1 - share)
    x, y = image.width * share * left, image.height * share * top
    return image.crop((round(x), round(y), round(x + width), round(y + height)))


def scaled(image: Image.Image, factor: float) -> Image.Image:
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)


COPIES: Mapping[str, Callable[[Image.Image], Image.Image]] = {
    "compressed": lambda image: jpeg(image, 40),
    "small": lambda image: jpeg(scaled(image, 0.5), 80),
    "large": lambda image: jpeg(scaled(image, 1.5), 70),
    "cropped by 2 %": lambda image: jpeg(cut(image, 0.02, 1, 0), 90),
    "cropped by 4 %": lambda image: jpeg(cut(image, 0.04, 0.5, 0.5), 90),
    "cropped by 6 %": lambda image: jpeg(cut(image, 0.06, 0.2, 0.9), 90),
    "brighter": lambda image: jpeg(ImageEnhance.Brightness(image).enhance(1.1), 85),
    "darker": lambda image: jpeg(ImageEnhance.Brightness(image).enhance(0.9), 85),
    "mirrored": lambda image: jpeg(ImageOps.mirror(image), 85),
    "all": lambda image: jpeg(scaled(cut(ImageEnhance.Brightness(image).enhance(0.93), 0.05, 0.5, 1), 0.8), 75),
}
"""Near duplicates: {name: how it is made}."""


def smeared(image: Image.Image, pixels: int, sides: str) -> Image.Image:
    """Repeats the edge of some of the sides "tblr"."""
    around = [(pixels * (one in sides), pixels * (other in sides)) for one, other in ("tb", "lr")]
    return Image.fromarray(np.pad(np.asarray(image), [*around, (0, 0)], mode="edge"))


def boxed(image: Image.Image, pixels: int, colour: Any, upright: bool) -> Image.Image:
    """Adds bars above and below, or left and right if `upright`."""
    wide, high = (pixels, 0) if upright else (0, pixels)
    whole = Image.new("RGB", (image.width + 2 * wide, image.height + 2 * high), colour)
    whole.paste(image, (wide, high))
    return whole
