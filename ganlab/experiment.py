"""Trains, measures and checks specs and runs: the functions behind the command line."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from ganlab.components.registry import registry
from ganlab.data.dataset import Dataset, held_out
from ganlab.data.reading import unreadable
from ganlab.data.sampler import Sampler
from ganlab.determinism import reproducible, untouched_randomness
from ganlab.display.choice import showing
from ganlab.engine import summary
from ganlab.engine.callbacks import Callbacks, ending
from ganlab.engine.loop import train
from ganlab.engine.trainer import Trainer
from ganlab.errors import Interrupted, SpecError, Unavailable
from ganlab.evaluation.best import chosen_step
from ganlab.evaluation.image_folders import evaluate_folders
from ganlab.evaluation.metric_suite import evaluator_for
from ganlab.evaluation.periodic import PeriodicEvaluation
from ganlab.evaluation.results import covers, measure_run
from ganlab.evaluation.run_evaluator import RunEvaluator
from ganlab.evaluation.splits import every_image, too_few
from ganlab.inference.measure import evaluate_translations
from ganlab.inference.run import Run, load_run, read_run, translator_of
from ganlab.interfaces.callbacks import Callback, TrainingStart
from ganlab.interfaces.networks import Domain
from ganlab.interfaces.sources import Source
from ganlab.report.grids import png, sample_grid
from ganlab.report.run_page import RunPage
from ganlab.report.samples import sample
from ganlab.runs import checkpoint
from ganlab.runs.folder import RunFolder
from ganlab.runs.initial import InitialWeights, begin_with, initial_weights
from ganlab.runs.manifest import changed_code, check_same_spec, claim, keep_manifest
from ganlab.runs.models import Manifest
from ganlab.runs.provenance import metric_code_changes
from ganlab.runs.writer import RunWriter, restore
from ganlab.spec import devices
from ganlab.spec.devices import moved_here
from ganlab.spec.files import assigned, explaining, parent, read
from ganlab.spec.models import Evaluation, Json, Options, Spec, check_json, differences, leaf_differences
from ganlab.spec.resolve import checked, resolve, resolve_evaluation
from ganlab.system.build import System, build, build_callback, build_data, build_sources


def load_spec(
    spec: str | Path | Mapping[str, Any] | Spec,
    set: Iterable[str] = (),
    like: Spec | None = None,
    elsewhere: bool = False,
) -> Spec:
    """Returns a spec, resolved: every default and every "auto" is filled in, every name is found.

    Args:
        spec: The path of a spec file, or a spec as a mapping.
        set: Changes to it, each "path.to.key=value".
        like: The resolved spec of an earlier run. Its values replace each "auto" of `runtime`, except the device's.
        elsewhere: Another machine trains it: a device that this machine does not have becomes "auto".

    Raises SpecError with one sentence that names the value, what is allowed and where it stands.
    """
    set = tuple(set)
    with explaining(set):
        asked, where = _asked(spec, set)
        return resolve(moved_here(asked) if elsewhere else asked, where, like=like)


def spec_json(spec: str | Path, set: Iterable[str] = ()) -> Json:
    """Returns a spec file, merged with the files that it extends and changed by `set`, without the defaults.

    Raises SpecError if the file or a change can't be read.
    """
    return _asked(spec, set)[0]


def run(
    spec: str | Path | Mapping[str, Any] | Spec,
    set: Iterable[str] = (),
    out: str | Path | None = None,
    fresh: bool = False,
    callback: Callback | None = None,
    callbacks: Iterable[Callback] = (),
) -> Run:
    """Trains a spec and measures it. Resumes if the folder holds an unfinished run of the same spec.

    Args:
        spec: The path of a spec file, or of a run folder, which is then trained further; or a spec.
        set: Changes to it, each "path.to.key=value".
        out: The run folder, by default runs/NAME, or `spec` if that is a run folder.
        fresh: Remove the run that the folder holds, and start over.
        callback: Shows the progress and the warnings. By default a progress bar does, in a terminal and in a notebook;
            elsewhere nothing is shown.
        callbacks: Further callbacks, besides those of the spec.

    Raises SpecError, before anything is trained, if the spec, its data or the folder can't be used; RunError if the
    training fails; Interrupted after SIGINT or SIGTERM, with everything saved.
    """
    with showing(callback) as shown:
        return _run(spec, tuple(set), out, fresh, shown, tuple(callbacks))


def _run(
    spec: str | Path | Mapping[str, Any] | Spec,
    set: tuple[str, ...],
    out: str | Path | None,
    fresh: bool,
    shown: Callback,
    others: tuple[Callback, ...],
) -> Run:
    asked, where = _asked(spec, set)
    with explaining(set):
        name = checked(asked, where).name
    folder = RunFolder(out or _run_folder(spec) or Path("runs") / name)
    # safetensors opens no file with a name that is not UTF-8
    check_json(str(folder.path), "--out")
    if folder.foreign:
        raise SpecError(f"{folder.path} exists and is not a run; choose another folder with --out")
    if folder.shared:
        raise SpecError(
            f"{folder.path} is a shared model, which is not trained further; to begin with its weights, choose another"
            f" folder with --out, and --set init.run={folder.path}"
        )
    kept = folder.spec() if folder.exists and not (fresh or folder.untrained) else None
    with explaining(set):
        resolved = resolve(asked, where, like=kept)
    stopped = None
    if kept is not None:
        check_same_spec(folder, kept, resolved)
        for line in differences(kept, resolved):
            shown.warn(f"{folder.path} trains to another number of steps (there / asked): {line}")
        found = read_run(folder, kept)
        if _stays_stopped(found, resolved) and not others:
            stopped = found.stopped
        if is_complete(found, resolved) and found.stopped == stopped:
            measured_by = (found.evaluation or {}).get("protocol", {}).get("code", {})
            for sentence in (*changed_code(folder, resolved), *metric_code_changes(folder.path, measured_by)):
                shown.warn(sentence)
            return found
    callback = _callbacks(resolved, shown, others)
    with _reproducible(resolved):
        with _before_writing():
            datasets = _data(resolved, callback)
            system = build(resolved, _domains(datasets))
            data = resolved.data
            trainer = Trainer(
                system, Sampler(datasets, data.batch, data.flip, resolved.seed, system.device, system.dtype)
            )
            for sentence in trainer.dry_run.warnings:
                callback.warn(sentence)
            evaluator = (
                _run_evaluator(system, datasets, resolved.evaluation, callback) if resolved.evaluation.metrics else None
            )
            if evaluator is not None:
                _warn_of_missing(evaluator.missing, callback)
                _warn_of_few({domain: len(dataset.holdout) for domain, dataset in datasets.items()}, callback)
            initial = _initial(resolved, folder) if fresh or not folder.steps else None
        with folder.locked():
            kept = claim(folder, kept, resolved, fresh)
            page = RunPage(folder, kept, system.schedule.steps, callback.warn)
            origin = _origin(spec, set, out)
            try:
                with ending(callback, lambda: trainer.state.step, lambda: read_run(folder, kept).stopped):
                    _train(trainer, datasets, folder, kept, callback, evaluator, page, initial, stopped, origin)
                    if evaluator is not None:
                        page.write("measuring")
                        try:
                            measure_run(folder, evaluator, system, _domains(datasets), callback)
                        except KeyboardInterrupt as interrupt:
                            message = f"all {trainer.state.step} steps are saved, not yet measured"
                            raise Interrupted(message, signal.SIGINT) from interrupt
            finally:
                page.write()
    return read_run(folder, kept)


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
        inputs: The folder of the pictures to translate. Without a run, of the images from which those in `images[0]`
            were made, under the same names except for suffixes.
        callback: Shows the progress and the warnings, as for `run`.
        set: Changes to the run's spec for this evaluation, each "path.to.key=value". They may change only what does not
            affect training, for example "data.a.path=photos" if the images have moved.
        to: With a run and `images`: the domain to translate into, by default that of the run's first direction.

    Returns {"protocol", "results", "left_out"}. Raises SpecError, before anything is written, if an argument is wrong
    or something that it names is missing; Unavailable if no number could be measured.
    """
    if to is not None and (run is None or images is None):
        raise SpecError(f"--to {to}: goes with a run and --images")
    if images is None:
        if inputs is not None:
            raise SpecError("--inputs goes with --images")
        folder = RunFolder(run) if run is not None else newest_run()
        with showing(callback) as shown:
            found = _evaluate_run(folder, metrics, features, shown, tuple(set))
    elif run is not None:
        if isinstance(images, tuple):
            raise SpecError(f"either a run ({run}) or two folders of --images are measured, not both")
        if inputs is None:
            raise SpecError(f"--images {images}: needs --inputs, the pictures that {run} translates")
        if changes := tuple(set):
            raise SpecError(f"--set {changes[0]}: goes with the run's own images, not with --images")
        with showing(callback) as shown:
            found = _evaluate_translations(RunFolder(run), metrics, features, images, inputs, to, shown)
    elif not isinstance(images, tuple):
        raise SpecError(f"--images {images}: needs a run that translates --inputs, or a second folder")
    elif changes := tuple(set):
        raise SpecError(f"--set {changes[0]}: goes with a run, not with --images")
    else:
        asked = resolve_evaluation(Evaluation(metrics=tuple(metrics), features=features), "eval")
        with showing(callback) as shown:
            found = evaluate_folders(images, inputs, asked, shown.progress, shown.warn)
    if not found["results"]:
        reasons = "; ".join(dict.fromkeys(f"{left['metric']} {left['why']}" for left in found["left_out"]))
        raise Unavailable(f"nothing could be measured: {reasons}")
    return found


