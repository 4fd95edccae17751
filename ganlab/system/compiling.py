"""Compiles the methods of networks with `torch.compile`: norms, activations and padding become a few fused kernels."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch._functorch import config
from torch.utils._pytree import tree_leaves

from ganlab.errors import MOST, SpecError, shortened

MOST_KINDS = 16
"""The most kinds of calls for which a method is compiled. Kinds differ in shapes and in what takes gradients."""


class Compiler:
    """Compiles methods of networks. The compiler runs at the first call of each kind (see `MOST_KINDS`)."""

    def __init__(self, backend: str, options: dict[str, Any] | None = None) -> None:
        self._settings: dict[str, Any] = {
            "backend": backend,
            "options": options,
            # raise an error instead of leaving out a part of a function
            "fullgraph": True,
            "dynamic": False,
            "recompile_limit": MOST_KINDS,
            "isolate_recompiles": True,
        }

    def __call__(self, name: str, network: nn.Module, method: str) -> Callable[[Tensor], Any]:
        """Returns the compiled method of a network. `name` is the network's, for messages."""
        ordinary: Callable[[Tensor], Any] = getattr(network, method)
        compiled = self.compiled(ordinary)

        def refuse() -> None:
            raise SpecError(f"differentiates {name} twice, which is compiled, so set runtime.compile to false")

        def call(x: Tensor) -> Any:
            return watched(_called(network, compiled, ordinary, x), refuse)

        return call

    def compiled(self, function: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
        """Returns a compiled function."""
        compiled: Callable[[Tensor], Any] = torch.compile(function, **self._settings)
        return compiled


TRACER = Compiler("eager")
"""Finds in little time what can't be compiled: it reads a method's Python and makes no code."""


def code_generator(deterministic: bool) -> Compiler:
    """Returns torch's own compiler, inductor."""
    # fallback_random: its own generator would draw other numbers than torch's
    return Compiler("inductor", {"fallback_random": True, "deterministic": deterministic})


def compiler_for(device: torch.device, deterministic: bool) -> Compiler:
    """Returns the compiler of a training. Each process makes the same code, so a resumed run has the same bytes.

    Networks draw random numbers from torch's generators, which the run seeds and keeps, as without a compiler. A tensor
    may get the numbers in another order, because the compiler chooses its layout in memory. With `deterministic`, the
    code is chosen without measuring how fast it is. Raises SpecError if torch can't compile here.
    """
    if "isolate_recompiles" not in inspect.signature(torch.compile).parameters:
        raise SpecError(
            f"runtime.compile: true is not allowed with torch {torch.__version__}: its torch.compile has no option"
            " isolate_recompiles, as newer ones do"
        )
    compiler = code_generator(deterministic)
    # otherwise what an earlier training of this process has compiled would count towards MOST_KINDS
    torch.compiler.reset()
    try:
        compiler.compiled(_double)(torch.zeros(1, device=device))
    except Exception as error:
        raise SpecError(
            f"runtime.compile: true is not allowed here: torch can't compile for {device.type}: {_reason(error)}"
        ) from error
    return compiler


def _reason(error: BaseException) -> str:
    """Returns the first line of an error's text; torch's advice comes after it."""
    inner = getattr(error, "inner_exception", error)
    return shortened(str(inner).strip().partition("\n")[0], MOST)


def settings() -> AbstractContextManager[object]:
    """Returns a context with the settings of torch for steps with compiled networks."""
    # compile the backward pass with the forward pass, where an error tells the network, and let losses retain graphs
    patched: AbstractContextManager[object] = config.patch(force_non_lazy_backward_lowering=True, donated_buffer=False)
    return patched


def _double(x: Tensor) -> Tensor:
    return 2 * x


def _called(network: nn.Module, compiled: Callable[[Tensor], Any], ordinary: Callable[[Tensor], Any], x: Tensor) -> Any:
    # `network` is the first argument so that error attribution finds it
    try:
        return compiled(x)
    except Exception as error:
        # the network's own errors are raised here
        ordinary(x)
        raise RuntimeError(f"can't be compiled, so set runtime.compile to false: {_reason(error)}") from error


def watched(outputs: Any, act: Callable[[], None]) -> Any:
    """Returns a network's outputs. Calls `act` when a gradient that has a graph of its own flows back to them: a loss
    will differentiate the network a second time."""

    def look(gradient: Tensor) -> None:
        if torch.is_grad_enabled():
            act()

    for output in tree_leaves(outputs):
        if isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(look)  # type: ignore[no-untyped-call]
    return outputs
