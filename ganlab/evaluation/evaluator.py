"""Applies metrics and makes their results, with references at the same counts and notes for the reader."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, NamedTuple

import torch

from ganlab.components.options import nearest
from ganlab.determinism import keyed
from ganlab.errors import Lost, SpecError, Unavailable
from ganlab.interfaces.metrics import Estimate, Images, Metric, MetricInfo, MetricInputs, Vectors, no_encoder

UNPAIRED = "compares each output with its partner, and these images are not paired"
"""Why a metric with `on_pairs` is left out."""


class Sourced(NamedTuple):
    """An estimate and the key of the metric that made it."""

    metric: str
    estimate: Estimate


Measured = dict[str, Sourced]
"""{full name of a number: its estimate}. The name ends with the name of the feature network if the metric uses one."""

LeftOut = dict[tuple[str, str, str], str]
"""{(metric, number or "" for all of its numbers, direction): the reason}."""


def reasons(left_out: LeftOut) -> list[dict[str, str]]:
    """Returns the value of "left_out" in evaluation.json."""
    return [
        {"metric": metric, **({"number": number} if number else {}), "direction": direction, "why": why}
        for (metric, number, direction), why in sorted(left_out.items())
    ]


class Result(NamedTuple):
    """A measured number of one direction with its references."""

    metric: str
    """The key of the metric that measured it: its type, and its feature network if it names its own."""
    name: str
    direction: str
    info: MetricInfo
    estimate: Estimate
    references: Mapping[str, Estimate]
    """"real": the number for other real images of the target domain. "identity": the identity baseline."""
    beside: Estimate | None
    """The result at the counts of the reference "real"; None if the counts are equal."""

    def notes(self) -> list[str]:
        """Returns sentences for the reader.

        A result is flagged if it is better than the reference "real", or worse than the reference "identity" although
        `identity_is_optimal` is False.
        """
        found = [self.estimate.note] if self.estimate.note else []
        real, identity = self.references.get("real"), self.references.get("identity")
        if real is not None and self._beats(self.beside or self.estimate, real):
            found.append(f"better than real images among themselves ({_how_sure(self.beside or self.estimate, real)})")
        if identity is not None and not self.info.identity_is_optimal and self._beats(identity, self.estimate):
            found.append(f"worse than the identity baseline ({_how_sure(self.estimate, identity)})")
        return found

    def _beats(self, one: Estimate, other: Estimate) -> bool:
        if not self.info.better:
            return False
        return one.value < other.value if self.info.better == "lower" else one.value > other.value

    def as_json(self) -> dict[str, Any]:
        """Returns the result as evaluation.json holds it, with numbers rounded to nine digits."""
        references = {name: _as_json(estimate) for name, estimate in self.references.items()}
        if self.beside is not None and "real" in references:
            references["real"]["result_at_these_counts"] = _as_json(self.beside)
        chance = {} if self.estimate.chance is None else {"chance": _rounded(self.estimate.chance)}
        return {
            "number": self.name,
            "direction": self.direction,
            **_as_json(self.estimate),
            "better": self.info.better,
            **chance,
            "references": references,
            "notes": self.notes(),
            "metric": self.metric,
        }


def _as_json(estimate: Estimate) -> dict[str, Any]:
    interval = [_rounded(estimate.low), _rounded(estimate.high)]
    counts = {what: int(count) for what, count in estimate.counts.items()}
    return {"value": _rounded(estimate.value), "interval": interval, "counts": counts}


def _rounded(value: float) -> float:
    return float(f"{value:.9g}")


def _how_sure(one: Estimate, other: Estimate) -> str:
    apart = one.high < other.low or other.high < one.low
    return "beyond both intervals" if apart else "within the intervals"


class Monitor(NamedTuple):
    """The number that picks the best checkpoint."""

    number: str
    better: str


class Evaluator:
    """Applies metrics, {key: metric}, to the inputs of one direction at a time.

    `features` is {key of a metric that compares feature vectors: label of its feature network}; the label is appended
    to the names of its numbers. `owners` is {key: the metric's owner}, for messages. Raises SpecError if two metrics
    describe one number differently.
    """

    def __init__(
        self, metrics: Mapping[str, Metric], features: Mapping[str, str] = {}, owners: Mapping[str, str] = {}
    ) -> None:
        self.metrics, self._features, self._owners = metrics, features, owners
        self.vectors: dict[str, Callable[[Images], Vectors]] = {}
        """{key of a metric: its `MetricInputs.vectors`}."""
        self.numbers: dict[str, MetricInfo] = {}
        """{full name: description} of every number, in the order of the metrics."""
        self.left_out: LeftOut = {}
        self.fewest = {kind: metric.fewest for kind, metric in metrics.items()}
        """{key of a metric: its `Metric.fewest`}."""
        first: dict[str, str] = {}
        for kind, metric in metrics.items():
            for own, number in metric.numbers.items():
                if kind in features:
                    # one number of several networks has several names
                    number = number._replace(about=f"{number.about} Feature network: {features[kind]}.")
                other = first.setdefault(name := self._named(kind, own), kind)
                if self.numbers.setdefault(name, number) != number:
                    raise SpecError(
                        f"{self._full(kind)} and {self._full(other)} describe the number {name!r} differently"
                    )

    def missing(self, images: Mapping[str, Images], paired: bool) -> dict[str, str]:
        """Returns {full name: reason} of the numbers that can't be measured on the domains' images."""
        found: dict[str, str] = {}
        for kind, metric in self.metrics.items():
            if metric.on_pairs and not paired:
                found |= dict.fromkeys((self._named(kind, own) for own in metric.numbers), f"{UNPAIRED} (data.paired)")
                continue
            # an error is named when the metric is measured
            with suppress(Exception):
                found |= {self._named(kind, name): why for name, why in metric.missing(images).items()}
        return found

    def _named(self, kind: str, name: str) -> str:
        return f"{name}-{self._features[kind]}" if kind in self._features else name

    def monitors(self, asked: str | None, during: Sequence[str] | None = None) -> list[Monitor]:
        """Returns the candidates for the monitor. The first candidate that is measured is the monitor.

        The only candidate is the number `asked`. If it is None, all numbers for which lower or higher is better are
        candidates. `during` are the keys of the metrics that are measured during training, None for all. Raises
        SpecError if `asked` is not measured then, or if neither is better.
        """
        named = (
            (self._named(kind, own), number)
            for kind, metric in self.metrics.items()
            if during is None or kind in during
            for own, number in metric.numbers.items()
        )
        fit = {name: Monitor(name, number.better) for name, number in named if number.better}
        if asked is None:
            return list(fit.values())
        if asked not in fit:
            raise SpecError(
                f"evaluation.monitor: no number {asked!r} for which lower or higher is better is measured"
                f"{nearest(asked, fit)}"
            )
        return [fit[asked]]

    def measure(self, data: MetricInputs, only: Sequence[str] | None = None) -> Measured:
        """Returns the estimates of all metrics, or of those with the keys `only`.

        Adds the numbers that can't be measured to `left_out`, with reasons.
        """
        found, left_out = self._apply(data, only)
        self.left_out |= left_out
        return found

    def _apply(self, data: MetricInputs, only: Sequence[str] | None = None) -> tuple[Measured, LeftOut]:
        found: Measured = {}
        left_out: LeftOut = {}
        for kind, metric in self.metrics.items():
            if only is not None and kind not in only:
                continue
            if metric.on_pairs and data.partners is None:
                left_out |= {(kind, self._named(kind, own), data.direction): UNPAIRED for own in metric.numbers}
                continue
            try:
                with _seeded(data.seed, kind, data.direction):
                    given = dict(metric.measure(self._seen_by(kind, data)))
            except Unavailable as error:
                left_out[kind, "", data.direction] = str(error)
                continue
            except Lost:
                # another process has ended: no metric is at fault
                raise
            # an error in one metric must not stop the training or lose the results of the others
            except Exception as error:
                text = " ".join(str(error).split())
                left_out[kind, "", data.direction] = f"{type(error).__name__}: {text}{self._whose(kind)}"
                continue
            for own, estimate in given.items():
                name = self._named(kind, own)
                if (wrong := defect(estimate)) is not None:
                    left_out[kind, name, data.direction] = f"{wrong}{self._whose(kind)}"
                elif isinstance(estimate, Unavailable):
                    left_out[kind, name, data.direction] = str(estimate)
                elif own not in metric.numbers:
                    left_out[kind, name, data.direction] = f"is not in `numbers`{self._whose(kind)}"
                else:
                    found.setdefault(name, Sourced(kind, estimate))
        return found, left_out

    def _seen_by(self, kind: str, data: MetricInputs) -> MetricInputs:
        return replace(data, vectors=self.vectors[kind]) if kind in self.vectors else data

    def _whose(self, kind: str) -> str:
        return f" ({self._full(kind)})"

    def _full(self, kind: str) -> str:
        return f"metric {kind!r}{f' of {self._owners[kind]}' if kind in self._owners else ''}"

    def results(
        self, direction: str, found: Measured, references: Mapping[str, Measured], beside: Measured | None = None
    ) -> list[Result]:
        """Returns the results of one direction with their references.

        `beside` holds the same numbers at the counts of the reference "real", if the reference has fewer images.
        """
        return [
            Result(
                kind,
                name,
                direction,
                self.numbers[name],
                estimate,
                {reference: known[name].estimate for reference, known in references.items() if name in known},
                beside[name].estimate if beside and name in beside else None,
            )
            for name, (kind, estimate) in found.items()
        ]

    def real(self, data: MetricInputs, others: Images) -> Measured:
        """Returns the reference "real": measures `others`, real images of the target domain, as inputs and outputs."""
        return self._reference(replace(data, partners=None), others)

    def identity(self, data: MetricInputs, inputs: Images) -> Measured:
        """Returns the identity baseline: measures `inputs` as inputs and outputs."""
        return self._reference(data, inputs)

    def measure_fewer(self, data: MetricInputs, count: int) -> Measured:
        """Measures `count` of the outputs, to stand beside a reference that has only so many images."""
        return self._apply(at_fewer(data, count))[0]

    def _reference(self, data: MetricInputs, images: Images) -> Measured:
        # no networks: a reference is the same for every checkpoint
        return self._apply(replace(data, inputs=images, outputs=images, cycled=None, encode=no_encoder))[0]


def defect(given: object) -> str | None:
    """Returns what is wrong with the value that a metric returned for a number; None if it is valid."""
    if isinstance(given, Unavailable):
        return None
    if not isinstance(given, Estimate):
        return f"is {given!r:.80}, not an Estimate"
    chance = {} if given.chance is None else {"chance": given.chance}
    for part, value in {"value": given.value, "low": given.low, "high": given.high, **chance}.items():
        if not isinstance(value, Real) or not math.isfinite(value):
            return f"has the {part} {value!r:.80}, not a finite number"
    counts = given.counts
    if not isinstance(counts, Mapping) or not all(
        isinstance(what, str) and isinstance(count, Integral) for what, count in counts.items()
    ):
        return f"has the counts {counts!r:.80}, not {{text: whole number}}"
    return None


@contextmanager
def _seeded(*key: int | str) -> Iterator[None]:
    """Seeds torch's global random generator from the key, and restores it afterwards."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices):
        torch.default_generator.manual_seed(int(keyed("metric", *key).integers(2**63)))
        yield


def at_fewer(data: MetricInputs, count: int) -> MetricInputs:
    """Returns the inputs with `count` of the outputs, chosen at random."""

    def some(images: Images | None) -> Images | None:
        return None if images is None else fewer(images, count, data.seed)

    return replace(
        data,
        outputs=fewer(data.outputs, count, data.seed),
        inputs=some(data.inputs),
        partners=some(data.partners),
        cycled=some(data.cycled),
    )


def fewer(images: Images, count: int, seed: int) -> Images:
    """Returns at most `count` of the images, chosen at random; of sets of one size those at the same indices."""
    if len(images) <= count:
        return images
    chosen = keyed("fewer", seed, len(images)).permutation(len(images))[:count]
    return images.take(sorted(int(i) for i in chosen))