def newest_run(where: str | Path = "runs") -> RunFolder:
    """Returns the run in a folder of runs that was trained last, of those with a checkpoint. Raises SpecError if there
    is none."""
    runs = [RunFolder(path) for path in Path(where).glob("*") if RunFolder(path).metrics.exists()]
    if not runs:
        raise SpecError(f"there is no run in {where}; name one, or train one with `ganlab run SPEC`")
    if not (runs := [folder for folder in runs if folder.steps]):
        raise SpecError(f"no run in {where} has a checkpoint yet; train one with `ganlab run SPEC`")
    return max(runs, key=lambda folder: folder.metrics.stat().st_mtime_ns)


def check(
    spec: str | Path | Mapping[str, Any] | Spec, set: Iterable[str] = (), callback: Callback | None = None
) -> Json:
    """Builds a spec, evaluates its losses once on two images, and returns what a run would train. Writes nothing.

    Returns {"name", "about", "images", "networks", "terms", "turns", "numbers", "memory", "third_party"}. "images" has
    the number of images of each domain, before any turns out to be damaged. "memory" is an estimate in bytes: "states"
    of weights, gradients and optimizers, "activations" that autograd keeps for the larger player's turn, "images" of
    the datasets, and their "total". "third_party" lists the plugins that ganlab does not ship.

    Raises SpecError, or RunError for turns that are not valid, if the spec can't be trained.
    """
    with showing(callback) as shown:
        return _check(load_spec(spec, set), shown)


