"""Loads the installed plugins and collects their components.

A plugin that can't be loaded is kept with the reason, and so is a class that is no valid component. The other plugins,
and the other classes of the plugin, work without it. The import of a plugin may raise anything; KeyboardInterrupt alone
is raised again, because the user asked for it. Settings of torch and numpy, random generators, filters of warnings and
the working folder are restored after the import.
"""

from __future__ import annotations

import functools
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import Distribution, EntryPoint, distributions, entry_points
from typing import Any, NamedTuple

import pluggy

from ganlab.components.docstrings import about
from ganlab.components.options import KINDS, nearest, schema, signature
from ganlab.determinism import untouched_settings
from ganlab.errors import SpecError, one_line
from ganlab.interfaces import hooks as hookspecs
from ganlab.interfaces.callbacks import Callback
from ganlab.interfaces.losses import Loss
from ganlab.interfaces.metrics import Metric
from ganlab.interfaces.networks import SEES, Discriminator, Features, Generator
from ganlab.interfaces.schedules import PLAYERS
from ganlab.torch_utils import shown

GROUP = "ganlab"
"""The entry-point group of plugins."""


_NAME = "[A-Za-z0-9_][A-Za-z0-9._-]{0,99}"


_PLURALS = {"loss": "losses", "features": "features"}


HOOKS = {kind: f"ganlab_{_PLURALS.get(kind, f'{kind}s')}" for kind in KINDS}
"""{kind: the hook that contributes components of this kind}."""


class Component(NamedTuple):
    """A class that a spec can name, and the plugin and package that it comes from."""

    kind: str
    name: str
    cls: type
    plugin: str
    package: str
    version: str

    @property
    def owner(self) -> str:
        """The plugin and the package, as messages name them."""
        return f"plugin {self.plugin!r} of {self.package} {self.version}"

    @property
    def full_name(self) -> str:
        """The kind, name and owner, as messages name the component."""
        return f"{self.kind} {self.name!r} of {self.owner}"

    @property
    def about(self) -> str:
        """The first sentence of the class's docstring."""
        paragraph = " ".join(about(self.cls).split("\n\n")[0].split())
        return re.split(r"(?<=[.!?]) (?=[A-Z`])", paragraph)[0]

    def as_dict(self) -> dict[str, Any]:
        """Returns the component as JSON, with the schema of its options instead of its class."""
        fields = {k: v for k, v in self._asdict().items() if k != "cls"}
        return {**fields, "about": self.about, "options": schema(self.cls)}


class Broken(NamedTuple):
    """A plugin that could not be loaded, or one of its components that can't be used."""

    plugin: str
    package: str
    version: str
    reason: str
    kind: str = ""
    """The kind of the component; "" if it is the whole plugin."""
    name: str = ""
    """The name of the component."""

    @property
    def sentence(self) -> str:
        """The fault, as messages state it."""
        if self.kind:
            return f"{self.kind} {self.name!r} of plugin {self.plugin!r} can't be used: {self.reason}"
        return f"plugin {self.plugin!r} is broken: {self.reason}"


