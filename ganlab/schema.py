"""The JSON Schema of a spec file: what an editor completes and checks."""

from __future__ import annotations

from ganlab.options import KINDS, schema, signature
from ganlab.registry import Component, Registry
from ganlab.spec import LABEL, Json, Spec, Weight


def json_schema(registry: Registry) -> Json:
    """The JSON Schema (draft 2020-12) of a spec file, with every installed component.

    A file may hold only what differs from the one it extends: so it needs no key at all, not even a component's
    `type`, and null drops a key.
    """
    result = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Spec.model_json_schema()}
    definitions = result["$defs"]
    for holder in (result, *definitions.values()):
        holder.pop("required", None)
        holder["properties"] = {key: _or_null(place) for key, place in holder["properties"].items()}
    definitions["Weight"] = Weight.model_json_schema()
    for kind in KINDS:
        components = [_component_schema(c, definitions) for c in registry.components if c.kind == kind]
        options = sorted({option for component in components for option in component["properties"]} - {"type"})
        change = {
            "title": f"a change to the {kind} of the spec that this one extends",
            "type": "object",
            "properties": dict.fromkeys(options, True),
            "additionalProperties": False,
        }
        definitions[kind] = {"oneOf": [*components, change]}
    places = result["properties"]
    for kind, place in (("generator", "generator"), ("schedule", "schedule")):
        places[place] = _or_null({"$ref": f"#/$defs/{kind}"})
    for place in "ab":
        definitions["Data"]["properties"][place] = _or_null({"$ref": "#/$defs/source"})
    for kind, place in (("loss", "losses"), ("discriminator", "discriminators")):
        named = {"type": "object", "additionalProperties": _or_null({"$ref": f"#/$defs/{kind}"})}
        places[place] = _or_null({**named, "propertyNames": {"pattern": f"^{LABEL}$"}})
    evaluation = definitions["Evaluation"]["properties"]
    named_or = {
        kind: {"anyOf": [{"enum": registry.names(kind)}, {"$ref": f"#/$defs/{kind}"}]}
        for kind in ("features", "metric")
    }
    evaluation["features"] = _or_null(named_or["features"])
    evaluation["metrics"] = _or_null({"type": "array", "items": named_or["metric"]})
    places["extends"] = {"type": "string", "description": "the path of a spec of which this one holds the differences"}
    return result


def _component_schema(component: Component, definitions: Json) -> Json:
    prefix = f"{component.kind}.{component.name}."
    result = schema(component.cls, f"#/$defs/{prefix}{{model}}")
    definitions.update({f"{prefix}{name}": inner for name, inner in result.pop("$defs", {}).items()})
    options: Json = {"type": {"const": component.name}, **result.get("properties", {})}
    options |= {option: {"$ref": f"#/$defs/{kind}"} for option, kind in signature(component.cls).nested.items()}
    if component.kind == "loss":
        number = {"type": "number", "minimum": 0}
        options["weight"] = _or_null({"anyOf": [number, {"$ref": "#/$defs/Weight"}]})
    return {**result, "title": f"{component.kind} {component.name}", "properties": options, "required": ["type"]}


def _or_null(place: Json) -> Json:
    return {"anyOf": [place, {"type": "null"}]}
