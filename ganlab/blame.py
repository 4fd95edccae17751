"""Whose an error is: one that a component raises becomes a sentence that names the component, whose plugin it is of,
where that was, and the shapes of the tensors at hand.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, MethodType
from typing import Any, NamedTuple

from torch import Tensor
from torch.autograd.function import FunctionCtx

from ganlab.errors import GanlabError, RunError, SpecError, text_of
from ganlab.translation import Translation

MOST = 8
"""Of how many tensors the shapes are told."""


class Part(NamedTuple):
    """A component of a system."""

    where: str
    """Its place in the spec."""
    what: str
    """Its kind, name and owner."""


class Parts:
    """The components of a system by object, which lives as long as they do."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[object, Part]] = {}

    def add(self, component: object, part: Part) -> None:
        self._known[id(component)] = component, part

    def of(self, place: str) -> Part:
        """The component at a place in the spec."""
        return next((part for _, part in self._known.values() if part.where == place), Part(place, ""))

    def culprit(self, error: BaseException, place: str) -> tuple[Part, list[FrameType]] | None:
        """The innermost component in whose method, or else in that of a copy of it, or else in whose plugin, an error
        came up; the frames from there."""
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        for find in (self._itself, self._copied, self._of_plugin):
            for index in reversed(range(len(frames))):
                if (part := find(frames[index], place)) is not None:
                    return part, frames[index:]
        return None

    def _itself(self, frame: FrameType, place: str) -> Part | None:
        if frame.f_code.co_name == "backward" and isinstance(_first(frame), FunctionCtx):
            # autograd calls it, of whichever component that is
            return self._of_plugin(frame, place)
        return self._known.get(id(_first(frame)), (None, None))[1]

    def _copied(self, frame: FrameType, place: str) -> Part | None:
        """Of averaged weights, say, or a checkpoint's."""
        cls = type(_first(frame))
        return _one({part for one, part in self._known.values() if type(one) is cls}, place)

    def _of_plugin(self, frame: FrameType, place: str) -> Part | None:
        """Of a function, which is no component's method."""
        package = _package(frame)
        return _one(
            {part for one, part in self._known.values() if type(one).__module__.split(".")[0] == package}, place
        )

    @contextmanager
    def blamed(self, place: str, doing: str, step: int | None = None, of: Iterable[str] = ()) -> Iterator[None]:
        """An error in what the component at `place` is `doing` becomes a RunError at a step, or else a SpecError. If it
        came up in another one, which was asked meanwhile, that one is named first; if in none that can be told, all
        those at the places `of` are. Without a place, what is of no component or says itself what is wrong passes."""
        try:
            yield
        except Exception as error:
            found = self.culprit(error, place)
            if not place and (found is None or isinstance(error, GanlabError)):
                raise
            part, frames = found or (self.of(place), [])
            asked = doing if step is None else f"{doing} at step {step}"
            start = asked if part.where == place else f"{part.where}, in {asked}"
            # where ganlab itself says what is wrong, shapes say nothing more
            shapes = "" if isinstance(error, GanlabError) else _shapes(frames)
            asker = self.of(place).what if part.where != place else ""
            among = ", ".join(self.of(one).what for one in of) if found is None else ""
            facts = "; ".join(filter(None, (part.what, among, shapes, asker and f"asked by {asker}")))
            kind = SpecError if step is None else RunError
            raise kind(f"{start}: {text_of(error)}{facts and f' ({facts})'}") from error


def _first(frame: FrameType) -> Any:
    """The first argument: of a method, the object."""
    code = frame.f_code
    return frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None


def _one(found: set[Part], place: str) -> Part | None:
    """Of several parts the one at `place`, or else all as one."""
    found = {part for part in found if part.where == place} or found
    places, whats = (" or ".join(sorted({part[at] for part in found})) for at in range(2))
    return Part(places, whats) if found else None


def _shapes(frames: list[FrameType]) -> str:
    """Of the tensors in the innermost frame of a component's own code, "name (N, C, H, W), ..."."""
    package = _package(frames[0]) if frames else ""
    own = [frame for frame in frames if _package(frame) == package]
    found: dict[str, tuple[int, ...]] = {}
    for name, value in own[-1].f_locals.items() if own else ():
        found |= dict(_sized(name, value))
    return ", ".join(f"{name} {shape}" for name, shape in list(found.items())[:MOST])


def _sized(name: str, value: Any) -> Iterator[tuple[str, tuple[int, ...]]]:
    if isinstance(value, Tensor):
        yield name, tuple(value.shape)
    elif _translation(value):
        yield from ((f"{name}.{what}", shape) for what, shape in value.shapes().items())
    elif isinstance(value, list | tuple):
        for index, one in enumerate(value):
            if isinstance(one, Tensor):
                yield f"{name}[{index}]", tuple(one.shape)


def _translation(value: Any) -> bool:
    """Whether it is one, or stands before one, as a loss that wraps another may put it."""
    # any object at all, which may fail in any way
    with suppress(Exception):
        return isinstance(value.shapes, MethodType) and isinstance(value.shapes.__self__, Translation)
    return False


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).split(".")[0]
