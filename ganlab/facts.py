"""What a run began with, as its folder keeps it, and whether it finds the same when it goes on."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping

from ganlab.build import System
from ganlab.data.store import Store
from ganlab.environment import describe
from ganlab.errors import SpecError
from ganlab.evaluation.features import hashes
from ganlab.folder import RunFolder
from ganlab.modules import feature_networks
from ganlab.provenance import of_other_code
from ganlab.registry import registry
from ganlab.spec import Json

BYTES_DEPEND_ON = ("python", "packages", "device_name", "cpu_capability", "code")
"""What a run may go on without, if not to the same bytes."""


def keep_facts(folder: RunFolder, system: System, stores: Mapping[str, Store], warn: Callable[[str], None]) -> None:
    """Write spec.json and environment.json, or see whether a run that goes on finds what it began with, and write down
    what it goes on with instead.

    Raises SpecError where it finds other images or weight files.
    """
    if not folder.exists:
        folder.write_json("spec.json", system.spec.as_json())
    data = {name: store.facts() for name, store in stores.items()}
    trained = [*system.networks.modules.values(), *system.losses.values()]
    weights = hashes(file for module in trained for part in feature_networks(module).values() for file in part.files())
    facts = describe(registry(), system.spec) | {"data": data, "weights": weights, "continued": []}
    kept = folder.environment()
    if kept is None or not folder.steps:
        # of an earlier process nothing is left
        folder.write_json("environment.json", facts)
        return
    refuse_other_data(folder, stores)
    if (then := kept.get("weights", {})) != weights:
        read = f"{', '.join(weights) or 'none'} now, {', '.join(then) or 'none'} then, or their content has changed"
        raise SpecError(f"these are not the weight files that {folder.path} began with: {read}")
    other = [part for part in BYTES_DEPEND_ON if kept.get(part) != facts[part]]
    if named := [part for part in other if part != "code"]:
        warn(f"{folder.path} began with another {', '.join(named)}: the last digits may differ")
    if (done := folder.steps[-1]) < system.schedule.steps:
        kept = _gone_on(kept, facts, done)
        folder.write_json("environment.json", kept)
    for sentence in of_other_code(folder.path, kept, facts["code"]):
        warn(sentence)


def _gone_on(kept: Json, facts: Json, done: int) -> Json:
    """environment.json of a run that goes on after `done` steps: what is other than it was is added, with the step."""
    # what came of those after it is dropped
    before = [went_on for went_on in kept.get("continued", []) if went_on["step"] < done]
    latest = functools.reduce(operator.or_, before, kept)
    other = {part: facts[part] for part in BYTES_DEPEND_ON if latest.get(part) != facts[part]}
    return {**kept, "continued": [*before, *([{"step": done, **other}] if other else [])]}


def refuse_other_data(folder: RunFolder, stores: Mapping[str, Store]) -> None:
    """Raises SpecError where the images are not those that a run began with."""
    before = (folder.environment() or {}).get("data", {})
    for domain, store in stores.items():
        then, now = before.get(domain, {}), store.facts()
        if then.get("sha256") != now["sha256"]:
            raise SpecError(
                f"data.{domain}: these are not the images that {folder.path} began with:"
                f" {now['images']} now, {then.get('images')} then, or their order or content has changed"
            )
