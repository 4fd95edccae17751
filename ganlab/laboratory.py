"""What the command line does, as functions: the stages joined."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ganlab import checkpoint, provenance
from ganlab.build import System, build, build_data, build_schedule, build_sources
from ganlab.data.sampler import Sampler
from ganlab.data.store import Store
from ganlab.engine import Engine, Record
from ganlab.errors import Interrupted, RunError, SpecError, Unavailable
from ganlab.evaluation import folders, speed
from ganlab.evaluation.run import RunExaminer, Tools, named, united
from ganlab.facts import refuse_other_data
from ganlab.folder import RunFolder
from ganlab.options import signature
from ganlab.registry import registry
from ganlab.rehearsal import describe_networks, untouched_randomness
from ganlab.spec import (
    Evaluation,
    Json,
    Options,
    Spec,
    as_options,
    assignment,
    device,
    differences,
    evaluation_of,
    merge,
    read,
    resolve,
)
from ganlab.training import Nobody, Watcher, train


class Run(NamedTuple):
    """A run, read from its folder."""

    folder: Path
    """Where it is."""
    spec: Spec
    """What was asked for, resolved."""
    step: int
    """The newest checkpoint's."""
    steps: int
    """How many there are to be."""
    records: list[Record]
    """What each step was: "step", "seconds", "images", and every term and gradient norm by name."""
    evaluation: Json | None
    """What was measured of it, as evaluation.json holds it."""

    @property
    def finished(self) -> bool:
        """Whether all its steps were trained."""
        return self.step >= self.steps


def load_spec(spec: str | Path | Mapping[str, Any], set: Iterable[str] = ()) -> Spec:
    """A spec file, or the same as a mapping, with `set`'s "path.to.key=value" merged in: checked and resolved.

    Raises SpecError.
    """
    return _load_spec(spec, set, None)


def _load_spec(spec: str | Path | Mapping[str, Any], set: Iterable[str], like: Spec | None) -> Spec:
    where = "spec" if isinstance(spec, Mapping) else str(spec)
    asked: Json = dict(spec) if isinstance(spec, Mapping) else read(spec)
    for text in set:
        asked = merge(asked, assignment(text))
    return resolve(registry(), asked, where, like)


def load_run(folder: str | Path) -> Run:
    """Read a run folder. Raises SpecError where there is no run."""
    where = RunFolder(folder)
    if not where.exists:
        raise SpecError(f"{folder} is not a run: it has no spec.json")
    spec = where.spec_here(registry())
    steps = build_schedule(registry(), spec).steps
    return Run(where.path, spec, (where.steps or [0])[-1], steps, where.records(), where.evaluation())


