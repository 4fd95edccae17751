"""Measures a run on folders of pictures: its translations of one folder against the real images of another."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ganlab.data.reading import Progress, noting_warnings
from ganlab.determinism import untouched_randomness
from ganlab.errors import RunError
from ganlab.evaluation.image_folders import Folder, evaluate, partners_in
from ganlab.evaluation.metric_suite import SEED, MetricSuite
from ganlab.files import hashes
from ganlab.inference.translator import Translator
from ganlab.interfaces.metrics import Images, MetricInputs, Pixels
from ganlab.spec.models import Evaluation, Json


def evaluate_translations(
    translator: Translator,
    direction: str,
    inputs: str | Path,
    real: str | Path,
    asked: Evaluation,
    progress: Progress,
    warn: Callable[[str], None],
) -> Json:
    """Measures the translations of the pictures in the folder `inputs` against the images in the folder `real`.

    All are cropped and resized as the run's images are. `asked` is resolved. Returns the content of an evaluation.json.
    Raises SpecError if a folder can't be used, RunError if a generator fails.
    """
    spec = translator.spec
    suite = MetricSuite.build(asked, torch.device(spec.runtime.device), progress)
    with noting_warnings(), untouched_randomness(torch.device("cpu")):
        folders = {
            name: Folder(path, True, progress, partial(translator.prepared, domain))
            for name, path, domain in (("inputs", inputs, direction[0]), ("real", real, direction[1]))
        }
        for folder in folders.values():
            for sentence in folder.warnings:
                warn(sentence)
        sources = folders["inputs"].images
        back = direction[::-1] in spec.directions
        outputs, cycled = list[Pixels](), list[Pixels]()
        for pixels in progress(sources.pixels, "translations", len(sources)):
            try:
                found = translator.pictures(direction, Image.fromarray(pixels), "run", back)
            # a generator may run out of memory
            except ValueError as error:
                raise RunError(f"{inputs} can't be translated: {error}") from error
            outputs.append(np.asarray(found.output.convert("RGB")))
            if found.back is not None:
                cycled.append(np.asarray(found.back.convert("RGB")))
        data = MetricInputs(
            direction,
            Images(outputs, direction[1]),
            targets=folders["real"].images,
            inputs=sources,
            partners=partners_in(folders["real"], folders["inputs"], suite, warn),
            cycled=Images(cycled, direction[0]) if back else None,
            seed=SEED,
        )
        return evaluate(
            suite,
            data,
            {
                "images": {name: folder.fingerprint() for name, folder in folders.items()},
                "spec": spec.fingerprint(),
                "precision": spec.runtime.precision,
                "step": translator.step,
                "networks": hashes(translator.files()),
                "translated": f"in eval mode, one image of {spec.data.size} x {spec.data.size} pixels at a time,"
                " rounded to 8 bits, before the translation back too",
            },
        )
