"""Writes the reference's pages from docstrings, signatures, schemas and the command line."""

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

from ganlab import testing
from ganlab.cli import commands as cli
from ganlab.components.docstrings import about
from ganlab.components.options import KINDS, schema, signature
from ganlab.components.registry import HOOKS, Component, Registry, installed
from ganlab.spec.files import read
from ganlab.spec.models import Data, Json, Spec, as_options
from ganlab.spec.schema import json_schema

ROOT = Path(__file__).parent.parent

INTERFACES = [
    f"ganlab.interfaces.{name}" for name in ("networks", "losses", "schedules", "sources", "metrics", "callbacks")
]
LOSSES = "ganlab.interfaces.losses"
HOOKSPECS = "ganlab.interfaces.hooks"
ESTIMATES = "ganlab.evaluation.estimates"
PYTHON = [
    "ganlab.experiment.specs",
    "ganlab.experiment.training",
    "ganlab.experiment.measuring",
    "ganlab.experiment.checking",
    "ganlab.inspection.inspecting",
    "ganlab.inference.run",
    "ganlab.inference.files",
    "ganlab.sharing.export",
    "ganlab.sharing.import_cyclegan",
    "ganlab.comparison.compare",
    "ganlab.comparison.diff",
    "ganlab.comparison.page",
    "ganlab.comparison.search",
    "ganlab.comparison.running",
    "ganlab.comparison.trials",
    "ganlab.spec.models",
    "ganlab.errors",
]

COMMON = {
    "generator": ["resnet"],
    "discriminator": ["patch"],
    "loss": [
        *("lsgan", "cycle", "identity", "hinge_gan", "non_saturating", "wasserstein", "gradient_penalty"),
        *("relativistic", "r1", "r2", "perceptual", "total_variation", "minimax", "noisy_lsgan", "embedding_lsgan"),
    ],
    "schedule": ["simultaneous", "alternating"],
    "source": ["folder", "avatars"],
    "metric": ["fid", "kid", "prdc", "lpips", "content"],
    "callback": ["tensorboard", "early_stopping"],
}
"""{kind: the components that its page lists first}; the others follow by name."""

PLUGINS = {
    point.name: point
    for point in installed()
    if isinstance(point, EntryPoint) and point.dist and point.dist.name == "ganlab"
}
"""The plugins that ganlab ships; other installed plugins have documentation of their own."""
SHIPPED = Registry(PLUGINS.values())