class Registry:
    """The components of all plugins that could be loaded. `broken` lists the other plugins and components."""

    def __init__(self, points: Iterable[EntryPoint | Broken]) -> None:
        self._components: dict[tuple[str, str], Component] = {}
        self._plugins: dict[str, str] = {}
        self.broken: list[Broken] = []
        for point in points:
            if isinstance(point, Broken):
                self.broken.append(point)
                continue
            package, version = _owner(point.dist)
            try:
                if point.name in self._plugins:
                    raise ValueError(f"the plugin name {point.name!r} is taken by {self._plugins[point.name]}")
                given = self._load(point)
            except KeyboardInterrupt:
                raise
            # an import may raise anything: sys.exit, pytest.skip and panics of Rust code raise no Exception
            except BaseException as error:
                self.broken.append(Broken(point.name, package, version, _reason(error)))
                continue
            self._plugins[point.name] = f"{package} {version}"
            for kind, name, cls in given:
                self._add(kind, name, cls, point.name, package, version)

    def _load(self, point: EntryPoint) -> list[tuple[str, Any, Any]]:
        """Returns (kind, name, class) of everything that a plugin gives, not yet checked."""
        if EntryPoint.pattern.match(point.value) is None:
            raise ValueError(f"its entry point {point.value!r} names no module")
        # one manager for each plugin, so that a failing hook concerns this plugin alone
        manager = pluggy.PluginManager("ganlab")
        manager.add_hookspecs(hookspecs)
        # the output of a plugin must not mix with the output of a command, which may be JSON
        with redirect_stdout(sys.stderr), warnings.catch_warnings(), untouched_settings(), _same_folder():
            plugin = point.load()
            kinds = _kinds(manager, plugin)
            manager.register(plugin, name=point.name)
            return [(kind, *item) for kind in kinds for item in _contribution(manager, kind)]

    def _add(self, kind: str, name: Any, cls: Any, plugin: str, package: str, version: str) -> None:
        try:
            if not isinstance(name, str) or not (isinstance(cls, type) and issubclass(cls, KINDS[kind])):
                raise TypeError(f"{HOOKS[kind]} gives {name!r}: {cls!r}, which is no {KINDS[kind].__name__} class")
            if re.fullmatch(_NAME, name) is None:
                raise ValueError(f"the {kind} name {name!r} is not allowed: at most 100 letters, digits, '.', '_', '-'")
            if (taken := self._components.get((kind, name))) is not None:
                raise ValueError(f"the {kind} name {name!r} is taken by {taken.owner}")
            signature(cls)
            check_contract(cls)
        except KeyboardInterrupt:
            raise
        # what a hook gives may be any object, and raise anything when it is looked at
        except BaseException as error:
            self.broken.append(Broken(plugin, package, version, _reason(error), kind, shown(name).strip("'")))
        else:
            self._components[kind, name] = Component(kind, name, cls, plugin, package, version)

    def find(self, kind: str, name: str, where: str) -> Component:
        """Returns a component. Raises SpecError with the nearest name if there is none; `where` opens the message."""
        if (component := self._components.get((kind, name))) is not None:
            return component
        for broken in self.broken:
            if (broken.kind, broken.name) == (kind, name):
                raise SpecError(f"{where}: {broken.sentence}")
        # first, because a plugin that could not be loaded may be the reason
        others = "".join(f"; {broken.sentence}" for broken in self.broken if not broken.kind)
        raise SpecError(f"{where}: there is no {kind} {name!r}{others}{nearest(name, self.names(kind))}")

    def names(self, kind: str) -> list[str]:
        """Returns the names of all components of a kind."""
        return [name for k, name in self._components if k == kind]

    def shipped_features(self) -> list[str]:
        """Returns the names of the feature networks that a package ships with their weights."""
        return [c.name for c in self.components if issubclass(c.cls, Features) and c.cls.shipped]

    def callbacks_by_default(self) -> list[str]:
        """Returns the names of the callbacks that every run has."""
        return [c.name for c in self.components if issubclass(c.cls, Callback) and c.cls.on_by_default]

    @property
    def components(self) -> list[Component]:
        """All components, sorted by kind and name."""
        return sorted(self._components.values(), key=lambda c: (list(KINDS).index(c.kind), c.name))


@contextmanager
def _same_folder() -> Iterator[None]:
    try:
        before = os.getcwd()
    except FileNotFoundError:
        # somebody removed it
        before = None
    try:
        yield
    finally:
        if before is not None:
            os.chdir(before)


def _kinds(manager: pluggy.PluginManager, plugin: object) -> list[str]:
    """Returns the kinds that a plugin has hooks for. Raises TypeError if a hook is misspelt or not marked."""
    kinds = []
    for name in dir(plugin):
        marked = manager.parse_hookimpl_opts(plugin, name) is not None
        if name in HOOKS.values() and not marked:
            raise TypeError(f"{name} is not marked with @ganlab.hookimpl")
        if marked and name not in HOOKS.values():
            raise TypeError(f"there is no hook {name!r}{nearest(name, HOOKS.values())}")
        if marked:
            kinds.append(next(kind for kind, hook in HOOKS.items() if hook == name))
    if not kinds:
        raise TypeError(f"has none of the hooks {', '.join(sorted(HOOKS.values()))}")
    return kinds


