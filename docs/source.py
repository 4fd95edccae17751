"""Reads docstrings and signatures from a module's source, because only there attributes have docstrings."""

from __future__ import annotations

import ast
import copy
import functools
import inspect
from collections.abc import Iterator, Mapping
from importlib import import_module

from markup import directive, prose

import ganlab
from ganlab import testing
from ganlab.components.docstrings import joined

PUBLIC = {f"{home}.{name}": f"ganlab.{name}" for home, names in ganlab._NAMES.items() for name in names}
PUBLIC |= {f"{getattr(testing, name).__module__}.{name}": f"ganlab.testing.{name}" for name in testing.__all__}
"""{full name of an object in its module: the name that documents it}."""


@functools.cache
def module(name: str) -> Module:
    return Module(name)


class Module:
    """A module of ganlab."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.body = ast.parse(inspect.getsource(import_module(name))).body
        self.found = {_name(node): (node, text) for node, text in _documented(self.body) if _name(node)}
        """{public name: (its syntax tree, its docstring)}, in the order of the source."""
        self.aliases = {
            name: node.value
            for name, (node, _) in self.found.items()
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript | ast.BinOp)
        }
        self.imports = {name: full for node in ast.walk(ast.Module(self.body, [])) for name, full in _imports(node)}

    def full(self, name: str) -> str:
        """Returns the name that documents an object of this module."""
        return PUBLIC.get(f"{self.name}.{name}", f"{self.name}.{name}")

    def classes(self) -> list[str]:
        """Returns the names of the public classes."""
        return [name for name, (node, _) in self.found.items() if isinstance(node, ast.ClassDef)]

    def members(self, name: str) -> list[str]:
        """Returns the names of the public members of a class."""
        node, _ = self.found[name]
        assert isinstance(node, ast.ClassDef)
        return [member for inner, _ in _documented(node.body) if (member := _name(inner))]

    def text(self) -> str:
        """Returns the module's own docstring."""
        return joined(ast.get_docstring(ast.Module(self.body, [])) or "")

    def annotation(self, node: ast.expr | None) -> str | None:
        """Returns a type with full names."""
        return None if node is None else ast.unparse(_Qualified(self).visit(copy.deepcopy(node)))

    def describe(self, name: str, links: Mapping[str, str]) -> str:
        """Returns the directive of a class with its members, of a function or of a constant."""
        node, text = self.found[name]
        full = self.full(name)
        if isinstance(node, ast.ClassDef):
            return self._class(node, full, text, links)
        if isinstance(node, ast.FunctionDef):
            text = prose(text, _without_arguments(links, node))
            return directive("py:function", f"{full}{self._signature(node)}", text)
        assert isinstance(node, ast.Assign)
        return directive("py:data", full, prose(text, links), value=ast.unparse(node.value))

    def _class(self, node: ast.ClassDef, full: str, text: str, links: Mapping[str, str]) -> str:
        members = {_name(member): (member, about) for member, about in _documented(node.body) if _name(member)}
        if "BaseModel" in _bases(node):
            # its fields are keys of a spec, which have a page of their own
            members = {name: member for name, member in members.items() if isinstance(member[0], ast.FunctionDef)}
        links = {**links, **{name: f"{full}.{name}" for name in members}}
        fields = [m for m, _ in members.values() if isinstance(m, ast.AnnAssign)]
        made = "NamedTuple" in _bases(node) or any("dataclass" in ast.unparse(d) for d in node.decorator_list)
        given = ", ".join(f"{_name(f)}={value}" if (value := _value(f)) else _name(f) for f in fields)
        body = [prose(text, links), *(self._member(member, about, links) for member, about in members.values())]
        error = issubclass(getattr(import_module(self.name), node.name), Exception)
        return directive(
            "py:exception" if error else "py:class",
            f"{full}({given})" if made else full,
            "\n\n".join(filter(None, body)),
        )

    def _member(self, node: ast.stmt, text: str, links: Mapping[str, str]) -> str:
        name = _name(node)
        if isinstance(node, ast.FunctionDef):
            decorators = {ast.unparse(d) for d in node.decorator_list}
            text = prose(text, _without_arguments(links, node))
            if "property" in decorators:
                return directive("py:property", name, text, type=self.annotation(node.returns))
            classmethod = "" if "classmethod" in decorators else None
            return directive("py:method", f"{name}{self._signature(node, method=True)}", text, classmethod=classmethod)
        assert isinstance(node, ast.Assign | ast.AnnAssign)
        kind = self.annotation(node.annotation) if isinstance(node, ast.AnnAssign) else None
        return directive("py:attribute", name, prose(text, links), type=kind, value=_value(node))

    def _signature(self, node: ast.FunctionDef, method: bool = False) -> str:
        arguments = copy.deepcopy(node.args)
        if method:
            del arguments.args[0]
        arguments.defaults = [self._default(default) for default in arguments.defaults]
        arguments.kw_defaults = [default and self._default(default) for default in arguments.kw_defaults]
        for argument in ast.walk(arguments):
            if isinstance(argument, ast.arg) and argument.annotation is not None:
                argument.annotation = _Qualified(self).visit(argument.annotation)
        returns = node.returns
        if isinstance(returns, ast.Constant) and isinstance(returns.value, str):
            returns = ast.parse(returns.value, mode="eval").body
        gives = self.annotation(returns)
        return f"({ast.unparse(arguments)})" + (f" -> {gives}" if gives else "")

    def _default(self, node: ast.expr) -> ast.expr:
        """Returns a default; a constant of ganlab is replaced by its value."""
        home, _, name = self.imports.get(ast.unparse(node), "").rpartition(".")
        if not home.startswith("ganlab."):
            return node
        return ast.parse(repr(getattr(import_module(home), name)), mode="eval").body


