"""The JSON Schema of a spec file, from which an editor completes, explains and checks it.

The schema is laid out for VS Code's JSON language service. It shows a description only if the description stands beside
the key, not behind a reference or in an alternative. It reads the description of each name from `enumDescriptions`, a
keyword of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable

from ganlab.components.options import KINDS, schema, signature
from ganlab.components.registry import Component
from ganlab.interfaces.metrics import Metric
from ganlab.spec.models import LABEL, Json, Spec, Weight

_SHOWN = ("title", "description", "default")
"""The keywords that an editor shows beside a key."""


_NULL = {"type": "null"}


def json_schema(components: Iterable[Component]) -> Json:
    """Returns the JSON Schema (draft 2020-12) of a spec file that may name these components.

    A file may hold only the differences from the file that it extends. So no key is required, not even a component's
    `type`, and null drops a key.
    """
    known: dict[str, list[Component]] = {kind: [] for kind in KINDS}
    for component in components:
        known[component.kind].append(component)
    result = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Spec.model_json_schema()}
    definitions = result["$defs"]
    definitions["Weight"] = Weight.model_json_schema()
    places, data, evaluation = (x["properties"] for x in (result, definitions["Data"], definitions["Evaluation"]))
    for place in ("generator", "schedule"):
        places[place] = _shown(places[place]) | _of(place)
    for place in "ab":
        data[place] = _shown(data[place]) | _of("source")
    for kind, place in (("loss", "losses"), ("discriminator", "discriminators"), ("callback", "callbacks")):
        named = {"type": "object", "additionalProperties": _or_null(_of(kind))}
        places[place] = _shown(places[place]) | named | {"propertyNames": {"pattern": f"^{LABEL}$"}}
    named_or = {kind: {"anyOf": [_types(known[kind]), _of(kind)]} for kind in ("features", "metric")}
    evaluation["features"] = _shown(evaluation["features"]) | named_or["features"]
    evaluation["metrics"] = _shown(evaluation["metrics"]) | {"type": "array", "items": named_or["metric"]}
    for holder in (result, *definitions.values()):
        holder.pop("required", None)
        for key, place in holder["properties"].items():
            if "$ref" in place:
                # the keys of an object have defaults of their own
                place.pop("default", None)
                place["type"] = "object"
            holder["properties"][key] = _or_null(place)
    for definition in definitions.values():
        # each reference says whether the value may be null
        del definition["type"]
    for kind in KINDS:
        definitions[kind] = _kind(kind, known[kind], definitions)
    places["extends"] = {
        "type": "string",
        "description": "The path of another spec. This file then holds only the differences from it.",
    }
    places["$schema"] = {"type": "string", "description": "The path of the JSON Schema, for editors."}
    return result


def _kind(kind: str, known: list[Component], definitions: Json) -> Json:
    """Returns the schema of a component of this kind, or of a change to one, as conditions on its `type`.

    Alternatives would not do: none of them fits before a type is written, so an editor would have nothing to offer.
    """
    components = {component.name: _component(component, definitions) for component in known}
    places: dict[str, dict[str, Json]] = defaultdict(dict)
    for name, component in components.items():
        for option, place in component["properties"].items():
            places[option][name] = place
    change = {
        "title": f"a change to the {kind} of the spec that this one extends",
        "properties": {option: _any_of(those, components) for option, those in places.items() if option != "type"},
        "additionalProperties": False,
    }
    has_type = {"type": "object", "required": ["type"]}
    return {
        "allOf": [
            # first, since an editor shows the first description of a key
            {"properties": {"type": {**_types(known), "description": f"The name of the {kind}."}}},
            *(
                {"if": {**has_type, "properties": {"type": {"const": name}}}, "then": component}
                for name, component in components.items()
            ),
            {"if": has_type, "else": change},
        ]
    }


def _component(component: Component, definitions: Json) -> Json:
    prefix = f"{component.kind}.{component.name}."
    result = schema(component.cls, f"#/$defs/{prefix}{{model}}")
    definitions.update({f"{prefix}{name}": inner for name, inner in result.pop("$defs", {}).items()})
    # the spec that this one extends may have the required options
    required = result.pop("required", ())
    options = result["properties"]
    for option, kind in signature(component.cls).nested.items():
        options[option] = _shown(options[option]) | _of(kind)
        if kind == "loss":
            # a nested loss has no weight of its own
            options[option]["properties"] = {"weight": False}
    if component.kind != "metric":
        # null stands for the default; but metrics are in an array, where nothing is merged
        options |= {option: _or_null(place) for option, place in options.items() if option not in required}
    if issubclass(component.cls, Metric) and component.cls.on_features:
        named_or = {"anyOf": [{"type": "string"}, _of("features")]}
        options["features"] = {"description": "A feature network instead of the evaluation's.", **named_or}
    if component.kind == "loss":
        number = {"type": "number", "minimum": 0}
        options["weight"] = {
            "description": "The factor on the loss's terms: a number for both players, or one for each.",
            "default": 1.0,
            "anyOf": [number, {"type": "object", "$ref": "#/$defs/Weight"}, _NULL],
        }
    return {**result, "title": f"{component.kind} {component.name}", "properties": {"type": True, **options}}


def _of(kind: str) -> Json:
    return {"type": "object", "$ref": f"#/$defs/{kind}"}


def _types(known: list[Component]) -> Json:
    return {"enum": [c.name for c in known], "enumDescriptions": [c.about for c in known]}


def _any_of(places: dict[str, Json], components: Collection[str]) -> Json:
    """Returns the schema of an option of several components. `places` is {component: the option's schema}."""
    texts: dict[str, list[str]] = defaultdict(list)
    allowed: list[Json] = []
    for name, place in places.items():
        texts[place.get("description", "")].append(name)
        if (bare := {key: value for key, value in place.items() if key not in _SHOWN}) not in allowed:
            allowed.append(bare)
    everyones = list(components)
    said = [text if names == everyones else f"{', '.join(names)}: {text}" for text, names in texts.items() if text]
    return {"description": "\n".join(said), "anyOf": [*allowed, _NULL]}


def _shown(place: Json) -> Json:
    return {key: place[key] for key in _SHOWN if key in place}


def _or_null(place: Json) -> Json:
    if "const" in place or not {"type", "anyOf", "enum"} & place.keys():
        return _shown(place) | {"anyOf": [{key: value for key, value in place.items() if key not in _SHOWN}, _NULL]}
    result = dict(place)
    if "anyOf" in place and _NULL not in place["anyOf"]:
        result["anyOf"] = [*place["anyOf"], _NULL]
    if "type" in place:
        result["type"] = [place["type"], "null"]
    if "enum" in place:
        result["enum"] = [*place["enum"], None]
    return result
