"""Draws sample grids: inputs in odd columns, their outputs in even columns."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw
from torch import Tensor

from ganlab.data.image_files import to_uint8

GAP, STRIP, MARGIN = 2, 16, 4

Pairs = tuple[list[Image.Image], list[Image.Image]]
"""Inputs and their outputs."""

BACKGROUND, INK = (255, 255, 255), (40, 40, 40)


def sample_grid(directions: dict[str, tuple[Tensor, Tensor]], pairs_a_row: int = 4) -> Image.Image:
    """Returns a sheet with one block of pairs for each direction.

    `directions` is {direction: (inputs, outputs)}; both tensors are (N, C, H, W) in [-1, 1].
    """
    blocks = {
        f"{direction[0]} > {direction[1]}   (input, output)": [
            (Image.fromarray(i), Image.fromarray(o)) for i, o in zip(to_uint8(inputs), to_uint8(outputs), strict=True)
        ]
        for direction, (inputs, outputs) in directions.items()
    }
    return sheet(blocks, pairs_a_row)


def sheet(blocks: Mapping[str, Sequence[Sequence[Image.Image]]], groups_a_row: int = 4) -> Image.Image:
    """Returns a sheet with one block for each title: groups of images side by side, such as an input and its output.

    The groups of a block have the same number of images, of any sizes.
    """
    drawn = [_block(title, groups, groups_a_row) for title, groups in blocks.items()]
    width, height = max(b.width for b in drawn), sum(b.height for b in drawn)
    whole = Image.new("RGB", (width, height), BACKGROUND)
    top = 0
    for block in drawn:
        whole.paste(block, (0, top))
        top += block.height
    return whole


def _block(title: str, groups: Sequence[Sequence[Image.Image]], groups_a_row: int) -> Image.Image:
    images = [image for group in groups for image in group]
    size_x, size_y = max(image.width for image in images), max(image.height for image in images)
    columns, rows = min(groups_a_row, len(groups)), -(-len(groups) // groups_a_row)
    pitch_x, pitch_y = len(groups[0]) * (size_x + GAP) + MARGIN, size_y + GAP
    block = Image.new("RGB", (columns * pitch_x + MARGIN, STRIP + rows * pitch_y + MARGIN), BACKGROUND)
    ImageDraw.Draw(block).text((MARGIN, 2), title, fill=INK)
    for index, group in enumerate(groups):
        row, column = divmod(index, groups_a_row)
        for place, image in enumerate(group):
            left = MARGIN + column * pitch_x + place * (size_x + GAP)
            block.paste(image, (left, STRIP + row * pitch_y))
    return block


def cut(sheet: Image.Image, size: int, pairs: Mapping[str, int], pairs_a_row: int = 4) -> dict[str, Pairs]:
    """Returns the images in a sheet that `sample_grid` drew: {direction: (inputs, outputs)}.

    `pairs` is {direction: its number of pairs}, in the order of the sheet; the images are `size` pixels wide and high.
    Raises ValueError if a sheet of that many pairs has another size.
    """
    found: dict[str, Pairs] = {}
    top = widest = 0
    pitch_x, pitch_y = 2 * (size + GAP) + MARGIN, size + GAP
    for direction, count in pairs.items():
        corners = [
            (MARGIN + column * pitch_x, top + STRIP + row * pitch_y)
            for row, column in (divmod(index, pairs_a_row) for index in range(count))
        ]
        inputs, outputs = (
            [sheet.crop((left + right, upper, left + right + size, upper + size)) for left, upper in corners]
            for right in (0, size + GAP)
        )
        found[direction] = inputs, outputs
        top += STRIP + -(-count // pairs_a_row) * pitch_y + MARGIN
        widest = max(widest, min(pairs_a_row, count) * pitch_x + MARGIN)
    if sheet.size != (widest, top):
        raise ValueError(f"the sheet has {sheet.size} pixels, and {pairs} pairs have {(widest, top)}")
    return found


def png(image: Image.Image) -> bytes:
    """Returns the image as the content of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
