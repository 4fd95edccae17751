"""A component's options, read from the constructor's signature; wrong ones are refused in one sentence."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
import torch
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field, ValidationError

import ganlab
from ganlab.components.docstrings import described
from ganlab.components.options import nearest, schema, sentence, signature, validate
from ganlab.components.registry import registry
from ganlab.interfaces.losses import Loss
from ganlab.interfaces.networks import Discriminator, Domain, Features, Generator
from ganlab.interfaces.schedules import Schedule
from ganlab.interfaces.sources import Source


class Mood(enum.Enum):
    GLAD = "glad"
    SAD = "sad"


class Everything(Loss):
    """One of each kind of option."""

    def __init__(
        self,
        margin: Annotated[float, Field(gt=0)],
        count: Annotated[int, Field(ge=1, le=9)] = 3,
        norm: Literal["l1", "l2"] = "l1",
        size: Literal[1, 3] = 3,
        betas: tuple[float, float] = (0.5, 0.9),
        names: list[str] | None = None,
        mood: Mood = Mood.GLAD,
        loud: bool = False,
        *,
        steps: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto",
    ) -> None:
        super().__init__()


def options(**given: Any) -> dict[str, Any]:
    return validate(Everything, {"margin": 1.0, **given}).model_dump()


def test_defaults_are_the_constructors() -> None:
    assert options() == {
        "margin": 1.0,
        "count": 3,
        "norm": "l1",
        "size": 3,
        "betas": (0.5, 0.9),
        "names": None,
        "mood": Mood.GLAD,
        "loud": False,
        "steps": "auto",
    }


def test_options_arrive_as_the_types_that_the_constructor_names() -> None:
    given = options(betas=[0, 0.25], names=["x"], mood="sad", steps=4, margin=2)
    assert given["betas"] == (0.0, 0.25)
    assert given["mood"] is Mood.SAD
    assert given["steps"] == 4
    assert isinstance(given["margin"], float)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("count", True, "x.count: true is not allowed: it should be an integer"),
        ("count", "3", 'x.count: "3" is not allowed: it should be an integer'),
        ("count", 3.0, "x.count: 3.0 is not allowed: it should be an integer"),
        ("count", None, "x.count: null is not allowed: it should be an integer"),
        ("count", 0, "x.count: 0 is not allowed: it should be greater than or equal to 1"),
        ("count", 10, "x.count: 10 is not allowed: it should be less than or equal to 9"),
        ("count", 10**400, f"x.count: {str(10**400)[:77]}... is not allowed: it should be less than or equal to 9"),
        ("margin", 0, "x.margin: 0 is not allowed: it should be greater than 0"),
        ("margin", False, "x.margin: false is not allowed: it should be a number"),
        ("margin", float("nan"), "x.margin: NaN is not allowed: it should be a finite number"),
        ("margin", float("inf"), "x.margin: Infinity is not allowed: it should be a finite number"),
        ("margin", float("-inf"), "x.margin: -Infinity is not allowed: it should be a finite number"),
        ("norm", "L1", "x.norm: \"L1\" is not allowed: it should be 'l1' or 'l2'"),
        ("norm", {}, "x.norm: {} is not allowed: it should be 'l1' or 'l2'"),
        ("size", True, "x.size: true is not allowed: it should be 1"),
        ("size", 3.0, "x.size: 3.0 is not allowed: it should be 3"),
        ("size", 2, "x.size: 2 is not allowed: it should be 1 or 3"),
        ("betas", [0.5], "x.betas.1: is required and has no default"),
        ("betas", [0.5, "a"], 'x.betas.1: "a" is not allowed: it should be a number'),
        ("betas", 0.5, "x.betas: 0.5 is not allowed: it should be an array"),
        ("names", {"a": 1}, 'x.names: {"a": 1} is not allowed: it should be an array'),
        ("mood", "angry", "x.mood: \"angry\" is not allowed: it should be 'glad' or 'sad'"),
        ("loud", 0, "x.loud: 0 is not allowed: it should be true or false"),
        ("steps", 0, "x.steps: 0 is not allowed: it should be 'auto', or it should be greater than or equal to 1"),
        ("steps", "no", "x.steps: \"no\" is not allowed: it should be 'auto', or it should be an integer"),
    ],
)
def test_a_wrong_value_is_refused_with_a_sentence(option: str, value: Any, said: str) -> None:
    asked = {"margin": 1.0, option: value}
    with pytest.raises(ValidationError) as caught:
        validate(Everything, asked)
    assert sentence(caught.value, "x", asked, asked) == said


def test_a_missing_option_and_an_unknown_one_are_named() -> None:
    with pytest.raises(ValidationError) as caught:
        validate(Everything, {})
    assert sentence(caught.value, "losses.a", (), {}) == "losses.a.margin: is required and has no default"
    asked = {"margin": 1, "cuont": 3}
    with pytest.raises(ValidationError) as caught:
        validate(Everything, asked)
    said = sentence(caught.value, "losses.a", ["margin", "count"], asked)
    assert said == "losses.a.cuont: unknown key; did you mean 'count'? known are: count, margin"


def test_options_annotated_path_are_paths() -> None:
    class Places(Loss):
        def __init__(
            self,
            one: Path,
            perhaps: Path | None = None,
            many: tuple[Path, ...] = (),
            bounded: Annotated[Path | None, Field(description="a file")] = None,
            text: str = "",
            either: Literal["auto"] | Path = "auto",
            named: Mapping[str, Path] = {},
            perhaps_named: dict[str, Path] | None = None,
        ) -> None:
            super().__init__()

    sign = signature(Places)
    assert sign.paths == ("one", "perhaps", "many", "bounded", "named", "perhaps_named")
    given = validate(Places, {"one": "a/b", "many": ["c"], "either": "auto", "named": {"x": "d"}})
    assert given.model_dump() == {
        "one": Path("a/b"),
        "perhaps": None,
        "many": (Path("c"),),
        "bounded": None,
        "text": "",
        "either": "auto",
        "named": {"x": Path("d")},
        "perhaps_named": None,
    }
    said = schema(Places)["properties"]
    assert (said["one"]["format"], said["one"]["minLength"]) == ("path", 1)
    assert said["bounded"]["description"] == "a file"
    for empty in ({"perhaps": ""}, {"many": ["b", ""]}):
        with pytest.raises(ValidationError, match="should be the path of a file or a folder"):
            validate(Places, {"one": "a", **empty})


def test_the_schema_accepts_what_the_options_accept() -> None:
    validator = Draft202012Validator(schema(Everything))
    Draft202012Validator.check_schema(validator.schema)
    for good in ({"margin": 1}, {"margin": 1.5, "mood": "sad", "steps": 4, "betas": [0, 1], "names": None}):
        validator.validate(good)
    for bad in ({}, {"margin": 0}, {"margin": 1, "x": 1}, {"margin": 1, "mood": "angry"}, {"margin": 1, "steps": 0}):
        assert not validator.is_valid(bad)
    assert validator.schema["properties"]["count"]["default"] == 3


class Nested(Discriminator):
    def __init__(self, of: Discriminator, shape: Domain, width: int = 3) -> None:
        super().__init__()


class Inherited(Nested):
    """Has no constructor of its own."""


class Bare(Loss):
    """Has no constructor at all."""


class BareSource(Source):
    """Has no constructor at all, and its interface is no torch module."""


@pytest.mark.parametrize("component", [Nested, Inherited])
def test_nested_components_and_domains_are_no_options(component: type) -> None:
    found = signature(component)
    assert list(found.model.model_fields) == ["width"]
    assert found.nested == {"of": "discriminator"}
    assert found.supplied == ("shape",)
    said = schema(component)
    assert set(said["properties"]) == {"of", "width"}
    assert said["required"] == ["of"]


class Said(Loss):
    """A sum: a + b,
    and so on.

    Args:
        first: how far apart
            they are: in pixels.
        second (int): not this.

        gone: an option of no one.

    Raises ValueError at times.

    | a | b |
    |---|---|
    """

    def __init__(
        self, features: Features, second: Annotated[int, Field(description="this")] = 2, first: float = 1.0, x: int = 0
    ) -> None:
        super().__init__()


class SaidMore(Said):
    """More.
    Args:
      first: again.
      features: a network."""


class SaidNothing(Said):
    pass


def test_the_docstring_describes_the_options() -> None:
    said = schema(Said)
    assert said["description"] == "A sum: a + b, and so on.\n\nRaises ValueError at times.\n\n| a | b |\n|---|---|"
    described = {option: place.get("description") for option, place in said["properties"].items()}
    assert described == {
        "second": "this",
        "first": "how far apart they are: in pixels.",
        "x": None,
        "features": None,
    }


def test_a_base_describes_what_a_class_does_not() -> None:
    nothing = schema(SaidNothing)
    assert "description" not in nothing
    assert nothing["properties"] == schema(Said)["properties"]
    more = schema(SaidMore)
    assert more["description"] == "More."
    described = {option: place.get("description") for option, place in more["properties"].items()}
    assert described == {"second": "this", "first": "again.", "x": None, "features": "a network."}


@pytest.mark.parametrize("component", [Bare, BareSource])
def test_a_component_without_a_constructor_has_no_options(component: type) -> None:
    assert signature(component).model.model_fields == {}
    with pytest.raises(ValidationError):
        validate(component, {"training": True})


def test_it_has_none_either_after_torch_has_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile replaces the constructor of all modules by one that takes anything."""
    init = torch.nn.Module.__init__
    monkeypatch.setattr(torch.nn.Module, "__init__", lambda self, *args, **kwargs: init(self, *args, **kwargs))
    assert signature(type("Another", (ganlab.Loss,), {})).model.model_fields == {}


