"""environment.json and the origin of a run: its versions, device, data and code, compared again when it resumes."""

from __future__ import annotations

import functools
import operator
import uuid
from collections.abc import Callable, Iterator, Mapping

from ganlab.data.dataset import Dataset
from ganlab.errors import SpecError
from ganlab.files import hashes
from ganlab.runs import checkpoint, environment
from ganlab.runs.folder import RunFolder
from ganlab.runs.initial import InitialWeights
from ganlab.runs.lengthening import in_steps_alone, obstacle
from ganlab.runs.models import Fingerprint, Manifest, Origin
from ganlab.runs.provenance import code, code_changes
from ganlab.spec.models import Json, Spec, differences
from ganlab.system.build import System, build_schedule
from ganlab.system.module_state import feature_networks

BYTES_DEPEND_ON = ("python", "packages", "device_name", "cpu_capability", "processes", "accumulate", "code")
"""The parts of environment.json that may differ when a run resumes. The resumed run then may give other bytes."""


def keep_manifest(
    folder: RunFolder,
    spec: Spec,
    system: System,
    datasets: Mapping[str, Dataset],
    warn: Callable[[str], None],
    initial: InitialWeights | None = None,
    also: Json | None = None,
) -> Origin:
    """Writes spec.json and environment.json of a new run; compares those of a resumed run with the present state.

    `spec` is what spec.json then holds, once the images are known to be the same. `initial` are the weights with which
    a new run begins, if they are another run's. `also` has further entries of environment.json, which nothing compares.

    Returns what the manifests of the run's checkpoints repeat. Differences in `BYTES_DEPEND_ON` give a warning and an
    entry in environment.json's "continued". Raises RunError if the newest checkpoint is damaged, SpecError if the
    images or the weight files of feature networks are not those of its manifest.
    """
    if not folder.steps:
        folder.write_json("spec.json", spec.as_json())
    modules = [*system.networks.modules.values(), *system.losses.values()]
    weights = hashes(file for module in modules for part in feature_networks(module).values() for file in part.files())
    origin = Origin(spec=spec.trains(), data=fingerprints(datasets), weights=weights)
    now = {
        "run_id": uuid.uuid4().hex,
        **environment.describe(system.spec.runtime),
        "code": code(system.spec.components.values()),
        "data": {domain: dataset.fingerprint() for domain, dataset in datasets.items()},
        "weights": weights,
        "init": initial and initial.as_json(),
        **(also or {}),
        "continued": [],
    }
    if not folder.steps:
        # without a checkpoint nothing remains of an earlier process
        folder.write_json("environment.json", now)
        return origin
    newest = checkpoint.verify(folder.checkpoints, folder.steps[-1], origin["spec"], system.schedule.steps)
    check_same_data(folder, newest, datasets, spec)
    if (before := newest["weights"]) != weights:
        read = f"{', '.join(weights) or 'none'} now, {', '.join(before) or 'none'} then, or their content has changed"
        raise SpecError(f"these are not the weight files that {folder.path} began with: {read}")
    folder.write_json("spec.json", spec.as_json())
    if (kept := folder.environment()) is None:
        warn(f"{folder.path} has lost its environment.json: it can't be told what trained it up to here")
        kept = now
        folder.write_json("environment.json", now)
    if "processes" not in kept:
        # the run was made when there was only one process and one part
        kept = {**kept, "processes": 1, "accumulate": 1}
    if "run_id" not in kept:
        # of a run that was made before runs had one
        kept = {"run_id": now["run_id"], **kept}
        folder.write_json("environment.json", kept)
    if named := [part for part in BYTES_DEPEND_ON if part != "code" and kept.get(part) != now[part]]:
        warn(f"the environment has changed since {folder.path} began ({', '.join(named)}): the last digits may differ")
    if (done := folder.steps[-1]) < system.schedule.steps:
        kept = _continued(kept, now, done)
        folder.write_json("environment.json", kept)
    for sentence in code_changes(folder.path, kept, now["code"]):
        warn(sentence)
    return origin