def _check(resolved: Spec, callback: Callback) -> Json:
    # raises SpecError if one can't be built
    _callbacks(resolved, callback)
    with _reproducible(resolved):
        datasets = build_data(resolved, most=4)
        system = build(resolved, _domains(datasets))
        trainer = Trainer(system, Sampler(datasets, 2, False, resolved.seed, system.device, system.dtype))
        if (initial := _initial(resolved)) is not None:
            begin_with(trainer, initial, callback.warn)
        sources = build_sources(resolved)
        counts = _count_images(sources, callback)
        memory = {
            "states": summary.state_bytes(trainer),
            "activations": summary.activation_bytes(trainer, resolved.data.batch),
            "images": sum(counts[domain] * dataset.images[0].numel() for domain, dataset in datasets.items()),
        }
    for sentence in trainer.dry_run.warnings:
        callback.warn(sentence)
    device, total = resolved.runtime.device, sum(memory.values())
    # of many images, a GPU holds one batch at a time
    needed = total - memory["images"] if device.startswith("cuda") else total
    if (there := devices.memory(device)) is not None and needed > there:
        callback.warn(
            f"the run needs about {needed / 2**20:,.0f} MiB of memory, and {device} has {there / 2**20:,.0f}: lower"
            " data.batch or data.size"
        )
    evaluator = evaluator_for(resolved.evaluation)
    # raises SpecError if the spec's monitor is not measured
    evaluator.monitors(resolved.evaluation.monitor, resolved.evaluation.keys_during)
    _warn_of_missing(evaluator.missing(every_image(datasets, sources)), callback)
    if evaluator.numbers:
        _warn_of_few({domain: held_out(count, resolved.data.holdout) for domain, count in counts.items()}, callback)
    return {
        "name": resolved.name,
        "about": resolved.about,
        "images": counts,
        "networks": summary.describe_networks(system, _domains(datasets)),
        "terms": summary.describe_terms(trainer),
        "turns": summary.describe_turns(trainer),
        "numbers": [
            {"number": name, "better": info.better, "about": info.about} for name, info in evaluator.numbers.items()
        ],
        "memory": {**memory, "total": total},
        "third_party": _third_party(resolved),
    }


