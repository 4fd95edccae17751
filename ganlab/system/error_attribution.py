"""Turns an exception raised inside a plugin into one sentence: the component, its package, its place in the spec, what
ganlab was doing, and the shapes of the tensors nearby."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType, MethodType
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from ganlab.errors import GanlabError, Lost, RunError, SpecError, text_of
from ganlab.interfaces.losses import Translation

MOST_SHAPES = 8
"""The largest number of tensors in a message that gives their shapes."""


class ComponentRef(NamedTuple):
    """A component of a system, as error messages name it."""

    place: str
    """Its place in the spec: "losses.cycle"."""
    name: str
    """Its kind, name and owner."""


@dataclass
class Position:
    """The present task of ganlab. The code that does the task updates the position; error messages contain it."""

    place: str = ""
    """The place in the spec of the component at work; "" if no component is."""
    doing: str = ""
    """The task, such as "losses.cycle's generator term in direction ab"."""
    step: int | None = None
    """The step, counted from 1; None before training."""
    candidates: tuple[str, ...] = ()
    """The places of the components that may be at fault if the traceback does not show which one is."""

    def move(self, place: str, doing: str, candidates: tuple[str, ...] = ()) -> None:
        """Sets the next task."""
        self.place, self.doing, self.candidates = place, doing, candidates

    def move_to_term(self, label: str, player: str, direction: str) -> None:
        place = f"losses.{label}"
        self.move(place, f"{place}'s {player} term in direction {direction}")

    def move_to_schedule(self, task: str) -> None:
        self.move("schedule", f"schedule's {task}")

    def move_to_network(self, name: str, task: str) -> None:
        place = place_of_network(name)
        self.move(place, f"{place}'s {task}")

    def move_to_gradients(self, player: str, labels: Iterable[str], directions: Iterable[str]) -> None:
        unique = dict.fromkeys(labels)
        doing = f"the {player}'s gradients of {'+'.join(unique)} in direction {'+'.join(directions)}"
        self.move("gradients", doing, tuple(f"losses.{label}" for label in unique))


def place_of_network(name: str) -> str:
    """Returns the place in the spec of "generator/DIRECTION", "discriminator/LABEL" or "discriminator/LABEL/DOMAIN"."""
    kind, label = name.split("/")[:2]
    return "generator" if kind == "generator" else f"discriminators.{label}"


class Components:
    """The components of a system, found by object. It keeps them alive."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[object, ComponentRef]] = {}

    def add(self, component: object, ref: ComponentRef) -> None:
        self._known[id(component)] = component, ref

    def at(self, place: str) -> ComponentRef:
        """Returns the component at a place in the spec; a reference without a name if there is none."""
        return next((ref for _, ref in self._known.values() if ref.place == place), ComponentRef(place, ""))

    def sentence(self, place: str, fault: str) -> str:
        """Returns one sentence that names the component at `place` and its fault."""
        return f"{place}: {fault} ({self.at(place).name})"

    def find_component(self, error: BaseException, place: str) -> tuple[ComponentRef, list[FrameType]] | None:
        """Returns the component in which `error` was raised, and the traceback's frames from the component inwards."""
        return self.component_in([frame for frame, _ in traceback.walk_tb(error.__traceback__)], place)

    def component_in(self, frames: list[FrameType], place: str) -> tuple[ComponentRef, list[FrameType]] | None:
        """Returns the innermost component among frames, given from the outermost inwards, and its own and later frames.

        Searches the frames three times, each time from the innermost outwards: for a method of a component, for a
        method of a copy of a component, and for a function of a component's package. If several components have the
        same class, the one at `place` is preferred.
        """
        for find in (self._by_object, self._by_class, self._by_package):
            for index in reversed(range(len(frames))):
                if (ref := find(frames[index], place)) is not None:
                    return ref, frames[index:]
        return None

    def _by_object(self, frame: FrameType, place: str) -> ComponentRef | None:
        if frame.f_code.co_name == "backward" and isinstance(_first_argument(frame), FunctionCtx):
            # autograd calls `backward` with a context, which does not tell the component
            return self._by_package(frame, place)
        if frame.f_code is nn.Module.__getattr__.__code__:
            # an attribute that a component lacks is the fault of the code that reads it
            return None
        return self._known.get(id(_first_argument(frame)), (None, None))[1]

    def _by_class(self, frame: FrameType, place: str) -> ComponentRef | None:
        # averaged generators and checkpoints are copies of the components
        if frame.f_code is nn.Module.__getattr__.__code__:
            return None
        cls = type(_first_argument(frame))
        return _join({ref for component, ref in self._known.values() if type(component) is cls}, place)

    def _by_package(self, frame: FrameType, place: str) -> ComponentRef | None:
        package = _package(frame)
        return _join(
            {ref for component, ref in self._known.values() if type(component).__module__.split(".")[0] == package},
            place,
        )

    @contextmanager
    def attributing(self, position: Position) -> Iterator[None]:
        """Turns an exception into a SpecError, or a RunError if the position has a step.

        The message names the component in which the exception was raised and, if it is another, the component at the
        position. If no component is found, the message names all candidates. If the position has no place, ganlab's
        own exceptions and those that no component raised pass unchanged.
        """
        try:
            yield
        except Lost:
            # no component of this process is at fault
            raise
        except Exception as error:
            found = self.find_component(error, position.place)
            if not position.place and (found is None or isinstance(error, GanlabError)):
                raise
            kind = SpecError if position.step is None else RunError
            raise kind(self._describe(error, position, found)) from error

    def _describe(
        self, error: Exception, position: Position, found: tuple[ComponentRef, list[FrameType]] | None
    ) -> str:
        ref, frames = found or (self.at(position.place), [])
        doing = position.doing if position.step is None else f"{position.doing} at step {position.step}"
        elsewhere = ref.place != position.place
        details = [
            ref.name,
            ", ".join(self.at(place).name for place in position.candidates) if found is None else "",
            # ganlab's own errors say what is wrong; shapes would add nothing
            "" if isinstance(error, GanlabError) else _describe_shapes(frames),
        ]
        if elsewhere and (caller := self.at(position.place).name):
            details.append(f"asked by {caller}")
        told = "; ".join(filter(None, details))
        start = f"{ref.place}, in {doing}" if elsewhere else doing
        return f"{start}: {text_of(error)}{told and f' ({told})'}"


