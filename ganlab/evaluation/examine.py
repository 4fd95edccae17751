"""Metrics applied: figures with references at the same counts, and what a reader should notice."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from ganlab.draws import keyed
from ganlab.errors import SpecError, Unavailable
from ganlab.evaluation.evidence import Evidence, Images
from ganlab.interfaces import Estimate, Metric, Number
from ganlab.options import nearest

Measured = dict[str, Estimate]
"""{name of a number, with its features: estimate}."""


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
    return {"value": _rounded(estimate.value), "interval": interval, "counts": dict(estimate.counts)}


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
    """Applies metrics, {type: metric}; `features` is the name that numbers on feature vectors end with."""

    def __init__(self, metrics: Mapping[str, Metric], features: str | None) -> None:
        self.metrics, self._features = metrics, features
        self.left_out: dict[tuple[str, str], str] = {}
        """{(metric, way): why it could not be measured}."""

    def numbers(self) -> dict[str, tuple[str, Number]]:
        """{name: (metric, what is known of it)} of every number, in the order of the metrics."""
        return {
            self._named(metric, name): (kind, number)
            for kind, metric in self.metrics.items()
            for name, number in metric.numbers.items()
        }

    def _named(self, metric: Metric, name: str) -> str:
        return f"{name}-{self._features}" if metric.on_features else name

    def choosers(self, asked: str | None) -> list[Chooser]:
        """Of these the first that is measured chooses the best checkpoint: by default any number with a better end.

        Raises SpecError where the one that is asked for has none.
        """
        fit = {name: Chooser(name, number.better) for name, (_, number) in self.numbers().items() if number.better}
        if asked is None:
            return list(fit.values())
        if asked not in fit:
            raise SpecError(
                f"evaluation.choose: no number {asked!r} with a better end is measured{nearest(asked, fit)}"
            )
        return [fit[asked]]

    def measure(self, evidence: Evidence) -> Measured:
        """What each metric measures; what none can is left out, with the reason."""
        return {name: estimate for _, name, estimate in self._each(evidence)}

    def _each(self, evidence: Evidence, told: bool = True) -> Iterator[tuple[str, str, Estimate]]:
        seen: set[str] = set()
        for kind, metric in self.metrics.items():
            try:
                found = metric.measure(evidence)
            except Unavailable as error:
                if told:
                    self.left_out[kind, evidence.way] = str(error)
                continue
            except Exception as error:
                text = " ".join(str(error).split()) or type(error).__name__
                raise SpecError(f"metric {kind!r} on way {evidence.way or 'A B'}: {text}") from error
            for name, estimate in found.items():
                if name not in metric.numbers:
                    raise SpecError(f"metric {kind!r} gives {name!r}{nearest(name, metric.numbers)}")
                if isinstance(estimate, Unavailable):
                    if told:
                        self.left_out[kind, evidence.way] = f"{name} {estimate}"
                elif not math.isfinite(estimate.value):
                    self.left_out[kind, evidence.way] = f"{name} is {estimate.value}"
                elif (full := self._named(metric, name)) not in seen:
                    seen.add(full)
                    yield kind, full, estimate

    def figures(
        self, evidence: Evidence, references: Mapping[str, Measured], beside: Measured | None = None
    ) -> list[Figure]:
        """The figures of one way; `beside` is what the same are at the counts of the reference "real", if fewer."""
        known = self.numbers()
        return [
            Figure(
                kind,
                name,
                evidence.way,
                known[name][1],
                estimate,
                {reference: found[name] for reference, found in references.items() if name in found},
                (beside or {}).get(name),
            )
            for kind, name, estimate in self._each(evidence)
        ]

    def real(self, evidence: Evidence, others: Images) -> Measured:
        """What the same numbers are of other real images of the target domain: they keep all of their own content, and
        are as near to `targets` as their number lets them be."""
        return self._quietly(replace(evidence, inputs=others, outputs=others, cycled=None))

    def nothing(self, evidence: Evidence, inputs: Images) -> Measured:
        """What they are where nothing is done: of the inputs."""
        return self._quietly(replace(evidence, inputs=inputs, outputs=inputs, cycled=None))

    def _quietly(self, evidence: Evidence) -> Measured:
        return {name: estimate for _, name, estimate in self._each(evidence, told=False)}


def at_fewer(evidence: Evidence, count: int) -> Evidence:
    """The same with `count` of the outputs, chosen at random."""
    chosen = keyed("fewer", evidence.seed, len(evidence.outputs)).permutation(len(evidence.outputs))[:count]
    members = sorted(int(i) for i in chosen)

    def some(images: Images | None) -> Images | None:
        return None if images is None else images.take(members)

    return replace(
        evidence, outputs=evidence.outputs.take(members), inputs=some(evidence.inputs), cycled=some(evidence.cycled)
    )