def is_complete(run: Run, asked: Spec) -> bool:
    """Returns True if nothing of a spec, resolved, is left to train, to draw or to measure. Raises RunError if the
    newest checkpoint is damaged."""
    return (
        run.finished
        and (run.stopped is None or _stays_stopped(run, asked))
        # more steps may be asked for
        and not differences(run.spec, asked)
        # at other locations there may be other images
        and run.spec.locations() == asked.locations()
        and covers(run.evaluation, _newest(run), asked.evaluation)
        and RunFolder(run.folder).sample(run.step).exists()
    )


def _stays_stopped(run: Run, asked: Spec) -> bool:
    """True if a run that a callback stopped is asked for with the same callbacks and the same number of steps."""
    return run.spec.callbacks == asked.callbacks and not differences(run.spec, asked)


def _callbacks(spec: Spec, shown: Callback, others: Iterable[Callback] = (), missing: bool = False) -> Callbacks:
    """Returns the callbacks of a run. Raises SpecError if one of the spec's can't be built.

    With `missing`, those that need what is not installed are left out.
    """
    named = {f"callback {type(shown).__qualname__}": shown}
    for name, component in spec.callback_components.items():
        with suppress(*[Unavailable] * missing):
            named[f"callbacks.{name} ({component.component.full_name})"] = build_callback(component)
    return Callbacks(named | {f"callbacks[{at}] ({type(each).__qualname__})": each for at, each in enumerate(others)})


def _asked(spec: str | Path | Mapping[str, Any] | Spec, set: Iterable[str]) -> tuple[Json, str]:
    """Returns a spec as JSON with the changes of `set`, and its name for messages."""
    if isinstance(spec, Spec):
        spec = spec.as_json()
    if isinstance(spec, Mapping):
        asked, where = dict(spec), "spec"
    elif folder := _run_folder(spec):
        asked, where = RunFolder(folder).spec_json(), str(folder / "spec.json")
    else:
        asked, where = read(spec), str(spec)
    for text in set:
        asked = assigned(asked, text)
    return asked, where


def _origin(spec: object, set: Sequence[str], out: str | Path | None) -> Json:
    """Returns where the spec of a run came from: {"spec", "set", "out"}, its "parent" and the "differences" to it.

    The parent is the file that the spec extends, or the spec's own file if it was changed by `set`. Returns {} for a
    spec that is not a file.
    """
    if not isinstance(spec, str | Path) or _run_folder(spec):
        return {}
    found: Json = {"spec": str(spec), "set": list(set), "out": str(out) if out is not None else None}
    own = read(spec)
    if (extended := parent(spec)) is None and not set:
        return found
    name, base = extended or (Path(spec).name, own)
    for text in set:
        own = assigned(own, text)
    try:
        before, after = (resolve({"name": "", **part}, name).as_json() for part in (base, own))
    except SpecError:
        # the parent may be no whole spec
        before, after = base, own
    for part in (before, after):
        for key in ("$schema", "name", "about"):
            part.pop(key, None)
    return {**found, "parent": name, "differences": {k: list(v) for k, v in leaf_differences(before, after).items()}}


