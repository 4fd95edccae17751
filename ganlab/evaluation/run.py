"""A run measured: during training on the half of the held-out images that chooses, afterwards on the other."""

from __future__ import annotations

import copy
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from ganlab import checkpoint
from ganlab.build import System, build_features, build_metric
from ganlab.data.store import Progress, Store, silent
from ganlab.engine import Record
from ganlab.environment import versions
from ganlab.errors import SpecError
from ganlab.evaluation.evidence import Evidence, Images
from ganlab.evaluation.examine import Examiner, LeftOut, Measured, reasons
from ganlab.evaluation.features import RULE, Extractor, cache_folder, hashes
from ganlab.evaluation.material import BATCH, Translators, split
from ganlab.folder import RunFolder
from ganlab.interfaces import Features, Generator, Source
from ganlab.provenance import code, with_nested
from ganlab.registry import Registry
from ganlab.spec import Evaluation, Json, Options, as_options

_GROWING = ("metrics", "code", "features", "weights", "packages")
"""The parts of a protocol, mappings, to which another evaluation adds; of the first two each metric has its own."""

_PACKAGES = ("ganlab", "torch", "numpy", "scipy", "pillow")

SEED = 0
"""Of every random choice of an evaluation; not the run's, so that runs with other seeds are judged alike."""

PREFIX = "evaluation"
"""Of the names of what is measured during training, in a run's records: "evaluation/WAY/NUMBER"."""


class Best(NamedTuple):
    """The checkpoint that chose itself during training."""

    step: int
    value: float
    number: str
    """By which."""


def named(registry: Registry, asked: Evaluation) -> Examiner:
    """The metrics, with the names of their numbers. Raises SpecError where one needs features and none are named."""
    chosen = [as_options(metric) for metric in asked.metrics]
    metrics = {options["type"]: build_metric(registry, options) for options in chosen}
    hungry = [name for name, metric in metrics.items() if metric.on_features]
    if asked.features is None and hungry:
        known = ", ".join(registry.names("features"))
        raise SpecError(f"evaluation.features: is required by {', '.join(hungry)}; known are: {known}")
    owners = {name: registry.find("metric", name, "evaluation.metrics").owner for name in metrics}
    return Examiner(metrics, None if asked.features is None else as_options(asked.features)["type"], owners)


class Tools(NamedTuple):
    """What measures, built once."""

    examiner: Examiner
    features: Features | None
    extractor: Extractor | None
    device: torch.device

    @classmethod
    def build(cls, registry: Registry, asked: Evaluation, device: torch.device, progress: Progress) -> Tools:
        """Raises SpecError where a metric needs features and none are named, Unavailable where weights are missing."""
        examiner = named(registry, asked)
        if asked.features is None or not any(metric.on_features for metric in examiner.metrics.values()):
            return cls(examiner, None, None, device)
        options = as_options(asked.features)
        network = build_features(registry, options)
        extractor = Extractor(network, json.dumps(options, sort_keys=True), device, cache_folder(), progress)
        return cls(examiner, network, extractor, device)

    def files(self) -> Sequence[Path]:
        """Every weight file that was read."""
        own = [] if self.features is None else self.features.files()
        return [*own, *(path for metric in self.examiner.metrics.values() for path in metric.files())]

    def seeing(self, evidence: Evidence) -> Evidence:
        """The same, seen by the feature network."""
        return evidence if self.extractor is None else replace(evidence, vectors=self.extractor)

    def protocol(self, registry: Registry, asked: Evaluation) -> Json:
        """How these numbers are made."""
        metrics = dict(sorted((options["type"], options) for options in map(as_options, asked.metrics)))
        described: Json = {
            "metrics": metrics,
            "code": {name: self._code(registry, options, asked.features) for name, options in metrics.items()},
            "features": {},
            "seed": SEED,
            "python": platform.python_version(),
            "packages": dict(sorted(versions(*_PACKAGES, *self._packages(registry)).items())),
            "device": str(self.device),
            "threads": torch.get_num_threads(),
            "weights": dict(sorted(hashes(self.files()).items())),
        }
        if self.features is not None and asked.features is not None:
            options = as_options(asked.features)
            described["features"][options["type"]] = {**options, "size": self.features.size, "resize": RULE}
        return described

    def _code(self, registry: Registry, metric: Options, features: str | Options | None) -> dict[str, str | None]:
        """{module: the hash of its code} of a metric, and of the features that it sees."""
        used = list(with_nested(registry, "metric", "", metric))
        if features is not None and self.examiner.metrics[metric["type"]].on_features:
            used += with_nested(registry, "features", "", as_options(features))
        return {module: fact["sha256"] for module, fact in code(registry, used).items()}

    def _packages(self, registry: Registry) -> Iterator[str]:
        """The distributions of what measures, and of what it says that it depends on."""
        for name, metric in self.examiner.metrics.items():
            yield registry.find("metric", name, "evaluation.metrics").package
            yield from metric.packages
        if self.features is not None:
            yield from self.features.packages


