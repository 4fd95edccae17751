"""What a figure tells its reader beside its value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pytest

from ganlab import Estimate, Evidence, Images, Metric, Number, SpecError, Unavailable
from ganlab.evaluation.examine import Examiner, Figure, at_fewer

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

    def __init__(self, values: dict[str, Any], better: Better = "lower") -> None:
        self.values = values
        self.numbers = {name: Number("a number", better) for name in values}

    def measure(self, evidence: Evidence) -> dict[str, Estimate]:
        return {name: estimate(value) for name, value in self.values.items()}


class OnFeatures(Given):
    on_features = True


class Broken(Given):
    def measure(self, evidence: Evidence) -> dict[str, Estimate]:
        raise ZeroDivisionError("division by\nzero")


class Missing(Given):
    def measure(self, evidence: Evidence) -> dict[str, Estimate]:
        raise Unavailable("needs weights")


def images(count: int) -> Images:
    return Images([np.full((2, 2, 3), number, np.uint8) for number in range(count)])


EVIDENCE = Evidence("ab", images(3), images(4))


def test_a_number_on_features_is_named_after_them_and_no_other() -> None:
    examiner = Examiner({"one": OnFeatures({"fid": 1.0}), "two": Given({"lpips": 2.0})}, "lite0")
    assert list(examiner.numbers()) == ["fid-lite0", "lpips"]
    assert {name: e.value for name, e in examiner.measure(EVIDENCE).items()} == {"fid-lite0": 1.0, "lpips": 2.0}


def test_a_number_that_two_metrics_give_stands_once() -> None:
    examiner = Examiner({"one": Given({"kid": 1.0}), "two": Given({"kid": 1.0, "fid": 2.0})}, None)
    assert [f.name for f in examiner.figures(EVIDENCE, {})] == ["kid", "fid"]


def test_what_is_not_finite_or_not_to_be_had_is_left_out() -> None:
    examiner = Examiner({"one": Given({"x": math.nan, "y": 1.0}), "two": Missing({"z": 0.0})}, None)
    assert list(examiner.measure(EVIDENCE)) == ["y"]
    assert examiner.left_out == {("one", "ab"): "x is nan", ("two", "ab"): "needs weights"}


class Half(Given):
    def measure(  # type: ignore[override]
        self, evidence: Evidence
    ) -> Mapping[str, Estimate | Unavailable]:
        return {"x": Unavailable("needs a way back"), "y": estimate(1.0)}


def test_a_number_that_alone_is_not_to_be_had_is_left_out_alone() -> None:
    examiner = Examiner({"one": Half({"x": 0.0, "y": 0.0})}, None)
    assert list(examiner.real(EVIDENCE, images(3))) == ["y"]
    assert examiner.left_out == {}
    assert list(examiner.measure(EVIDENCE)) == ["y"]
    assert examiner.left_out == {("one", "ab"): "x needs a way back"}


def test_a_metric_that_fails_is_named_with_the_way() -> None:
    with pytest.raises(SpecError, match="metric 'one' on way ab: division by zero"):
        Examiner({"one": Broken({"x": 1.0})}, None).measure(EVIDENCE)


def test_a_metric_gives_no_number_that_it_does_not_declare() -> None:
    wrong = Given({"x": 1.0})
    wrong.numbers = {"y": Number("another")}
    with pytest.raises(SpecError, match="metric 'one' gives 'x'"):
        Examiner({"one": wrong}, None).measure(EVIDENCE)


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
