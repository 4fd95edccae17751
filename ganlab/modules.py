"""Rules for any module: its mode, what of it is trained, which state is its own, and what its uses may share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm

from ganlab.interfaces import Features


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """In eval mode; afterwards every part is in the mode it was in, a frozen one too."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def trainable(modules: Iterable[nn.Module]) -> Iterator[nn.Parameter]:
    """Their parameters that take gradients, each once."""
    seen: set[int] = set()
    for module in modules:
        for parameter in module.parameters():
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                yield parameter


def settle(component: object) -> None:
    """Whoever makes a component calls it: a feature network is not trained. Raises TypeError where a module's
    constructor leaves out torch's."""
    if isinstance(component, nn.Module) and "_modules" not in vars(component):
        raise TypeError(f"{type(component).__name__}.__init__ doesn't call super().__init__()")
    if isinstance(component, Features):
        component.requires_grad_(False).eval()


def per_image(module: nn.Module) -> bool:
    """Whether no part mixes the images of a batch."""
    return all(getattr(part, "per_image", True) and not isinstance(part, _BatchNorm) for part in module.modules())


def stateful(module: nn.Module) -> bool:
    """Whether a forward changes the next (spectral norm) or draws at random (dropout)."""
    return any(
        getattr(part, "stateful", False)
        or isinstance(part, _DropoutNd | _SpectralNorm)
        or any(isinstance(hook, SpectralNorm) for hook in part._forward_pre_hooks.values())
        for part in module.modules()
    )


def shape_lazy(module: nn.Module, images: Tensor) -> None:
    """Lazy layers take their shapes, and weights of torch's seed, from a first forward."""
    if any(map(is_lazy, [*module.parameters(), *module.buffers()])):
        with evaluating(module), torch.no_grad():
            module(images)


def feature_networks(module: nn.Module) -> dict[str, Features]:
    """{name: feature network} of those inside a module."""
    return {name: part for name, part in module.named_modules() if isinstance(part, Features)}


def own_state(module: nn.Module, keep_vars: bool = False) -> dict[str, Tensor]:
    """A module's `state_dict` without its feature networks': theirs is in their weight files."""
    frozen = _frozen(module)
    return {key: value for key, value in module.state_dict(keep_vars=keep_vars).items() if not key.startswith(frozen)}


def load_own_state(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Raises RuntimeError where it is the state of another module."""
    frozen = _frozen(module)
    theirs = {key: value for key, value in module.state_dict().items() if key.startswith(frozen)}
    module.load_state_dict({**state, **theirs})


def _frozen(module: nn.Module) -> tuple[str, ...]:
    return tuple(f"{name}." for name in feature_networks(module))
