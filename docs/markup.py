"""Writes Markdown for MyST: escaped prose, tables, directives."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence

_SPECIAL = re.compile(r"([\\*_\[\]<>{}#$~&^])")
_PAPER = re.compile(r"(\barXiv:(\d{4}\.\d{4,5}))")


def code(text: str) -> str:
    """Returns inline code. `text` may hold anything but a line break."""
    ticks = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"


def prose(text: str, links: Mapping[str, str]) -> str:
    """Returns a docstring as Markdown: code, items and tables stay, everything else is escaped.

    `links` is {inline code: the object that it names}. arXiv numbers become links.
    """
    parts = re.split(r"`([^`]+)`", text)
    return "".join(_code(part, links) if odd % 2 else _plain(part) for odd, part in enumerate(parts))


def _code(text: str, links: Mapping[str, str]) -> str:
    return f"{{py:obj}}`{text} <{links[text]}>`" if text in links else code(text)


def _plain(text: str) -> str:
    return _PAPER.sub(r"[\1](https://arxiv.org/abs/\2)", _SPECIAL.sub(r"\\\1", text))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table. Cells are Markdown on one line."""

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(" ".join(cell.split()).replace("|", r"\|") for cell in cells) + " |"

    return "\n".join([line(header), line("---" for _ in header), *map(line, rows)])


def directive(name: str, argument: str = "", body: str = "", **options: str | None) -> str:
    """Returns a directive. `body` may hold directives; an option that is None is left out."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("^`{3,}", body, re.M)), default=2))
    # options are YAML, and JSON is a subset of it
    said = [f":{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in options.items() if value is not None]
    return "\n".join([f"{fence}{{{name}}} {argument}".rstrip(), *said, *(["", body] if body else []), fence])


def page(title: str, *parts: str) -> str:
    return "\n\n".join([f"# {title}", *filter(None, parts)]) + "\n"
