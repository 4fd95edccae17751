"""Runs the checks of `ganlab.testing` on components that fail one requirement on purpose."""

from __future__ import annotations

import ast
import functools
import re
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from ganlab import testing

Check = Callable[..., None]
Broken = tuple[Check, type, str]
"""(check, class, regular expression for the sentence after the class's name)."""


class Failure(NamedTuple):
    sentence: str
    places: list[tuple[str, int]]
    """(file, line) of every call in ganlab.testing on the way to the error."""
    shown: list[Path]
    """The files of the calls that pytest shows."""
    cause: BaseException | None


@functools.cache
def failure(check: Check, cls: type) -> Failure:
    with pytest.raises(AssertionError) as caught:
        check(cls)
    folder = Path(testing.__file__).parent
    frames = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(caught.value.__traceback__)]
    places = [(path.name, line) for path, line in frames if path.parent == folder and line is not None]
    shown = [Path(entry.path) for entry in caught.traceback.filter(caught)]
    assert caught.value.__suppress_context__
    return Failure(str(caught.value), places, shown, caught.value.__cause__)


def names_of(value: Any) -> str:
    return getattr(value, "__name__", "")


def verify_sentence(check: Check, cls: type, sentence: str) -> None:
    """The check fails with this one line, and pytest shows no frame of ganlab.testing."""
    found = failure(check, cls)
    assert found.shown == [Path(__file__)]
    # an exception in the author's code keeps its traceback; a failed comparison has only its sentence
    raised = re.search(r'failed the requirement "[^"]*": \w+(Error|Exception)(: |$)', found.sentence) is not None
    assert (found.cause is not None) == raised
    assert re.match(f"(?s){cls.__name__} failed the requirement .*?({sentence})", found.sentence), found.sentence
    assert "\n" not in found.sentence


def verify_every_condition_fails(modules: Iterable[ModuleType], broken: Iterable[Broken]) -> None:
    """Each `with requirement(...)` block and each `check(...)` in these modules of ganlab.testing fails for one of the
    broken components."""
    seen = {place for check, cls, _ in broken for place in failure(check, cls).places}
    never = []
    for module in modules:
        path = Path(str(module.__file__))
        nodes = list(filter(_asserts, ast.walk(ast.parse(path.read_text()))))
        assert nodes, path
        for node in nodes:
            lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)  # type: ignore[attr-defined]
            if not any((path.name, line) in seen for line in lines):
                never.append(f"{path.name}:{lines[0]}: {ast.unparse(node).splitlines()[0]}")
    assert never == []


def _asserts(node: ast.AST) -> bool:
    if isinstance(node, ast.With):
        return any(ast.unparse(item.context_expr).startswith("requirement(") for item in node.items)
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "check"