def component(interface: type, parameters: str) -> type:
    """A component whose constructor takes these parameters, written as a plugin's author would."""
    words = (Annotated, Any, ClassVar, Discriminator, Domain, Field, Mood, Path, ganlab)
    names: dict[str, Any] = {**{word.__name__: word for word in words}, "interface": interface}
    text = f"class Made(interface):\n    def __init__(self, {parameters}):\n        super().__init__()\n"
    # without this module's own `from __future__ import annotations`
    exec(compile(text, "made", "exec", dont_inherit=True), names)
    made: type = names["Made"]
    return made


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ("x", "gives its option 'x' no type"),
        ("x=3", "gives its option 'x' no type"),
        ("*args: int", "takes *args: int; every option needs a name and a type of its own"),
        ("**options: float", "takes **options: float; every option needs"),
        ("x: int, /", "takes x: int; every option needs"),
        ("type: str = 'a'", "has an option 'type'; that name is reserved"),
        ("weight: float = 1.0", "has an option 'weight'; that name is reserved"),
        ("_x: int = 1", "has an option '_x'; that name is reserved"),
        ("copy: bool = True", "has an option 'copy'; that name is reserved"),
        ("model_config: int = 1", "has an option 'model_config'; that name is reserved"),
        ("x: 'Unheard' = 1", "the types of Made.__init__ can't be read: name 'Unheard' is not defined"),
        ("x: ganlab.Translation", "'x' of Made.__init__ has a type that doesn't fit JSON"),
        ("x: type = int", "'x' of Made.__init__ has a type that doesn't fit JSON"),
        ("x: ClassVar[int] = 3", "'x' of Made.__init__ has a type that an option can't have"),
        ("x: Any = (1, 2)", "'x' of Made.__init__ has a default that JSON can't keep: (1, 2) comes back as [1, 2]"),
        ("x: Any = object", "'x' of Made.__init__ has a default that is not allowed"),
        ("x: int = 'three'", "a default that is not allowed, 'three': it should be an integer"),
        ("x: int = None", "a default that is not allowed, None: it should be an integer"),
        ("x: bool = 1", "a default that is not allowed, 1: it should be true or false"),
        ("x: float = float('inf')", "a default that is not allowed, inf: it should be a finite number"),
        ("x: Annotated[float, Field(gt=0)] = 0", "a default that is not allowed, 0: it should be greater than 0"),
        ("x: Path = Path('here')", "'x' of Made.__init__ has a default that is not allowed"),
        ("x: Annotated[int, Field(alias='y')] = 1", "'x' of Made.__init__ has a default that is not allowed"),
        ("x: Annotated[int, Field(exclude=True)] = 1", "has a default that JSON can't keep"),
        ("of: Discriminator = None", "gives the nested component 'of' a default; it can have none"),
        ("x: Domain | None = None", "; expected Domain alone"),
        ("x: list[Domain]", "; expected Domain alone"),
    ],
)
def test_a_constructor_that_breaks_the_contract_is_refused(parameters: str, said: str) -> None:
    made = component(Loss, parameters)
    with pytest.raises(TypeError) as caught:
        signature(made)
    text = str(caught.value)
    assert said in text
    assert "Made.__init__" in text
    assert "\n" not in text
    assert "pydantic.dev" not in text