def _continued(kept: Json, now: Json, done: int) -> Json:
    """Returns environment.json of a run that resumes after `done` steps, with an entry for what has changed."""
    # an entry of step `done` or later concerns steps that are lost
    entries = [entry for entry in kept.get("continued", []) if entry["step"] < done]
    latest = functools.reduce(operator.or_, entries, kept)
    changed = {part: now[part] for part in BYTES_DEPEND_ON if latest.get(part) != now[part]}
    return {**kept, "continued": [*entries, *([{"step": done, **changed}] if changed else [])]}


def check_same_spec(folder: RunFolder, kept: Spec, asked: Spec) -> None:
    """Raises SpecError if `asked` differs from the folder's spec in anything that affects training.

    The number of steps may differ if the steps that are done would have been the same.
    """
    if not (differing := differences(kept, asked)):
        return
    why = weights = ""
    if in_steps_alone(differing):
        done, steps = max(folder.steps, default=0), build_schedule(asked).steps
        if steps < done:
            why = f"; {done} steps are done already"
        elif (different := obstacle(kept.trains(), asked.trains(), done)) is not None:
            why = f"; a run of {steps} steps would have trained differently: {different}"
            weights = f"; there, --set init.run={folder.path} starts from its weights"
        else:
            return
    raise SpecError(
        f"{folder.path} holds another spec (there / asked): {'; '.join(differing)}{why};"
        f" start over with --fresh, or choose another folder with --out{weights}"
    )


def claim(folder: RunFolder, kept: Spec | None, asked: Spec, fresh: bool) -> Spec:
    """Prepares a locked folder for a run, and returns the spec for its spec.json.

    That is `asked` with the folder's `name`, `about` and device. `kept` is the spec that the folder held before it was
    locked. Raises SpecError if it now trains something else.
    """
    # where nothing was trained, another spec may start
    if fresh or folder.untrained:
        folder.clear()
    if not folder.exists:
        return asked
    if kept is None or folder.spec_json() != kept.as_json():
        # another process has written here since the folder was read
        kept = folder.spec()
        check_same_spec(folder, kept, asked)
    runtime = asked.runtime.model_copy(update={"device": kept.runtime.device})
    return asked.model_copy(update={"name": kept.name, "about": kept.about, "runtime": runtime})


def changed_code(folder: RunFolder, spec: Spec) -> Iterator[str]:
    """Yields a warning if the code that trained a run has changed since."""
    return code_changes(folder.path, folder.environment() or {}, code(spec.components.values()))


def fingerprints(datasets: Mapping[str, Dataset]) -> dict[str, Fingerprint]:
    """Returns {domain: the fingerprint of its images} as checkpoints keep it."""
    every = {domain: dataset.fingerprint() for domain, dataset in datasets.items()}
    return {domain: Fingerprint(images=kept["images"], sha256=kept["sha256"]) for domain, kept in every.items()}


def check_same_data(folder: RunFolder, manifest: Manifest, datasets: Mapping[str, Dataset], spec: Spec) -> None:
    """Raises SpecError if the images, at the locations of `spec`, are not those that a checkpoint was trained on."""
    for domain, now in fingerprints(datasets).items():
        then = manifest["data"].get(domain)
        if then is None or then["sha256"] != now["sha256"]:
            paths = {place: path for place, path in spec.locations().items() if place.startswith(f"data.{domain}.")}
            read = "".join(f" (in {path})" for path in paths.values() if path)
            places = [place for place, path in paths.items() if path] or [*paths]
            way_out = [f"give the place of the run's images with --set {place}=..." for place in places]
            raise SpecError(
                f"data.{domain}: these are not the images that {folder.path} began with: {now['images']} now{read},"
                f" {then and then['images']} then, or their names, order or content have changed;"
                f" {', or '.join([*way_out, 'choose another folder with --out'])}"
            )
