"""Writes a new plugin: a package with a component that works, and its test. The texts are in `templates`."""

from __future__ import annotations

import re
from importlib.resources import files
from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path
from string import Template

from ganlab.errors import SpecError

KINDS = ("loss", "generator", "discriminator", "schedule", "metric", "source", "callback")
"""The kinds of component that have templates."""

LONGEST = 25
"""The greatest length of a name. With longer names a formatter would break lines that contain the name."""


def new(kind: str, name: str, into: Path = Path()) -> list[Path]:
    """Writes the folder `into`/`name`, a package ready for `pip install -e`. Returns the files written.

    A name consists of lower-case ASCII letters, digits and inner _, starts with a letter and has at most `LONGEST`
    characters.

    Raises SpecError, with nothing written, if the kind is unknown, if the name is not allowed, is a keyword of Python
    or is taken (by an installed component of that kind, a plugin or a package `ganlab_NAME`), or if the folder exists.
    """
    if kind not in KINDS:
        raise SpecError(f"there is no template for the kind {kind!r}; known kinds: {', '.join(KINDS)}")
    _check_name(name)
    _refuse_taken(kind, name)
    folder = into / name
    values = {
        "name": name,
        "kind": kind,
        "package": f"ganlab_{name}",
        "project": f"ganlab-{name.replace('_', '-')}",
        "cls": _class_name(name, kind),
    }
    templates = {
        folder / "pyproject.toml": "pyproject.toml",
        folder / values["package"] / "__init__.py": f"{kind}.py",
        folder / "tests" / f"test_{name}.py": f"test_{kind}.py",
    }
    try:
        folder.mkdir()
    except FileExistsError:
        raise SpecError(f"{str(folder)!r} exists already; choose another name, or move it away") from None
    for path, template in templates.items():
        text = files("ganlab.components").joinpath("templates", f"{template}.template").read_text("utf-8")
        path.parent.mkdir(exist_ok=True)
        path.write_text(Template(text).substitute(values), "utf-8")
    return list(templates)


def _check_name(name: str) -> None:
    if not _is_name(name):
        snake = re.sub("(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
        raise SpecError(
            f"{name!r} can't be a name: use a lower-case letter, then lower-case letters, digits and inner _"
            f"{f'; did you mean {snake!r}?' if _is_name(snake) else ''}"
        )
    if len(name) > LONGEST:
        raise SpecError(f"{name!r} can't be a name: it has {len(name)} characters, and at most {LONGEST} are allowed")
    if iskeyword(name):
        raise SpecError(f"{name!r} can't be a name: it is a keyword of Python; choose another")


def _is_name(text: str) -> bool:
    return re.fullmatch("[a-z]([a-z0-9_]*[a-z0-9])?", text) is not None


def _refuse_taken(kind: str, name: str) -> None:
    # the registry imports torch, which a refused name does not need
    from ganlab.components.registry import registry

    for component in registry().components:
        if (component.kind, component.name) == (kind, name) or component.plugin == name:
            raise SpecError(f"{name!r} is taken by the {component.full_name}")
    for broken in registry().broken:
        if broken.plugin == name:
            raise SpecError(f"{name!r} is taken by a plugin of {broken.package} {broken.version}: {broken.sentence}")
    if find_spec(f"ganlab_{name}") is not None:
        raise SpecError(f"{name!r} can't be a name: its package ganlab_{name} is installed already; choose another")


def _class_name(name: str, kind: str) -> str:
    """Returns the class's name: `soft_edges` gives SoftEdgesLoss. The kind avoids clashes with the module's imports."""
    camel = "".join(word[:1].upper() + word[1:] for word in name.split("_"))
    return camel if camel.endswith(kind.title()) else camel + kind.title()