class _Qualified(ast.NodeTransformer):
    """Gives names of ganlab in annotations their full form, and replaces aliases by their definition."""

    def __init__(self, module: Module) -> None:
        self.module = module

    def visit_Name(self, node: ast.Name) -> ast.expr:
        name, here = node.id, self.module
        if name in here.aliases:
            expanded: ast.expr = self.visit(copy.deepcopy(here.aliases[name]))
            return expanded
        if name in here.classes():
            return ast.Name(here.full(name))
        full = here.imports.get(name, name)
        if not full.startswith("ganlab."):
            return node
        home, _, last = full.rpartition(".")
        if last in module(home).aliases:
            return _Qualified(module(home)).visit_Name(ast.Name(last))
        return ast.Name(PUBLIC.get(full, full))


def _documented(body: list[ast.stmt]) -> Iterator[tuple[ast.stmt, str]]:
    """Yields each statement with its docstring, joined."""
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node, joined(ast.get_docstring(node) or "")
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            said = after.value if isinstance(after, ast.Expr) else None
            text = said.value if isinstance(said, ast.Constant) else ""
            yield node, joined(text if isinstance(text, str) else "")


def _name(node: ast.stmt) -> str:
    """Returns the public name that a statement defines, or ""."""
    name = ""
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        name = node.name
    elif isinstance(node, ast.AnnAssign):
        name = ast.unparse(node.target)
    elif isinstance(node, ast.Assign):
        name = ast.unparse(node.targets[0])
    return name if name.isidentifier() and not name.startswith("_") else ""


def _imports(node: ast.AST) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.ImportFrom):
        yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)


def _value(node: ast.Assign | ast.AnnAssign) -> str | None:
    value = node.value
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "field":
        # the default factory of a dataclass's field
        value = ast.Call(value.keywords[0].value, [], [])
    if isinstance(value, ast.Name) and value.id.startswith("_"):
        return "..."
    return None if value is None else ast.unparse(value)


def _bases(node: ast.ClassDef) -> list[str]:
    return [ast.unparse(base) for base in node.bases]


def _without_arguments(links: Mapping[str, str], node: ast.FunctionDef) -> dict[str, str]:
    """Returns `links` without the names of the function's arguments, which hide members of the same name."""
    own = node.args
    named = {a.arg for a in [*own.posonlyargs, *own.args, *own.kwonlyargs, own.vararg, own.kwarg] if a is not None}
    return {name: target for name, target in links.items() if name not in named}