def run(
    spec: str | Path | Mapping[str, Any] | Spec,
    set: Iterable[str] = (),
    out: str | Path | None = None,
    fresh: bool = False,
    watcher: Watcher | None = None,
) -> Run:
    """Train a spec in `out`, by default runs/NAME, and measure it; an unfinished run there goes on where it was.

    `fresh` begins anew. Raises SpecError, before anything is written, where the spec, its data or the folder are
    unfit; RunError where training fails; Interrupted after SIGINT or SIGTERM, with everything saved.
    """
    watcher = watcher or Nobody()
    asked = spec.as_json() if isinstance(spec, Spec) else spec
    resolved = load_spec(asked, set)
    folder = RunFolder(out or Path("runs") / resolved.name)
    if folder.foreign:
        raise SpecError(f"{folder.path} exists and is not a run; choose another folder with --out")
    if folder.exists and not fresh:
        resolved = _load_spec(asked, set, folder.spec(registry()))
        _refuse_another(folder, resolved)
        found = load_run(folder.path)
        if found.finished and _measured(found, resolved) and folder.sample(found.step).exists():
            _warn_of_code(folder, resolved, watcher)
            measured = (found.evaluation or {}).get("protocol", {}).get("code", {})
            for sentence in provenance.measured_by_other_code(folder.path, measured):
                watcher.warns(sentence)
            return found
    with _reproducible(resolved):
        stores = build_data(registry(), resolved, watcher.progress)
        for domain, store in stores.items():
            if store.skipped:
                watcher.warns(_left_out(f"data.{domain}", store.skipped, len(store.keys)))
        system = build(registry(), resolved, {name: store.domain for name, store in stores.items()})
        data = resolved.data
        engine = Engine(system, Sampler(stores, data.batch, data.flip, resolved.seed, system.device, system.dtype))
        for sentence in engine.rehearsal.idle:
            watcher.warns(sentence)
        examiner = None
        if resolved.evaluation.metrics:
            # what measures may draw while it is made; what trains must not know of it
            with untouched_randomness(system.device):
                examiner = _examiner(system, stores, resolved.evaluation, watcher)
        with folder.locked():
            if fresh:
                folder.clear()
            elif folder.exists:
                # another process may have begun here meanwhile
                _refuse_another(folder, resolved)
                # how it is measured may have changed, what it trains has not
                folder.write_json("spec.json", {**folder.spec_json(), "evaluation": resolved.as_json()["evaluation"]})
            train(engine, stores, folder, watcher, examiner)
            if examiner is not None:
                try:
                    _evaluate(folder, examiner, system, stores, watcher)
                except KeyboardInterrupt as stopped:
                    raise Interrupted(
                        f"all {engine.done} steps are saved, not yet measured", signal.SIGINT
                    ) from stopped
    return load_run(folder.path)


def _warn_of_code(folder: RunFolder, spec: Spec, watcher: Watcher) -> None:
    now = provenance.code(registry(), provenance.trains(registry(), spec))
    for sentence in provenance.of_other_code(folder.path, folder.environment() or {}, now):
        watcher.warns(sentence)


def _measured(run: Run, asked: Spec) -> bool:
    """Whether its newest checkpoint was measured by all that is asked for, with these options."""
    evaluation = asked.evaluation
    protocol = (run.evaluation or {}).get("protocol", {})
    wanted = [("metrics", as_options(metric)) for metric in evaluation.metrics]
    if evaluation.features is not None and protocol.get("features"):
        wanted.append(("features", as_options(evaluation.features)))
    return not evaluation.metrics or (
        checkpoint.name_of(run.step) in protocol.get("checkpoints", {})
        and all(protocol.get(part, {}).get(o["type"], {}).items() >= o.items() for part, o in wanted)
    )


def _examiner(system: System, stores: dict[str, Store], asked: Evaluation, watcher: Watcher) -> RunExaminer:
    return RunExaminer(registry(), system, stores, build_sources(registry(), system.spec), asked, watcher.progress)


def _evaluate(
    folder: RunFolder, examiner: RunExaminer, system: System, stores: dict[str, Store], watcher: Watcher
) -> Json:
    """Measure the run in a folder, whose evaluation.json keeps other figures of the same checkpoints."""
    with system.parts.blamed("", "the evaluation", folder.steps[-1]):
        found = examiner.evaluate(folder)
        costs = speed.measure(system, {name: store.domain for name, store in stores.items()})
    whole, apart = united(folder.evaluation(), found)
    if apart:
        watcher.warns(f"earlier figures of {folder.path} are replaced: they had another {', '.join(apart)}")
    # evaluation.json last: a run that has it is taken for measured
    for name, content in (("speed.json", costs), ("evaluation.json", whole)):
        try:
            folder.write_json(name, content)
        except RunError as error:
            # what was measured can still be shown
            watcher.warns(str(error))
    return found


def evaluate(
    run: str | Path | None = None,
    metrics: Sequence[str | Options] = (),
    features: str | Options | None = None,
    images: tuple[str | Path, str | Path] | None = None,
    inputs: str | Path | None = None,
    watcher: Watcher | None = None,
) -> Json:
    """Measure a run, by default the newest in runs/, and keep the figures in its evaluation.json; or, with `images`,
    the first of two folders against the second, which holds real images, and `inputs` what the first's were made from.

    `metrics` and `features` are components, by default those of the run's spec. Returns {"protocol", "figures",
    "left_out"}. Raises SpecError, before anything is written, where something is unfit or missing; Unavailable where
    nothing at all could be measured.
    """
    found = _evaluation(run, metrics, features, images, inputs, watcher or Nobody())
    if not found["figures"]:
        why = "; ".join(dict.fromkeys(f"{left['metric']} {left['why']}" for left in found["left_out"]))
        raise Unavailable(f"nothing could be measured: {why}")
    return found


