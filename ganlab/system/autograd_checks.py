"""Checks of autograd for the dry run: tensors changed in place, memory kept for gradients, and the leaves of graphs."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge, saved_tensors_hooks

from ganlab.data.sampler import Batch
from ganlab.system.forward_cache import CacheEntry, ForwardCache, Scored
from ganlab.system.networks import Networks


class MutationCheckingCache(ForwardCache):
    """A forward cache that finds the tensors that a loss changes in place."""

    def __init__(self, networks: Networks, batch: Batch, seed: int) -> None:
        super().__init__(networks, batch, {}, seed)
        # layers may work in place, so the version of a tensor counts from when a loss first gets it
        given = {("images", domain): x for domain, x in batch.images.items()}
        for domain, extras in batch.extras.items():
            given |= {("extras", f"{domain} {name}"): x for name, x in extras.items()}
        self._versions = {key: [(x, x._version)] for key, x in given.items()}

    def _make(self, direction: str, value: str, up_to_date: bool) -> CacheEntry:
        entry = super()._make(direction, value, up_to_date)
        self._versions[direction, value] = [(tensor, tensor._version) for tensor in entry.tensors]
        return entry

    def _apply(self, generator: str, half: str, x: Tensor) -> list[Tensor]:
        tensors = super()._apply(generator, half, x)
        self._versions[half, f"{generator} {id(x)}"] = [(tensor, tensor._version) for tensor in tensors]
        return tensors

    def _score(self, name: str, x: Tensor, source: Tensor) -> Scored:
        found = super()._score(name, x, source)
        self._versions["activations", f"{name} {id(x)}"] = [(tensor, tensor._version) for tensor in found.inner]
        self._versions["scores", f"{name} {id(x)}"] = [(found.scores, found.scores._version)]
        return found

    def changed(self, direction: str) -> list[str]:
        """Returns the names of the tensors that were changed in place, as a loss in `direction` names them."""
        changed = [key for key, given in self._versions.items() if any(x._version != before for x, before in given)]
        return [_name(*key, direction) for key in changed]


def _name(group: str, value: str, direction: str) -> str:
    if group == "images":
        return "t.source" if value == direction[0] else "t.target"
    if group == "extras":
        domain, name = value.split(" ", 1)
        return f"t.{'source' if domain == direction[0] else 'target'}_extras[{name!r}]"
    if group in ("scores", "activations"):
        return f"the {group} of {value.split()[0]}"
    if group in ("encode", "decode"):
        return f"the result of {'t' if value.split()[0] == direction else 't.reverse'}.{group}"
    names = {
        "features": "embedding or features()",
        "target_features": "features('target')",
        "fake_features": "features('fake')",
    }
    return f"{'t' if group == direction else 't.reverse'}.{names.get(value, value)}"


class Saved(NamedTuple):
    """A tensor that autograd keeps for a gradient."""

    tensor: Tensor
    """The tensor, without its history."""
    version: int
    """Its version when autograd kept it."""
    is_parameter: bool


def saving(saved: list[Saved]) -> saved_tensors_hooks:
    """A context that adds every tensor that autograd keeps to `saved`."""

    def pack(tensor: Tensor) -> Saved:
        # an output that is saved with its own graph would keep itself alive
        saved.append(Saved(tensor.detach(), tensor._version, isinstance(tensor, nn.Parameter)))
        return saved[-1]

    def unpack(kept: Saved) -> Tensor:
        # with hooks, autograd itself does not compare versions
        if kept.tensor._version != kept.version:
            raise RuntimeError(f"a tensor {tuple(kept.tensor.shape)} that they need was changed in place")
        return kept.tensor

    return saved_tensors_hooks(pack, unpack)


def check_saved(saved: list[Saved], terms: list[Tensor], parameters: list[nn.Parameter]) -> None:
    """Raises RuntimeError if a tensor that the gradients of `terms` need was changed in place."""
    total = sum(term for term in terms if term.requires_grad)
    if isinstance(total, Tensor) and any(kept.tensor._version != kept.version for kept in saved):
        # not every kept tensor is needed: computing the gradients shows which are
        torch.autograd.grad(total, parameters, retain_graph=True, allow_unused=True)


def saved_bytes(saved: list[Saved]) -> int:
    """The memory of all kept tensors except parameters, each storage counted once."""
    storages = [kept.tensor.untyped_storage() for kept in saved if not kept.is_parameter]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def graph_leaves(value: Tensor) -> list[Tensor]:
    """Returns the leaves of a value's graph."""
    seen: set[Any] = set()
    ahead = [get_gradient_edge(value).node] if value.requires_grad else []
    while ahead:
        if (node := ahead.pop()) not in seen:
            seen.add(node)
            ahead += [following for following, _ in node.next_functions if following is not None]
    return [node.variable for node in seen if hasattr(node, "variable")]
