"""Applies a network without keeping its activations: the backward pass computes them again (arXiv:1604.06174)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def recomputed(network: nn.Module, method: Callable[[Tensor], Any], x: Tensor) -> Any:
    """Returns `method(x)`, a method of the network. Its backward calls the method once more, with the same random
    draws, and with the buffers that the network had at first, because a forward may change them."""

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _Buffers(network)

    return checkpoint(method, x, use_reentrant=False, context_fn=contexts)


class _Buffers(AbstractContextManager[None]):
    """Inside, a network has the buffers that it had when this object was made. Afterwards it has its own again."""

    def __init__(self, network: nn.Module) -> None:
        self._then = [
            (module, name, buffer.detach().clone())
            for module in network.modules()
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]
        self._now: list[Tensor | None] = []

    def __enter__(self) -> None:
        self._now = [module._buffers[name] for module, name, _ in self._then]
        for module, name, buffer in self._then:
            # copies, because penalties compute the activations more than once
            module._buffers[name] = buffer.clone()

    def __exit__(self, *error: object) -> None:
        for (module, name, _), buffer in zip(self._then, self._now, strict=True):
            module._buffers[name] = buffer
