"""The state that a module owns: its tensors, except the tensors of feature networks inside it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ganlab.interfaces.networks import Features


def feature_networks(module: nn.Module) -> dict[str, Features]:
    """{name: feature network} for every feature network inside a module."""
    return {name: part for name, part in module.named_modules() if isinstance(part, Features)}


def own_state(module: nn.Module, keep_vars: bool = False) -> dict[str, Tensor]:
    """A module's `state_dict` without its feature networks, whose weights lie in files of their own."""
    frozen = _prefixes(module)
    return {key: value for key, value in module.state_dict(keep_vars=keep_vars).items() if not key.startswith(frozen)}


def load_own_state(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Loads what `own_state` returned.

    Raises RuntimeError if it is the state of another module, TypeError if a tensor has another dtype, which torch would
    convert.
    """
    frozen = _prefixes(module)
    now = module.state_dict()
    for key in state.keys() & now.keys():
        then, due = getattr(state[key], "dtype", None), getattr(now[key], "dtype", None)
        if then != due:
            raise TypeError(f"{key}: expected {due}, got {then}")
    kept = {key: value for key, value in now.items() if key.startswith(frozen)}
    module.load_state_dict({**state, **kept})


def _prefixes(module: nn.Module) -> tuple[str, ...]:
    return tuple(f"{name}." for name in feature_networks(module))