def _evaluation(
    run: str | Path | None,
    metrics: Sequence[str | Options],
    features: str | Options | None,
    images: tuple[str | Path, str | Path] | None,
    inputs: str | Path | None,
    watcher: Watcher,
) -> Json:
    if images is None:
        if inputs is not None:
            raise SpecError("--inputs goes with --images")
        return _evaluate_run(RunFolder(run) if run is not None else newest_run(), metrics, features, watcher)
    if run is not None:
        raise SpecError(f"either a run ({run}) or --images is measured, not both")
    asked = _with_features(Evaluation(metrics=tuple(metrics), features=features))
    tools = Tools.build(registry(), asked, torch.device(device("auto", "eval")), watcher.progress)
    if not tools.examiner.metrics:
        raise SpecError(f"--images needs two folders and a metric; known are: {', '.join(registry().names('metric'))}")
    paths = [*images, *([inputs] if inputs is not None else [])]
    sets = [folders.Folder(path, index > 0, watcher.progress) for index, path in enumerate(paths)]
    for one in sets:
        if one.skipped:
            watcher.warns(_left_out(str(one.path), one.skipped, len(one.keys)))
    with untouched_randomness(torch.device("cpu")):
        return folders.evaluate(registry(), tools, asked, *sets)


def _with_features(asked: Evaluation) -> Evaluation:
    """What was asked for, resolved; where no feature network is named, the first whose weights ship with a package."""
    chosen = asked.model_copy(update={"features": asked.features or next(iter(registry().shipped_features()), None)})
    return evaluation_of(registry(), chosen, "eval")


def newest_run(where: str | Path = "runs") -> RunFolder:
    """The run in a folder of runs that was trained last. Raises SpecError where there is none."""
    runs = [RunFolder(path) for path in Path(where).glob("*") if RunFolder(path).metrics.exists()]
    if not runs:
        raise SpecError(f"there is no run in {where}; name one, or train one with `ganlab run SPEC`")
    return max(runs, key=lambda folder: folder.metrics.stat().st_mtime_ns)


def _evaluate_run(
    folder: RunFolder, metrics: Sequence[str | Options], features: str | Options | None, watcher: Watcher
) -> Json:
    spec = load_run(folder.path).spec
    asked = spec.evaluation.model_copy(update={"choose": None} if metrics else {})
    # a metric that the spec names too keeps the spec's options
    own = {options["type"]: options for options in map(as_options, spec.evaluation.metrics)}
    if metrics:
        asked.metrics = tuple(own.get(metric, metric) if isinstance(metric, str) else metric for metric in metrics)
    asked.features = features or asked.features
    asked = _with_features(asked)
    if not asked.metrics:
        raise SpecError(f"{folder.path} names no metrics; choose some: {', '.join(registry().names('metric'))}")
    if not folder.steps:
        raise SpecError(f"{folder.path} has no checkpoint yet; train it with `ganlab run`")
    with _reproducible(spec):
        stores = build_data(registry(), spec, watcher.progress)
        refuse_other_data(folder, stores)
        folder.tidy()
        _warn_of_code(folder, spec, watcher)
        system = build(registry(), spec, {name: store.domain for name, store in stores.items()})
        return _evaluate(folder, _examiner(system, stores, asked, watcher), system, stores, watcher)


def _refuse_another(folder: RunFolder, asked: Spec) -> None:
    there = folder.spec(registry())
    if there.fingerprint() != asked.fingerprint():
        raise SpecError(
            f"{folder.path} holds another spec (there / asked): {'; '.join(differences(there, asked))};"
            " begin anew with --fresh, or choose another folder with --out"
        )


