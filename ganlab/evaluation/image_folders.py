"""Measures a folder of images against a folder of real images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ganlab.components.registry import registry
from ganlab.data.image_files import found_below, picture
from ganlab.data.pairs import partners
from ganlab.data.reading import Progress, describe, noting_warnings, read, read_all
from ganlab.determinism import keyed, untouched_randomness
from ganlab.errors import SpecError
from ganlab.evaluation.evaluator import Measured, reasons
from ganlab.evaluation.metric_suite import SEED, MetricSuite
from ganlab.files import home_expanded
from ganlab.interfaces.metrics import Images, LazyPixels, MetricInputs, Pixels, image_digest
from ganlab.spec.devices import device
from ganlab.spec.models import Evaluation, Json


class Folder:
    """The readable images below a folder, sorted by path, as `opened` returns them: by default at their own sizes.

    Every image is read once to check it. Its hash is kept; its pixels are read again whenever they are needed, inside
    `noting_warnings`.

    `real` marks them as real images. Raises SpecError if the folder does not exist or holds no readable image.
    """

    def __init__(
        self, path: str | Path, real: bool, progress: Progress, opened: Callable[[Path], Image.Image] | None = None
    ) -> None:
        self._opened = opened
        try:
            self.path = home_expanded(path)
        except ValueError as error:
            raise SpecError(str(error)) from error
        if not self.path.is_dir():
            raise SpecError(f"{self.path} {'is not a folder' if self.path.exists() else 'does not exist'}")
        found = found_below(self.path)
        self.keys: list[str] = []
        self.skipped: list[str] = []
        self._digests: list[bytes] = []
        notes: dict[str, list[str]] = {}
        brightest, constant = 0, True

        def look(key: str) -> tuple[bytes, int, bool]:
            pixels = self._picture(key)
            return image_digest(pixels), int(pixels.max()), bool((pixels == pixels[0, 0]).all())

        for key, seen, noted in progress(read_all(look, found), f"images of {self.path.name}", len(found)):
            if isinstance(seen, Exception):
                self.skipped.append(f"{key}: {seen}")
                continue
            self.keys.append(key)
            self._digests.append(seen[0])
            brightest, constant = max(brightest, seen[1]), constant and seen[2]
            for note in dict.fromkeys(noted):
                notes.setdefault(note, []).append(key)
        if not self.keys:
            why = f"; {self.skipped[0]}" if self.skipped else " and is empty"
            raise SpecError(f"{self.path} holds no readable image{why}")
        self.warnings = [*describe(str(self.path), self.keys, self.skipped, notes, brightest, constant)]
        self.images = Images(LazyPixels(self._pixels, range(len(self.keys))), real=real, digests=self._digests)

    def _picture(self, key: str) -> Pixels:
        return np.asarray((self._opened or picture)(self.path / key))

    def _pixels(self, place: int) -> Pixels:
        """Reads an image again. Raises SpecError if it has changed."""
        key = self.keys[place]
        pixels, _ = read(self._picture, key)
        why = f" ({pixels})" if isinstance(pixels, Exception) else ""
        if isinstance(pixels, Exception) or image_digest(pixels) != self._digests[place]:
            raise SpecError(f"{self.path / key} has changed since it was first read{why}; measure again")
        return pixels

    def fingerprint(self) -> Json:
        """Returns {"folder", "images", "left_out", "sha256"}: its name, counts, and a hash of all pixels."""
        return {
            "folder": self.path.name,
            "images": len(self.keys),
            "left_out": self.skipped,
            "sha256": hashlib.sha256(b"".join(self._digests)).hexdigest(),
        }


def evaluate_folders(
    images: tuple[str | Path, str | Path],
    inputs: str | Path | None,
    asked: Evaluation,
    progress: Progress,
    warn: Callable[[str], None],
) -> Json:
    """Measures the first folder of `images` against the second, which holds real images.

    `inputs` is the folder of the images from which those in the first folder were made, under the same names except for
    suffixes. `asked` is resolved. Raises SpecError if no metric is asked for, or if a folder can't be used.
    """
    suite = MetricSuite.build(asked, torch.device(device("auto", "eval")), progress)
    if not asked.metrics:
        raise SpecError(f"--images needs two folders and a metric; known are: {', '.join(registry().names('metric'))}")
    paths = [*images, *([inputs] if inputs is not None else [])]
    with noting_warnings(), untouched_randomness(torch.device("cpu")):
        folders = [Folder(path, index > 0, progress) for index, path in enumerate(paths)]
        for folder in folders:
            for sentence in folder.warnings:
                warn(sentence)
        measured, real = folders[:2]
        made_from = _matched(measured, folders[2], "input") if inputs is not None else None
        names = ("measured", "real", "inputs")
        data = MetricInputs(
            "",
            measured.images,
            targets=real.images,
            inputs=made_from,
            partners=partners_in(real, measured, suite, warn),
            seed=SEED,
        )
        return evaluate(
            suite, data, {"images": {n: folder.fingerprint() for n, folder in zip(names, folders, strict=False)}}
        )


def evaluate(suite: MetricSuite, data: MetricInputs, protocol: Json) -> Json:
    """Measures images against real ones and returns the content of an evaluation.json.

    `protocol` says how the images were made. The reference "real" compares one half of the real images with the other,
    and each result is also given for as few images. The reference "identity" needs `data.inputs`.
    """
    evaluator, real = suite.evaluator, data.targets
    # the whole sets first, so that their parts need no further forwards
    found = evaluator.measure(data)
    references: dict[str, Measured] = {}
    beside: Measured = {}
    if (half := len(real) // 2) > 0:
        dealt = [int(i) for i in keyed("halves", SEED, len(real)).permutation(len(real))]
        others = real.take(sorted(dealt[: min(half, len(data.outputs))]))
        against = replace(data, targets=real.take(sorted(dealt[half:])))
        references["real"] = evaluator.real(against, others)
        beside = evaluator.measure_fewer(against, len(others))
    if data.inputs is not None:
        references["identity"] = evaluator.identity(data, data.inputs)
    return {
        "protocol": {**protocol, **suite.protocol()},
        "results": [result.as_json() for result in evaluator.results(data.direction, found, references, beside)],
        "left_out": reasons(evaluator.left_out),
    }


def partners_in(real: Folder, folder: Folder, suite: MetricSuite, warn: Callable[[str], object]) -> Images | None:
    """Returns the partner in `real` of each image in `folder`, for metrics that compare with it.

    Returns None if there is no such metric, or, after a warning, if an image has no partner.
    """
    if not any(metric.on_pairs for metric in suite.evaluator.metrics.values()):
        return None
    try:
        return _matched(folder, real, "partner")
    except SpecError as error:
        warn(str(error))
        return None


def _matched(folder: Folder, others: Folder, meant: str) -> Images:
    """Returns the image in `others` of each image in `folder`: that of the same name, or else the one whose name
    differs only in its suffix.

    `meant` names it in messages. Raises SpecError if an image has none, or if another could be meant.
    """
    found = partners(folder.keys, others.keys, meant, (str(folder.path), str(others.path)))
    if missing := [key for key in folder.keys if key not in found]:
        raise SpecError(
            f"{others.path} has no readable {missing[0]!r}, with this suffix or another, and each image of"
            f" {folder.path} needs its {meant} there ({len(missing)} of {len(folder.keys)} have none)"
        )
    places = {key: place for place, key in enumerate(others.keys)}
    return others.images.take([places[found[key]] for key in folder.keys])
