"""The spec: checked, resolved, hashed and compared."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import ganlab
from ganlab.components.registry import registry
from ganlab.errors import SpecError
from ganlab.spec.files import assignment, merge
from ganlab.spec.models import Json, Spec, differences
from ganlab.spec.resolve import resolve
from ganlab.system.build import sees
from helpers.specs import FULL, RESOLVED, WEIGHED, refusal, resolved
from helpers.systems import TINY

# --- resolving


def test_every_default_is_filled_and_no_auto_is_left() -> None:
    nothing = {"device": None, "threads": None, "log_every": None}
    spec = resolved({"runtime": nothing, "data": {"holdout": None}, "schedule": {"steps": None}})
    assert spec.data.holdout == 0.1
    options = {"channels": 3, "fit": "cover", "limit": 0, "seed": 0, "range": None, "labels": None, "classes": []}
    assert spec.data.a == {
        "type": "folder",
        "path": str(Path("a").absolute()),
        "held_out": None,
        "exclude": None,
        "masks": {},
        "pictures": {},
        **options,
    }
    assert spec.schedule["steps"] == 1000
    assert spec.losses["adversarial"]["weight"] == {"generator": 1.0, "discriminator": 1.0}
    assert "auto" not in json.dumps(spec.as_json()["runtime"])
    assert spec.runtime.threads == torch.get_num_threads()
    device = spec.runtime.device
    assert (device == "cuda") == torch.cuda.is_available()
    assert (spec.runtime.precision == "tf32") == (device == "cuda")


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="the kernel does not list the processor's features")
@pytest.mark.skipif(not hasattr(torch.cpu, "get_capabilities"), reason="this torch can't tell")
def test_a_cpu_gets_bfloat16_if_it_computes_with_it() -> None:
    """The kernel's list of the processor's features decides independently of torch."""
    features = Path("/proc/cpuinfo").read_text().split()
    expected = "bfloat16" if {"avx512_bf16", "amx_bf16"}.intersection(features) else "float32"
    assert resolved({"runtime": {"device": "cpu", "precision": "auto"}}).runtime.precision == expected
    assert resolved({"runtime": {"device": "cpu", "precision": "float32"}}).runtime.precision == "float32"


def test_nested_components_are_resolved_too() -> None:
    spec = resolved({"discriminators": {"image": {"type": "critic", "of": {"type": "patch", "width": 5}}}})
    inner = {"type": "patch", "width": 5, "layers": 3, "norm": "instance"}
    assert spec.discriminators["image"] == {"type": "critic", "clamp": 0.01, "of": inner}


@pytest.mark.parametrize("nested", [False, True])
def test_a_resolved_spec_resolves_to_itself(nested: bool) -> None:
    critic = {"type": "critic", "of": {"type": "patch"}}
    once = resolved({"discriminators": {"image": critic}, "ema_halflife_images": 500} if nested else {})
    again = resolve(once.as_json())
    assert again == once
    assert again.as_json() == once.as_json()
    assert again.fingerprint() == once.fingerprint()
    assert ganlab.load_spec(once.as_json()) == once


def test_what_an_earlier_run_chose_for_auto_is_kept() -> None:
    before = resolved({"runtime": {"threads": 3, "precision": "float64"}})
    auto = {"threads": "auto", "precision": "auto"}
    assert resolved({"runtime": auto}, like=before) == before
    for precision in ("float32", "bfloat16"):
        before = resolved({"runtime": {"precision": precision}})
        assert resolved({"runtime": auto}, like=before).runtime.precision == precision
    assert resolved({"runtime": {**auto, "threads": 2}}, like=before).runtime.threads == 2


@pytest.mark.parametrize(
    ("weight", "both"),
    [
        (None, (1.0, 1.0)),
        (10, (10.0, 10.0)),
        (0, (0.0, 0.0)),
        ({}, (1.0, 1.0)),
        ({"generator": 0.5}, (0.5, 1.0)),
        ({"discriminator": 0.5}, (1.0, 0.5)),
        ({"generator": 2, "discriminator": 3}, (2.0, 3.0)),
    ],
)
def test_a_weight_is_for_both_players_or_maps_them_to_1_by_default(weight: Any, both: tuple[float, float]) -> None:
    cycle = {"type": "cycle"} if weight is None else {"type": "cycle", "weight": weight}
    found = resolve({**TINY, "losses": {"cycle": cycle}}).weight("cycle")
    assert (found["generator"], found["discriminator"]) == both


def test_a_wrapper_sees_what_the_discriminator_within_sees() -> None:
    inner = {"type": "critic", "of": {"type": "embedding"}}
    wrappers = {"deep": {"type": "critic", "of": inner}, "shallow": {"type": "critic", "of": {"type": "patch"}}}
    components = resolved({"discriminators": wrappers}).components
    assert sees(components["discriminators.deep"]) == "embeddings"
    assert sees(components["discriminators.shallow"]) == "images"


def test_a_resolved_spec_knows_the_class_place_and_options_of_each_component() -> None:
    spec = resolved({"discriminators": {"image": {"type": "critic", "of": {"type": "patch", "width": 5}}}})
    places = ["data.a", "data.b", "generator", "schedule", "discriminators.image", "losses.adversarial", "losses.cycle"]
    assert list(spec.components) == places
    critic, patch = spec.components["discriminators.image"].walk()
    assert (critic.place, critic.title, critic.as_json()) == (
        "discriminators.image",
        "critic(patch)",
        spec.discriminators["image"],
    )
    assert (patch.place, patch.component) == ("discriminators.image.of", registry().find("discriminator", "patch", ""))
    assert patch.options == {"width": 5, "layers": 3, "norm": "instance"}
    assert spec.components["losses.cycle"].as_json() == {"type": "cycle", "norm": "l1"}


def test_a_resolved_evaluation_knows_its_metrics_and_features() -> None:
    plain = resolved().evaluation
    assert (plain.metric_components, plain.features_component) == ((), None)
    spec = resolved({"evaluation": {"metrics": ["kid", {"type": "fid"}], "features": "lite0"}})
    metrics, features = spec.evaluation.metric_components, spec.evaluation.features_component
    assert [(metric.place, metric.component.name) for metric in metrics] == [
        ("evaluation.metrics.0", "kid"),
        ("evaluation.metrics.1", "fid"),
    ]
    assert tuple(metric.as_json() for metric in metrics) == spec.evaluation.metrics
    assert features is not None
    assert (features.place, features.as_json()) == ("evaluation.features", spec.evaluation.features)


def test_a_metric_may_name_its_own_feature_network() -> None:
    """The network's options that change what its vectors mean are part of its name."""
    small = {"type": "lite0", "size": 112}
    metrics = ["kid", {"type": "kid", "features": "stlpips-alex"}, {"type": "kid", "features": small}]
    spec = resolved({"evaluation": {"metrics": metrics, "features": "lite0"}})
    found = spec.evaluation.metric_components
    assert [metric.key for metric in found] == ["kid", "kid-stlpips-alex", "kid-lite0-112"]
    used = [spec.evaluation.features_of(metric) for metric in found]
    assert [features and features.label for features in used] == ["lite0", "stlpips-alex", "lite0-112"]
    assert spec.evaluation.metrics[2] == {"type": "kid", "features": small}
    assert [part.place for part in found[2].walk()] == ["evaluation.metrics.2", "evaluation.metrics.2.features"]
    # what a run keeps resolves to the same
    again = resolved({"evaluation": spec.as_json()["evaluation"]})
    assert [metric.as_json() for metric in again.evaluation.metric_components] == [m.as_json() for m in found]


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        (["kid", {"type": "lpips", "features": "lite0"}], "1.features: is not allowed: 'lpips' compares no feature"),
        ([{"type": "kid", "features": 3}], "0.features: 3 is not allowed: a type, or an object with a type"),
        ([{"type": "kid", "features": "lite1"}], "0.features: there is no features 'lite1'; did you mean 'lite0'"),
        ([{"type": "kid", "features": "lite0"}] * 2, " 'kid-lite0' is named twice"),
    ],
)
def test_a_wrong_feature_network_of_a_metric_is_refused(metrics: list[Any], said: str) -> None:
    with pytest.raises(SpecError, match=rf"evaluation\.metrics[.:]{said}"):
        resolved({"evaluation": {"metrics": metrics, "features": "lite0"}})