def united(before: Json | None, now: Json) -> tuple[Json, list[str]]:
    """What was measured before with what is measured now; and the parts of the protocol that differ, for which nothing
    from before is kept. All numbers of a metric that was measured again are now's."""
    if before is None:
        return now, []
    then, here = before["protocol"], now["protocol"]
    apart = [part for part in here if part not in _GROWING and then.get(part) != here[part]]
    for part in _GROWING[2:]:
        known = then.get(part, {})
        apart += [f"{part}.{name}" for name, value in here[part].items() if name in known and known[name] != value]
    if apart:
        return now, apart
    again = here["metrics"]
    measured = {_place(figure): figure for figure in now["figures"]}
    # each at its old place; a number that two metrics give stays the first's
    figures = {
        place: figure if figure["metric"] not in again else measured[place]
        for figure in before["figures"]
        if (place := _place(figure)) in measured or figure["metric"] not in again
    }
    figures |= {place: figure for place, figure in measured.items() if place not in figures}
    left_out = [left for left in before["left_out"] if left["metric"] not in again]
    protocol = {**here} | {part: dict(sorted({**then.get(part, {}), **here[part]}.items())) for part in _GROWING}
    return {
        "protocol": protocol,
        "figures": list(figures.values()),
        "left_out": sorted([*left_out, *now["left_out"]], key=lambda left: (left["metric"], left["way"])),
    }, []


def _place(figure: Json) -> tuple[str, str, int]:
    return figure["number"], figure["way"], figure["step"]


