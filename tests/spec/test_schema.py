"""The JSON Schema says of a spec what the spec says of itself."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from ganlab.components.options import schema, signature
from ganlab.components.registry import Component, Registry, installed, registry
from ganlab.errors import SpecError
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from ganlab.spec.resolve import resolve
from ganlab.spec.schema import json_schema
from helpers.specs import FULL, refusal, resolved
from helpers.systems import TINY


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    found = json_schema(registry().components)
    Draft202012Validator.check_schema(found)
    return Draft202012Validator(found)


def test_the_schema_says_which_draft_it_is(validator: Draft202012Validator) -> None:
    assert validator.schema["$schema"] == Draft202012Validator.META_SCHEMA["$id"]


def test_the_schema_describes_every_key_of_a_spec(validator: Draft202012Validator) -> None:
    models = {"spec": validator.schema, **{k: v for k, v in validator.schema["$defs"].items() if "properties" in v}}
    for model in ("spec", "Data", "Samples", "Checkpoints", "Evaluation", "Runtime", "Weight"):
        lacking = [key for key, place in models[model]["properties"].items() if not place.get("description")]
        assert not lacking, model


def test_the_schema_describes_every_component_and_option(validator: Draft202012Validator) -> None:
    """A description stands beside the key or the name, because editors read it there."""
    for kind in {component.kind for component in registry().components}:
        types, *rest = validator.schema["$defs"][kind]["allOf"]
        types = types["properties"]["type"]
        abouts = {c.name: c.as_dict()["about"] for c in registry().components if c.kind == kind}
        assert dict(zip(types["enum"], types["enumDescriptions"], strict=True)) == abouts
        for condition in rest:
            component = condition.get("then", condition.get("else"))
            for option, place in component["properties"].items():
                assert option == "type" or place["description"], f"{component['title']}: {option}"


def test_an_option_without_its_type_is_described_for_each_component_that_has_it(
    validator: Draft202012Validator,
) -> None:
    *components, change = validator.schema["$defs"]["schedule"]["allOf"][1:]
    expected = {c["if"]["properties"]["type"]["const"]: c["then"]["properties"] for c in components}
    lines = [line.split(": ", 1) for line in change["else"]["properties"]["steps"]["description"].split("\n")]
    found = {name: text for names, text in lines for name in names.split(", ")}
    assert len(lines) > 1
    assert found == {name: options["steps"]["description"] for name, options in expected.items() if "steps" in options}
    # an option of every component is described without the components' names
    weight = validator.schema["$defs"]["loss"]["allOf"][-1]["else"]["properties"]["weight"]
    assert weight["description"].startswith("The factor")


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        ({"generator": {"type": "resnt"}}, "'resnt' is not one of ['"),
        ({"generator": {"widht": 3}}, "Additional properties are not allowed ('widht' was unexpected)"),
        ({"generator": {"width": "3"}}, "'3' is not of type 'integer'"),
        ({"generator": "resnet"}, "'resnet' is not of type 'object', 'null'"),
        ({"schedule": {"steps": 0}}, "0 is less than the minimum of 1"),
        ({"discriminators": {"d": {"type": "critic", "of": {"type": "ptch"}}}}, "'ptch' is not one of ['"),
        ({"data": {"size": 3}}, "3 is less than the minimum of 4"),
    ],
)
def test_the_schema_says_what_is_wrong_and_nothing_else(
    validator: Draft202012Validator, patch: Json, said: str
) -> None:
    (error,) = validator.iter_errors(merge(TINY, patch))
    assert error.message.startswith(said)


@pytest.mark.parametrize(
    "spec",
    [
        TINY,
        FULL,
        {},
        {"$schema": "./.schema.json", "generator": None},
        {"extends": "x.json", "losses": {"cycle": {"weight": 10}, "identity": None}},
        {"extends": "x.json", "losses": {"cycle": {"weight": {"discriminator": 0.5}}}, "discriminators": None},
        {"extends": "x.json", "data": {"size": 32, "a": {"path": "there"}}, "ema_halflife_images": None},
        {"extends": "x.json", "discriminators": {"image": {"of": {"width": 3}}}},
    ],
)
def test_the_schema_accepts_specs_and_what_holds_only_differences(validator: Draft202012Validator, spec: Json) -> None:
    validator.validate(spec)


@pytest.mark.parametrize(
    "patch",
    [
        {"dta": {}},
        {"data": {"sise": 3}},
        {"data": {"size": "16"}},
        {"data": {"size": 3}},
        {"data": {"a": {"pth": "x"}}},
        {"data": {"a": {"path": ""}}},
        {"data": {"a": {"path": 3}}},
        {"generator": {"type": "resnt"}},
        {"generator": {"widht": 3}},
        {"generator": "resnet"},
        {"discriminators": {"image": {"type": "critic", "of": {"type": "ptch"}}}},
        {"discriminators": {"image": {"type": "critic", "of": {"type": "patch", "widht": 1}}}},
        {"losses": {"cycle": {"weight": -1}}},
        {"losses": {"cycle": {"weight": {"generators": 1}}}},
        {"losses": {"cycle": {"nrom": "l1"}}},
        {"losses": {"a cycle": {"type": "cycle"}}},
        {"generator": {"weight": 1}},
        {"losses": {"gan": {"type": "acgan_source", "of": {"type": "lsgan", "weight": 1}}}},
        {"schedule": {"steps": 0}},
        {"runtime": {"device": "gpu"}},
        {"directions": ["ac"]},
        {"directions": []},
        {"extends": 3},
        {"$schema": 3},
    ],
)
def test_the_schema_refuses_what_the_spec_refuses(validator: Draft202012Validator, patch: Json) -> None:
    asked = merge(TINY, patch)
    assert not validator.is_valid(asked)
    refusal(lambda: resolve(asked))


def test_a_change_to_a_nested_loss_has_no_weight_either(validator: Draft202012Validator) -> None:
    assert validator.is_valid({"losses": {"gan": {"of": {"type": "lsgan"}}}})
    assert not validator.is_valid({"losses": {"gan": {"of": {"weight": 1}}}})


@pytest.mark.parametrize("key", ["weight", "weihgt"])
def test_no_weight_is_offered_to_a_nested_loss(key: str) -> None:
    nested = {"type": "acgan_source", "of": {"type": "lsgan", key: 1}}
    said = refusal(lambda: resolved({"losses": {"gan": nested}}))
    assert said.startswith(f"spec: losses.gan.of.{key}: unknown key; known are: type (loss 'lsgan' of ")
    said = refusal(lambda: resolved({"losses": {"gan": {"type": "lsgan", "weihgt": 1}}}))
    assert "unknown key; did you mean 'weight'? known are: type, weight (" in said


@pytest.mark.parametrize("found", registry().components, ids=lambda found: f"{found.kind}-{found.name}")
def test_the_schema_allows_null_beside_a_type_where_a_file_does(
    validator: Draft202012Validator, found: Component
) -> None:
    simple = {"generator": "resnet", "discriminator": "patch", "loss": "lsgan", "schedule": "simultaneous"}
    simple |= {"features": "lite0", "source": "gaussian"}
    sign = signature(found.cls)
    least: Json = {"type": found.name} | {option: {"type": simple[kind]} for option, kind in sign.nested.items()}
    known = {option: place.get("enum", ["x"])[0] for option, place in schema(found.cls)["properties"].items()}
    least |= {option: known[option] for option, field in sign.model.model_fields.items() if field.is_required()}
    for option in (*sign.model.model_fields, *sign.nested):
        options: Any = least | {option: None}
        place: Json = {
            "generator": {"generator": options},
            "schedule": {"schedule": options},
            "source": {"data": {"a": options}},
            "discriminator": {"discriminators": {"x": options}},
            "loss": {"losses": {"x": options}},
            "features": {"evaluation": {"features": options}},
            "metric": {"evaluation": {"metrics": [options]}},
            "callback": {"callbacks": {"x": options}},
        }[found.kind]
        try:
            resolve(merge(TINY, place))
            allowed = True
        except SpecError:
            allowed = False
        assert validator.is_valid(place) == allowed, option


def test_the_schema_has_every_component_and_what_their_options_define(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "ganlab_moody.py").write_text(
        "import enum\nimport ganlab\nfrom typing import Literal\n"
        "class Mood(enum.Enum):\n    GLAD = 'glad'\n    SAD = 'sad'\n"
        "class Moody(ganlab.Loss):\n"
        "    def __init__(self, mood: Mood = Mood.GLAD, only: Literal['one'] = 'one'):\n        super().__init__()\n"
        "@ganlab.hookimpl\n"
        "def ganlab_losses():\n    return {'moody': Moody, 'moodier': Moody}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with_it = Registry([*installed(), EntryPoint("moody", "ganlab_moody", "ganlab")])
    assert with_it.broken == registry().broken
    found = json_schema(with_it.components)
    Draft202012Validator.check_schema(found)
    for component in with_it.components:
        titles = [part["then"]["title"] for part in found["$defs"][component.kind]["allOf"] if "then" in part]
        assert f"{component.kind} {component.name}" in titles
    checks = Draft202012Validator(found)
    checks.validate(merge(TINY, {"losses": {"m": {"type": "moody", "mood": "sad", "weight": 2}}}))
    checks.validate({"losses": {"m": {"type": "moody", "mood": None, "only": None}}})
    assert not checks.is_valid(merge(TINY, {"losses": {"m": {"type": "moody", "only": "two"}}}))
    assert not checks.is_valid(merge(TINY, {"losses": {"m": {"type": "moodier", "mood": "angry"}}}))
