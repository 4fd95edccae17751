"""Builds a spec without training it, and describes what a run would train."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ganlab.data.dataset import Dataset, held_out, read_layers
from ganlab.data.reading import SHOWN, read, unreadable, without_partner
from ganlab.data.sampler import Sampler
from ganlab.data.store import is_kept
from ganlab.display.choice import showing
from ganlab.engine import summary
from ganlab.engine.memory import explaining_memory_of_two
from ganlab.engine.trainer import Trainer
from ganlab.evaluation.metric_suite import evaluator_for
from ganlab.evaluation.splits import every_image
from ganlab.experiment.asking import asked_json
from ganlab.experiment.parts import (
    callbacks_of,
    domains_of,
    initial_of,
    note_tuned,
    reproducibly,
    warn_of_few,
    warn_of_missing,
)
from ganlab.experiment.specs import load_spec
from ganlab.interfaces.callbacks import Callback
from ganlab.runs.initial import begin_with
from ganlab.spec import devices
from ganlab.spec.models import Json, Spec
from ganlab.system.build import build, build_data


def check(
    spec: str | Path | Mapping[str, Any] | Spec, set: Iterable[str] = (), callback: Callback | None = None
) -> Json:
    """Builds a spec, evaluates its losses once on two images, and returns what a run would train. Writes nothing.

    Returns {"name", "about", "images", "extras", "networks", "terms", "turns", "numbers", "memory", "third_party"}.
    "images" has the number of images of each domain, before any turns out to be damaged. "extras" is {domain: {name:
    {"channels", "values"}}}. "memory" is an estimate in bytes: "states" of weights, gradients and optimizers,
    "activations" that autograd keeps for the larger player's turn, "images" of the datasets that are not mapped from a
    file, and their "total". "third_party" lists the plugins that ganlab does not ship.

    Raises SpecError, or RunError for turns that are not valid, if the spec can't be trained.
    """
    changes = tuple(set)
    with showing(callback) as shown:
        resolved = load_spec(spec, changes)
        note_tuned(asked_json(spec, changes)[0], resolved, shown)
        return _check(resolved, shown)


def _check(resolved: Spec, callback: Callback) -> Json:
    # raises SpecError if one can't be built
    callbacks_of(resolved, callback)
    with reproducibly(resolved):
        datasets = build_data(resolved, most=4)
        with explaining_memory_of_two(resolved.runtime):
            system = build(resolved, domains_of(datasets))
            trainer = Trainer(system, Sampler(datasets, 2, False, resolved.seed, system.device, system.dtype))
        if (initial := initial_of(resolved)) is not None:
            begin_with(trainer, initial, callback.warn)
        keys = _keys_of_images(datasets, callback)
        counts = {domain: len(found) for domain, found in keys.items()}
        memory = {
            "states": summary.state_bytes(trainer),
            "activations": summary.activation_bytes(trainer, resolved.data.batch, len(trainer.parts)),
            "images": sum(
                counts[domain] * each.layers[0].numel()
                for domain, dataset in datasets.items()
                for each in (dataset, dataset.larger)
                if each is not None and not is_kept(each.source, each.source.keys(domain), each.domain.width)
            ),
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
    warn_of_missing(evaluator.missing(every_image(datasets), resolved.data.paired), callback)
    held = {
        domain: held_out(dataset.source, keys[domain], resolved.data.holdout) for domain, dataset in datasets.items()
    }
    warn_of_few(held, evaluator.fewest, callback)
    return {
        "name": resolved.name,
        "about": resolved.about,
        "images": counts,
        "extras": {
            domain: {name: extra._asdict() for name, extra in dataset.source.extras.items()}
            for domain, dataset in datasets.items()
        },
        "networks": summary.describe_networks(system, domains_of(datasets)),
        "terms": summary.describe_terms(trainer),
        "turns": summary.describe_turns(trainer),
        "numbers": [
            {"number": name, "better": info.better, "about": info.about} for name, info in evaluator.numbers.items()
        ],
        "memory": {**memory, "total": total},
        "third_party": _third_party(resolved),
    }


def _keys_of_images(datasets: Mapping[str, Dataset], callback: Callback) -> dict[str, list[str]]:
    """Returns {domain: keys of its images}, and warns of keys that name no image and of images without a partner.

    A warning gives the reasons of the keys that it names; the others are not read.
    """
    found = {}
    for domain, dataset in datasets.items():
        if dataset.alone:
            callback.warn(without_partner(f"data.{domain}", dataset.alone))
        alone = set(dataset.alone)
        keys = [key for key in dataset.source.keys(domain) if key not in alone]
        others = [key for key in keys if not dataset.source.is_image(key)]
        without = {*others}
        found[domain] = [key for key in keys if key not in without]
        if others:
            said = [_with_reason(dataset, key) for key in others[:SHOWN]] + others[SHOWN:]
            callback.warn(unreadable(f"data.{domain}", len(found[domain]), said))
    return found


def _with_reason(dataset: Dataset, key: str) -> str:
    """Returns "key: why it can't be read"."""
    layers, _ = read(partial(read_layers, dataset.source, dataset.domain.name, dataset.domain.width), key)
    return f"{key}: {layers}" if isinstance(layers, Exception) else key


def _third_party(spec: Spec) -> list[str]:
    """Returns the names of the plugins of a spec's components that ganlab does not ship."""
    parts = [part.component for whole in spec.components.values() for part in whole.walk()]
    return sorted({part.plugin for part in parts if part.package != "ganlab"})