class RunExaminer:
    """Measures the generators of one run. `evaluation` is what to measure: the spec's own, or what was asked for."""

    def __init__(
        self,
        registry: Registry,
        system: System,
        stores: Mapping[str, Store],
        sources: Mapping[str, Source],
        evaluation: Evaluation,
        progress: Progress = silent,
    ) -> None:
        self._registry, self._system, self._evaluation = registry, system, evaluation
        self._ways = system.spec.translations
        self._tools = Tools.build(registry, evaluation, system.device, progress)
        self._split = split(stores, sources)
        self._stores = stores
        # once for all checkpoints: judges learn from real images alone
        self._kept: dict[str, dict[Any, Any]] = {way: {} for way in self._ways}
        self._references: dict[str, dict[str, Measured]] = {}
        # always of the spec's own metrics: their numbers are what training recorded
        own = system.spec.evaluation
        self._choosers = named(registry, own).choosers(own.choose)

    def assess(self, generators: Mapping[str, nn.Module]) -> Record:
        """{"evaluation/WAY/NUMBER": value} on the images that choose, without references."""
        translators = self._translators(generators)
        self.left_out.clear()
        return {
            f"{PREFIX}/{way}/{name}": float(measured.estimate.value)
            for way in self._ways
            for name, measured in self._tools.examiner.measure(
                self._evidence(way, self._split.choosing, translators)
            ).items()
        }

    @property
    def left_out(self) -> LeftOut:
        """What the last measurement could not measure."""
        return self._tools.examiner.left_out

    def best(self, records: Sequence[Record], steps: Sequence[int]) -> Best | None:
        """Of these steps the one whose chooser, averaged over the ways, was best on the images that choose."""
        for number, better in self._choosers:
            each = [f"{PREFIX}/{way}/{number}" for way in self._ways]
            # some numbers are of one way alone, some of none
            wanted = [name for name in each if any(name in record for record in records)]
            if not wanted:
                continue
            scores = [
                Best(int(record["step"]), sum(record[name] for name in wanted) / len(wanted), number)
                for record in records
                if int(record["step"]) in steps and all(name in record for name in wanted)
            ]
            sign = 1 if better == "lower" else -1
            # of equals the last
            return min(reversed(scores), key=lambda score: sign * score.value, default=None)
        return None

    def evaluate(self, folder: RunFolder) -> Json:
        """The figures of the last checkpoint and of the best, with all they depend on."""
        self.left_out.clear()
        last = folder.steps[-1]
        best = self.best(folder.records(), folder.steps)
        roles = {last: ["last"]}
        if best is not None:
            roles.setdefault(best.step, []).append("best")
        figures = [figure for step in roles for figure in self._at(folder, step, roles[step])]
        return {
            "protocol": {
                **self._protocol(folder, roles, best),
                **self._tools.protocol(self._registry, self._evaluation),
            },
            "figures": figures,
            "left_out": reasons(self.left_out),
        }

    def _at(self, folder: RunFolder, step: int, roles: list[str]) -> list[Json]:
        generators: dict[str, nn.Module] = {way: self._system.networks.generator(way) for way in self._ways}
        # all at once: they may share layers
        generators = copy.deepcopy(generators)
        averaged = self._system.spec.ema_halflife_images is not None
        names = {f"{'ema' if averaged else 'generator'}/{way}": generators[way] for way in self._ways}
        checkpoint.load_networks(checkpoint.path_of(folder.checkpoints, step), names)
        translators = self._translators(generators)
        found: list[Json] = []
        for way in self._ways:
            evidence = self._evidence(way, self._split.measured, translators)
            examiner = self._tools.examiner
            if way not in self._references:
                self._references[way] = {
                    "real": examiner.real(evidence, self._split.choosing[way[1]]),
                    "nothing": examiner.nothing(evidence, self._split.measured[way[0]]),
                }
            figures = examiner.figures(way, examiner.measure(evidence), self._references[way])
            found += [{**figure.as_json(), "step": step, "checkpoint": " = ".join(roles)} for figure in figures]
        return found

    def _translators(self, generators: Mapping[str, nn.Module]) -> Translators:
        own = {way: generator for way, generator in generators.items() if isinstance(generator, Generator)}
        channels = {name: store.domain.channels for name, store in self._stores.items()}
        return Translators(self._system, own, channels)

    def _evidence(self, way: str, images: Mapping[str, Images], translators: Translators) -> Evidence:
        outputs, cycled = translators.translate(way, images[way[0]])
        return self._tools.seeing(
            Evidence(
                way,
                outputs,
                targets=images[way[1]],
                inputs=images[way[0]],
                cycled=cycled,
                learning=self._split.learning,
                encode=translators.encode,
                seed=SEED,
                kept=self._kept[way],
            )
        )

    def _protocol(self, folder: RunFolder, roles: Mapping[int, Sequence[str]], best: Best | None) -> Json:
        files = {step: checkpoint.path_of(folder.checkpoints, step) / "networks.safetensors" for step in sorted(roles)}
        return {
            "images": {
                domain: {
                    "measured": len(self._split.measured[domain]),
                    "choosing": len(self._split.choosing[domain]),
                    "training": len(self._split.learning[domain]),
                    "sha256": store.facts()["sha256"],
                }
                for domain, store in self._stores.items()
            },
            "spec": self._system.spec.fingerprint(),
            "precision": self._system.spec.runtime.precision,
            "split": "held-out images, halved at random: one half chooses the best checkpoint and is the real images of"
            " the reference, the figures are from the other",
            "translated": f"in eval mode, {BATCH} at a time, rounded to 8 bits, before the way back too",
            "weights_averaged": self._system.spec.ema_halflife_images is not None,
            "checkpoints": {
                checkpoint.name_of(step): {"is": list(roles[step]), "sha256": next(iter(hashes([path]).values()))}
                for step, path in files.items()
            },
            "best_by": None if best is None else {"number": best.number, "mean_of_ways": best.value, "step": best.step},
        }
