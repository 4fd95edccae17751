"""Keeps the results of a run's evaluations in its folder: evaluation.json and speed.json."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from ganlab.errors import RunError
from ganlab.evaluation import speed
from ganlab.evaluation.run_evaluator import RunEvaluator
from ganlab.interfaces.callbacks import Callback, Measurement
from ganlab.interfaces.networks import Domain
from ganlab.runs import checkpoint
from ganlab.runs.folder import RunFolder
from ganlab.runs.models import Manifest
from ganlab.spec.models import Evaluation, Json
from ganlab.system.build import System
from ganlab.system.error_attribution import Position

_GROWING = ("metrics", "code", "features", "weights", "packages")
"""The mappings in a protocol that a later evaluation of the run extends. The keys of the first two are metrics."""


def measure_run(
    folder: RunFolder,
    evaluator: RunEvaluator,
    system: System,
    domains: Mapping[str, Domain],
    callback: Callback,
) -> Json:
    """Measures a run, writes evaluation.json and speed.json, and tells the callback the new results.

    Returns the results of this evaluation alone.

    Earlier results of other metrics are kept in evaluation.json if they were measured in the same way.
    """
    with system.components.attributing(Position("", "the evaluation", max(folder.steps, default=0))):
        found = evaluator.evaluate(folder, callback.warn)
        # the processes that train and measure a run may be several
        peaks = [speed.peak_memory(system.device), (folder.speed() or {}).get("peak_memory_bytes")]
        speeds = {
            **speed.measure(system, domains),
            "peak_memory_bytes": max((peak for peak in peaks if peak is not None), default=None),
        }
    before = folder.evaluation()
    whole, differing = merge_results(before, found)
    if differing:
        callback.warn(
            f"earlier results of {folder.path} are replaced, because their protocol differs in: {', '.join(differing)}"
        )
    new = [result for result in whole["results"] if before is None or result not in before["results"]]
    for step in sorted({result["step"] for result in new}):
        values = {f"{r['direction']}/{r['number']}": r["value"] for r in new if r["step"] == step}
        callback.evaluation(Measurement(folder.path, step, "test", values))
    # evaluation.json last: a run that has it counts as measured
    for keep in (
        partial(folder.write_json, "speed.json", speeds),
        partial(folder.write_json, "evaluation.json", whole),
    ):
        try:
            keep()
        except RunError as error:
            # the caller can still show the results
            callback.warn(str(error))
    return found


def covers(kept: Json | None, newest: Manifest, asked: Evaluation) -> bool:
    """Returns True if a kept evaluation measured the newest checkpoint with everything that is asked for."""
    if not asked.metric_components:
        return True
    protocol = (kept or {}).get("protocol", {})
    metrics = asked.metric_components
    wanted = [("metrics", metric.key, metric.as_json()) for metric in metrics]
    used = {features.label: features for metric in metrics if (features := asked.features_of(metric)) is not None}
    wanted += [("features", label, features.as_json()) for label, features in used.items()]
    measured = protocol.get("checkpoints", {}).get(checkpoint.name_of(newest["step"]), {})
    return measured.get("sha256") == newest["files"][checkpoint.NETWORKS]["sha256"] and all(
        protocol.get(part, {}).get(name, {}).items() >= described.items() for part, name, described in wanted
    )


def merge_results(before: Json | None, now: Json) -> tuple[Json, list[str]]:
    """Merges an earlier evaluation with a new one. Returns the whole, and the parts of the protocol that differ.

    If a part differs, nothing of the earlier evaluation is kept. Otherwise the results of the metrics that were not
    measured again are kept.
    """
    if before is None:
        return now, []
    then, here = before["protocol"], now["protocol"]
    differing = [part for part in here if part not in _GROWING and then.get(part) != here[part]]
    for part in _GROWING[2:]:
        known = then.get(part, {})
        differing += [f"{part}.{name}" for name, value in here[part].items() if name in known and known[name] != value]
    if differing:
        return now, differing
    again = here["metrics"]
    measured = {_place(result): result for result in now["results"]}
    # results keep their place in the list; a number that two metrics measure stays with the first
    results = {
        place: result if result["metric"] not in again else measured[place]
        for result in before["results"]
        if (place := _place(result)) in measured or result["metric"] not in again
    }
    results |= {place: result for place, result in measured.items() if place not in results}
    left_out = [left for left in before["left_out"] if left["metric"] not in again]
    protocol = {**here} | {part: dict(sorted({**then.get(part, {}), **here[part]}.items())) for part in _GROWING}
    return {
        "protocol": protocol,
        "results": list(results.values()),
        "left_out": sorted([*left_out, *now["left_out"]], key=lambda left: (left["metric"], left["direction"])),
    }, []


def _place(result: Json) -> tuple[str, str, int]:
    return result["number"], result["direction"], result["step"]
