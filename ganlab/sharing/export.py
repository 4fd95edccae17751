"""Exports a run as a folder that can be shared: weights, spec, model card, samples and ONNX files."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from ganlab import files
from ganlab.errors import RunError, SpecError
from ganlab.inference.run import Run, load_run, translator_of
from ganlab.inference.translator import Translator
from ganlab.interfaces.callbacks import Callback
from ganlab.runs import checkpoint as checkpoints
from ganlab.runs import shared
from ganlab.runs.folder import RunFolder
from ganlab.runs.shared import About
from ganlab.sharing import onnx as onnx_files
from ganlab.sharing.card import Model
from ganlab.sharing.folder import GRID, check_target, contents, write
from ganlab.sharing.onnx import Exported
from ganlab.spec.models import Json, Spec

PACKAGES = ("ganlab", "torch")
"""The packages whose versions at the training a model names."""

COLUMNS = "Odd columns are inputs; the image to the right of each is its translation"


def export(
    run: str | Path | Run,
    out: str | Path,
    checkpoint: str | int = "last",
    onnx: bool = False,
    license: str | None = None,
    overwrite: bool = False,
    callback: Callback | None = None,
) -> Json:
    """Writes a folder that can be shared as it is, and that `load_run` reads.

    It holds ab.safetensors and ba.safetensors, the weights of the generators, averaged ones if there are any;
    spec.json, without callbacks and the paths of this machine; README.md, a model card with front matter;
    evaluation.json, the results of this checkpoint, if it is measured; and grid.png, held-out images of the run with
    their translations.

    Args:
        run: A run folder, the folder of a shared model, or a run.
        out: The folder to write.
        checkpoint: "last", "best" or a step.
        onnx: Also write ab.onnx and ba.onnx: float32, for any number of images, and for any height and width that the
            generator takes. ONNX Runtime compares them with PyTorch before anything is written.
        license: The licence's identifier for the model card, as model hubs have them, such as "mit".
        overwrite: Replace the shared model that is in the folder.
        callback: Receives the progress.

    Returns {"folder", "step", "files", "onnx"}; "onnx" is {direction: {"opset", "checked", "difference", "exact"}}.
    Raises SpecError, before anything is written, if an argument is wrong, a file is there already or a generator can't
    be written as ONNX; RunError if the checkpoint is damaged, an ONNX file differs from PyTorch, or the disk fails.
    """
    callback = callback or Callback()
    if onnx:
        onnx_files.check_installed()
    run = run if isinstance(run, Run) else load_run(run)
    translator = translator_of(run, checkpoint)
    folder, target = RunFolder(run.folder), files.home_expanded(out)
    if target.exists() and folder.path.resolve() == target.resolve():
        raise SpecError(f"{target} is the run to export; choose another folder")
    check_target(target, overwrite)
    spec, step = translator.spec, translator.step
    grid, caption = _grid(folder, step)
    exported = (
        {d: _onnx(translator, d) for d in callback.progress(spec.directions, "ONNX files", len(spec.directions))}
        if onnx
        else {}
    )
    model = Model(
        spec,
        translator.domains,
        {direction: translator.generator(direction) for direction in spec.directions},
        translator.needs(spec.directions[0]),
        {direction: _about(folder, spec, step, direction) for direction in spec.directions},
        _evaluation(folder, step),
        caption,
        exported,
        license,
    )
    made = contents(model, grid)
    write(target, made)
    return {
        "folder": str(target),
        "step": step,
        "files": list(made),
        "onnx": {direction: found.as_json() for direction, found in exported.items()},
    }


def _onnx(translator: Translator, direction: str) -> Exported:
    plain: nn.Module = translator.generator(direction).float().cpu()
    channels, size = translator.domains[direction[0]].channels, translator.spec.data.size
    return onnx_files.export(plain, channels, size, translator.needs(direction))


def _about(folder: RunFolder, spec: Spec, step: int, direction: str) -> About:
    if folder.shared:
        return shared.about(folder.path, direction)
    data = checkpoints.manifest(folder.checkpoints, step)["data"]
    about = About(step=step, averaged=spec.ema_halflife_images is not None, data=data)
    environment = folder.environment() or {}
    packages, device = environment.get("packages"), environment.get("device_name")
    if isinstance(packages, dict) and isinstance(device, str):
        about["trained"] = {"packages": {name: packages.get(name) for name in PACKAGES}, "device_name": device}
    return about


def _grid(folder: RunFolder, step: int) -> tuple[bytes | None, str]:
    """Returns the content of grid.png and its caption; (None, "") if the run has no grid."""
    path, caption = folder.path / GRID, f"{COLUMNS}."
    if not folder.shared:
        # a checkpoint may lie between two samples
        drawn = [number for number in folder.sampled if number <= step]
        if not drawn:
            return None, ""
        path = folder.sample(drawn[-1])
        caption = f"Images that were held out of training. {COLUMNS}, at step {drawn[-1]}."
    try:
        return (path.read_bytes(), caption) if path.is_file() else (None, "")
    except OSError as error:
        raise RunError(f"{path} can't be read: {error.strerror or error}") from error


def _evaluation(folder: RunFolder, step: int) -> Json | None:
    """Returns evaluation.json with the results of one checkpoint alone; None if it is not measured."""
    found = folder.evaluation()
    results = [result for result in (found or {}).get("results", []) if result["step"] == step]
    if found is None or not results:
        return None
    name = checkpoints.name_of(step)
    measured = {key: value for key, value in found["protocol"]["checkpoints"].items() if key == name}
    # the reasons why numbers are left out may name paths of this machine
    return {"protocol": {**found["protocol"], "checkpoints": measured}, "results": results, "left_out": []}
