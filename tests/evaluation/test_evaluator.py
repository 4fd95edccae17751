"""Results: their estimates, references, warnings and reasons."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch

from ganlab import Estimate, Images, Metric, MetricInfo, MetricInputs, SpecError, Unavailable
from ganlab.evaluation.evaluator import Evaluator, Result, at_fewer, reasons

Better = Literal["lower", "higher", ""]


def estimate(value: float, half: float = 0.1, note: str = "") -> Estimate:
    return Estimate(value, value - half, value + half, {"outputs": 3}, None, note)


def result(
    value: Estimate, better: Better, references: Mapping[str, Estimate], beside: Estimate | None = None
) -> Result:
    return Result("metric", "name", "ab", MetricInfo("a number", better), value, references, beside)


@pytest.mark.parametrize(
    ("value", "better", "real", "identity", "said"),
    [
        (2.0, "lower", 1.0, 3.0, []),
        (0.5, "lower", 1.0, 3.0, ["better than real images among themselves (beyond both intervals)"]),
        (0.9, "lower", 1.0, 3.0, ["better than real images among themselves (within the intervals)"]),
        (4.0, "lower", 1.0, 3.0, ["worse than the identity baseline (beyond both intervals)"]),
        (2.0, "higher", 3.0, 1.0, []),
        (4.0, "higher", 3.0, 1.0, ["better than real images among themselves (beyond both intervals)"]),
        (0.95, "higher", 3.0, 1.0, ["worse than the identity baseline (within the intervals)"]),
        (9.0, "", 3.0, 1.0, []),
        (1.0, "lower", 1.0, 1.0, []),
    ],
)
def test_better_than_real_and_worse_than_the_inputs_are_flagged(
    value: float, better: Better, real: float, identity: float, said: list[str]
) -> None:
    found = result(estimate(value), better, {"real": estimate(real), "identity": estimate(identity)})
    assert found.notes() == said
    assert found.as_json()["notes"] == said


def test_content_metrics_are_not_compared_with_the_identity_baseline() -> None:
    kept = MetricInfo("what is kept", "higher", identity_is_optimal=True)
    found = Result(
        "metric", "name", "ab", kept, estimate(0.7), {"real": estimate(0.9), "identity": estimate(1.0)}, None
    )
    assert found.notes() == []


def test_real_images_are_compared_at_their_own_counts() -> None:
    references = {"real": estimate(1.0)}
    # FID is lower with more images, which says nothing about the images
    assert result(estimate(0.8), "lower", references, beside=estimate(1.5)).notes() == []
    assert result(estimate(0.8), "lower", references, beside=estimate(0.2)).notes() != []


def test_a_warning_of_the_metric_itself_stands_first() -> None:
    found = result(estimate(4.0, note="biased"), "lower", {"identity": estimate(3.0)})
    assert found.notes() == ["biased", "worse than the identity baseline (beyond both intervals)"]


class Given(Metric):
    """A metric that returns given values."""

    def __init__(self, values: dict[str, Any], better: Better = "lower", declared: Iterable[str] | None = None) -> None:
        self.values = values
        self.numbers = {name: MetricInfo("a number", better) for name in declared or values}

    def measure(self, data: MetricInputs) -> Any:
        return {name: estimate(value) if isinstance(value, float) else value for name, value in self.values.items()}


class OnFeatures(Given):
    on_features = True


class Broken(Given):
    def measure(self, data: MetricInputs) -> dict[str, Estimate]:
        raise ZeroDivisionError("division by\nzero")


class Missing(Given):
    def measure(self, data: MetricInputs) -> dict[str, Estimate]:
        raise Unavailable("needs weights")


class Nonsense(Given):
    def measure(self, data: MetricInputs) -> Any:
        return 3.0


def images(count: int) -> Images:
    return Images([np.full((2, 2, 3), number, np.uint8) for number in range(count)])


INPUTS = MetricInputs("ab", images(3), images(4))


def test_a_number_on_features_is_named_after_them_and_no_other() -> None:
    evaluator = Evaluator({"one": OnFeatures({"fid": 1.0}), "two": Given({"lpips": 2.0})}, {"one": "lite0"})
    assert list(evaluator.numbers) == ["fid-lite0", "lpips"]
    found = {name: measured.estimate.value for name, measured in evaluator.measure(INPUTS).items()}
    assert found == {"fid-lite0": 1.0, "lpips": 2.0}


def test_a_number_that_two_metrics_give_stands_once() -> None:
    evaluator = Evaluator({"one": Given({"kid": 1.0}), "two": Given({"kid": 1.0, "fid": 2.0})})
    found = evaluator.results("ab", evaluator.measure(INPUTS), {})
    assert [(f.name, f.metric) for f in found] == [("kid", "one"), ("fid", "two")]


def test_a_name_means_one_thing() -> None:
    other = Given({"fid": 1.0})
    with pytest.raises(
        SpecError, match="metric 'two' of plugin 'p' and metric 'one' describe the number 'kid' differently"
    ):
        Evaluator(
            {"other": other, "one": Given({"kid": 1.0}), "two": Given({"kid": 1.0}, "higher")},
            {},
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
        (Given({"x": 1.0, "y": 1.0}, declared=("y",)), "x", "is not in `numbers` (metric 'one' of plugin 'p')"),
        (Missing({"z": 0.0}), "", "needs weights"),
        (Broken({"z": 0.0}), "", "ZeroDivisionError: division by zero (metric 'one' of plugin 'p')"),
        (Nonsense({"z": 0.0}), "", "TypeError: 'float' object is not iterable (metric 'one' of plugin 'p')"),
    ],
)
def test_what_is_not_to_be_had_is_left_out_with_the_reason(metric: Given, number: str, why: str) -> None:
    evaluator = Evaluator({"one": metric, "two": Given({"other": 1.0})}, {}, {"one": "plugin 'p'"})
    assert list(evaluator.measure(INPUTS)) == (["y", "other"] if number else ["other"])
    assert evaluator.left_out == {("one", number, "ab"): why}
    (left,) = reasons(evaluator.left_out)
    assert left == {"metric": "one", **({"number": number} if number else {}), "direction": "ab", "why": why}


def test_what_a_reference_lacks_is_no_news() -> None:
    evaluator = Evaluator({"one": Missing({"z": 0.0})})
    assert evaluator.real(INPUTS, images(2)) == evaluator.identity(INPUTS, images(2)) == {}
    assert evaluator.left_out == {}


class Drawing(Given):
    def measure(self, data: MetricInputs) -> dict[str, Estimate]:
        return {"z": estimate(float(torch.rand(())))}


def test_a_metric_draws_the_same_again_and_leaves_the_generator_alone() -> None:
    evaluator = Evaluator({"one": Drawing({"z": 0.0})})
    before = torch.get_rng_state()
    first = evaluator.measure(INPUTS)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    assert evaluator.measure(INPUTS) == first
    assert evaluator.measure(replace(INPUTS, direction="ba")) != first


def test_a_monitor_is_a_number_with_a_better_end() -> None:
    evaluator = Evaluator({"one": Given({"x": 1.0}, ""), "two": Given({"y": 1.0, "z": 1.0}, "higher")})
    assert evaluator.monitors(None) == [("y", "higher"), ("z", "higher")]
    assert evaluator.monitors("z") == [("z", "higher")]
    assert Evaluator({"one": Given({"x": 1.0}, "")}).monitors(None) == []
    with pytest.raises(SpecError, match="no number 'x' for which lower or higher is better"):
        evaluator.monitors("x")
    one = Evaluator({"one": Given({"x": 1.0}), "two": Given({"y": 1.0})})
    assert one.monitors(None, ["two"]) == [("y", "lower")]
    with pytest.raises(SpecError, match="no number 'x' for which lower or higher is better is measured"):
        one.monitors("x", ["two"])


def test_fewer_outputs_keep_their_inputs() -> None:
    data = MetricInputs("ab", images(9), images(4), inputs=images(9))
    fewer = at_fewer(data, 5)
    assert fewer.inputs is not None
    shown = [int(p[0, 0, 0]) for p in fewer.outputs.pixels]
    assert len(set(shown)) == 5
    assert shown == [int(p[0, 0, 0]) for p in fewer.inputs.pixels]
    assert len(fewer.targets) == 4