@pytest.mark.parametrize(
    ("interface", "parameters", "said"),
    [
        (Generator, "shape: Domain", "a generator's are source and target"),
        (Discriminator, "one: Domain, two: Domain", "takes 2 Domains; a discriminator has one"),
        (Loss, "shape: Domain", "takes a Domain; only networks are given one"),
        (Schedule, "shape: Domain", "takes a Domain; only networks are given one"),
        (Source, "shape: Domain", "takes a Domain; only networks are given one"),
    ],
)
def test_a_domain_where_none_is_supplied_is_refused(interface: type, parameters: str, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        signature(component(interface, parameters))


@pytest.mark.parametrize(
    "parameters",
    [
        "x: float = 1",
        "x: tuple[float, ...] = (1,)",
        "x: dict[str, float] = {'a': 1}",
        "x: list[int] = [1, 2]",
        "x: int | None = None",
        "x: Annotated[float, Field(gt=0)] = Field(1.0)",
        "x: Mood = Mood.SAD",
        "x: Any = None",
        "self_: int = 1",
        "x: int, *, y: int = 2",
    ],
)
def test_a_constructor_that_keeps_the_contract_is_read(parameters: str) -> None:
    found = signature(component(Loss, parameters))
    required = {"x": 1} if found.model.model_fields and "*" in parameters else {}
    kept = json.loads(validate(component(Loss, parameters), required).model_dump_json())
    assert json.loads(validate(component(Loss, parameters), kept).model_dump_json()) == kept


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("cicle", ["cycle", "identity"], "; did you mean 'cycle'? known are: cycle, identity"),
        ("zzz", ["cycle"], "; known are: cycle"),
        ("zzz", [], "; there are none"),
    ],
)
def test_the_nearest_name_is_offered_only_where_one_is_near(name: str, known: list[str], said: str) -> None:
    assert nearest(name, known) == said


def test_every_components_schema_is_valid_and_says_what_its_signature_says() -> None:
    for found in registry().components:
        said = schema(found.cls)
        Draft202012Validator.check_schema(said)
        sign = signature(found.cls)
        assert set(said.get("properties", {})) == {*sign.model.model_fields, *sign.nested}, found.name
        assert issubclass(sign.model, BaseModel)


def test_every_option_of_every_component_has_a_description() -> None:
    for found in registry().components:
        said = schema(found.cls)
        for model in (said, *said.get("$defs", {}).values()):
            lacking = [option for option, place in model.get("properties", {}).items() if not place.get("description")]
            assert not lacking, f"{found.kind} {found.name}"
        # a description of another name would describe nothing
        assert set(described(found.cls)) <= set(said["properties"]), f"{found.kind} {found.name}"