def check(spec: str | Path | Mapping[str, Any] | Spec, set: Iterable[str] = (), watcher: Watcher | None = None) -> Json:
    """What a spec would build, found by building it and rehearsing its losses on two images. Raises SpecError.

    {"name", "about", "networks", "terms", "turns", "numbers", "memory"}; memory in bytes, estimated: weights, gradients
    and the optimisers' state, what autograd keeps for the larger player's turn, the images of the data set.
    """
    resolved = load_spec(spec.as_json() if isinstance(spec, Spec) else spec, set)
    with _reproducible(resolved):
        sources = build_sources(registry(), resolved)
        stores = build_data(registry(), resolved, most=4)
        system = build(registry(), resolved, {name: store.domain for name, store in stores.items()})
        sampler = Sampler(stores, 2, False, resolved.seed, system.device, system.dtype)
        engine = Engine(system, sampler)
        images = sum(len(sources[d].keys(d)) * store.images[0].numel() for d, store in stores.items())
        states = engine.state_bytes()
    for sentence in engine.rehearsal.idle:
        (watcher or Nobody()).warns(sentence)
    examiner = named(registry(), resolved.evaluation)
    examiner.choosers(resolved.evaluation.choose)
    activations = max(engine.rehearsal.saved_bytes.values()) * resolved.data.batch
    return {
        "name": resolved.name,
        "about": resolved.about,
        "networks": [
            {"name": name, "type": _type_of(resolved, name), **facts}
            for name, facts in describe_networks(system, {d: store.domain for d, store in stores.items()}).items()
        ]
        + [
            {
                "name": f"loss/{label}",
                "type": resolved.losses[label]["type"],
                "parameters": count,
                "input": "",
                "output": "",
            }
            for label, loss in system.losses.items()
            if (count := sum(p.numel() for p in loss.parameters()))
        ],
        "terms": [
            {"player": player, "way": way, "term": f"{label}{f'/{part}' if part else ''}", "weight": weight}
            for (player, way, label), asked in engine.rehearsal.asked.items()
            for part in asked.parts
            if (weight := resolved.weight(label)[player])
        ],
        "turns": [
            {"player": turn.player, "ways": list(turn.ways), "moves": engine.moved_by(turn), "fresh": turn.fresh}
            for turn in engine.turns(0)
            if engine.moved_by(turn)
        ],
        "numbers": [
            {"number": name, "better": number.better, "about": number.about}
            for name, number in examiner.numbers.items()
        ],
        "memory": {
            "states": states,
            "activations": activations,
            "images": images,
            "total": states + activations + images,
        },
    }


def _type_of(spec: Spec, network: str) -> str:
    player, label = network.split("/")[:2]
    options = spec.generator if player == "generator" else spec.discriminators[label]
    return _with_nested(player, options)


def _with_nested(kind: str, options: Options) -> str:
    nested = signature(registry().find(kind, options["type"], kind).cls).nested
    inner = ", ".join(_with_nested(inner_kind, options[option]) for option, inner_kind in nested.items())
    return f"{options['type']}({inner})" if inner else str(options["type"])


def _left_out(where: str, skipped: Sequence[str], kept: int) -> str:
    some = "; ".join(skipped[:3]) + ("; ..." if len(skipped) > 3 else "")
    return f"{where}: {len(skipped)} of {len(skipped) + kept} files are no readable images and are left out: {some}"


@contextmanager
def _reproducible(spec: Spec) -> Iterator[None]:
    """Threads, precision and determinism as the spec says; afterwards everything is as it was."""
    threads = torch.get_num_threads()
    device = torch.device(spec.runtime.device)
    tf32 = spec.runtime.precision == "tf32"
    matmul = torch.get_float32_matmul_precision()
    # cuBLAS reads it when it is first used
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(int(spec.runtime.threads))
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        with (
            untouched_randomness(device),
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=tf32),
        ):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(matmul)
