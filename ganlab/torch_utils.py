"""Helpers for torch: modules' mode, trainable parameters, lazy layers and output type; waiting for a device,
timing it and freeing its memory."""

from __future__ import annotations

import gc
import reprlib
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm


def wait_for(device: torch.device) -> None:
    """Waits until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def free_memory(device: torch.device) -> None:
    """Gives back the memory of a device that no tensor needs. Also frees tensors in reference cycles."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def timed(operation: Callable[[], object], rounds: int, device: torch.device) -> list[float]:
    """Returns the seconds of each of `rounds` calls, after one that is not timed. Waits for the device."""
    seconds = []
    for _ in range(rounds + 1):
        wait_for(device)
        started = time.perf_counter()
        operation()
        wait_for(device)
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Puts a module into eval mode. Afterwards every submodule is in the mode it was in before."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def trainable(modules: Iterable[nn.Module]) -> Iterator[nn.Parameter]:
    """Yields the parameters that take gradients, each once."""
    for _, parameter in named_trainable((str(index), module) for index, module in enumerate(modules)):
        yield parameter


def named_trainable(modules: Iterable[tuple[str, nn.Module]]) -> Iterator[tuple[str, nn.Parameter]]:
    """Yields (name, parameter) of the parameters that take gradients, each once, for (name, module) pairs."""
    seen: set[int] = set()
    for prefix, module in modules:
        for name, parameter in module.named_parameters(prefix):
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                yield name, parameter


def stateful(module: nn.Module) -> bool:
    """True if a forward changes the next one (spectral norm) or draws at random (dropout)."""
    return any(
        getattr(part, "stateful", False)
        or isinstance(part, _DropoutNd | _SpectralNorm)
        or any(isinstance(hook, SpectralNorm) for hook in part._forward_pre_hooks.values())
        for part in module.modules()
    )


def shape_lazy(module: nn.Module, images: Tensor) -> None:
    """Runs one forward if the module has lazy layers, so that they get their shapes and random initial weights."""
    if any(map(is_lazy, [*module.parameters(), *module.buffers()])):
        with evaluating(module), torch.no_grad():
            module(images)


class _Shown(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring, self.maxother = 80, 120

    def repr1(self, x: Any, level: int) -> str:
        if isinstance(x, Tensor):
            return f"tensor of shape {tuple(x.shape)} and type {str(x.dtype).removeprefix('torch.')}"
        return super().repr1(x, level)


def shown(value: Any) -> str:
    """Returns a value as messages show it: shortened, and of a tensor only shape and type."""
    return _Shown().repr(value)


def checked_activations(network: nn.Module, found: Any) -> list[Tensor]:
    """Returns the activations that a network's `features` gave. Raises TypeError unless they are a list of tensors."""
    # `network` is the first argument so that error attribution finds it
    if not isinstance(found, list | tuple) or not found:
        got = "an empty one" if isinstance(found, list | tuple) else f"a {type(found).__name__}"
        raise TypeError(f"features: expected a list of tensors, got {got}")
    for output in found:
        if not isinstance(output, Tensor):
            raise TypeError(f"expected a tensor, got {type(output).__name__}{_advice(output)}")
    return list(found)


def _advice(output: Any) -> str:
    """Returns the end of a message about a list of tensors, which a discriminator of several scales may give."""
    if not isinstance(output, list | tuple) or not all(isinstance(each, Tensor) for each in output):
        return ""
    return f" of {len(output)} tensors; resize maps of several scales to one size and stack them as channels"


def as_float(network: nn.Module, output: Tensor) -> Tensor:
    """The network's output in at least float32. Raises TypeError if it is not a tensor."""
    # `network` is the first argument so that error attribution finds it
    if not isinstance(output, Tensor):
        raise TypeError(f"expected a tensor, got {type(output).__name__}")
    return output.float() if output.dtype == torch.bfloat16 else output
