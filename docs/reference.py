"""The reference's pages, from what the code says of itself: docstrings, signatures, schemas, the command line."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import typer.main
from markup import code, directive, page, prose, table
from source import PUBLIC, module

import ganlab
from ganlab import cli, testing
from ganlab.docstrings import about
from ganlab.options import KINDS, schema, signature
from ganlab.registry import HOOKS, Component, Registry, installed
from ganlab.schema import json_schema
from ganlab.spec import Data, Json, Spec, as_options, read

ROOT = Path(__file__).parent.parent

INTERFACES = "ganlab.interfaces"
SEEN = {"ganlab.translation": ["Translation"], "ganlab.evaluation.evidence": ["Evidence", "Images"]}
"""What losses and metrics are given."""
ESTIMATES = "ganlab.evaluation.estimates"
WATCHER = "ganlab.training"

PLUGINS = {
    point.name: point
    for point in installed()
    if isinstance(point, EntryPoint) and point.dist and point.dist.name == "ganlab"
}
"""ganlab's own: what else is installed has documents of its own."""
SHIPPED = Registry(PLUGINS.values())


def write(folder: Path) -> None:
    """Write the pages, of which those that have not changed keep their time; remove others."""
    pages = {
        "interfaces": interfaces(),
        "hooks": hooks(),
        "spec": spec(),
        "testing": checks(),
        "python": python(),
        "command-line": command_line(),
        **{kind: components(kind) for kind in KINDS},
    }
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.md"):
        if old.stem not in pages:
            old.unlink()
    for name, text in pages.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


def _links() -> dict[str, str]:
    """What code in a docstring may name, wherever it stands."""
    links = {name: name for name in PUBLIC.values()}
    # a word that begins with a small letter may mean anything
    links |= {name.removeprefix("ganlab."): name for name in links if name.split(".")[1][0].isupper()}
    members = module("ganlab.translation").members("Translation")
    links |= {f"t.{name}": f"ganlab.Translation.{name}" for name in members}
    links |= {name: name for name in ("ganlab.testing", ESTIMATES)}
    interfaces = module(INTERFACES)
    links |= {f"{c}.{member}": f"ganlab.{c}.{member}" for c in interfaces.classes() for member in interfaces.members(c)}
    return links


LINKS = _links()


def named() -> dict[str, str]:
    """What code on any page may name: LINKS, and the components whose names are of no other and of no option."""
    names = [c.name for c in SHIPPED.components]
    options = {option for c in SHIPPED.components for option in schema(c.cls)["properties"]}
    components = {c.name: _full(c) for c in SHIPPED.components if names.count(c.name) == 1 and c.name not in options}
    return LINKS | components


def _described(home: str, names: Iterable[str], links: Mapping[str, str] = LINKS) -> str:
    return "\n\n".join(module(home).describe(name, links) for name in names)


def _functions(home: str) -> str:
    """A module with its public functions and its constants that have a docstring."""
    here = module(home)
    names = [name for name, (_, text) in here.found.items() if text and name not in here.classes()]
    links = LINKS | {name: f"{home}.{name}" for name in names}
    return "\n\n".join([_module(home), _described(home, names, links)])


def _module(home: str) -> str:
    """A module's own docstring. What comes after it bears a whole name of its own."""
    none = directive("py:currentmodule", "None")
    return "\n\n".join([directive("py:module", home), none, prose(module(home).text(), LINKS)])


def interfaces() -> str:
    """What a plugin's author implements, and what is given to it."""
    return page(
        "Interfaces",
        prose(module(INTERFACES).text(), LINKS),
        "## What a plugin implements",
        _described(INTERFACES, module(INTERFACES).classes()),
        *("## What losses and metrics see", *(_described(home, names) for home, names in SEEN.items())),
        "## Estimates",
        _functions(ESTIMATES),
    )


def hooks() -> str:
    """Each hook with what may be contributed by it, and what is."""
    home = module("ganlab.hookspecs")
    parts = []
    for kind, hook in HOOKS.items():
        names = ", ".join(f"{{ref}}`{c.name} <{_label(c)}>`" for c in _shipped(kind))
        interface = f"{{py:class}}`ganlab.{KINDS[kind].__name__}`"
        parts.append(home.describe(hook, LINKS) + f"\n\nIts interface is {interface}. ganlab ships {names}.")
    return page("Hooks", prose(home.text(), LINKS), _described(home.name, ["hookimpl"]), *parts)


def python() -> str:
    """What `import ganlab` gives, without what the other pages have."""
    others = {INTERFACES, *SEEN, "ganlab.hookspecs"}
    homes = {home: names for home, names in ganlab._HOMES.items() if home not in others}
    ordered = sorted(homes, key=["ganlab.laboratory", "ganlab.spec", "ganlab.errors"].index)
    elsewhere = "Of a spec's keys speaks {doc}`spec`, of what plugins implement {doc}`interfaces`."
    return page(
        "Python",
        "What the command line does, as functions of `ganlab`. " + elsewhere,
        *(_described(home, [name for name in module(home).found if name in homes[home]]) for home in ordered),
        _described(WATCHER, ["Watcher"]),
    )


