"""The held-out faces of a run's samples, cut out of its grids, for the slider through training."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
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

    def __init__(
        self,
        size: int,
        pairs: Mapping[str, int],
        samples: int = SAMPLES,
        most: int = BYTES,
        faces: int | None = None,
        end: int = 0,
    ) -> None:
        """`pairs` is {direction: its number of pairs in a grid}; at most `faces` of them are kept, evenly spread.

        At most `samples` samples are kept, each in at most `most` bytes. `end` is the last step of the training.
        """
        self.end = end
        self._size, self._pairs, self._samples, self._most = size, pairs, samples, most
        self._kept = {direction: spread(range(count), faces or count) for direction, count in pairs.items()}
        self.inputs: dict[str, str] = {}
        """{direction: the strip of its inputs}; empty without a sample."""
        self.seen: dict[str, str] = {}
        """{direction: a hash of its inputs' pixels}."""
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
                    inputs, outputs = (
                        {name: strip([pairs[side][i] for i in self._kept[name]], most) for name, pairs in found.items()}
                        for side in (0, 1)
                    )
                    if not self.inputs:
                        self.inputs = inputs
                        self.seen = {
                            name: sha256(b"".join(pairs[0][i].tobytes() for i in self._kept[name])).hexdigest()
                            for name, pairs in found.items()
                        }
                    self.outputs[step] = outputs

    def strips(self, direction: str, steps: Iterable[int | None]) -> list[str | None]:
        """Returns the strip of each step; None where the step is None."""
        return [None if step is None else self.outputs[step][direction] for step in steps]

    def count(self, direction: str) -> int:
        """Returns the number of images in each strip of a direction."""
        return len(self._kept[direction])


def side_by_side(seed: int, systems: Sequence[Faces | None]) -> Json:
    """Returns the same images under each system: {"seed", "unit", "steps", "directions": [{"name", "count", "inputs",
    "outputs": for each system, its strip at each of the steps, or None}]}.

    If all systems train for the same number of steps, "unit" is "step", and "steps" are the steps at which all finished
    systems have samples. Otherwise "unit" is "percent", and "steps" are percentages of the training: the samples of the
    finished system with the fewest samples. A system that is None has no strips. A system has no strips in a direction
    in which its inputs differ from those of the first system.
    """
    known = [faces for faces in systems if faces is not None]
    unit, steps, chosen = _aligned(known)
    first = {direction: faces for faces in reversed(known) for direction in faces.inputs}
    return {
        "seed": seed,
        "unit": unit,
        "steps": steps,
        "directions": [
            {
                "name": direction,
                "count": first[direction].count(direction),
                "inputs": first[direction].inputs[direction],
                "outputs": [
                    faces.strips(direction, chosen[known.index(faces)])
                    if faces is not None and faces.seen.get(direction) == first[direction].seen[direction]
                    else []
                    for faces in systems
                ],
            }
            for direction in sorted(first)
        ],
    }


def _aligned(systems: Sequence[Faces]) -> tuple[str, list[int], list[list[int | None]]]:
    """Returns the unit and the steps of `side_by_side`, and for each system the sample that it shows at each step."""
    ended = [faces for faces in systems if max(faces.outputs) >= faces.end] or systems
    if len({faces.end for faces in systems}) == 1:
        each = [set(faces.outputs) for faces in ended]
        steps = sorted(set.intersection(*each) or set.union(*each))
        return "step", steps, [[step if step in faces.outputs else None for step in steps] for faces in systems]
    fewest = min(ended, key=lambda faces: len(faces.outputs))
    shares = [step / fewest.end for step in sorted(fewest.outputs)]
    return "percent", [round(100 * share) for share in shares], [_nearest(faces, shares) for faces in systems]


def _nearest(faces: Faces, shares: Iterable[float]) -> list[int | None]:
    """Returns the sample that is nearest to each share of a training; None for a share that the run has not reached."""
    reached = max(faces.outputs) / faces.end
    return [
        min(faces.outputs, key=lambda step: abs(step / faces.end - share)) if share <= reached + 0.05 else None
        for share in shares
    ]


def spread(steps: Sequence[int], most: int) -> list[int]:
    """Returns at most `most` of the steps, evenly spread, with the last; also with the first unless `most` is 1."""
    if len(steps) <= most:
        return list(steps)
    return [steps[-1 - index * (len(steps) - 1) // max(1, most - 1)] for index in reversed(range(most))]


def strip(images: Iterable[Image.Image], most: int) -> str:
    """Returns images of one size side by side, `COLUMNS` in a row, as the URI of a WebP image of at most `most` bytes.

    The image is without loss if that is small enough, otherwise compressed, otherwise smaller too, down to 8 pixels for
    each.
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
