"""A trained run, read from its folder: its spec, records and results, and its generators at work."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from PIL import Image
from torch import Tensor, nn

from ganlab.display.html import data_url, render
from ganlab.engine.step_log import Record
from ganlab.errors import SpecError
from ganlab.evaluation.best import chosen_step
from ganlab.inference.translator import Translator
from ganlab.runs.folder import RunFolder
from ganlab.runs.overview import list_runs
from ganlab.spec.models import Json, Spec
from ganlab.system.build import build_schedule


@dataclass(frozen=True, repr=False)
class Run:
    """A run, read from its folder."""

    folder: Path
    """The path of the run folder."""
    spec: Spec
    """The run's spec, resolved."""
    step: int
    """The step of the newest checkpoint; 0 if there is none."""
    steps: int
    """The number of steps of the whole run."""
    evaluation: Json | None
    """The content of evaluation.json; None if the run is not measured."""
    stopped: str | None = None
    """The reason why a finished run has fewer steps than its schedule; None if a callback did not stop it."""

    @property
    def records(self) -> list[Record]:
        """A record of each step, read from the folder: "step", "seconds", "images", and every term, logged value and
        gradient norm."""
        return list(RunFolder(self.folder).records())

    @property
    def finished(self) -> bool:
        """True if all steps are trained, or if a callback ended the run earlier."""
        return self.step >= self.steps or self.stopped is not None

    def __repr__(self) -> str:
        return f"<Run {self.spec.name}: step {self.step} of {self.steps}, in {self.folder}>"

    def _repr_html_(self) -> str:
        """Returns what a notebook shows: name, state, results and the newest sample grid."""
        (status,) = list_runs(self.folder)
        sample = RunFolder(self.folder).sample(self.step)
        return render(
            "run",
            name=self.spec.name,
            state=status.state,
            why=status.why,
            step=self.step,
            steps=self.steps,
            folder=self.folder,
            results=(self.evaluation or {}).get("results", []),
            grid=data_url(sample.read_bytes()) if sample.is_file() else "",
        )

    @property
    def checkpoints(self) -> list[int]:
        """The steps of the checkpoints that are in the folder now, oldest first."""
        return RunFolder(self.folder).steps

    @overload
    def translate(self, image: Tensor, to: str, size: str = "run", checkpoint: str | int = "last") -> Tensor: ...

    @overload
    def translate(
        self, image: str | Path | Image.Image, to: str, size: str = "run", checkpoint: str | int = "last"
    ) -> Image.Image: ...

    def translate(
        self, image: str | Path | Image.Image | Tensor, to: str, size: str = "run", checkpoint: str | int = "last"
    ) -> Image.Image | Tensor:
        """Returns the translation of a picture, with the run's preprocessing and weights, averaged ones if there are.

        Args:
            image: A PIL image or the path of one, read as the source `folder` reads it; or images (N, C, H, W) in
                [-1, 1], which keep their size and give (N, C', H, W) float32 in [-1, 1] on the same device.
            to: The domain to translate into, "a" or "b".
            size: "run" makes the picture a square of the size of the run's images. The option `fit` of the source
                `folder` says how; for other sources, the largest centred square is cut out. "keep" translates the whole
                picture at its own size: it is padded by reflection at the bottom and at the right to a size that the
                generator takes, and the translation is cropped.
            checkpoint: "last", "best" by the measurements during training, or a step.

        Raises SpecError if the picture can't be read or an argument is wrong, RunError if the checkpoint is damaged.
        """
        return translator_of(self, checkpoint).translate(image, to, size)

    def generator(self, direction: str, checkpoint: str | int = "last") -> nn.Module:
        """Returns a copy of the generator of "ab" or "ba", on the run's device and in eval mode.

        It takes images (N, C, H, W) in [-1, 1], and computes in the type of its weights, also if the run computes in
        bfloat16. Raises SpecError if the run has no such direction or checkpoint.
        """
        return translator_of(self, checkpoint).generator(direction)

    @functools.cached_property
    def _translators(self) -> dict[int, Translator]:
        return {}


LOADED = 4
"""The most checkpoints of a run whose generators are kept in memory."""


def translator_of(run: Run, checkpoint: str | int = "last") -> Translator:
    """Returns the generators of a run's checkpoint, which stay loaded. Raises SpecError if there is none."""
    folder = RunFolder(run.folder)
    step = chosen_step(folder, run.spec, checkpoint)
    loaded = run._translators
    # the one that was used last is kept longest
    loaded[step] = loaded.pop(step) if step in loaded else Translator(folder, run.spec, step)
    if len(loaded) > LOADED:
        del loaded[next(iter(loaded))]
    return loaded[step]


def read_run(folder: RunFolder, spec: Spec) -> Run:
    """Returns the run in a folder, with its spec as it is given."""
    steps = build_schedule(spec).steps
    step = chosen_step(folder, spec, "last") if folder.steps or folder.shared else 0
    stopped = folder.stopped()
    return Run(folder.path, spec, step, steps, folder.evaluation(), stopped and stopped["why"])


def load_run(folder: str | Path) -> Run:
    """Reads a run folder, or the folder of a shared model. Raises SpecError if it is neither."""
    where = RunFolder(folder)
    if not where.exists:
        raise SpecError(f"{folder} is not a run: it has no spec.json")
    return read_run(where, where.spec_here())