def write(folder: Path) -> None:
    """Writes the pages into `folder` and removes others. A page that has not changed keeps its time stamp."""
    pages = {
        "translation": translation(),
        "interfaces": interfaces(),
        "hooks": hooks(),
        "spec": spec(),
        "testing": checks(),
        "python": python(),
        "command-line": command_line(),
        "notebook": notebook(),
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
    """Returns {inline code: the object that it names}, for docstrings and pages."""
    links = {name: name for name in PUBLIC.values()}
    # without "ganlab." only names with a capital letter: others may mean anything
    links |= {name.removeprefix("ganlab."): name for name in links if name.split(".")[1][0].isupper()}
    links |= {f"t.{name}": f"ganlab.Translation.{name}" for name in module(LOSSES).members("Translation")}
    links |= {name: name for name in ("ganlab.testing", ESTIMATES)}
    for home in INTERFACES:
        for cls in _public(home):
            links |= {f"{cls}.{member}": f"ganlab.{cls}.{member}" for member in module(home).members(cls)}
    return links


def _public(home: str) -> list[str]:
    """Returns the names of a module that `import ganlab` gives, in their order there."""
    return [name for name in module(home).found if f"{home}.{name}" in PUBLIC]


LINKS = _links()


def named() -> dict[str, str]:
    """Returns LINKS and the components with a name that no other component and no option has."""
    names = [c.name for c in SHIPPED.components]
    options = {option for c in SHIPPED.components for option in schema(c.cls)["properties"]}
    components = {c.name: _full(c) for c in SHIPPED.components if names.count(c.name) == 1 and c.name not in options}
    return LINKS | components


def _described(home: str, names: Iterable[str], links: Mapping[str, str] = LINKS) -> str:
    return "\n\n".join(module(home).describe(name, links) for name in names)


def _functions(home: str) -> str:
    """Returns a module with its public functions and its constants that have a docstring."""
    here = module(home)
    names = [name for name, (_, text) in here.found.items() if text and name not in here.classes()]
    links = LINKS | {name: f"{home}.{name}" for name in names}
    return "\n\n".join([_module(home), _described(home, names, links)])


def _module(home: str) -> str:
    """Returns a module's own docstring. The objects after it have full names of their own."""
    none = directive("py:currentmodule", "None")
    return "\n\n".join([directive("py:module", home), none, prose(module(home).text(), LINKS)])


def translation() -> str:
    """Returns the page on `t`."""
    return page(
        "`t`, the Translation",
        "Every method of a {py:class}`ganlab.Loss` receives `t`: one batch, translated in one direction.",
        _described(LOSSES, ["Translation"]),
    )


def interfaces() -> str:
    """Returns the page on the classes that a plugin's author implements and receives."""
    parts = []
    for home in INTERFACES:
        classes = [name for name in _public(home) if name != "Translation"]
        title = home.rpartition(".")[2].capitalize()
        parts += [f"## {title}", prose(module(home).text(), LINKS), _described(home, classes)]
    losses = "What a loss sees, `t`, has a page of its own: {doc}`translation`."
    return page("Interfaces", losses, *parts, "## Estimates", _functions(ESTIMATES))


def hooks() -> str:
    """Returns the page on the hooks, each with the components that ganlab contributes by it."""
    home = module(HOOKSPECS)
    parts = []
    for kind, hook in HOOKS.items():
        names = ", ".join(f"{{ref}}`{c.name} <{_label(c)}>`" for c in _shipped(kind))
        interface = f"{{py:class}}`ganlab.{KINDS[kind].__name__}`"
        parts.append(home.describe(hook, LINKS) + f"\n\nIts interface is {interface}. ganlab ships {names}.")
    return page("Hooks", prose(home.text(), LINKS), _described(home.name, ["hookimpl"]), *parts)


def python() -> str:
    """Returns the page on the functions and classes of `import ganlab` that the other pages leave out."""
    return page(
        "Python",
        "What the command line does, as functions of `ganlab`. {doc}`spec` has the keys of a spec, {doc}`interfaces`"
        " the classes that plugins implement.",
        *(_described(home, _public(home)) for home in PYTHON),
    )


def checks() -> str:
    """Returns the page on the checks that an author's own test calls."""
    homes = {name: getattr(testing, name).__module__ for name in testing.__all__}
    return page(
        "Testing",
        _module("ganlab.testing"),
        "{doc}`../check-a-plugin` lists what each check requires.",
        *(_described(home, [name]) for name, home in homes.items()),
    )


def _shipped(kind: str) -> list[Component]:
    """Returns ganlab's components of a kind, the common ones first."""
    first = COMMON.get(kind, [])
    found = [component for component in SHIPPED.components if component.kind == kind]
    return sorted(found, key=lambda c: first.index(c.name) if c.name in first else len(first))


def _label(component: Component) -> str:
    return f"{component.kind}-{component.name}"


def _full(component: Component) -> str:
    return f"{component.cls.__module__}.{component.cls.__qualname__}"


def components(kind: str) -> str:
    """Returns the page of a kind of component."""
    interface = f"{{py:class}}`ganlab.{KINDS[kind].__name__}`"
    hook = f"{{py:func}}`{HOOKS[kind]} <{HOOKSPECS}.{HOOKS[kind]}>`"
    used = _used()
    return page(
        HOOKS[kind].removeprefix("ganlab_").capitalize(),
        f"A heading is the component's `type` in a spec. The interface is {interface}, the hook {hook}.",
        "Besides its options, a loss in a spec has a {confval}`losses.NAME.weight`." if kind == "loss" else "",
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
        table(["option", "allowed", "default", "meaning"], rows) if rows else "It has no options.",
    ]
    if used:
        where, example = next(iter(used.items()))
        everywhere = f"Used in {', '.join(map(code, used))}. " if len(used) > 1 else ""
        parts += [f"{everywhere}In {code(where)}:", directive("code-block", "json", _json(example))]
    return "\n\n".join(parts)


def _plugin(name: str) -> str:
    """Returns the first paragraph of a plugin's docstring, which names the paper."""
    return prose(module(PLUGINS[name].module).text().split("\n\n")[0], LINKS)


def _json(value: Any) -> str:
    short = json.dumps(value, ensure_ascii=False)
    return short if len(short) < 100 else json.dumps(value, indent=2, ensure_ascii=False)


def _rows(place: Json, whole: Json, nested: Mapping[str, str], prefix: str = "") -> Iterator[list[str]]:
    """Yields a row for each option, and for each key of an option that is an object."""
    for name, option in place.get("properties", {}).items():
        words = allowed({"$ref": nested[name]} if name in nested else option, whole)
        required = name in place.get("required", [])
        default = "required" if required else code(json.dumps(option["default"], ensure_ascii=False))
        yield [code(f"{prefix}{name}"), words, default, prose(option.get("description", ""), LINKS)]
        inner, path = (option["additionalProperties"], ".NAME") if _holds_objects(option) else (option, "")
        if "$ref" in inner:
            yield from _rows(_referred(inner, whole), whole, {}, f"{prefix}{name}{path}.")


def _holds_objects(option: Json) -> bool:
    """Returns whether an object takes any key."""
    return isinstance(option.get("additionalProperties"), dict)


def _referred(place: Json, whole: Json) -> Json:
    found: Json = whole["$defs"][place["$ref"].rpartition("/")[2]]
    return found


def allowed(place: Json, whole: Json, null: bool = True) -> str:
    """Returns in words what a place of a JSON Schema allows. `null` says whether to mention null."""
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


_WORDS = {
    "boolean": "true or false",
    "integer": "an integer",
    "null": code("null"),
    "number": "a number",
    "string": "a string",
    "path": "a path",
}


def _plain(place: Json, whole: Json, kind: str) -> str:
    least, above, most, below = (
        place.get(key) for key in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
    )
    if least is not None and most is not None:
        bounds = [f"from {least} to {most}"]
    else:
        said = (("of at least", least), ("above", above), ("of at most", most), ("below", below))
        bounds = [f"{word} {bound}" for word, bound in said if bound is not None]
    return f"{_WORDS[place.get('format', kind)]} {' and '.join(bounds)}".rstrip()


def _array(place: Json, whole: Json, kind: str) -> str:
    if each := place.get("prefixItems"):
        return f"\\[{', '.join(allowed(item, whole) for item in each)}\\]"
    return f"an array, each {allowed(place.get('items', {}), whole)}"


def _object(place: Json, whole: Json, kind: str) -> str:
    if not _holds_objects(place):
        return "an object"
    return f"\\{{NAME: {allowed(place['additionalProperties'], whole, null=False)}\\}}"


def _used() -> dict[tuple[str, str], dict[str, Json]]:
    """Returns {(kind, name): {experiment: the component as it stands there}}."""
    used: dict[tuple[str, str], dict[str, Json]] = defaultdict(dict)
    folder = ROOT / "experiments"
    for path in sorted(folder.rglob("[!.]*.json"), key=lambda path: (len(path.parts), path)):
        for kind, options in _named(read(path)):
            used[kind, options["type"]].setdefault(path.relative_to(folder).as_posix(), options)
    return used


def _named(spec: Json) -> Iterator[tuple[str, Json]]:
    """Yields (kind, options) for every component that a spec names, nested ones too."""
    evaluation = spec.get("evaluation", {})
    features = [evaluation["features"]] if evaluation.get("features") else []
    places = [
        *(("source", spec["data"][domain]) for domain in "ab" if domain in spec.get("data", {})),
        *((kind, spec[kind]) for kind in ("generator", "schedule")),
        *(("discriminator", options) for options in spec.get("discriminators", {}).values()),
        *(("loss", options) for options in spec["losses"].values()),
        *(("callback", options) for options in spec.get("callbacks", {}).values()),
        *(("metric", as_options(metric)) for metric in evaluation.get("metrics", [])),
        *(("features", as_options(options)) for options in features),
    ]
    while places:
        kind, options = places.pop(0)
        yield kind, options
        nested = signature(SHIPPED.find(kind, options["type"], kind).cls).nested
        places += [(inner, options[option]) for option, inner in nested.items()]


def spec() -> str:
    """Returns the page on the keys of a spec."""
    whole = json_schema(SHIPPED.components)
    parts: list[str] = []
    for name, place in whole["properties"].items():
        parts += [f"## {name}", _key(name, place, whole)]
        if _section(place):
            keys = _referred(place, whole)["properties"]
            parts += [_key(f"{name}.{key}", inner, whole) for key, inner in keys.items()]
        if name == "losses":
            # every loss has a weight, besides its own options
            weight = _referred({"$ref": "#/$defs/Weight"}, whole)["properties"]
            loss = next(c for c in whole["$defs"]["loss"]["allOf"] if "then" in c)["then"]["properties"]["weight"]
            parts.append(_key("losses.NAME.weight", loss, whole))
            parts += [_key(f"losses.NAME.weight.{key}", inner, whole) for key, inner in weight.items()]
    return page("Keys of the spec", "{doc}`../spec` says how a file is read and merged.", *parts)


REQUIRED = {
    f"{section}{key}"
    for section, model in (("", Spec), ("data.", Data))
    for key, field in model.model_fields.items()
    # a spec's name is by default its file's
    if field.is_required() and key != "name"
}
"""The keys that a complete spec must have."""


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
    """Returns the page on the commands and their options."""
    group: Any = typer.main.get_command(cli.app)
    parts = [_command("ganlab", group)]
    for program, command in _commands("ganlab", group):
        parts += [f"## {program}", _command(program, command)]
    return page("Command line", *parts)


def _commands(program: str, group: Any) -> Iterator[tuple[str, Any]]:
    """Yields (how it is called, command) of the commands of a group, and of the groups among them."""
    for name, command in group.commands.items():
        yield f"{program} {name}", command
        if hasattr(command, "commands"):
            yield from _commands(f"{program} {name}", command)


def notebook() -> str:
    """Returns docs/notebook.ipynb as a page, without outputs, with a link to the file."""
    cells = json.loads((ROOT / "docs/notebook.ipynb").read_text("utf-8"))["cells"]
    first, *others = ["".join(cell["source"]) for cell in cells]
    kinds = [cell["cell_type"] for cell in cells[1:]]
    shown = [t if kind == "markdown" else f"```python\n{t}\n```" for kind, t in zip(kinds, others, strict=True)]
    link = "This page is a notebook: {download}`notebook.ipynb <../notebook.ipynb>`."
    return "\n\n".join([first, link, *shown]) + "\n"


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
