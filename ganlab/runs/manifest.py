"""The manifest, environment.json: the versions, device, data and code of a run, compared again when it resumes."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator, Mapping

from ganlab.data.dataset import Dataset
from ganlab.errors import SpecError
from ganlab.files import hashes
from ganlab.runs import environment
from ganlab.runs.folder import RunFolder
from ganlab.runs.provenance import code, code_changes
from ganlab.spec.models import Json, Spec, differences
from ganlab.system.build import System
from ganlab.system.module_state import feature_networks

BYTES_DEPEND_ON = ("python", "packages", "device_name", "cpu_capability", "code")
"""The parts of environment.json that may differ when a run resumes. The resumed run then may give other bytes."""


def keep_manifest(
    folder: RunFolder, system: System, datasets: Mapping[str, Dataset], warn: Callable[[str], None]
) -> None:
    """Writes spec.json and environment.json of a new run; compares those of a resumed run with the present state.

    Differences in `BYTES_DEPEND_ON` give a warning and an entry in environment.json's "continued".
    Raises SpecError if the images or the weight files of feature networks differ.
    """
    if not folder.exists:
        folder.write_json("spec.json", system.spec.as_json())
    modules = [*system.networks.modules.values(), *system.losses.values()]
    weights = hashes(file for module in modules for part in feature_networks(module).values() for file in part.files())
    now = {
        **environment.describe(system.spec.runtime),
        "code": code(system.spec.components.values()),
        "data": {domain: dataset.fingerprint() for domain, dataset in datasets.items()},
        "weights": weights,
        "continued": [],
    }
    kept = folder.environment()
    if kept is None or not folder.steps:
        # without a checkpoint nothing remains of an earlier process
        folder.write_json("environment.json", now)
        return
    check_same_data(folder, datasets)
    if (before := kept.get("weights", {})) != weights:
        read = f"{', '.join(weights) or 'none'} now, {', '.join(before) or 'none'} then, or their content has changed"
        raise SpecError(f"these are not the weight files that {folder.path} began with: {read}")
    if named := [part for part in BYTES_DEPEND_ON if part != "code" and kept.get(part) != now[part]]:
        warn(f"{folder.path} began with another {', '.join(named)}: the last digits may differ")
    if (done := folder.steps[-1]) < system.schedule.steps:
        kept = _continued(kept, now, done)
        folder.write_json("environment.json", kept)
    for sentence in code_changes(folder.path, kept, now["code"]):
        warn(sentence)


def _continued(kept: Json, now: Json, done: int) -> Json:
    """Returns environment.json of a run that resumes after `done` steps, with an entry for what has changed."""
    # an entry of step `done` or later concerns steps that are lost
    entries = [entry for entry in kept.get("continued", []) if entry["step"] < done]
    latest = functools.reduce(operator.or_, entries, kept)
    changed = {part: now[part] for part in BYTES_DEPEND_ON if latest.get(part) != now[part]}
    return {**kept, "continued": [*entries, *([{"step": done, **changed}] if changed else [])]}


def check_same_spec(folder: RunFolder, kept: Spec, asked: Spec) -> None:
    """Raises SpecError if `asked` differs from the folder's spec in anything that affects training."""
    if kept.fingerprint() != asked.fingerprint():
        raise SpecError(
            f"{folder.path} holds another spec (there / asked): {'; '.join(differences(kept, asked))};"
            " start over with --fresh, or choose another folder with --out"
        )


def claim(folder: RunFolder, kept: Spec | None, asked: Spec, fresh: bool) -> Spec:
    """Prepares a locked folder for a run, and returns the run's spec.

    `kept` is the spec that the folder held before it was locked. Raises SpecError if it now holds another one.
    """
    if fresh:
        folder.clear()
    if not folder.exists:
        return asked
    if kept is None or folder.spec_json() != kept.as_json():
        # another process has written here since the folder was read
        kept = folder.spec()
        check_same_spec(folder, kept, asked)
    # only the evaluation may differ
    folder.write_json("spec.json", {**folder.spec_json(), "evaluation": asked.as_json()["evaluation"]})
    return kept.model_copy(update={"evaluation": asked.evaluation})


def changed_code(folder: RunFolder, spec: Spec) -> Iterator[str]:
    """Yields a warning if the code that trained a run has changed since."""
    return code_changes(folder.path, folder.environment() or {}, code(spec.components.values()))


def check_same_data(folder: RunFolder, datasets: Mapping[str, Dataset]) -> None:
    """Raises SpecError if the images are not those that the run began with."""
    before = (folder.environment() or {}).get("data", {})
    for domain, dataset in datasets.items():
        then, now = before.get(domain, {}), dataset.fingerprint()
        if then.get("sha256") != now["sha256"]:
            raise SpecError(
                f"data.{domain}: these are not the images that {folder.path} began with:"
                f" {now['images']} now, {then.get('images')} then, or their order or content has changed"
            )
