"""Two folders of images measured against each other."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ganlab.data.pictures import found_below, picture
from ganlab.data.store import Progress
from ganlab.draws import keyed
from ganlab.errors import SpecError
from ganlab.evaluation.evidence import Evidence, Images, Pixels
from ganlab.evaluation.examine import Measured, at_fewer, reasons
from ganlab.evaluation.run import SEED, Tools
from ganlab.registry import Registry
from ganlab.spec import Evaluation, Json


class Folder:
    """The readable pictures below a folder, in the order of their paths, at their own sizes; `real` or not.

    Raises SpecError where there is no such folder, or no picture in it.
    """

    def __init__(self, path: str | Path, real: bool, progress: Progress) -> None:
        self.path = Path(path).expanduser()
        if not self.path.is_dir():
            raise SpecError(f"{self.path} {'is not a folder' if self.path.exists() else 'does not exist'}")
        keys = found_below(self.path)
        self.keys: list[str] = []
        self.skipped: list[str] = []
        pixels: list[Pixels] = []

        def read(key: str) -> Pixels | ValueError:
            try:
                return np.asarray(picture(self.path / key))
            except ValueError as error:
                return error

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            for key, found in zip(
                keys, progress(pool.map(read, keys), f"images of {self.path.name}", len(keys)), strict=True
            ):
                if isinstance(found, ValueError):
                    self.skipped.append(f"{key}: {found}")
                else:
                    self.keys.append(key)
                    pixels.append(found)
        if not pixels:
            why = f"; {self.skipped[0]}" if self.skipped else " and is empty"
            raise SpecError(f"{self.path} holds no readable image{why}")
        self.images = Images(pixels, real=real)

    def facts(self) -> Json:
        """What tells this set from another."""
        hashed = hashlib.sha256()
        for image in self.images.pixels:
            hashed.update(repr(image.shape).encode() + image.tobytes())
        return {
            "folder": self.path.name,
            "images": len(self.keys),
            "left_out": self.skipped,
            "sha256": hashed.hexdigest(),
        }


def evaluate(
    registry: Registry, tools: Tools, asked: Evaluation, measured: Folder, real: Folder, inputs: Folder | None = None
) -> Json:
    """How the images of `measured` stand to those of `real`; `inputs` holds under the same names what they were made
    from, where that is known.

    The reference "real" is one half of `real` against the other, and the figure at those counts stands beside it.
    """
    made_from = None if inputs is None else _paired(measured, inputs)
    evidence = tools.seeing(Evidence("", measured.images, targets=real.images, inputs=made_from, seed=SEED))
    examiner = tools.examiner
    # the whole sets first: their parts then need no forward of their own
    found = examiner.measure(evidence)
    left_out = reasons(examiner.left_out)
    references: dict[str, Measured] = {}
    beside: Measured = {}
    if (half := len(real.images) // 2) > 0:
        dealt = [int(i) for i in keyed("halves", SEED, len(real.images)).permutation(len(real.images))]
        others = real.images.take(sorted(dealt[: min(half, len(measured.images))]))
        against = replace(evidence, targets=real.images.take(sorted(dealt[half:])))
        references["real"] = examiner.real(against, others)
        beside = examiner.measure(at_fewer(against, len(others)))
    if made_from is not None:
        references["nothing"] = examiner.nothing(evidence, made_from)
    folders = {"measured": measured, "real": real, **({} if inputs is None else {"inputs": inputs})}
    return {
        "protocol": {
            "images": {name: folder.facts() for name, folder in folders.items()},
            **tools.protocol(registry, asked),
        },
        "figures": [figure.as_json() for figure in examiner.figures("", found, references, beside)],
        "left_out": left_out,
    }


def _paired(measured: Folder, inputs: Folder) -> Images:
    places = {key: place for place, key in enumerate(inputs.keys)}
    missing = [key for key in measured.keys if key not in places]
    if missing:
        raise SpecError(
            f"{inputs.path} has no readable {missing[0]!r}, and each image of {measured.path} needs its input there,"
            f" under the same name ({len(missing)} of {len(measured.keys)} have none)"
        )
    return inputs.images.take([places[key] for key in measured.keys])
