"""Templates: how each package fills its own, and those of this package."""

from __future__ import annotations

import base64
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def environment(package: str, autoescape: bool = True) -> Environment:
    """Returns what reads the templates in a package's folder templates/. A value that is missing is an error."""
    return Environment(
        loader=PackageLoader(package),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


_TEMPLATES = environment("ganlab.display")


def render(template: str, **values: Any) -> str:
    """Returns HTML; every value is escaped."""
    return _TEMPLATES.get_template(f"{template}.html").render(values)


def data_url(png: bytes) -> str:
    """Returns a PNG file as the address of an image in a page."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
