"""Builds the parts that training, checking and measuring share, from a resolved spec."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, suppress

import torch

from ganlab.data.dataset import Dataset
from ganlab.determinism import reproducible, untouched_randomness
from ganlab.engine.callbacks import Callbacks
from ganlab.errors import SpecError, Unavailable
from ganlab.evaluation.best import chosen_step
from ganlab.evaluation.run_evaluator import RunEvaluator
from ganlab.evaluation.splits import too_few
from ganlab.interfaces.callbacks import Callback
from ganlab.interfaces.networks import Domain
from ganlab.runs.folder import RunFolder
from ganlab.runs.initial import InitialWeights, initial_weights
from ganlab.spec import devices, tuning
from ganlab.spec.models import Evaluation, Json, Spec
from ganlab.system.build import System, build_callback, build_data


def callbacks_of(spec: Spec, shown: Callback, others: Iterable[Callback] = (), missing: bool = False) -> Callbacks:
    """Returns the callbacks of a run. Raises SpecError if one of the spec's can't be built.

    With `missing`, callbacks that need a package that is not installed are left out.
    """
    named = {f"callback {type(shown).__qualname__}": shown}
    for name, component in spec.callback_components.items():
        with suppress(*[Unavailable] * missing):
            named[f"callbacks.{name} ({component.component.full_name})"] = build_callback(component)
    return Callbacks(named | {f"callbacks[{at}] ({type(each).__qualname__})": each for at, each in enumerate(others)})


def initial_of(spec: Spec, folder: RunFolder | None = None) -> InitialWeights | None:
    """Returns the weights of another run with which a run in `folder` begins; None for random weights."""
    if spec.init.run is None:
        return None
    other = RunFolder(spec.init.run)
    if folder is not None and other.path.resolve() == folder.path.resolve():
        raise SpecError(f"init.run: {other.path} is the folder of this run; choose another folder with --out")
    return initial_weights(other, lambda found, its: chosen_step(found, its, spec.init.checkpoint))


def images_of(spec: Spec, callback: Callback) -> dict[str, Dataset]:
    """Returns {domain: its images}, and warns of images that can't be used."""
    datasets = build_data(spec, callback.progress)
    for dataset in datasets.values():
        for sentence in dataset.warnings():
            callback.warn(sentence)
    return datasets


def domains_of(datasets: Mapping[str, Dataset]) -> dict[str, Domain]:
    """Returns {name: domain}."""
    return {name: dataset.domain for name, dataset in datasets.items()}


def evaluator_of(system: System, datasets: dict[str, Dataset], asked: Evaluation, callback: Callback) -> RunEvaluator:
    """Builds the metrics that are asked for, on a run's images."""
    # building metrics may draw random numbers, on which the training must not depend
    with untouched_randomness(system.device):
        return RunEvaluator(system, datasets, asked, callback.progress)


def reproducibly(spec: Spec) -> AbstractContextManager[None]:
    """Sets torch for a spec's device, number format and threads, and restores it afterwards."""
    runtime = spec.runtime
    return reproducible(torch.device(runtime.device), runtime.precision, int(runtime.threads), runtime.deterministic)


def note_tuned(asked: Json, resolved: Spec, callback: Callback) -> None:
    """Tells which `runtime.precision` and `runtime.compile` come from `ganlab bench --tune`, if the spec `asked` leaves
    them to the machine."""
    runtime = resolved.runtime
    found = tuning.tuned(devices.device_name(runtime.device), devices.precisions(runtime.device))
    chosen = {"precision": None if found is None else found.precision, "compile": runtime.compile and "true"}
    for key, value in chosen.items():
        if value and asked.get("runtime", {}).get(key, "auto") == "auto":
            callback.warn(
                f"runtime.{key} auto is {value} here, the fastest that `ganlab bench --tune` measured"
                f" ({tuning.place()})"
            )


def warn_of_missing(missing: Mapping[str, str], callback: Callback) -> None:
    """Warns of numbers that can't be measured, {number: reason}, in one sentence for each reason."""
    for why in dict.fromkeys(missing.values()):
        numbers = ", ".join(number for number in missing if missing[number] == why)
        callback.warn(f"{numbers} can't be measured on these images: {why}")


def warn_of_few(held: Mapping[str, int], fewest: Mapping[str, int], callback: Callback) -> None:
    """Warns of domains with too few test images. The arguments are those of `too_few`."""
    for sentence in too_few(held, fewest):
        callback.warn(sentence)
