"""Makes the paths in a spec absolute: the options annotated `Path`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ganlab.components.options import signature
from ganlab.components.registry import registry
from ganlab.errors import SpecError

_SHAPE = {
    "data": {"a": "source", "b": "source", "root": Path},
    "generator": "generator",
    "discriminators": {"*": "discriminator"},
    "losses": {"*": "loss"},
    "schedule": "schedule",
    "init": {"run": Path},
    "callbacks": {"*": "callback"},
    "evaluation": {"features": "features", "metrics": {"*": "metric"}},
}
"""Where a spec holds components, and of which kind. "*" stands for every key and for every item."""


def anchored(value: Any, folder: Path, shape: Any = _SHAPE) -> Any:
    """Returns a spec, or a part of one, whose relative paths start at `folder`. The spec may be incomplete or wrong."""
    if shape is Path:
        return absolute(value, folder)
    if isinstance(shape, str) and isinstance(value, dict):
        shape = _options(shape, value.get("type"))
    if isinstance(shape, Mapping) and isinstance(value, dict):
        return {key: anchored(inner, folder, shape.get(key, shape.get("*"))) for key, inner in value.items()}
    if isinstance(shape, Mapping) and isinstance(value, list):
        return [anchored(inner, folder, shape.get("*")) for inner in value]
    return value


def each_path(value: Any, change: Callable[[Any], Any]) -> Any:
    """Changes the value of an option that is a path, a list of paths or an object of paths: each path alone."""
    if isinstance(value, list):
        return [each_path(path, change) for path in value]
    if isinstance(value, dict):
        return {name: each_path(path, change) for name, path in value.items()}
    return change(value)


def absolute(value: Any, folder: Path) -> Any:
    """Returns a path, or each path of a list or an object, as an absolute one; "~" is the user's home folder. Returns
    any other value as it is. Raises SpecError if a spec can't hold the path."""
    return each_path(value, lambda path: _absolute(path, folder))


def _absolute(value: Any, folder: Path) -> Any:
    if not isinstance(value, str) or not value:
        return value
    try:
        path = str(folder.resolve() / Path(value).expanduser())
        path.encode()
    except RuntimeError:
        # no such home folder
        return value
    except UnicodeEncodeError as error:
        raise SpecError(f"{value!r} starts at {str(folder)!r}, and a name that is not UTF-8 can't be kept") from error
    return path


def _options(kind: str, name: Any) -> dict[str, Any]:
    """Returns the shape of a component: {option: the kind of the nested component, or Path}.

    Without a name, which the spec that extends this one may give, of all components of the kind.
    """
    fitting = [signature(c.cls) for c in registry().components if c.kind == kind and name in (None, c.name)]
    return {option: inner for sign in fitting for option, inner in sign.nested.items()} | {
        option: Path for sign in fitting for option in sign.paths
    }