def _contribution(manager: pluggy.PluginManager, kind: str) -> Iterator[tuple[Any, Any]]:
    # pluggy leaves out a hook that returns None
    for given in getattr(manager.hook, HOOKS[kind])() or [None]:
        if not isinstance(given, Mapping):
            raise TypeError(f"{HOOKS[kind]} gives {given!r}, not {{name: class}}")
        yield from given.items()


def _owner(package: Distribution | None) -> tuple[str, str]:
    """Returns the name and version of an entry point's package."""
    try:
        name, version = (package.name, package.version) if package else (None, None)
    # damaged metadata
    except Exception:
        name, version = None, None
    return name or "unknown", version or "unknown"


def check_contract(cls: type) -> None:
    """Raises TypeError if a class breaks a part of its interface that its constructor doesn't show."""
    if not all(isinstance(base.__doc__, str | None) for base in cls.__mro__):
        raise TypeError(f"{cls.__name__}.__doc__ is no text")
    if issubclass(cls, Loss) and cls.trains not in PLAYERS:
        raise TypeError(f"{cls.__name__}.trains is {cls.trains!r}, not one of {', '.join(PLAYERS)}")
    check_nested(cls)
    if issubclass(cls, Discriminator) and cls.sees not in SEES:
        raise TypeError(f"{cls.__name__}.sees is {cls.sees!r}, not one of {', '.join(SEES)}")
    if (
        issubclass(cls, Discriminator)
        and cls.forward is Discriminator.forward
        and cls.features is Discriminator.features
    ):
        raise TypeError(f"{cls.__name__} has neither features nor forward")
    if issubclass(cls, Features) and type(getattr(cls, "size", None)) is not int:
        raise TypeError(f"{cls.__name__}.size is {getattr(cls, 'size', 'missing')!r}, not a number of pixels")
    if issubclass(cls, Metric) and cls.measure is Metric.measure:
        raise TypeError(f"{cls.__name__} has no measure")
    if issubclass(cls, Callback) and cls.on_by_default:
        required = [name for name, field in signature(cls).model.model_fields.items() if field.is_required()]
        if required := [*required, *signature(cls).nested]:
            raise TypeError(f"{cls.__name__} is on by default, but its options {', '.join(required)} have no defaults")
    if (
        issubclass(cls, Generator)
        and "pair" not in vars(cls)
        and cls.encode is Generator.encode
        and cls.features is Generator.features
    ):
        raise TypeError(f"{cls.__name__} has neither encode nor features")


def check_nested(cls: type) -> None:
    """Raises TypeError if a loss takes a network that the core has to build for a domain or a direction."""
    for option, kind in signature(cls).nested.items() if issubclass(cls, Loss) else ():
        if kind == "discriminator":
            instead = "name it in the spec's `discriminators` and read its scores with t.score"
        elif kind == "generator":
            instead = "the spec's `generator` is read with t.encode, t.decode and t.translate"
        else:
            continue
        raise TypeError(f"{cls.__name__}.__init__ takes a {kind}, {option!r}: {instead}")


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {one_line(error) or 'no message'}"


def installed() -> list[EntryPoint | Broken]:
    """Returns the entry points of all plugins, ganlab's own first, so that no other package can take their names."""
    unreadable: list[Broken] = []
    try:
        points: Iterable[EntryPoint] = entry_points(group=GROUP)
    # the metadata of one package are damaged; reading each package on its own is slower but finds the others
    except Exception:
        points = _one_by_one(unreadable)
    unique: dict[tuple[bool, str, str, str], EntryPoint] = {}
    for point in points:
        package, _ = _owner(point.dist)
        unique.setdefault((package.lower() != GROUP, package, point.name, point.value), point)
    return [*(unique[key] for key in sorted(unique)), *unreadable]


def _one_by_one(unreadable: list[Broken]) -> list[EntryPoint]:
    points: list[EntryPoint] = []
    seen: set[str] = set()
    for package in distributions():
        name, version = _owner(package)
        # of two installed versions, Python imports the first on the path
        if name != "unknown" and name in seen:
            continue
        seen.add(name)
        try:
            points += [point for point in package.entry_points if point.group == GROUP]
        except Exception as error:
            unreadable.append(Broken("entry_points.txt", name, version, f"can't be read: {_reason(error)}"))
    return points


@functools.cache
def registry() -> Registry:
    """Returns the registry of all installed plugins, which is loaded once a process."""
    return Registry(installed())