def _first_argument(frame: FrameType) -> Any:
    """Returns the frame's first argument: the object, if the frame is a method's."""
    code = frame.f_code
    return frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None


def _join(refs: set[ComponentRef], place: str) -> ComponentRef | None:
    """Returns the reference at `place`, or else one reference that names them all."""
    refs = {ref for ref in refs if ref.place == place} or refs
    places, names = (" or ".join(sorted({ref[part] for ref in refs})) for part in range(2))
    return ComponentRef(places, names) if refs else None


def _describe_shapes(frames: list[FrameType]) -> str:
    """Returns the shapes of the tensors in the innermost frame of the component's package: "x (2, 3), y (5,)"."""
    package = _package(frames[0]) if frames else ""
    own = [frame for frame in frames if _package(frame) == package]
    found: dict[str, tuple[int, ...]] = {}
    for name, value in own[-1].f_locals.items() if own else ():
        found |= dict(_shapes_of(name, value))
    return ", ".join(f"{name} {shape}" for name, shape in list(found.items())[:MOST_SHAPES])


def _shapes_of(name: str, value: Any) -> Iterator[tuple[str, tuple[int, ...]]]:
    if isinstance(value, Tensor):
        yield name, tuple(value.shape)
    elif _is_translation(value):
        yield from ((f"{name}.{part}", shape) for part, shape in value.shapes().items())
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            if isinstance(item, Tensor):
                yield f"{name}[{index}]", tuple(item.shape)


def _is_translation(value: Any) -> bool:
    """Returns True for a Translation and for a plugin's wrapper around one."""
    # a local variable may be any object, and its attributes may raise any error
    with suppress(Exception):
        return isinstance(value.shapes, MethodType) and isinstance(value.shapes.__self__, Translation)
    return False


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).split(".")[0]
