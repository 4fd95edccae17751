"""The values that the host gives a step: batches, random numbers, and numbers such as weights and learning rates.

A captured step runs no Python: it reads these values from tensors that keep their addresses. They all pass through this
module, so that an eager step and a captured one compute the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import EllipsisType
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from ganlab.data.sampler import to_device
from ganlab.determinism import keyed
from ganlab.system.host_reads import HostReads

T = TypeVar("T")


class HostInputs:
    """Gives a step every batch and random number when the step asks for it, newly made."""

    def __call__(self, make: Callable[[int], T], step: int) -> T:
        """Returns `make(step)`: a tensor on the device, or a named tuple of mappings of tensors."""
        return make(step)

    def read_step(self, step: int) -> int:
        """Returns the number of the step, for a loss that reads it."""
        return step


class StaticInputs(HostInputs):
    """Records what one step asks for, in buffers. A later step of the same computations reads these buffers.

    The number of the step is no buffer: `reads` notes the loss that reads it.
    """

    def __init__(self, reads: HostReads) -> None:
        self._reads = reads
        self._asked: list[tuple[Callable[[int], Any], Any]] = []
        self._again: Iterator[tuple[Callable[[int], Any], Any]] | None = None

    def __call__(self, make: Callable[[int], T], step: int) -> T:
        if self._again is not None:
            if (asked := next(self._again, None)) is None:
                raise RuntimeError("it asks for more batches and random numbers than before")
            again: T = asked[1]
            return again
        with self._reads.pausing():
            # a copy, because the value may be a tensor that its maker keeps
            buffer: T = _cloned(make(step))
        self._asked.append((make, buffer))
        return buffer

    def read_step(self, step: int) -> int:
        self._reads.note("reads t.step")
        return step

    @contextmanager
    def again(self) -> Iterator[None]:
        """Inside, the values asked for are the recorded buffers, in the order in which they were recorded.

        Raises RuntimeError if a step asks for fewer values, or for more.
        """
        self._again = iter(self._asked)
        try:
            yield
            if next(self._again, None) is not None:
                raise RuntimeError("it asks for fewer batches and random numbers than before")
        finally:
            self._again = None

    def refresh(self, step: int) -> None:
        """Makes every value anew, for another step, and copies it into its buffer."""
        for make, buffer in self._asked:
            for kept, made in zip(_tensors(buffer), _tensors(make(step)), strict=True):
                kept.copy_(made)


def _cloned(value: Any) -> Any:
    match value:
        case Tensor():
            return value.clone()
        case Mapping():
            return {name: _cloned(inner) for name, inner in value.items()}
        case tuple():
            return type(value)(*map(_cloned, value))
    return value


def _tensors(value: Any) -> Iterator[Tensor]:
    match value:
        case Tensor():
            yield value
        case Mapping():
            for inner in value.values():
                yield from _tensors(inner)
        case tuple():
            for inner in value:
                yield from _tensors(inner)


class Draw(NamedTuple):
    """Random numbers of one step. They depend only on the key and the step."""

    before: tuple[int | str, ...]
    """The part of the key before the step."""
    after: tuple[int | str, ...]
    """The part of the key after the step."""
    size: tuple[int, ...]
    """The shape of all numbers."""
    rows: slice | EllipsisType
    """The numbers to keep: some rows, or all."""
    dtype: torch.dtype
    device: torch.device

    def uniform(self, step: int) -> Tensor:
        """Returns random numbers in [0, 1)."""
        uniform = self._placed(keyed(*self.before, step, *self.after).random(self.size))
        # a float64 just below 1 becomes 1 in float32
        return uniform.clamp_(max=1 - torch.finfo(self.dtype).eps / 2)

    def normal(self, step: int) -> Tensor:
        """Returns standard normal random numbers."""
        return self._placed(keyed(*self.before, step, *self.after).standard_normal(self.size))

    def _placed(self, values: Any) -> Tensor:
        return to_device(torch.from_numpy(values[self.rows]).to(self.dtype), self.device)


class HostNumbers:
    """Numbers that the host sets before a step. Each is also a scalar tensor on the device, always at one address."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._values: dict[str, float] = {}
        self._tensors: dict[str, Tensor] = {}

    def set(self, name: str, value: float, dtype: torch.dtype) -> Tensor:
        """Sets a number. Returns its tensor; the host does not wait for the device."""
        if name not in self._tensors:
            self._tensors[name] = torch.full((), value, dtype=dtype, device=self._device)
        elif self._values[name] != value:
            self._tensors[name].fill_(value)
        self._values[name] = value
        return self._tensors[name]

    def value(self, name: str) -> float:
        """Returns a number without reading the device."""
        return self._values[name]

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]
