"""Finds state that no checkpoint keeps: plain attributes, and the random generators of the process.

A checkpoint keeps the parameters and persistent buffers of networks, losses and pools, the state of optimizers, and
torch's random generators.
"""

from __future__ import annotations

import hashlib
import inspect
import random
import sys
import warnings
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from types import CellType, GeneratorType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

__tracebackhide__ = True


class Snapshot(NamedTuple):
    """The value of an attribute at one time."""

    value: Any
    """The value in a form that is compared with `==`; mutable values are copied."""
    text: str
    """The value as a message shows it."""


def plain_state(component: object) -> dict[str, Snapshot]:
    """Returns {attribute: its value} of everything that a component keeps and no checkpoint saves.

    "part.attribute" is an attribute of an object or a module inside the component. Buffers that are not persistent are
    included, and so are attributes of classes and the global variables that methods name.
    """
    found: dict[str, Snapshot] = {}
    for name, snapshot in _snapshots(component, "", ()):
        # an object's own attribute hides its class's
        found.setdefault(name, snapshot)
    return found


def differences(before: Mapping[str, Snapshot], after: Mapping[str, Snapshot]) -> list[str]:
    """Returns "'name' (VALUE, then VALUE)" for each attribute with another value."""
    missing = Snapshot(None, "missing")
    pairs = {name: (before.get(name, missing), after.get(name, missing)) for name in (*before, *after)}
    return [
        f"{name!r} ({one.text}, then {two.text if two.text != one.text else 'other values'})"
        for name, (one, two) in pairs.items()
        if one.value != two.value
    ]


def overwritten(before: Mapping[str, Snapshot], after: Mapping[str, Snapshot]) -> list[str]:
    """Returns what `differences` does, without attributes that were None or empty and mappings that only grew: one use
    fills them, as a cache by direction."""
    kept = {name: one for name, one in before.items() if not _is_filled(one, after.get(name, one))}
    return differences(kept, {name: after[name] for name in kept if name in after})


def _is_filled(one: Snapshot, two: Snapshot) -> bool:
    match one.value, two.value:
        case (None | (str(), ()) | (str(), frozenset(())), _):
            return True
        case ((str(kind), tuple(old)), (str(other), tuple(new))) if kind == other and kind.endswith("dict"):
            return set(old) <= set(new)
    return False


def moved_by(use: Callable[[], object], component: object) -> list[str]:
    """Uses a component twice in the same way. Returns the attributes that the second use changed, for a message.

    The first use may fill a cache: that is no state.
    """
    states = []
    for _ in range(2):
        use()
        states.append(plain_state(component))
    return differences(*states)


TORCH = "torch's global generator"


def drawn_by(use: Callable[[], object]) -> list[str]:
    """Returns the names of the process's random generators that `use` draws from."""
    before = _random_states()
    use()
    return [name for name, state in _random_states().items() if state != before[name]]


def _random_states() -> dict[str, Any]:
    return {TORCH: _comparable(torch.get_rng_state()), **host_random_states()}


def host_random_states() -> dict[str, Any]:
    """Returns {name: state} of the process's random generators that draw without torch."""
    return {
        "Python's random": random.getstate(),
        "numpy's global generator": _comparable(np.random.get_state(legacy=False)),  # noqa: NPY002 (plugins use it)
    }


def _snapshots(component: object, prefix: str, inside: Collection[int]) -> Iterator[tuple[str, Snapshot]]:
    """Yields (name, value) of all attributes; in place of an attribute that is an author's object, its attributes."""
    modules = list(component.named_modules()) if isinstance(component, nn.Module) else [("", component)]
    inside = {*inside, *(id(part) for _, part in modules)}
    for path, part in modules:
        # torch's own modules keep their state in buffers
        if isinstance(part, nn.Module) and _is_of(type(part), "torch"):
            continue
        for name, value in _attributes(part):
            full = f"{prefix}{path}{path and '.'}{name}"
            if _is_object(value) and id(value) not in inside:
                yield from _snapshots(value, f"{full}.", inside)
            else:
                yield full, Snapshot(_comparable(value, inside), _text(value))


_MODULE = vars(nn.Module())
_OPTIMIZER = vars(torch.optim.SGD([nn.Parameter(torch.zeros(()))]))


