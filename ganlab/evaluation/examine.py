"""Metrics applied: figures with references at the same counts, and what a reader should notice."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, NamedTuple

import torch

from ganlab.draws import keyed
from ganlab.errors import SpecError, Unavailable
from ganlab.evaluation.evidence import Evidence, Images, no_encoder
from ganlab.interfaces import Estimate, Metric, Number
from ganlab.options import nearest


class Sourced(NamedTuple):
    """An estimate and the type of the metric that made it."""

    metric: str
    estimate: Estimate


Measured = dict[str, Sourced]
"""{name of a number, with its features: what was measured}."""


LeftOut = dict[tuple[str, str, str], str]
"""{(metric, number or "" for all of them, way): why it could not be measured}."""


def reasons(left_out: LeftOut) -> list[dict[str, str]]:
    """For evaluation.json."""
    return [
        {"metric": metric, **({"number": number} if number else {}), "way": way, "why": why}
        for (metric, number, way), why in sorted(left_out.items())
    ]


class Figure(NamedTuple):
    """A number of one way, and what to read it against."""

    metric: str
    """The type of the component that measured it."""
    name: str
    way: str
    number: Number
    estimate: Estimate
    references: Mapping[str, Estimate]
    """"real": real images in the place of the outputs; "nothing": the inputs in their place."""
    beside: Estimate | None
    """The same number at the counts of the reference "real", where that has fewer images."""

    def notes(self) -> list[str]:
        """What a reader should notice."""
        found = [self.estimate.note] if self.estimate.note else []
        real, nothing = self.references.get("real"), self.references.get("nothing")
        if real is not None and self._beats(self.beside or self.estimate, real):
            found.append(f"better than real images among themselves ({_how_sure(self.beside or self.estimate, real)})")
        if nothing is not None and not self.number.copies_win and self._beats(nothing, self.estimate):
            found.append(f"worse than doing nothing ({_how_sure(self.estimate, nothing)})")
        return found

    def _beats(self, one: Estimate, other: Estimate) -> bool:
        if not self.number.better:
            return False
        return one.value < other.value if self.number.better == "lower" else one.value > other.value

    def as_json(self) -> dict[str, Any]:
        """For evaluation.json: numbers to nine digits."""
        references = {name: _as_json(estimate) for name, estimate in self.references.items()}
        if self.beside is not None and "real" in references:
            references["real"]["figure_at_these_counts"] = _as_json(self.beside)
        chance = {} if self.estimate.chance is None else {"chance": _rounded(self.estimate.chance)}
        return {
            "number": self.name,
            "way": self.way,
            **_as_json(self.estimate),
            "better": self.number.better,
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


class Chooser(NamedTuple):
    """The number that chooses the best checkpoint."""

    number: str
    better: str


class Examiner:
    """Applies metrics, {type: metric}; `features` is the name that numbers on feature vectors end with, `owners` says
    whose each metric is. Raises SpecError where two metrics mean different things by one name."""

    def __init__(self, metrics: Mapping[str, Metric], features: str | None, owners: Mapping[str, str] = {}) -> None:
        self.metrics, self._features, self._owners = metrics, features, owners
        self.numbers: dict[str, Number] = {}
        """{name: what is known of it} of every number, in the order of the metrics."""
        self.left_out: LeftOut = {}
        first: dict[str, str] = {}
        for kind, metric in metrics.items():
            for own, number in metric.numbers.items():
                other = first.setdefault(name := self._named(metric, own), kind)
                if self.numbers.setdefault(name, number) != number:
                    raise SpecError(
                        f"{self._full(kind)} means something else by {name!r} than {self._full(other)} does"
                    )

    def _named(self, metric: Metric, name: str) -> str:
        return f"{name}-{self._features}" if metric.on_features else name

    def choosers(self, asked: str | None) -> list[Chooser]:
        """Of these the first that is measured chooses the best checkpoint: by default any number with a better end.

        Raises SpecError where the one that is asked for has none.
        """
        fit = {name: Chooser(name, number.better) for name, number in self.numbers.items() if number.better}
        if asked is None:
            return list(fit.values())
        if asked not in fit:
            raise SpecError(
                f"evaluation.choose: no number {asked!r} with a better end is measured{nearest(asked, fit)}"
            )
        return [fit[asked]]

    def measure(self, evidence: Evidence) -> Measured:
        """{number: what its metric measures}; `left_out` has the reasons of what could not be."""
        found, left_out = self._apply(evidence)
        self.left_out |= left_out
        return found

    def _apply(self, evidence: Evidence) -> tuple[Measured, LeftOut]:
        found: Measured = {}
        left_out: LeftOut = {}
        for kind, metric in self.metrics.items():
            try:
                with _seeded(evidence.seed, kind, evidence.way):
                    given = dict(metric.measure(evidence))
            except Unavailable as error:
                left_out[kind, "", evidence.way] = str(error)
                continue
            # whatever a metric does, training goes on and what others measured is kept
            except Exception as error:
                text = " ".join(str(error).split())
                left_out[kind, "", evidence.way] = f"{type(error).__name__}: {text}{self._whose(kind)}"
                continue
            for own, estimate in given.items():
                name = self._named(metric, own)
                if (wrong := unfit(estimate)) is not None:
                    left_out[kind, name, evidence.way] = f"{wrong}{self._whose(kind)}"
                elif isinstance(estimate, Unavailable):
                    left_out[kind, name, evidence.way] = str(estimate)
                elif own not in metric.numbers:
                    left_out[kind, name, evidence.way] = f"is none of its numbers{self._whose(kind)}"
                else:
                    found.setdefault(name, Sourced(kind, estimate))
        return found, left_out

    def _whose(self, kind: str) -> str:
        return f" ({self._full(kind)})"

    def _full(self, kind: str) -> str:
        return f"metric {kind!r}{f' of {self._owners[kind]}' if kind in self._owners else ''}"

    def figures(
        self, way: str, found: Measured, references: Mapping[str, Measured], beside: Measured | None = None
    ) -> list[Figure]:
        """What was found on a way with its references; `beside` is what the same are at the counts of the reference
        "real", if fewer."""
        return [
            Figure(
                kind,
                name,
                way,
                self.numbers[name],
                estimate,
                {reference: known[name].estimate for reference, known in references.items() if name in known},
                beside[name].estimate if beside and name in beside else None,
            )
            for name, (kind, estimate) in found.items()
        ]

    def real(self, evidence: Evidence, others: Images) -> Measured:
        """What the same numbers are of other real images of the target domain: they keep all of their own content, and
        are as near to `targets` as their number lets them be."""
        return self._reference(evidence, others)

    def nothing(self, evidence: Evidence, inputs: Images) -> Measured:
        """What they are where nothing is done: of the inputs."""
        return self._reference(evidence, inputs)

    def _reference(self, evidence: Evidence, images: Images) -> Measured:
        # without the networks: a reference is of images alone, the same for every checkpoint
        return self._apply(replace(evidence, inputs=images, outputs=images, cycled=None, encode=no_encoder))[0]


def unfit(given: object) -> str | None:
    """What is wrong with what a metric gave for a number."""
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
    """Torch's global generator at the same place whenever a metric begins; afterwards where it was."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices):
        torch.default_generator.manual_seed(int(keyed("metric", *key).integers(2**63)))
        yield


def at_fewer(evidence: Evidence, count: int) -> Evidence:
    """The same with `count` of the outputs, chosen at random."""
    chosen = keyed("fewer", evidence.seed, len(evidence.outputs)).permutation(len(evidence.outputs))[:count]
    members = sorted(int(i) for i in chosen)

    def some(images: Images | None) -> Images | None:
        return None if images is None else images.take(members)

    return replace(
        evidence, outputs=evidence.outputs.take(members), inputs=some(evidence.inputs), cycled=some(evidence.cycled)
    )