def checks() -> str:
    """What an author's own test calls."""
    homes = {name: getattr(testing, name).__module__ for name in testing.__all__}
    return page(
        "Testing",
        _module("ganlab.testing"),
        "Each checks these promises:",
        directive("include", "../../README.md", **{"start-after": '-35.2 to 32.2".', "end-before": "## Licences"}),
        *(_described(home, [name]) for name, home in homes.items()),
    )


def _shipped(kind: str) -> list[Component]:
    return [component for component in SHIPPED.components if component.kind == kind]


def _label(component: Component) -> str:
    return f"{component.kind}-{component.name}"


def _full(component: Component) -> str:
    return f"{component.cls.__module__}.{component.cls.__qualname__}"


def components(kind: str) -> str:
    """The components of a kind."""
    interface = f"{{py:class}}`ganlab.{KINDS[kind].__name__}`"
    hook = f"{{py:func}}`{HOOKS[kind]} <ganlab.hookspecs.{HOOKS[kind]}>`"
    used = _used()
    return page(
        HOOKS[kind].removeprefix("ganlab_").capitalize(),
        f"Each heading is what a spec says under `type`. The interface is {interface}, the hook {hook}.",
        "Beside its options a loss in a spec has a {confval}`losses.NAME.weight`." if kind == "loss" else "",
        *(_component(component, used[kind, component.name]) for component in _shipped(kind)),
    )


def _component(component: Component, used: Mapping[str, Json]) -> str:
    cls = component.cls
    options = schema(cls)
    rows = list(_rows(options, options, signature(cls).nested))
    parts = [
        f"({_label(component)})=\n## {component.name}",
        directive("index", f"single: {component.name} ({component.kind})"),
        directive("py:class", _full(component), prose(about(cls), LINKS)),
        f"From plugin *{component.plugin}*: {_plugin(component.plugin)}",
        table(["option", "allowed", "default", "what it is"], rows) if rows else "It has no options.",
    ]
    if used:
        where, example = next(iter(used.items()))
        everywhere = f"Used in {', '.join(map(code, used))}. " if len(used) > 1 else ""
        parts += [f"{everywhere}In {code(where)}:", directive("code-block", "json", _json(example))]
    return "\n\n".join(parts)


def _plugin(name: str) -> str:
    """The first paragraph of a plugin's docstring: the paper whose equations its components number."""
    return prose(module(PLUGINS[name].module).text().split("\n\n")[0], LINKS)


def _json(value: Any) -> str:
    short = json.dumps(value, ensure_ascii=False)
    return short if len(short) < 100 else json.dumps(value, indent=2, ensure_ascii=False)


def _rows(place: Json, whole: Json, nested: Mapping[str, str], prefix: str = "") -> Iterator[list[str]]:
    """A row for each option, and for each key of an object that is one."""
    for name, option in place.get("properties", {}).items():
        words = allowed({"$ref": nested[name]} if name in nested else option, whole)
        required = name in place.get("required", [])
        default = "required" if required else code(json.dumps(option["default"], ensure_ascii=False))
        yield [code(f"{prefix}{name}"), words, default, prose(option.get("description", ""), LINKS)]
        inner, path = (option["additionalProperties"], ".NAME") if _holds_objects(option) else (option, "")
        if "$ref" in inner:
            yield from _rows(_referred(inner, whole), whole, {}, f"{prefix}{name}{path}.")


def _holds_objects(option: Json) -> bool:
    """Whether it takes any key."""
    return isinstance(option.get("additionalProperties"), dict)


def _referred(place: Json, whole: Json) -> Json:
    found: Json = whole["$defs"][place["$ref"].rpartition("/")[2]]
    return found


def allowed(place: Json, whole: Json, null: bool = True) -> str:
    """What a place of a JSON Schema takes, in words; `null` says whether to speak of null."""
    if "$ref" in place:
        kind = place["$ref"].rpartition("/")[2]
        return f"a {{doc}}`{kind} <{kind}>` component" if kind in KINDS else "an object"
    if "anyOf" in place:
        each = [allowed(p, whole, null) for p in place["anyOf"] if null or p.get("type") != "null"]
        return " or ".join(dict.fromkeys(each))
    if "const" in place or "enum" in place:
        values = [v for v in place.get("enum", [place.get("const")]) if null or v is not None]
        *others, last = [code(json.dumps(value, ensure_ascii=False)) for value in values]
        return f"{', '.join(others)} or {last}" if others else last
    kinds = place.get("type", "anything")
    kind = kinds if isinstance(kinds, str) else next(k for k in kinds if k != "null")
    return {"array": _array, "object": _object}.get(kind, _plain)(place, whole, kind)


_WORDS = {"boolean": "true or false", "integer": "an integer", "number": "a number", "string": "a string"}


