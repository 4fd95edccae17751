"""What a dry pass sees of tensors: which were changed in place, what autograd keeps, and where graphs end."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge, saved_tensors_hooks

from ganlab.data.sampler import Batch
from ganlab.networks import Networks
from ganlab.translation import Memo


class Watched(Memo):
    """One that notices what losses change in place of what they are given."""

    def __init__(self, networks: Networks, batch: Batch, seed: int) -> None:
        super().__init__(networks, batch, {}, seed)
        # layers may work in place: what counts is the version at which a value was first given
        self._given = {("images", domain): [(x, x._version)] for domain, x in batch.images.items()}

    def keep(self, key: tuple[Any, ...], through: tuple[str, ...], value: Any) -> None:
        super().keep(key, through, value)
        given = value[1:] if key[0] == "score" else [value] if isinstance(value, Tensor) else value
        self._given[key] = [(x, x._version) for x in given]

    def changed(self, way: str) -> list[str]:
        """What was changed, by the names that it has on a way."""
        changed = (key for key, given in self._given.items() if any(x._version != before for x, before in given))
        return [_called(key, way) for key in changed]


def _called(key: tuple[Any, ...], way: str) -> str:
    what, of = key[:2]
    if what == "images":
        return "t.real" if of == way[0] else "t.target"
    if what == "score":
        return f"the scores of {of}"
    names = {
        ("decoded", "real"): ".fake",
        ("decoded", "target"): ".identity",
        ("encoded_back", of): ".fake_embedding",
        ("features", of): f".features({of!r})",
        ("features", "real"): ".embedding or features()",
    }
    return f"{'t' if key[-1] == way else 't.back'}{names.get((what, of), f'.{what}')}"


class Saved(NamedTuple):
    """What autograd keeps for a gradient."""

    tensor: Tensor
    """Without its history."""
    version: int
    """At which it was kept."""
    parameter: bool
    """Whether it is one."""


def saving(saved: list[Saved]) -> saved_tensors_hooks:
    """Within it what autograd keeps is added to `saved`."""

    def pack(tensor: Tensor) -> Saved:
        # an output that is saved with its own graph would keep itself alive
        saved.append(Saved(tensor.detach(), tensor._version, isinstance(tensor, nn.Parameter)))
        return saved[-1]

    def unpack(kept: Saved) -> Tensor:
        # where there are hooks, autograd itself doesn't look
        if kept.tensor._version != kept.version:
            raise RuntimeError(f"a tensor {tuple(kept.tensor.shape)} that they need was changed in place")
        return kept.tensor

    return saved_tensors_hooks(pack, unpack)


def check_saved(saved: list[Saved], minimised: list[Tensor], parameters: list[nn.Parameter]) -> None:
    """Raises RuntimeError where what the terms' gradients need was changed in place."""
    total = sum(value for value in minimised if value.requires_grad)
    if isinstance(total, Tensor) and any(kept.tensor._version != kept.version for kept in saved):
        # not all that is kept is needed: they tell
        torch.autograd.grad(total, parameters, retain_graph=True, allow_unused=True)


def kept_bytes(saved: list[Saved]) -> int:
    """Of all but parameters, each storage once."""
    storages = [kept.tensor.untyped_storage() for kept in saved if not kept.parameter]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def ends(value: Tensor) -> list[Tensor]:
    """The tensors at which a value's graph ends."""
    seen: set[Any] = set()
    ahead = [get_gradient_edge(value).node] if value.requires_grad else []
    while ahead:
        if (node := ahead.pop()) not in seen:
            seen.add(node)
            ahead += [following for following, _ in node.next_functions if following is not None]
    return [node.variable for node in seen if hasattr(node, "variable")]
