"""A copy of the networks' weights: it shows which networks a loss changed, and restores them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ganlab.system.networks import Networks


class WeightsCopy:
    """A copy of every parameter of the networks, frozen ones included."""

    def __init__(self, networks: Networks) -> None:
        self._networks = networks
        # a parameter that networks share is copied once
        self._copies: dict[nn.Parameter, Tensor] = {
            parameter: parameter.detach().clone()
            for module in networks.modules.values()
            for parameter in module.parameters()
        }

    def changed(self) -> list[str]:
        """Returns the names of the networks with a weight that differs from its copy.

        Compares values: an assignment through `.data` leaves a tensor's version as it was.
        """
        return self._networks.holding(id(parameter) for parameter in self._moved())

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Gives every weight the value of its copy afterwards."""
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter in self._moved():
                    parameter.copy_(self._copies[parameter])

    def _moved(self) -> list[nn.Parameter]:
        return [parameter for parameter, copy in self._copies.items() if not _same(parameter, copy)]


def _same(one: Tensor, other: Tensor) -> bool:
    # torch.equal is quick, but for it NaN differs from NaN
    return torch.equal(one, other) or torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