def _plain(place: Json, whole: Json, kind: str) -> str:
    least, above, most, below = (
        place.get(key) for key in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
    )
    if least is not None and most is not None:
        bounds = [f"from {least} to {most}"]
    else:
        said = (("of at least", least), ("above", above), ("of at most", most), ("below", below))
        bounds = [f"{word} {bound}" for word, bound in said if bound is not None]
    return f"{_WORDS[kind]} {' and '.join(bounds)}".rstrip()


def _array(place: Json, whole: Json, kind: str) -> str:
    if each := place.get("prefixItems"):
        return f"\\[{', '.join(allowed(item, whole) for item in each)}\\]"
    return f"an array, each {allowed(place.get('items', {}), whole)}"


def _object(place: Json, whole: Json, kind: str) -> str:
    if not _holds_objects(place):
        return "an object"
    return f"\\{{NAME: {allowed(place['additionalProperties'], whole, null=False)}\\}}"


def _used() -> dict[tuple[str, str], dict[str, Json]]:
    """{(kind, name): {experiment: the component as it stands there}}."""
    used: dict[tuple[str, str], dict[str, Json]] = defaultdict(dict)
    folder = ROOT / "experiments"
    for path in sorted(folder.rglob("[!.]*.json"), key=lambda path: (len(path.parts), path)):
        for kind, options in _named(read(path)):
            used[kind, options["type"]].setdefault(path.relative_to(folder).as_posix(), options)
    return used


def _named(spec: Json) -> Iterator[tuple[str, Json]]:
    """Every component that a spec names, nested ones too."""
    evaluation = spec.get("evaluation", {})
    features = [evaluation["features"]] if evaluation.get("features") else []
    places = [
        *(("source", spec["data"][domain]) for domain in "ab" if domain in spec.get("data", {})),
        *((kind, spec[kind]) for kind in ("generator", "schedule")),
        *(("discriminator", options) for options in spec.get("discriminators", {}).values()),
        *(("loss", options) for options in spec["losses"].values()),
        *(("metric", as_options(metric)) for metric in evaluation.get("metrics", [])),
        *(("features", as_options(options)) for options in features),
    ]
    while places:
        kind, options = places.pop(0)
        yield kind, options
        nested = signature(SHIPPED.find(kind, options["type"], kind).cls).nested
        places += [(inner, options[option]) for option, inner in nested.items()]


def spec() -> str:
    """Every key of a spec."""
    whole = json_schema(SHIPPED)
    parts: list[str] = []
    for name, place in whole["properties"].items():
        parts += [f"## {name}", _key(name, place, whole)]
        if _section(place):
            keys = _referred(place, whole)["properties"]
            parts += [_key(f"{name}.{key}", inner, whole) for key, inner in keys.items()]
        if name == "losses":
            # every loss has it, beside its own options
            weight = _referred({"$ref": "#/$defs/Weight"}, whole)["properties"]
            loss = next(c for c in whole["$defs"]["loss"]["allOf"] if "then" in c)["then"]["properties"]["weight"]
            parts.append(_key("losses.NAME.weight", loss, whole))
            parts += [_key(f"losses.NAME.weight.{key}", inner, whole) for key, inner in weight.items()]
    return page("Keys of the spec", "How a file is read and merged is said in {doc}`../spec`.", *parts)


REQUIRED = {
    f"{section}{key}"
    for section, model in (("", Spec), ("data.", Data))
    for key, field in model.model_fields.items()
    # a file gives its spec a name
    if field.is_required() and key != "name"
}
"""The keys without which a whole spec isn't one."""


def _section(place: Json) -> bool:
    return "$ref" in place and place["$ref"].rpartition("/")[2] not in KINDS


def _key(name: str, place: Json, whole: Json) -> str:
    fields = [f":allowed: {allowed(place, whole, null=False)}"]
    if name in REQUIRED:
        fields.append(":default: none, it is required")
    elif "default" in place:
        fields.append(f":default: {code(json.dumps(place['default'], ensure_ascii=False))}")
    return directive("confval", name, "\n\n".join([prose(place.get("description", ""), LINKS), "\n".join(fields)]))


def command_line() -> str:
    """Every command with its options."""
    group: Any = typer.main.get_command(cli.app)
    parts = [_command("ganlab", group)]
    for name, command in group.commands.items():
        parts += [f"## ganlab {name}", _command(f"ganlab {name}", command)]
    return page("Command line", *parts)


def _command(program: str, command: Any) -> str:
    usage = command.get_usage(command.context_class(command, info_name=program))
    return "\n\n".join(
        [
            prose(command.help, {}),
            directive("code-block", "text", usage.removeprefix("Usage: ")),
            directive("program", program),
            *(
                directive("option", " ".join([*said, parameter.metavar or ""]).strip(), prose(parameter.help, {}))
                for parameter in command.params
                for said in [parameter.opts if parameter.param_type_name == "option" else []]
            ),
        ]
    )
