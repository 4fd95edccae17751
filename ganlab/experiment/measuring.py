"""Measures runs and folders of images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ganlab.components.registry import registry
from ganlab.display.choice import showing
from ganlab.distributed import together
from ganlab.errors import SpecError, Unavailable
from ganlab.evaluation.image_folders import evaluate_folders
from ganlab.evaluation.results import measure_run
from ganlab.experiment.parts import callbacks_of, domains_of, evaluator_of, images_of, reproducibly
from ganlab.experiment.shared_evaluation import interruptible, measuring_again, share_evaluation
from ganlab.experiment.specs import load_spec
from ganlab.inference.measure import evaluate_translations
from ganlab.inference.run import load_run, translator_of
from ganlab.interfaces.callbacks import Callback
from ganlab.report.run_page import RunPage
from ganlab.runs.folder import RunFolder
from ganlab.runs.manifest import changed_code
from ganlab.spec import devices
from ganlab.spec.models import Evaluation, Json, Options, Spec, differences
from ganlab.spec.resolve import resolve_evaluation
from ganlab.system.build import build
from ganlab.workers import served


def evaluate(
    run: str | Path | None = None,
    metrics: Sequence[str | Options] = (),
    features: str | Options | None = None,
    images: tuple[str | Path, str | Path] | str | Path | None = None,
    inputs: str | Path | None = None,
    callback: Callback | None = None,
    set: Iterable[str] = (),
    to: str | None = None,
) -> Json:
    """Measures a run on its own images, or on others; or measures a folder of images.

    Results on a run's own images are kept in its evaluation.json.

    Args:
        run: The run folder, by default the newest in runs/ that has a checkpoint.
        metrics: Types of metrics, or objects with a type and options; by default those of the run's spec.
        features: The feature network, in the same form; by default the spec's, or else the first one that ships.
        images: With a run, a folder of real images: the run translates the pictures in `inputs`, and its translations
            are measured against them. Without a run, two folders: the images to measure, and real images.
        inputs: The folder of the pictures to translate. Without a run, the folder of the images from which those in
            `images[0]` were made; their names may differ in suffixes only.
        callback: Shows the progress and the warnings, as for `run`.
        set: Changes to the run's spec for this evaluation, each "path.to.key=value". They may change only what does not
            affect training, for example "data.a.path=photos" if the images have moved.
        to: With a run and `images`: the domain to translate into, by default that of the run's first direction.

    Returns {"protocol", "results", "left_out"}. Raises SpecError, before anything is written, if an argument is wrong
    or something that it names is missing; Unavailable if no number could be measured.
    """
    with showing(callback) as shown:
        return _measured(asked_evaluation(run, metrics, features, images, inputs, set, to), shown)


def evaluate_together(ask: Callable[[], AskedEvaluation], callback: Callback) -> Json:
    """Does what `evaluate` does, in rank 0 of several processes or in the only process.

    The other ranks call `follow_evaluation`. `ask` returns the result of `asked_evaluation`. Raises Lost if another
    process ends.
    """
    with measuring_again():
        with together():
            asked = ask()
        share_evaluation(asked.evaluation, asked.device, asked.spec)
        with interruptible(), served(callback.warn):
            return _measured(asked, callback)


def _measured(asked: AskedEvaluation, callback: Callback) -> Json:
    found = asked.measure(callback)
    if not found["results"]:
        reasons = "; ".join(dict.fromkeys(f"{left['metric']} {left['why']}" for left in found["left_out"]))
        raise Unavailable(f"nothing could be measured: {reasons}")
    return found


class AskedEvaluation(NamedTuple):
    """What `evaluate` is asked to measure."""

    evaluation: Evaluation
    """Its metrics and feature networks, resolved."""
    device: str
    spec: Spec | None
    """The spec of a run that is measured on its own images."""
    measure: Callable[[Callback], Json]


def asked_evaluation(
    run: str | Path | None,
    metrics: Sequence[str | Options],
    features: str | Options | None,
    images: tuple[str | Path, str | Path] | str | Path | None,
    inputs: str | Path | None,
    set: Iterable[str],
    to: str | None,
) -> AskedEvaluation:
    """Checks the arguments of `evaluate` and returns what they ask for. Reads no image. Raises SpecError if an argument
    is wrong."""
    changes = tuple(set)
    if to is not None and (run is None or images is None):
        raise SpecError(f"--to {to}: goes with a run and --images")
    if images is None:
        if inputs is not None:
            raise SpecError("--inputs goes with --images")
        return _asked_of_run(RunFolder(run) if run is not None else newest_run(), metrics, features, changes)
    if run is not None:
        if isinstance(images, tuple):
            raise SpecError(f"either a run ({run}) or two folders of --images are measured, not both")
        if inputs is None:
            raise SpecError(f"--images {images}: needs --inputs, the pictures that {run} translates")
        if changes:
            raise SpecError(f"--set {changes[0]}: goes with the run's own images, not with --images")
        return _asked_of_translations(RunFolder(run), metrics, features, images, inputs, to)
    if not isinstance(images, tuple):
        raise SpecError(f"--images {images}: needs a run that translates --inputs, or a second folder")
    if changes:
        raise SpecError(f"--set {changes[0]}: goes with a run, not with --images")
    asked, folders = resolve_evaluation(Evaluation(metrics=tuple(metrics), features=features), "eval"), images
    return AskedEvaluation(
        asked,
        devices.device("auto", "eval"),
        None,
        lambda callback: evaluate_folders(folders, inputs, asked, callback.progress, callback.warn),
    )


def newest_run(where: str | Path = "runs") -> RunFolder:
    """Returns the run in a folder of runs that was trained last, of those with a checkpoint. Raises SpecError if there
    is none."""
    runs = [RunFolder(path) for path in Path(where).glob("*") if RunFolder(path).metrics.exists()]
    if not runs:
        raise SpecError(f"there is no run in {where}; name one, or train one with `ganlab run SPEC`")
    if not (runs := [folder for folder in runs if folder.steps]):
        raise SpecError(f"no run in {where} has a checkpoint yet; train one with `ganlab run SPEC`")
    return max(runs, key=lambda folder: folder.metrics.stat().st_mtime_ns)


def _asked_of_run(
    folder: RunFolder, metrics: Sequence[str | Options], features: str | Options | None, changes: Sequence[str]
) -> AskedEvaluation:
    spec = load_run(folder.path).spec
    if changes:
        spec, trained = load_spec(spec.as_json(), changes), spec
        if differing := differences(trained, spec):
            raise SpecError(f"eval --set: {folder.path} was trained otherwise (there / asked): {'; '.join(differing)}")
    asked = _asked_evaluation(spec, metrics, features, folder)
    if folder.shared:
        raise SpecError(
            f"{folder.path} is a shared model, without its images; measure it on others with --inputs and --images"
        )
    if not folder.steps:
        raise SpecError(f"{folder.path} has no checkpoint yet; train it with `ganlab run`")
    return AskedEvaluation(
        asked, spec.runtime.device, spec, lambda callback: _evaluate_run(folder, spec, asked, callback)
    )


def _evaluate_run(folder: RunFolder, spec: Spec, asked: Evaluation, callback: Callback) -> Json:
    with reproducibly(spec):
        try:
            datasets = images_of(spec, callback)
        except SpecError as error:
            said = str(error).partition(":")[0]
            paths = [place for place in spec.locations() if said in (place, place.rpartition(".")[0])]
            way_out = f"; if the images have moved, give their place with --set {paths[0]}=..." if paths else ""
            raise SpecError(f"{error}{way_out}") from error
        folder.tidy()
        for sentence in changed_code(folder, spec):
            callback.warn(sentence)
        system = build(spec, domains_of(datasets))
        if (step := folder.steps[-1]) < (steps := system.schedule.steps) and folder.stopped() is None:
            images = f"{step * spec.data.batch} of {steps * spec.data.batch} images of each domain"
            callback.warn(f"{folder.path} is unfinished: step {step} of {steps}, {images}")
        evaluator = evaluator_of(system, datasets, asked, callback)
        told = callbacks_of(spec, callback, missing=True)
        found = measure_run(folder, evaluator, system, domains_of(datasets), told)
        if not folder.busy:
            RunPage(folder, spec, system.schedule.steps, callback.warn).write()
        return found


def _asked_of_translations(
    folder: RunFolder,
    metrics: Sequence[str | Options],
    features: str | Options | None,
    real: str | Path,
    inputs: str | Path,
    to: str | None,
) -> AskedEvaluation:
    translator = translator_of(load_run(folder.path))
    spec = translator.spec
    asked = _asked_evaluation(spec, metrics, features, folder)
    direction = translator.direction(to or spec.directions[0][1])

    def measure(callback: Callback) -> Json:
        with reproducibly(spec):
            return evaluate_translations(translator, direction, inputs, real, asked, callback.progress, callback.warn)

    return AskedEvaluation(asked, spec.runtime.device, None, measure)


def _asked_evaluation(
    spec: Spec, metrics: Sequence[str | Options], features: str | Options | None, folder: RunFolder
) -> Evaluation:
    """Returns the metrics that are asked for, by default the spec's. Raises SpecError if there are none."""
    asked = spec.evaluation.model_copy()
    if metrics:
        # a metric that the spec names too keeps the spec's options
        own = {metric.key: metric.as_json() for metric in spec.evaluation.metric_components}
        asked.metrics = tuple(own.get(metric, metric) if isinstance(metric, str) else metric for metric in metrics)
        asked.monitor = None
    asked.features = features or asked.features
    asked = resolve_evaluation(asked, "eval")
    if not asked.metrics:
        raise SpecError(f"{folder.path} names no metrics; choose some: {', '.join(registry().names('metric'))}")
    return asked
