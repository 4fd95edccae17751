"""Trains and measures a spec, or trains a run further."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ganlab import distributed
from ganlab.data.dataset import Dataset
from ganlab.display.choice import showing
from ganlab.distributed import together
from ganlab.engine.callbacks import Callbacks, ending
from ganlab.engine.loop import train
from ganlab.engine.trainer import Trainer
from ganlab.errors import Interrupted, OutOfMemory, SpecError
from ganlab.evaluation.periodic import PeriodicEvaluation
from ganlab.evaluation.results import covers, measure_run
from ganlab.evaluation.run_evaluator import RunEvaluator
from ganlab.experiment.asking import asked_json, origin_of, run_folder
from ganlab.experiment.parts import (
    callbacks_of,
    domains_of,
    evaluator_of,
    initial_of,
    note_tuned,
    reproducibly,
    warn_of_few,
    warn_of_missing,
)
from ganlab.experiment.processes import agreed, build_trainer, read, share_state
from ganlab.experiment.shared_evaluation import interruptible
from ganlab.inference.run import Run, read_run
from ganlab.interfaces.callbacks import Callback, TrainingStart
from ganlab.report.grids import png, sample_grid
from ganlab.report.run_page import RunPage
from ganlab.report.samples import sample
from ganlab.runs import checkpoint
from ganlab.runs.folder import PAGE, RunFolder
from ganlab.runs.initial import InitialWeights, begin_with
from ganlab.runs.manifest import changed_code, check_same_spec, claim, keep_manifest
from ganlab.runs.models import Manifest
from ganlab.runs.provenance import metric_code_changes
from ganlab.runs.writer import RunWriter, restore
from ganlab.spec.files import explaining
from ganlab.spec.models import Json, Spec, check_json, differences
from ganlab.spec.resolve import checked, resolve
from ganlab.workers import served


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
        spec: The path of a spec file, the name of a shipped experiment, or a run folder, which is then trained
            further; or a spec.
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
        # torchrun's second attempt resumes the first
        fresh = fresh and not distributed.restarted()
        with together():
            asked = _asked(spec, tuple(set), out, fresh, shown, tuple(callbacks))
        agreed(None if isinstance(asked, Run) else asked.resolved)
        return asked if isinstance(asked, Run) else _run(asked, fresh)


class _Asked(NamedTuple):
    """A spec and its run folder."""

    resolved: Spec
    folder: RunFolder
    kept: Spec | None
    """The spec that the folder holds, if its run is not removed."""
    callback: Callbacks
    """The spec's callbacks, and those of the caller."""
    origin: Json
    """Where the spec came from, for environment.json."""
    stopped: str | None
    """The reason why the run ended before its last step, if it is not trained further."""


def _asked(
    spec: str | Path | Mapping[str, Any] | Spec,
    set: tuple[str, ...],
    out: str | Path | None,
    fresh: bool,
    shown: Callback,
    others: tuple[Callback, ...],
) -> _Asked | Run:
    """Reads a spec and the run that its folder holds. Returns the run if nothing of it is left to do.

    Raises SpecError if they do not fit together.
    """
    asked, where = asked_json(spec, set)
    # now, because the file may change while the run begins
    origin = origin_of(spec, set, out, asked)
    with explaining(set):
        name = checked(asked, where).name
    folder = RunFolder(out or run_folder(spec) or Path("runs") / name)
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
    if kept is None:
        note_tuned(asked, resolved, shown)
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
    return _Asked(resolved, folder, kept, callbacks_of(resolved, shown, others), origin, stopped)