@contextmanager
def _before_writing() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as stopped:
        raise Interrupted("interrupted before training; nothing is written", signal.SIGINT) from stopped


def _run_folder(spec: object) -> Path | None:
    """Returns the run folder that `spec` names, if it names one."""
    return Path(spec) if isinstance(spec, str | Path) and RunFolder(spec).exists else None


def _initial(spec: Spec, folder: RunFolder | None = None) -> InitialWeights | None:
    """Returns the weights of another run with which a run in `folder` begins; None for random weights."""
    if spec.init.run is None:
        return None
    other = RunFolder(spec.init.run)
    if folder is not None and other.path.resolve() == folder.path.resolve():
        raise SpecError(f"init.run: {other.path} is the folder of this run; choose another folder with --out")
    return initial_weights(other, lambda found, its: chosen_step(found, its, spec.init.checkpoint))


def _newest(run: Run) -> Manifest:
    return checkpoint.verify(RunFolder(run.folder).checkpoints, run.step, run.spec.trains(), run.steps)


def _train(
    trainer: Trainer,
    datasets: dict[str, Dataset],
    folder: RunFolder,
    kept: Spec,
    callback: Callback,
    evaluator: RunEvaluator | None,
    page: RunPage,
    initial: InitialWeights | None,
    stopped: str | None,
    origin: Json,
) -> None:
    """Trains to the schedule's end, from the newest checkpoint if there is one, or else with the `initial` weights.

    `kept` is the spec for the folder's spec.json, `evaluator` measures during training, and `origin` says where the
    spec came from. `stopped` is the reason why the run ended before its last step, if it is not trained further.

    Raises SpecError if the data are not those that the run began with, RunError if a term stops being finite,
    Interrupted after SIGINT or SIGTERM, with everything saved.
    """
    system, state = trainer.system, trainer.state
    spec, runtime, steps = system.spec, system.spec.runtime, system.schedule.steps
    if initial is not None:
        begin_with(trainer, initial, callback.warn)
    credits = {domain: source.attribution() for domain, source in build_sources(spec).items()}
    also = {"asked": origin, "attribution": credits}
    repeated = keep_manifest(folder, kept, system, datasets, callback.warn, initial, also)
    unrecorded = restore(trainer, folder)
    start = TrainingStart(
        spec.name,
        folder.path,
        state.step,
        steps,
        spec.data.batch * system.schedule.batches,
        runtime.device,
        runtime.precision,
        int(runtime.threads),
        str((folder.environment() or {}).get("run_id")),
        kept.as_json(),
        evaluator.better if evaluator is not None and spec.evaluation.every is not None else {},
        folder.history,
    )

    def draw() -> bytes:
        return png(sample_grid(sample(state.sampling_generators(), datasets, system, spec.samples.count)))

    def write_page() -> None:
        # after the last step it is written anyway
        if state.step < steps:
            page.write_now_and_then("training")

    with folder.recorder(state.step, callback.warn) as recorder:
        callback.begin(start)
        measurements = None
        if evaluator is not None:
            measurements = PeriodicEvaluation(evaluator, spec.evaluation.every, steps, folder.records(), callback.warn)
        writer = RunWriter(
            trainer,
            folder,
            repeated,
            recorder,
            callback,
            draw,
            write_page,
            measurements,
            folder.records(),
            unrecorded,
            stopped,
        )
        if stopped is None:
            folder.forget_stop()
        with folder.noting_failure():
            try:
                train(trainer, writer, callback.warn)
            except KeyboardInterrupt as stopped:
                at = f"the newest checkpoint is that of step {folder.steps[-1]}" if folder.steps else "no step is saved"
                raise Interrupted(f"stopped at once; {at}", signal.SIGINT) from stopped


