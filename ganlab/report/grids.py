"""Draws sample grids: inputs in odd columns, their outputs in even columns."""

from __future__ import annotations

import io

from PIL import Image, ImageDraw
from torch import Tensor

from ganlab.data.image_files import to_uint8

GAP, STRIP, MARGIN = 2, 16, 4

BACKGROUND, INK = (255, 255, 255), (40, 40, 40)


def sample_grid(directions: dict[str, tuple[Tensor, Tensor]], pairs_a_row: int = 4) -> Image.Image:
    """Returns a sheet with one block of pairs for each direction.

    `directions` is {direction: (inputs, outputs)}; both tensors are (N, C, H, W) in [-1, 1].
    """
    blocks = [_block(direction, *images, pairs_a_row) for direction, images in directions.items()]
    width, height = max(b.width for b in blocks), sum(b.height for b in blocks)
    sheet = Image.new("RGB", (width, height), BACKGROUND)
    top = 0
    for block in blocks:
        sheet.paste(block, (0, top))
        top += block.height
    return sheet


def _block(direction: str, inputs: Tensor, outputs: Tensor, pairs_a_row: int) -> Image.Image:
    pairs = [(i, o) for i, o in zip(to_uint8(inputs), to_uint8(outputs), strict=True)]
    size_y, size_x = max(p[0].shape[0] for p in pairs), max(p[0].shape[1] for p in pairs)
    columns, rows = min(pairs_a_row, len(pairs)), -(-len(pairs) // pairs_a_row)
    pitch_x, pitch_y = 2 * (size_x + GAP) + MARGIN, size_y + GAP
    block = Image.new("RGB", (columns * pitch_x + MARGIN, STRIP + rows * pitch_y + MARGIN), BACKGROUND)
    ImageDraw.Draw(block).text((MARGIN, 2), f"{direction[0]} > {direction[1]}   (input, output)", fill=INK)
    for index, pair in enumerate(pairs):
        row, column = divmod(index, pairs_a_row)
        for half, image in enumerate(pair):
            left = MARGIN + column * pitch_x + half * (size_x + GAP)
            block.paste(Image.fromarray(image), (left, STRIP + row * pitch_y))
    return block


def png(image: Image.Image) -> bytes:
    """Returns the image as the content of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
