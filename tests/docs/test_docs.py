"""The documentation builds without a warning, has no dead link and covers every public name."""

from __future__ import annotations

import inspect
import json
import re
import zlib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import typer.main

import ganlab
from ganlab import testing
from ganlab.cli import commands as cli
from ganlab.components.options import KINDS, signature
from ganlab.components.registry import HOOKS, registry
from ganlab.evaluation import estimates
from ganlab.spec.models import Spec, Weight
from helpers.paths import DOCS, ROOT
from helpers.processes import Forker

OWN = [component for component in registry().components if component.package == "ganlab"]

RECORDS = ["Domain", "Turn", "Translation", "MetricInfo", "Estimate", "MetricInputs", "Images", "Run"]
RECORDS += ["TrainingStart", "Measurement", "TrainingEnd"]
"""The records that plugins receive or return."""


class Node:
    """An element of a page."""

    def __init__(self, tag: str, attributes: dict[str, str], parent: Node | None) -> None:
        self.tag, self.attributes, self.parent = tag, attributes, parent
        self.children: list[Node | str] = []

    def __iter__(self) -> Iterator[Node]:
        """Yields this element and all elements inside it."""
        yield self
        for child in self.children:
            if isinstance(child, Node):
                yield from child

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children).strip()

    def own(self, *tags: str) -> list[Node]:
        """Returns its children with these tags."""
        return [child for child in self.children if isinstance(child, Node) and child.tag in tags]


class Page(HTMLParser):
    """A page as a tree."""

    EMPTY = ("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.root = self.at = Node("", {}, None)
        self.feed(html)
        self.ids = {node.attributes["id"]: node for node in self.root if "id" in node.attributes}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {key: value or "" for key, value in attrs}, self.at)
        self.at.children.append(node)
        if tag not in self.EMPTY:
            self.at = node

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.at.children.append(Node(tag, {key: value or "" for key, value in attrs}, self.at))

    def handle_endtag(self, tag: str) -> None:
        node: Node | None = self.at
        while node is not None and node.tag != tag:
            node = node.parent
        if node is not None and node.parent is not None:
            self.at = node.parent

    def handle_data(self, data: str) -> None:
        self.at.children.append(data)