def _run_evaluator(system: System, datasets: dict[str, Dataset], asked: Evaluation, callback: Callback) -> RunEvaluator:
    # building metrics may draw random numbers, on which the training must not depend
    with untouched_randomness(system.device):
        return RunEvaluator(system, datasets, build_sources(system.spec), asked, callback.progress)


def _evaluate_run(
    folder: RunFolder,
    metrics: Sequence[str | Options],
    features: str | Options | None,
    callback: Callback,
    changes: Sequence[str],
) -> Json:
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
    with _reproducible(spec):
        try:
            datasets = _data(spec, callback)
        except SpecError as error:
            paths = [place for place in spec.locations() if str(error).startswith(f"{place.rpartition('.')[0]}:")]
            way_out = f"; if the images have moved, give their place with --set {paths[0]}=..." if paths else ""
            raise SpecError(f"{error}{way_out}") from error
        folder.tidy()
        for sentence in changed_code(folder, spec):
            callback.warn(sentence)
        system = build(spec, _domains(datasets))
        if (step := folder.steps[-1]) < (steps := system.schedule.steps) and folder.stopped() is None:
            batch = spec.data.batch * system.schedule.batches
            images = f"{step * batch} of {steps * batch} images of each domain"
            callback.warn(f"{folder.path} is unfinished: step {step} of {steps}, {images}")
        evaluator = _run_evaluator(system, datasets, asked, callback)
        told = _callbacks(spec, callback, missing=True)
        found = measure_run(folder, evaluator, system, _domains(datasets), told)
        if not folder.busy:
            RunPage(folder, spec, system.schedule.steps, callback.warn).write()
        return found


def _third_party(spec: Spec) -> list[str]:
    """Returns the names of the plugins of a spec's components that ganlab does not ship."""
    parts = [part.component for whole in spec.components.values() for part in whole.walk()]
    return sorted({part.plugin for part in parts if part.package != "ganlab"})


def _count_images(sources: Mapping[str, Source], callback: Callback) -> dict[str, int]:
    """Returns {domain: number of images}, and warns of keys that name no image."""
    counts = {}
    for domain, source in sources.items():
        keys = source.keys(domain)
        others = [key for key in keys if not source.is_image(key)]
        counts[domain] = len(keys) - len(others)
        if others:
            callback.warn(unreadable(f"data.{domain}", counts[domain], others))
    return counts


def _evaluate_translations(
    folder: RunFolder,
    metrics: Sequence[str | Options],
    features: str | Options | None,
    real: str | Path,
    inputs: str | Path,
    to: str | None,
    callback: Callback,
) -> Json:
    translator = translator_of(load_run(folder.path))
    spec = translator.spec
    asked = _asked_evaluation(spec, metrics, features, folder)
    direction = translator.direction(to or spec.directions[0][1])
    with _reproducible(spec):
        return evaluate_translations(translator, direction, inputs, real, asked, callback.progress, callback.warn)


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


def _data(spec: Spec, callback: Callback) -> dict[str, Dataset]:
    datasets = build_data(spec, callback.progress)
    for dataset in datasets.values():
        for sentence in dataset.warnings():
            callback.warn(sentence)
    return datasets


def _warn_of_missing(missing: Mapping[str, str], callback: Callback) -> None:
    for why in dict.fromkeys(missing.values()):
        numbers = ", ".join(number for number in missing if missing[number] == why)
        callback.warn(f"{numbers} can't be measured on these images: {why}")


def _warn_of_few(held: Mapping[str, int], callback: Callback) -> None:
    for sentence in too_few(held):
        callback.warn(sentence)


def _domains(datasets: Mapping[str, Dataset]) -> dict[str, Domain]:
    return {name: dataset.domain for name, dataset in datasets.items()}


def _reproducible(spec: Spec) -> AbstractContextManager[None]:
    runtime = spec.runtime
    return reproducible(torch.device(runtime.device), runtime.precision, int(runtime.threads))
