"""What a figure tells its reader beside its value."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch

from ganlab import Estimate, Evidence, Images, Metric, Number, SpecError, Unavailable
from ganlab.evaluation.examine import Examiner, Figure, at_fewer, reasons

Better = Literal["lower", "higher", ""]


def estimate(value: float, half: float = 0.1, note: str = "") -> Estimate:
    return Estimate(value, value - half, value + half, {"outputs": 3}, None, note)


def figure(
    value: Estimate, better: Better, references: Mapping[str, Estimate], beside: Estimate | None = None
) -> Figure:
    return Figure("metric", "name", "ab", Number("a number", better), value, references, beside)


@pytest.mark.parametrize(
    ("value", "better", "real", "nothing", "said"),
    [
        (2.0, "lower", 1.0, 3.0, []),
        (0.5, "lower", 1.0, 3.0, ["better than real images among themselves (beyond both intervals)"]),
        (0.9, "lower", 1.0, 3.0, ["better than real images among themselves (within the intervals)"]),
        (4.0, "lower", 1.0, 3.0, ["worse than doing nothing (beyond both intervals)"]),
        (2.0, "higher", 3.0, 1.0, []),
        (4.0, "higher", 3.0, 1.0, ["better than real images among themselves (beyond both intervals)"]),
        (0.95, "higher", 3.0, 1.0, ["worse than doing nothing (within the intervals)"]),
        (9.0, "", 3.0, 1.0, []),
        (1.0, "lower", 1.0, 1.0, []),
    ],
)
def test_better_than_real_and_worse_than_nothing_are_pointed_out(
    value: float, better: Better, real: float, nothing: float, said: list[str]
) -> None:
    found = figure(estimate(value), better, {"real": estimate(real), "nothing": estimate(nothing)})
    assert found.notes() == said
    assert found.as_json()["notes"] == said


def test_what_copies_are_best_at_is_not_held_against_them() -> None:
    kept = Number("what is kept", "higher", copies_win=True)
    found = Figure("metric", "name", "ab", kept, estimate(0.7), {"real": estimate(0.9), "nothing": estimate(1.0)}, None)
    assert found.notes() == []


def test_real_images_are_compared_at_their_own_counts() -> None:
    references = {"real": estimate(1.0)}
    # of more images FID is lower: not a sign of anything
    assert figure(estimate(0.8), "lower", references, beside=estimate(1.5)).notes() == []
    assert figure(estimate(0.8), "lower", references, beside=estimate(0.2)).notes() != []


def test_a_warning_of_the_metric_itself_stands_first() -> None:
    found = figure(estimate(4.0, note="biased"), "lower", {"nothing": estimate(3.0)})
    assert found.notes() == ["biased", "worse than doing nothing (beyond both intervals)"]


class Given(Metric):
    """Answers what it was given."""

    def __init__(self, values: dict[str, Any], better: Better = "lower", declared: Iterable[str] | None = None) -> None:
        self.values = values
        self.numbers = {name: Number("a number", better) for name in declared or values}

    def measure(self, evidence: Evidence) -> Any:
        return {name: estimate(value) if isinstance(value, float) else value for name, value in self.values.items()}


class OnFeatures(Given):
    on_features = True


class Broken(Given):
    def measure(self, evidence: Evidence) -> dict[str, Estimate]:
        raise ZeroDivisionError("division by\nzero")


class Missing(Given):
    def measure(self, evidence: Evidence) -> dict[str, Estimate]:
        raise Unavailable("needs weights")


class Nonsense(Given):
    def measure(self, evidence: Evidence) -> Any:
        return 3.0


def images(count: int) -> Images:
    return Images([np.full((2, 2, 3), number, np.uint8) for number in range(count)])


EVIDENCE = Evidence("ab", images(3), images(4))


def test_a_number_on_features_is_named_after_them_and_no_other() -> None:
    examiner = Examiner({"one": OnFeatures({"fid": 1.0}), "two": Given({"lpips": 2.0})}, "lite0")
    assert list(examiner.numbers) == ["fid-lite0", "lpips"]
    found = {name: measured.estimate.value for name, measured in examiner.measure(EVIDENCE).items()}
    assert found == {"fid-lite0": 1.0, "lpips": 2.0}


def test_a_number_that_two_metrics_give_stands_once() -> None:
    examiner = Examiner({"one": Given({"kid": 1.0}), "two": Given({"kid": 1.0, "fid": 2.0})}, None)
    found = examiner.figures("ab", examiner.measure(EVIDENCE), {})
    assert [(f.name, f.metric) for f in found] == [("kid", "one"), ("fid", "two")]


def test_a_name_means_one_thing() -> None:
    other = Given({"fid": 1.0})
    with pytest.raises(
        SpecError, match="metric 'two' of plugin 'p' means something else by 'kid' than metric 'one' does"
    ):
        Examiner(
            {"other": other, "one": Given({"kid": 1.0}), "two": Given({"kid": 1.0}, "higher")},
            None,
            {"two": "plugin 'p'"},
        )


NO_NUMBER = "not a finite number (metric 'one' of plugin 'p')"
NO_COUNTS = "not {text: whole number} (metric 'one' of plugin 'p')"


@pytest.mark.parametrize(
    ("metric", "number", "why"),
    [
        (Given({"x": math.nan, "y": 1.0}), "x", f"has the value nan, {NO_NUMBER}"),
        (Given({"x": Estimate(1, -math.inf, 1, {}), "y": 1.0}), "x", f"has the low -inf, {NO_NUMBER}"),
        (Given({"x": Estimate(1, 0, "2", {}), "y": 1.0}), "x", f"has the high '2', {NO_NUMBER}"),  # type: ignore[arg-type]
        (Given({"x": Estimate(1, 0, 2, {}, math.inf), "y": 1.0}), "x", f"has the chance inf, {NO_NUMBER}"),
        (Given({"x": Estimate(1, 0, 2, 3), "y": 1.0}), "x", f"has the counts 3, {NO_COUNTS}"),  # type: ignore[arg-type]
        (Given({"x": Estimate(1, 0, 2, {1: 3}), "y": 1.0}), "x", f"has the counts {{1: 3}}, {NO_COUNTS}"),  # type: ignore[dict-item]
        (Given({"x": Estimate(1, 0, 2, {"a": "b"}), "y": 1.0}), "x", f"has the counts {{'a': 'b'}}, {NO_COUNTS}"),  # type: ignore[dict-item]
        (Given({"x": None, "y": 1.0}), "x", "is None, not an Estimate (metric 'one' of plugin 'p')"),
        (Given({"x": Unavailable("needs labels"), "y": 1.0}), "x", "needs labels"),
        (Given({"x": 1.0, "y": 1.0}, declared=("y",)), "x", "is none of its numbers (metric 'one' of plugin 'p')"),
        (Missing({"z": 0.0}), "", "needs weights"),
        (Broken({"z": 0.0}), "", "ZeroDivisionError: division by zero (metric 'one' of plugin 'p')"),
        (Nonsense({"z": 0.0}), "", "TypeError: 'float' object is not iterable (metric 'one' of plugin 'p')"),
    ],
)
def test_what_is_not_to_be_had_is_left_out_with_the_reason(metric: Given, number: str, why: str) -> None:
    examiner = Examiner({"one": metric, "two": Given({"other": 1.0})}, None, {"one": "plugin 'p'"})
    assert list(examiner.measure(EVIDENCE)) == (["y", "other"] if number else ["other"])
    assert examiner.left_out == {("one", number, "ab"): why}
    (left,) = reasons(examiner.left_out)
    assert left == {"metric": "one", **({"number": number} if number else {}), "way": "ab", "why": why}


def test_what_a_reference_lacks_is_no_news() -> None:
    examiner = Examiner({"one": Missing({"z": 0.0})}, None)
    assert examiner.real(EVIDENCE, images(2)) == examiner.nothing(EVIDENCE, images(2)) == {}
    assert examiner.left_out == {}


class Drawing(Given):
    def measure(self, evidence: Evidence) -> dict[str, Estimate]:
        return {"z": estimate(float(torch.rand(())))}


def test_a_metric_draws_the_same_again_and_leaves_the_generator_alone() -> None:
    examiner = Examiner({"one": Drawing({"z": 0.0})}, None)
    before = torch.get_rng_state()
    first = examiner.measure(EVIDENCE)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    assert examiner.measure(EVIDENCE) == first
    assert examiner.measure(replace(EVIDENCE, way="ba")) != first


def test_what_may_choose_are_the_numbers_with_a_better_end() -> None:
    examiner = Examiner({"one": Given({"x": 1.0}, ""), "two": Given({"y": 1.0, "z": 1.0}, "higher")}, None)
    assert examiner.choosers(None) == [("y", "higher"), ("z", "higher")]
    assert examiner.choosers("z") == [("z", "higher")]
    assert Examiner({"one": Given({"x": 1.0}, "")}, None).choosers(None) == []
    with pytest.raises(SpecError, match="no number 'x' with a better end"):
        examiner.choosers("x")


def test_fewer_outputs_keep_their_inputs() -> None:
    evidence = Evidence("ab", images(9), images(4), inputs=images(9))
    fewer = at_fewer(evidence, 5)
    assert fewer.inputs is not None
    shown = [int(p[0, 0, 0]) for p in fewer.outputs.pixels]
    assert len(set(shown)) == 5
    assert shown == [int(p[0, 0, 0]) for p in fewer.inputs.pixels]
    assert len(fewer.targets) == 4