def _run(asked: _Asked, fresh: bool) -> Run:
    """Trains and measures what is asked for, and returns the run. Other ranks call `follow` meanwhile."""
    resolved, folder, callback = asked.resolved, asked.folder, asked.callback
    with reproducibly(resolved):
        with _before_writing():
            datasets = read(resolved, callback)
            with together():
                trainer = build_trainer(resolved, datasets, callback.warn)
                system = trainer.system
                for sentence in trainer.dry_run.warnings:
                    callback.warn(sentence)
                evaluator = (
                    evaluator_of(system, datasets, resolved.evaluation, callback)
                    if resolved.evaluation.metrics
                    else None
                )
                if evaluator is not None:
                    warn_of_missing(evaluator.missing, callback)
                    held = {domain: len(dataset.holdout) for domain, dataset in datasets.items()}
                    warn_of_few(held, evaluator.fewest, callback)
                initial = initial_of(resolved, folder) if fresh or not folder.steps else None
        with together() as ready, folder.locked():
            kept = claim(folder, asked.kept, resolved, fresh)
            callback.add(f"the page {PAGE}", RunPage(folder, kept, system.schedule.steps, callback.warn))
            with ending(callback, lambda: trainer.state.step, lambda: read_run(folder, kept).stopped):
                _train(trainer, datasets, folder, kept, callback, evaluator, initial, asked, ready)
                if evaluator is not None:
                    try:
                        with interruptible(), served(callback.warn):
                            measure_run(folder, evaluator, system, domains_of(datasets), callback)
                    except KeyboardInterrupt as interrupt:
                        message = f"all {trainer.state.step} steps are saved, not yet measured"
                        raise Interrupted(message, signal.SIGINT) from interrupt
    return read_run(folder, kept)


def _train(
    trainer: Trainer,
    datasets: dict[str, Dataset],
    folder: RunFolder,
    kept: Spec,
    callback: Callback,
    evaluator: RunEvaluator | None,
    initial: InitialWeights | None,
    asked: _Asked,
    ready: Callable[[], None],
) -> None:
    """Trains to the schedule's end, from the newest checkpoint if there is one, or else with the `initial` weights.

    `kept` is the spec for the folder's spec.json, and `evaluator` measures during training. `ready` is called before
    the first step.

    Raises SpecError if the data are not those that the run began with, RunError if a term stops being finite,
    Interrupted after SIGINT or SIGTERM, with everything saved.
    """
    system, state = trainer.system, trainer.state
    spec, runtime, steps = system.spec, system.spec.runtime, system.schedule.steps
    if initial is not None:
        begin_with(trainer, initial, callback.warn)
    credits = {domain: dataset.source.credits() for domain, dataset in datasets.items()}
    also = {"spec_origin": asked.origin, "credits": credits}
    repeated = keep_manifest(folder, kept, system, datasets, callback.warn, initial, also)
    unrecorded = restore(trainer, folder)
    start = TrainingStart(
        spec.name,
        folder.path,
        state.step,
        steps,
        spec.data.batch,
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

    with folder.recorder(state.step, callback.warn) as recorder:
        callback.begin(start)
        measurements = None
        if evaluator is not None:
            measurements = PeriodicEvaluation(evaluator, folder.records(), callback.warn)
        writer = RunWriter(
            trainer,
            folder,
            repeated,
            recorder,
            callback,
            draw,
            measurements,
            folder.records(),
            unrecorded,
            asked.stopped,
        )
        if asked.stopped is None:
            folder.forget_stop()
        with folder.noting_failure():
            try:
                ready()
                share_state(trainer)
                train(trainer, writer, callback.warn)
            except KeyboardInterrupt as interrupt:
                raise Interrupted(f"stopped at once; {_saved(folder)}", signal.SIGINT) from interrupt
            except OutOfMemory as error:
                raise OutOfMemory(f"{error}; {_saved(folder)}") from error


def _saved(folder: RunFolder) -> str:
    return f"the newest checkpoint is that of step {folder.steps[-1]}" if folder.steps else "no step is saved"


@contextmanager
def _before_writing() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as stopped:
        raise Interrupted("interrupted before training; nothing is written", signal.SIGINT) from stopped


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


def _newest(run: Run) -> Manifest:
    return checkpoint.verify(RunFolder(run.folder).checkpoints, run.step, run.spec.trains(), run.steps)