class Site:
    """The built pages, and Sphinx's inventory of what they define."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pages = {
            path.relative_to(folder).as_posix(): Page(path.read_text("utf-8")) for path in folder.rglob("*.html")
        }
        self.inventory: dict[tuple[str, str], str] = {}
        lines = zlib.decompress((folder / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode().splitlines()
        for line in lines:
            name, _, rest = line.partition(" ")
            kind, _, place, _ = rest.split(" ", 3)
            self.inventory[kind, name] = place.replace("$", name)

    def find(self, kind: str, name: str) -> Node:
        """The element that documents an object."""
        assert (kind, name) in self.inventory, f"{kind} {name} is not documented"
        page, _, anchor = self.inventory[kind, name].partition("#")
        return self.pages[page].ids[anchor]

    def says(self, kind: str, name: str) -> str:
        """The text about an object, without the text about its members."""
        term = self.find(kind, name)
        assert term.parent is not None
        siblings = term.parent.own("dt", "dd")
        about = next(node for node in siblings[siblings.index(term) :] if node.tag == "dd")
        return " ".join(paragraph.text for paragraph in about.own("p", "ul", "table"))


@pytest.fixture(scope="module")
def site(forker: Forker, tmp_path_factory: pytest.TempPathFactory) -> Site:
    out = tmp_path_factory.mktemp("site")
    options = ["-q", "-n", "-W", "--keep-going", "-b", "html", "-d", str(out / "doctrees")]
    done = forker.run("-m", "sphinx", *options, str(DOCS), str(out / "html"), python=True)
    assert done.code == 0, done.said
    return Site(out / "html")


def public(cls: type) -> set[str]:
    """Returns the names of the public members that a class has of its own."""
    return {name for name in {*vars(cls), *inspect.get_annotations(cls)} if not name.startswith("_")}


def test_every_link_leads_somewhere(site: Site) -> None:
    wrong, links = [], 0
    for name, page in site.pages.items():
        for node in page.root:
            for key in ("href", "src"):
                target = urlsplit(node.attributes.get(key, ""))
                if key not in node.attributes or target.scheme or target.netloc:
                    continue
                links += 1
                at = (site.folder / name).parent / unquote(target.path) if target.path else site.folder / name
                place = at.resolve().relative_to(site.folder.resolve()).as_posix()
                found = at.is_file()
                if found and target.fragment and place in site.pages:
                    found = unquote(target.fragment) in site.pages[place].ids
                if not found:
                    wrong.append(f"{name}: {node.attributes[key]}")
    assert not wrong
    assert links > 1000


def test_every_page_is_in_the_navigation(site: Site) -> None:
    index = site.pages["index.html"]
    linked = {node.attributes["href"].partition("#")[0] for node in index.root if "href" in node.attributes}
    assert {name for name in site.pages if "_" not in name} - linked <= {"index.html", "genindex.html", "search.html"}


def test_code_that_names_what_is_documented_leads_there(site: Site) -> None:
    members = {f"t.{name}": f"ganlab.Translation.{name}" for name in public(ganlab.Translation)}
    for interface in KINDS.values():
        members |= {f"{interface.__name__}.{n}": f"ganlab.{interface.__name__}.{n}" for n in public(interface)}
    found: dict[str, set[str]] = {}
    for name, page in site.pages.items():
        for node in page.root:
            if node.tag == "code" and node.parent is not None and node.parent.tag not in ("h1", "h2", "h3"):
                found.setdefault(node.text, set()).add(node.parent.attributes.get("href", f"nowhere, from {name}"))
    for name in members.keys() & found.keys():
        assert {urlsplit(href).fragment for href in found[name]} == {members[name]}, name
    assert {"t.fake", "t.cycled", "t.uniform"} <= found.keys()
    assert {href.rpartition("/")[2] for href in found["hinge_gan"]} == {"loss.html#ganlab_adversarial.Hinge"}
    # a name of several kinds, or of an option too, leads to no component
    assert not any("#ganlab_" in href for name in ("digits", "embedding") for href in found.get(name, ()))


def test_it_lists_losses_from_the_common_to_the_rare(site: Site) -> None:
    headings = [node.text.rstrip("¶") for node in site.pages["reference/loss.html"].root if node.tag == "h2"]
    assert headings[:6] == ["lsgan", "cycle", "identity", "hinge_gan", "non_saturating", "wasserstein"]


@pytest.mark.parametrize("word", ["direction", "turn", "step", "term", "player", "domain", "embedding", "critic"])
def test_the_glossary_explains(site: Site, word: str) -> None:
    assert site.says("std:term", word)


@pytest.mark.parametrize("stem", ["resum", "translat", "gpu"])
def test_its_search_finds(site: Site, stem: str) -> None:
    index = (site.folder / "searchindex.js").read_text("utf-8")
    pages = json.loads(index.removeprefix("Search.setIndex(").removesuffix(")"))
    found = [pages[terms].get(stem, []) for terms in ("terms", "titleterms")]
    assert any(pages["docnames"].index("use") in (f if isinstance(f, list) else [f]) for f in found)


@pytest.mark.parametrize("path", [ROOT / "README.md", *sorted(DOCS.glob("*.md"))], ids=lambda path: path.name)
def test_every_code_block_names_its_language(path: Path) -> None:
    fences = re.findall(r"^\s*```(.*)$", path.read_text("utf-8"), re.M)
    assert len(fences) % 2 == 0
    assert all(fences[::2])
    assert not any(fences[1::2])


def test_no_markup_is_left(site: Site) -> None:
    for name, page in site.pages.items():
        prose = [node.text for node in page.root if node.tag in ("p", "td", "li")]
        for text in prose:
            assert not any(mark in text for mark in ("`", ":::", "{py:", "{doc}", "{ref}", "](")), f"{name}: {text}"


def test_the_specs_that_it_shows_merge_as_it_says(tmp_path: Path) -> None:
    text = (DOCS / "spec.md").read_text("utf-8")
    plain, differences = re.findall(r"```json\n(.*?)```", text, re.S)
    (tmp_path / "plain.json").write_text(plain)
    (tmp_path / "mine.json").write_text(differences)
    before, after = (ganlab.load_spec(tmp_path / f"{name}.json") for name in ("plain", "mine"))
    assert (after.name, after.about, before.data.batch, after.data.batch) == ("mine", "", 8, 4)
    assert {name: loss["type"] for name, loss in after.losses.items()} == {
        "adversarial": "non_saturating",
        "cycle": "cycle",
    }
    assert after.weight("cycle") == {"generator": 5, "discriminator": 5}
    assert (after.generator, after.schedule) == (before.generator, before.schedule)


@pytest.mark.parametrize("hook", HOOKS.values())
def test_every_hook(site: Site, hook: str) -> None:
    assert site.says("py:function", f"ganlab.interfaces.hooks.{hook}")


@pytest.mark.parametrize("name", [interface.__name__ for interface in KINDS.values()] + RECORDS)
def test_every_interface_with_its_members(site: Site, name: str) -> None:
    cls = getattr(ganlab, name)
    assert site.says("py:class", f"ganlab.{name}")
    fields = inspect.get_annotations(cls)
    assert public(cls)
    for member in public(cls):
        found = None if member in fields else inspect.getattr_static(cls, member)
        kind = "method" if inspect.isroutine(found) else "property" if isinstance(found, property) else "attribute"
        assert site.says(f"py:{kind}", f"ganlab.{name}.{member}"), member


@pytest.mark.parametrize("name", [name for name in ganlab.__all__ if name != "hookimpl"])
def test_every_public_name(site: Site, name: str) -> None:
    thing = getattr(ganlab, name)
    kinds = [kind for kind in ("function", "class", "exception") if (f"py:{kind}", f"ganlab.{name}") in site.inventory]
    assert kinds == [
        "function" if inspect.isfunction(thing) else "exception" if issubclass(thing, Exception) else "class"
    ]
    assert site.says(f"py:{kinds[0]}", f"ganlab.{name}")


@pytest.mark.parametrize("name", testing.__all__)
def test_every_check(site: Site, name: str) -> None:
    assert site.says("py:function", f"ganlab.testing.{name}")


@pytest.mark.parametrize(
    "name", [name for name, thing in vars(estimates).items() if getattr(thing, "__module__", "") == estimates.__name__]
)
def test_every_maker_of_estimates(site: Site, name: str) -> None:
    assert site.says("py:function", f"ganlab.evaluation.estimates.{name}")


def test_every_command_with_its_options(site: Site) -> None:
    page = site.pages["reference/command-line.html"]
    group: Any = typer.main.get_command(cli.app)
    commands = {"command-line": group, **{f"ganlab-{name}": command for name, command in group.commands.items()}}
    commands |= {f"ganlab-data-{name}": command for name, command in group.commands["data"].commands.items()}
    assert len(commands) > 5
    for anchor, command in commands.items():
        assert page.ids[anchor].own("p")[0].text, anchor
        program = anchor if command is not group else "ganlab"
        for parameter in command.params:
            for name in parameter.opts if parameter.param_type_name == "option" else [parameter.metavar]:
                assert site.says("std:cmdoption", f"{program}.{name}"), name


@pytest.mark.parametrize("component", OWN, ids=lambda component: f"{component.kind}-{component.name}")
def test_every_component_with_its_options(site: Site, component: ganlab.registry.Component) -> None:
    section = site.find("std:label", f"{component.kind}-{component.name}")
    cls = component.cls
    assert [h.text.rstrip("¶") for h in section.own("h2")] == [component.name]
    assert site.says("py:class", f"{cls.__module__}.{cls.__qualname__}"), "its class says nothing"
    (plugin,) = [p.text for p in section.own("p") if p.text.startswith("From plugin")]
    assert plugin.startswith(f"From plugin {component.plugin}: ")
    rows = [[cell.text for cell in row.own("td")] for row in section if row.tag == "tr"]
    said = {row[0]: row[3] for row in rows if len(row) == 4}
    options = {*signature(cls).model.model_fields, *signature(cls).nested}
    assert {name for name in said if "." not in name} == options
    assert all(said.values()), said


def test_every_key_of_a_spec(site: Site) -> None:
    keys = {f"losses.NAME.weight.{key}" for key in Weight.model_fields} | {"losses.NAME.weight", "extends", "$schema"}
    for name, field in Spec.model_fields.items():
        keys |= {name, *(f"{name}.{key}" for key in getattr(field.annotation, "model_fields", {}))}
    assert {name for kind, name in site.inventory if kind == "std:confval"} == keys
    for key in keys:
        assert site.says("std:confval", key), key
