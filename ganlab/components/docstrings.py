"""Reads the docstring of a component: the description of the class, and of its options in the section `Args:`."""

from __future__ import annotations

import inspect
import re

# the lines of a section, and of an entry in it, are indented or empty
_LINES = r"(?:\n(?:[ \t].*)?$)*"


_SECTION = re.compile(rf"\n*^Args:[ \t]*$({_LINES})", re.M)


_ENTRY = re.compile(rf"^(\w+)(?: \(.*?\))?:(.*{_LINES})", re.M)


def about(cls: type) -> str:
    """Returns the description of the class, from its own docstring."""
    return joined(cls.__doc__ or "")


def joined(docstring: str) -> str:
    """Returns a docstring without its section `Args:`, each paragraph as one line."""
    text = _SECTION.sub("\n", inspect.cleandoc(docstring)).strip()
    # the rows of a table and the items of a list keep their lines
    return re.sub(r"(?<!\n)\n(?=[^\s|*-])", " ", text)


def described(cls: type) -> dict[str, str]:
    """Returns {option: description} from the section `Args:` of the class, or of the nearest base that describes it."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        found |= documented(base)
    return found


def documented(cls: type) -> dict[str, str]:
    """Returns {option: description} from the section `Args:` of the class's own docstring."""
    found: dict[str, str] = {}
    # inspect.getdoc would return the docstring of a base
    for section in _SECTION.findall(inspect.cleandoc(cls.__doc__ or "")):
        entries = _ENTRY.findall(inspect.cleandoc(section))
        found |= {option: " ".join(text.split()) for option, text in entries}
    return found
