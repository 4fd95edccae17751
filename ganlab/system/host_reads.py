"""Finds the operation of a step that waits for the device, or that mixes tensors of the host and of the device."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ganlab.system.error_attribution import Components, Position
from ganlab.system.plain_state import host_random_states

_READS = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)
"""torch's marks of operations whose result, or its shape, is read from the device: `item`, `equal`, `nonzero`, ..."""

_INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_unsafe_index"}
"""Operations that read the device only for an index of booleans, whatever their marks say."""


class HostReads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside this context, the first operation that no CUDA graph can repeat is noted. It is computed as usual.

    Attributes:
        found: None, or (the place of the component at fault, what it does).
    """

    def __init__(self, device: torch.device, components: Components, position: Position) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: tuple[str, str] | None = None
        self._looks = True
        self._device, self._components, self._position = device, components, position
        self._random = host_random_states()

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Lets torch run compiled networks inside this context; otherwise it would compute them as if they were not
        compiled."""
        return True

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = operation(*args, **kwargs)
        if self._looks:
            what = self._fault(operation, (*args, *kwargs.values()), result) or self._drawn()
            if what is not None:
                self.note(what)
        return result

    def note(self, what: str) -> None:
        """Notes what the component that is computing does, if it is the first fault."""
        if self.found is None:
            frames = [frame for frame, _ in traceback.walk_stack(None)]
            found = self._components.component_in(frames[::-1], self._position.place)
            self.found = (found[0].place if found is not None else self._position.place), what

    @contextmanager
    def pausing(self) -> Iterator[None]:
        """Inside, operations are not looked at, because no graph repeats them."""
        self._looks = False
        try:
            yield
        finally:
            self._looks, self._random = True, host_random_states()

    def _fault(self, operation: Any, given: Sequence[Any], result: Any) -> str | None:
        name = operation.name()
        tensors = list(_tensors(given))
        here = [tensor.device.type == self._device.type for tensor in tensors]
        if any(here) and not all(here):
            return f"uses a tensor of the host beside tensors of the device ({name})"
        made = [tensor.device.type == self._device.type for tensor in _tensors([result])]
        if tensors and made and any(here) != any(made):
            return f"copies a tensor between the host and the device ({name})"
        if name == "aten::lift_fresh" and self._device.type != "cpu" and any(made):
            return "makes a tensor on the device from Python numbers"
        if not any(here):
            draws = torch.Tag.nondeterministic_seeded in operation.tags and not any(made)
            return f"draws random numbers on the host ({name})" if draws else None
        if name.partition(".")[0] in _INDEXING:
            reads = any(tensor.dtype in (torch.bool, torch.uint8) for tensor in tensors[1:] if tensor.dim())
        else:
            reads = any(mark in operation.tags for mark in _READS)
        return f"reads values of the device ({name})" if reads else None

    def _drawn(self) -> str | None:
        before, self._random = self._random, host_random_states()
        drawn = [name for name, state in self._random.items() if state != before[name]]
        return f"draws from {drawn[0]}, and a graph repeats the number" if drawn else None


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
