"""The core's modules have no circular imports, imports for type checking included."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import ganlab

CORE = Path(ganlab.__file__).parent
DEFERRED = {
    "ganlab.cli.commands": "the help of the command line imports no torch",
    "ganlab.cli.data": "the help of the command line imports no torch",
    "ganlab.cli.process": "only commands that need plugins import them, and torch with them",
    "ganlab.cli.sharing": "the help of the command line imports no torch",
    "ganlab.cli.speed": "the help of the command line imports no torch",
    "ganlab.cli.starting": "the help of the command line imports no torch",
    "ganlab.cli.using": "the help of the command line imports no torch",
    "ganlab.components.scaffold": "`ganlab new` refuses a name without importing torch",
}
"""{module whose functions import other modules of the core: the reason}."""


def module_of(path: Path) -> str:
    parts = path.relative_to(CORE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): ast.parse(path.read_text("utf-8")) for path in sorted(CORE.rglob("*.py"))}


def imported(node: ast.AST) -> Iterator[str]:
    """Returns the modules of the core that a statement imports."""
    if isinstance(node, ast.Import):
        yield from (name.name for name in node.names if name.name in MODULES)
    elif isinstance(node, ast.ImportFrom) and node.module is not None:
        assert node.level == 0, "imports are absolute"
        inner = [f"{node.module}.{name.name}" for name in node.names]
        yield from (name for name in inner if name in MODULES)
        # `from package import module` needs nothing of the package itself
        if node.module in MODULES and any(name not in MODULES for name in inner):
            yield node.module


def imports(tree: ast.Module, in_functions: bool) -> set[str]:
    within = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    return {name for node in ast.walk(tree) if (id(node) in within) == in_functions for name in imported(node)}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Returns one circle of a graph {module: modules that it imports}; [] if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_circle() -> None:
    graph = {name: imports(tree, in_functions=False) for name, tree in MODULES.items()}
    assert sum(map(len, graph.values())) > 150
    assert circle(graph) == []


def test_no_circle_through_functions() -> None:
    assert circle({name: {*imports(tree, True), *imports(tree, False)} for name, tree in MODULES.items()}) == []


def test_every_import_in_a_function_has_its_reason() -> None:
    assert {name for name, tree in MODULES.items() if imports(tree, in_functions=True)} == DEFERRED.keys()


@pytest.mark.parametrize(
    "graph", [{"a": {"a"}}, {"a": {"b"}, "b": {"c"}, "c": {"a"}}, {"a": {"b"}, "b": set(), "c": {"d"}, "d": {"c"}}]
)
def test_a_circle_is_found(graph: dict[str, set[str]]) -> None:
    assert circle(graph)
