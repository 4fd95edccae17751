"""Renders a page from a template: one HTML file that holds its styles, scripts, data and pictures."""

from __future__ import annotations

import functools
import json
import secrets
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from ganlab.display.html import environment
from ganlab.errors import RunError
from ganlab.spec.models import Json

RELOAD_SECONDS = 30
"""Seconds after which the page of an unfinished run reloads."""


def render(template: str, context: Mapping[str, Any]) -> bytes:
    """Returns a page. `context` has at least "title", "faces", and every name that the template uses.

    All text is escaped: names and descriptions may hold any characters. The page allows no script but its own and
    loads nothing.
    """
    now = datetime.now(UTC).astimezone()
    frame = {
        "version": version("ganlab"),
        "written": now.isoformat(timespec="seconds"),
        "written_words": now.strftime("%d %B %Y, %H:%M:%S %Z"),
        # a script in the text of a page can't know it, so the browser does not run it
        "nonce": secrets.token_urlsafe(16),
        "reload": 0,
        "sections": (),
        "charts": (),
    }
    text = _environment().get_template(template).render({**frame, **context})
    # names of files need not be text
    return text.encode(errors="backslashreplace")


def drawn(charts: Iterable[Json]) -> list[Json]:
    """Returns the charts of `curves` with what a template shows beside them: "index", and "last" of each line."""
    return [
        {
            **chart,
            "index": index,
            "lines": [{**line, "last": _last(line["y"])} for line in chart["lines"]],
        }
        for index, chart in enumerate(charts)
    ]


def _last(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{known[-1]:.3g}" if known else ""


_GROUPS = {
    "generator": "Generators",
    "discriminator": "Discriminators",
    "evaluation": "Measured during training",
    "other": "Other values",
}


def _runs_of(items: Iterable[Json], key: str) -> list[tuple[str, list[Json]]]:
    """Returns [(value of the key, items that follow each other with this value)]: Jinja's groupby without sorting."""
    return [(value, list(inner)) for value, inner in groupby(items, lambda item: str(item[key]))]


def _curves_only(charts: Iterable[Json]) -> list[Json]:
    """Returns what the script needs of the charts."""
    kept = ("name", "colour", "y", "low", "high")
    return [
        {"x": chart["x"], "lines": [{key: line[key] for key in kept if key in line} for line in chart["lines"]]}
        for chart in charts
    ]


@functools.cache
def _environment() -> Environment:
    made = environment("ganlab.report")
    made.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    made.filters["runs_of"] = _runs_of
    made.globals["group_names"] = _GROUPS
    made.filters["curves_only"] = _curves_only
    made.globals["asset"] = _asset
    made.globals["library"] = _library
    return made


@functools.cache
def _asset(name: str) -> Markup:
    return Markup(Path(__file__).with_name("templates").joinpath(name).read_text("utf-8"))


@functools.cache
def _library(name: str) -> Markup:
    """Returns a file of Bokeh's JavaScript, as its package holds it."""
    # found, not imported: the package itself is not needed
    found = find_spec("bokeh")
    if found is None or found.origin is None:
        raise RunError("the package bokeh, which ganlab needs for its pages, is not installed")
    text = Path(found.origin).with_name("server").joinpath("static", "js", name).read_text("utf-8")
    return Markup(text.replace("</script", "<\\/script"))


def as_text(value: Any) -> str:
    """Returns a value of a spec as a page shows it: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