def test_a_mapping_that_is_no_json_is_refused() -> None:
    said = refusal(
        lambda: ganlab.load_spec({**TINY, "data": {**TINY["data"], "a": {"type": "folder", "path": Path("a")}}})
    )
    assert said.startswith("spec: is not JSON")
    assert refusal(lambda: ganlab.load_spec({**TINY, "seed": math.nan})).startswith("spec: seed: NaN is not allowed")
    loop: Json = {**TINY}
    loop["about"] = loop
    assert refusal(lambda: ganlab.load_spec(loop)) == "spec: is nested too deeply: at most 100 levels are allowed"
    assert (
        refusal(lambda: ganlab.load_spec({**TINY, "extends": "x"})) == "spec: extends: only a file can extend another"
    )
    assert refusal(lambda: ganlab.load_spec({**TINY, "about": "\ud800"})) == (
        "spec: '\\ud800' is not allowed: it is not UTF-8"
    )


# --- what a spec computes


def leaves(value: Json, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from leaves(inner, (*path, key))
        else:
            yield (*path, key)


def changed(value: Any) -> Any:
    """Returns another value, which Spec accepts if Spec itself checks it."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, list):
        return value[::-1] or ["x"]
    if isinstance(value, int | float):
        return value + 1 if isinstance(value, int) else value / 2
    return {None: 2.5, "float32": "float64", "bfloat16": "float32", "cpu": "cuda", "last": "best"}.get(
        value, f"{value}x"
    )


@pytest.mark.parametrize("path", list(leaves(FULL)), ids=".".join)
def test_the_fingerprint_covers_what_trains(path: tuple[str, ...]) -> None:
    asked = json.loads(json.dumps(FULL))
    place = asked
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = "x" if path[-1] in ("root", "held_out", "exclude") else changed(place[path[-1]])
    one, other = (Spec.model_validate_json(json.dumps(spec)) for spec in (FULL, asked))
    for spec in (one, other):
        spec._components = dict(RESOLVED.components)
    nothing = ["name", "about", "data.root", "data.swap"]
    free = ("device", "log_every", "accumulate", "capture", "checkpoint_activations")
    nothing += [f"runtime.{key}" for key in free]
    nothing += [f"data.{domain}.{option}" for domain in "ab" for option in ("path", "held_out", "exclude")]
    same = ".".join(path) in nothing or path[0] in ("evaluation", "samples", "checkpoints", "callbacks")
    assert one != other
    assert (one.fingerprint() == other.fingerprint()) == same
    found = differences(one, other)
    assert [line.startswith(f"{'.'.join(path)}: ") for line in found] == ([] if same else [True])


def test_random_weights_are_no_part_of_what_trains() -> None:
    """A run of a version without `init` or `runtime.deterministic` has the same fingerprint."""
    assert "init" not in resolved({}).trains()
    assert "deterministic" not in resolved({}).trains()["runtime"]
    assert resolved({"init": {"checkpoint": "best"}}).fingerprint() == resolved({}).fingerprint()


def test_a_location_nested_anywhere_is_no_part_of_what_trains(trial: None) -> None:
    losses = [{"look": merge(WEIGHED, {"features": {"file": name}})} for name in ("here", "there")]
    one, other = (resolve({**TINY, "losses": each}) for each in losses)
    assert list(one.locations()) == [
        "data.a.path",
        "data.a.held_out",
        "data.a.exclude",
        "data.b.path",
        "data.b.held_out",
        "data.b.exclude",
        "losses.look.features.file",
    ]
    assert one.losses != other.losses
    assert one.fingerprint() == other.fingerprint()


def test_the_fingerprint_does_not_depend_on_how_the_spec_is_written() -> None:
    backwards = json.loads(json.dumps(TINY), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    one = resolved()
    assert resolve(backwards).fingerprint() == one.fingerprint()
    assert resolved({"losses": {"cycle": {"weight": 10.0}}}).fingerprint() == one.fingerprint()
    assert resolved({"losses": {"cycle": {"weight": {"generator": 10, "discriminator": 10}}}}) == one
    assert resolved({"schedule": {"decay_from": 1}, "data": {"flip": True}}).fingerprint() == one.fingerprint()


def test_differences_name_paths_and_both_values() -> None:
    one = resolved({"name": "one"})
    other = resolved({"name": "other", "seed": 4, "losses": {"cycle": None, "id": {"type": "identity"}}})
    assert differences(one, one) == []
    assert differences(one, other) == [
        'losses.cycle.norm: "l1" / absent',
        'losses.cycle.type: "cycle" / absent',
        "losses.cycle.weight.discriminator: 10.0 / absent",
        "losses.cycle.weight.generator: 10.0 / absent",
        'losses.id.type: absent / "identity"',
        "losses.id.weight.discriminator: absent / 1.0",
        "losses.id.weight.generator: absent / 1.0",
        "seed: 0 / 4",
    ]


@pytest.mark.parametrize(
    ("path", "there"),
    [
        ("discriminators.image.clamp", "discriminators.image.of.clamp"),
        ("discriminators.image.width", "discriminators.image.of.of.width"),
        ("discriminators.image.of.width", "discriminators.image.of.of.width"),
        ("discriminators.image.of.std", ""),
        ("discriminators.image.heads", ""),
        ("generator.steps", ""),
    ],
)
def test_an_unknown_key_that_a_nested_component_has_is_said_to_be_there(path: str, there: str) -> None:
    noisy = {"type": "instance_noise", "of": {"type": "critic", "of": {"type": "patch"}}}
    asked = merge(merge(TINY, {"discriminators": {"image": noisy}}), assignment(f"{path}=3"))
    said = refusal(lambda: resolve(asked, "a: file.json"))
    assert said.startswith(f"a: file.json: {path}: unknown key;")
    assert re.findall("; there is ([^ ]+)", said) == ([there] if there else [])


def test_a_nested_component_that_is_not_there_has_no_keys() -> None:
    for of in ({"type": "ptch"}, {"width": 3}, {"type": ["patch"]}, "patch", None):
        wrong = {"type": "critic", "of": of, "width": 3}
        said = refusal(lambda wrong=wrong: resolve({**TINY, "discriminators": {"image": wrong}}))
        assert said.startswith("spec: discriminators.image.width: unknown key;")
        assert "there is" not in said
