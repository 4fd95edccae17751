"""Sample grids: odd columns inputs, even columns the outputs beside them."""

from __future__ import annotations

import io

from PIL import Image, ImageDraw
from torch import Tensor

from ganlab.data.pictures import to_uint8

GAP, STRIP, MARGIN = 2, 16, 4
BACKGROUND, INK = (255, 255, 255), (40, 40, 40)


def sample_grid(ways: dict[str, tuple[Tensor, Tensor]], pairs_a_row: int = 4) -> Image.Image:
    """One block a way, {way: (inputs, outputs)}, each (N, C, H, W) in [-1, 1]."""
    blocks = [_block(way, *images, pairs_a_row) for way, images in ways.items()]
    width, height = max(b.width for b in blocks), sum(b.height for b in blocks)
    sheet = Image.new("RGB", (width, height), BACKGROUND)
    top = 0
    for block in blocks:
        sheet.paste(block, (0, top))
        top += block.height
    return sheet


def _block(way: str, inputs: Tensor, outputs: Tensor, pairs_a_row: int) -> Image.Image:
    pairs = [(i, o) for i, o in zip(to_uint8(inputs), to_uint8(outputs), strict=True)]
    size_y, size_x = max(p[0].shape[0] for p in pairs), max(p[0].shape[1] for p in pairs)
    columns, rows = min(pairs_a_row, len(pairs)), -(-len(pairs) // pairs_a_row)
    pitch_x, pitch_y = 2 * (size_x + GAP) + MARGIN, size_y + GAP
    block = Image.new("RGB", (columns * pitch_x + MARGIN, STRIP + rows * pitch_y + MARGIN), BACKGROUND)
    ImageDraw.Draw(block).text((MARGIN, 2), f"{way[0]} > {way[1]}   (input, output)", fill=INK)
    for index, pair in enumerate(pairs):
        row, column = divmod(index, pairs_a_row)
        for half, image in enumerate(pair):
            left = MARGIN + column * pitch_x + half * (size_x + GAP)
            block.paste(Image.fromarray(image), (left, STRIP + row * pitch_y))
    return block


def png(image: Image.Image) -> bytes:
    """The file's content."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