def _attributes(part: object) -> Iterator[tuple[str, Any]]:
    """Yields the attributes of an object, then those of its classes and the variables outside that methods name."""
    own = dict(vars(part))
    if isinstance(part, nn.Module):
        # torch's old norms set the weight that they make anew in each forward
        made = {getattr(hook, "name", None) for hook in part._forward_pre_hooks.values()}
        own = {name: value for name, value in own.items() if name not in _MODULE and name not in made}
        own |= {name: part._buffers[name] for name in part._non_persistent_buffers_set}
    if isinstance(part, torch.optim.Optimizer):
        own = {name: value for name, value in own.items() if name not in _OPTIMIZER}
    yield from own.items()
    for cls in type(part).__mro__:
        if not _is_of(cls, "torch", "builtins", "ganlab.interfaces"):
            outside = [_variables(method) for method in map(inspect.unwrap, vars(cls).values())]
            for names in (vars(cls), *outside):
                yield from (pair for pair in names.items() if not pair[0].startswith("__") and _is_data(pair[1]))


def _variables(method: object) -> dict[str, Any]:
    """Returns the global variables, and those of functions around it, that a method names."""
    if not inspect.isfunction(method):
        return {}
    # inspect.getclosurevars takes ten times as long
    known = method.__globals__
    found = {name: known[name] for name in method.__code__.co_names if name in known}
    cells = zip(method.__code__.co_freevars, method.__closure__ or (), strict=True)
    return found | {name: cell.cell_contents for name, cell in cells if cell != CellType()}


def _is_of(cls: type, *packages: str) -> bool:
    return any(cls.__module__ == package or cls.__module__.startswith(f"{package}.") for package in packages)


def _is_data(value: object) -> bool:
    return not callable(value) and not hasattr(value, "__get__")


def _comparable(value: Any, inside: Collection[int] = ()) -> Any:
    """Returns a value's content as numbers, texts, bytes and tuples. A value without comparable content is named by its
    type."""
    if id(value) in inside:
        return "a cycle"
    inside = {*inside, id(value)}

    def each(values: Any) -> tuple[Any, ...]:
        return tuple(_comparable(one, inside) for one in values)

    kind = type(value).__name__
    match value:
        case None | bool() | int() | str() | bytes():
            return value
        case float() | complex():
            # nan differs from itself
            return repr(value)
        case Tensor():
            raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            return kind, tuple(value.shape), str(value.dtype), hashlib.sha256(raw.tobytes()).digest()
        case np.ndarray() if value.dtype != object:
            return kind, value.shape, str(value.dtype), hashlib.sha256(value.tobytes()).digest()
        case list() | tuple() | deque():
            return kind, each(value)
        case set() | frozenset():
            return kind, frozenset(each(value))
        case Mapping():
            return kind, tuple(zip(each(value), each(value.values()), strict=True))
        case GeneratorType():
            frame = value.gi_frame
            return kind, frame and (frame.f_lasti, _comparable(dict(frame.f_locals), inside))
        case Iterator():
            return kind, _comparable(_position(value), inside)
        case random.Random():
            return value.getstate()
        case np.random.Generator():
            return _comparable(value.bit_generator.state)
        case torch.Generator():
            return _comparable(value.get_state())
        case nn.Module() | torch.optim.Optimizer():
            return kind, _comparable(value.state_dict()), each(_attributes(value))
    return (kind, each(_attributes(value))) if _is_object(value) else kind


def _position(iterator: Iterator[Any]) -> Any:
    """Returns what an iterator of Python or itertools holds: its items and its position among them."""
    # iterators of itertools no longer tell it in Python 3.14; files never do
    with suppress(TypeError), warnings.catch_warnings(action="ignore"):
        return iterator.__reduce__()[1:]
    return None


def _is_object(value: object) -> bool:
    """Returns True for an object of an author's class that is no module, optimizer or container."""
    package = type(value).__module__.split(".")[0]
    foreign = package in sys.stdlib_module_names or package in ("torch", "numpy", "ganlab")
    known = isinstance(value, nn.Module | torch.optim.Optimizer | Mapping | Collection)
    return (
        hasattr(value, "__dict__")
        and _is_data(value)
        and not known
        and (isinstance(value, SimpleNamespace) or not foreign)
    )


def _text(value: Any) -> str:
    match value:
        case Tensor() | np.ndarray():
            return f"an array ({', '.join(map(str, value.shape))})"
        case str() | int() | float() | None:
            return repr(value)
        case list() | tuple() | deque() | set() | frozenset() | Mapping():
            return f"{type(value).__name__} of {len(value)}"
    return type(value).__name__ if not inspect.isclass(value) else value.__name__
