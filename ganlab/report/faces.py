"""The held-out faces of a run's samples, cut out of its grids, for the slider through training."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from PIL import Image

from ganlab.report.grids import cut
from ganlab.spec.models import Json

COLUMNS = 8
"""The images in a row of a strip."""

SAMPLES = 40
"""The most samples that a page shows."""

BYTES = 200_000
"""The most bytes of all strips of one sample; with SAMPLES of them a page stays below 15 MB."""


class Faces:
    """The samples of a run as strips of images, {step: {direction: strip}}. A sample is read and encoded once."""

    def __init__(self, size: int, pairs: Mapping[str, int], samples: int = SAMPLES, most: int = BYTES) -> None:
        self._size, self._pairs, self._samples, self._most = size, pairs, samples, most
        self.inputs: dict[str, str] = {}
        """{direction: the strip of its inputs}; empty without a sample."""
        self.outputs: dict[int, dict[str, str]] = {}

    def read(self, sheets: Mapping[int, Path]) -> None:
        """Reads the samples {step: sample grid}: all of them, or evenly spread ones if there are too many.

        A grid that can't be read, or that has another number of pairs, is left out.
        """
        wanted = spread(sorted(sheets), self._samples)
        self.outputs = {step: strips for step, strips in self.outputs.items() if step in wanted}
        for step in wanted:
            if step not in self.outputs:
                with suppress(OSError, ValueError, SyntaxError), Image.open(sheets[step]) as sheet:
                    found = cut(sheet.convert("RGB"), self._size, self._pairs)
                    most = self._most // len(found)
                    if not self.inputs:
                        self.inputs = {direction: strip(inputs, most) for direction, (inputs, _) in found.items()}
                    self.outputs[step] = {direction: strip(outputs, most) for direction, (_, outputs) in found.items()}

    def as_json(self) -> Json:
        """Returns {"columns", "directions": [{"name", "count", "inputs"}], "steps": [{"step", "outputs"}]}."""
        return {
            "columns": COLUMNS,
            "directions": [
                {"name": direction, "count": self._pairs[direction], "inputs": inputs}
                for direction, inputs in self.inputs.items()
            ],
            "steps": [{"step": step, "outputs": self.outputs[step]} for step in sorted(self.outputs)],
        }


def spread(steps: Sequence[int], most: int) -> list[int]:
    """Returns at most `most` of the steps, evenly spread, with the first and the last."""
    if len(steps) <= most:
        return list(steps)
    return [steps[index * (len(steps) - 1) // (most - 1)] for index in range(most)]


def strip(images: Iterable[Image.Image], most: int) -> str:
    """Returns images of one size side by side, `COLUMNS` in a row, as the URI of a WebP image of at most `most` bytes.

    The image is without loss if that is small enough, otherwise compressed, otherwise smaller too.
    """
    images = list(images)
    width, height = images[0].size
    whole = Image.new("RGB", (COLUMNS * width, -(-len(images) // COLUMNS) * height))
    for index, image in enumerate(images):
        whole.paste(image, (index % COLUMNS * width, index // COLUMNS * height))
    content = _webp(whole, lossless=True, quality=20, method=0)
    while len(content) > most and width > 8:
        content = _webp(whole, quality=95, method=0)
        width, height = width // 2, height // 2
        whole = whole.resize((COLUMNS * width, whole.height // 2), Image.Resampling.BOX)
    return f"data:image/webp;base64,{base64.b64encode(content).decode()}"


def _webp(image: Image.Image, **options: bool | int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", **options)
    return buffer.getvalue()
