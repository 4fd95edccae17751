"""Measures a folder of images against a folder of real images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ganlab.components.registry import registry
from ganlab.data.dataset import Progress, describe_skipped
from ganlab.data.image_files import found_below, picture
from ganlab.determinism import keyed, untouched_randomness
from ganlab.errors import SpecError
from ganlab.evaluation.evaluator import Measured, at_fewer, reasons
from ganlab.evaluation.metric_suite import SEED, MetricSuite
from ganlab.interfaces.metrics import Images, MetricInputs, Pixels
from ganlab.spec.devices import device
from ganlab.spec.models import Evaluation, Json


class Folder:
    """The readable images below a folder, sorted by path, at their own sizes.

    `real` marks them as real images. Raises SpecError if the folder does not exist or holds no readable image.
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

    def fingerprint(self) -> Json:
        """Returns {"folder", "images", "left_out", "sha256"}: its name, counts, and a hash of all pixels."""
        hashed = hashlib.sha256()
        for image in self.images.pixels:
            hashed.update(repr(image.shape).encode() + image.tobytes())
        return {
            "folder": self.path.name,
            "images": len(self.keys),
            "left_out": self.skipped,
            "sha256": hashed.hexdigest(),
        }


def evaluate_folders(
    images: tuple[str | Path, str | Path],
    inputs: str | Path | None,
    asked: Evaluation,
    progress: Progress,
    warn: Callable[[str], None],
) -> Json:
    """Measures the first folder of `images` against the second, which holds real images.

    `inputs` is the folder of the images from which those in the first folder were made, under the same names. `asked`
    is resolved. Raises SpecError if no metric is asked for, or if a folder can't be used.
    """
    suite = MetricSuite.build(asked, torch.device(device("auto", "eval")), progress)
    if not asked.metrics:
        raise SpecError(f"--images needs two folders and a metric; known are: {', '.join(registry().names('metric'))}")
    paths = [*images, *([inputs] if inputs is not None else [])]
    folders = [Folder(path, index > 0, progress) for index, path in enumerate(paths)]
    for folder in folders:
        if folder.skipped:
            warn(describe_skipped(str(folder.path), folder.skipped, folder.keys))
    with untouched_randomness(torch.device("cpu")):
        return evaluate(suite, *folders)


def evaluate(
    suite: MetricSuite,
    measured: Folder,
    real: Folder,
    inputs: Folder | None = None,
) -> Json:
    """Measures the images of `measured` against those of `real` and returns the content of an evaluation.json.

    `inputs` holds the images from which those in `measured` were made, under the same names; None if not known. The
    reference "real" compares one half of `real` with the other, and each result is also given for as few images.
    """
    made_from = None if inputs is None else _paired(measured, inputs)
    data = suite.seeing(MetricInputs("", measured.images, targets=real.images, inputs=made_from, seed=SEED))
    evaluator = suite.evaluator
    # the whole sets first, so that their parts need no further forwards
    found = evaluator.measure(data)
    left_out = reasons(evaluator.left_out)
    references: dict[str, Measured] = {}
    beside: Measured = {}
    if (half := len(real.images) // 2) > 0:
        dealt = [int(i) for i in keyed("halves", SEED, len(real.images)).permutation(len(real.images))]
        others = real.images.take(sorted(dealt[: min(half, len(measured.images))]))
        against = replace(data, targets=real.images.take(sorted(dealt[half:])))
        references["real"] = evaluator.real(against, others)
        beside = evaluator.measure(at_fewer(against, len(others)))
    if made_from is not None:
        references["identity"] = evaluator.identity(data, made_from)
    folders = {"measured": measured, "real": real, **({} if inputs is None else {"inputs": inputs})}
    return {
        "protocol": {
            "images": {name: folder.fingerprint() for name, folder in folders.items()},
            **suite.protocol(),
        },
        "results": [result.as_json() for result in evaluator.results("", found, references, beside)],
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
