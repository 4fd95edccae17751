"""What a class's docstring says: of the class, and, in a Google-style section `Args:` at its end, of its options."""

from __future__ import annotations

import inspect
import re

# each line of a section, and of an entry in it, is indented or empty
_LINES = r"(?:\n(?:[ \t].*)?$)*"
_SECTION = re.compile(rf"\n*^Args:[ \t]*$({_LINES})", re.M)
_ENTRY = re.compile(rf"^(\w+)(?: \(.*?\))?:(.*{_LINES})", re.M)


def about(cls: type) -> str:
    """The class's own docstring, joined."""
    return joined(cls.__doc__ or "")


def joined(docstring: str) -> str:
    """A docstring without its section `Args:`; paragraphs are one line each."""
    text = _SECTION.sub("\n", inspect.cleandoc(docstring)).strip()
    # the rows of a table, and items, stay apart
    return re.sub(r"(?<!\n)\n(?=[^\s|*-])", " ", text)


def described(cls: type) -> dict[str, str]:
    """{option: its description} from the class's section `Args:`, and from its bases' of those that it leaves out."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        for section in _SECTION.findall(_own(base)):
            entries = _ENTRY.findall(inspect.cleandoc(section))
            found |= {option: " ".join(text.split()) for option, text in entries}
    return found


def _own(cls: type) -> str:
    # inspect.getdoc would take an interface's
    return inspect.cleandoc(cls.__doc__ or "")
