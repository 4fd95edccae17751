"""Optimizers on a CUDA device: their step counts and learning rates are on the device, so that they can be captured."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ganlab.system.host_inputs import HostNumbers

ParameterGroup = dict[str, Any]


def reads_rate_from_device(group: ParameterGroup) -> bool:
    """True if the optimizer of a parameter group takes its learning rate from a tensor without waiting for the device.

    torch's optimizers do if they are `capturable` or `fused`; others say so by a value `capturable` in their groups.
    """
    return "capturable" in group or bool(group.get("fused"))


def make_capturable(optimizer: torch.optim.Optimizer) -> None:
    """Sets `capturable` before the first step, where the optimizer knows it: it then counts steps on the device."""
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = True


def set_rates(optimizer: torch.optim.Optimizer, rates: list[float], player: str, numbers: HostNumbers) -> None:
    """Sets the learning rate of each parameter group: on CUDA devices a tensor, if the optimizer reads one."""
    for index, (group, rate) in enumerate(zip(optimizer.param_groups, rates, strict=True)):
        group["lr"] = rate
        if _on_cuda(group) and reads_rate_from_device(group):
            # fused kernels read float32 whatever the type of the parameters is
            group["lr"] = numbers.set(f"learning rate {player} {index}", rate, torch.float32)


def saved(optimizer: torch.optim.Optimizer, rates: list[float]) -> dict[str, Any]:
    """Returns the optimizer's state with its learning rates as plain numbers, as a checkpoint keeps them."""
    state = optimizer.state_dict()
    for group, rate in zip(state["param_groups"], rates, strict=True):
        group["lr"] = rate
    return state


def load(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Loads what `saved` returned, perhaps on another device. The optimizer keeps its own `capturable`."""
    groups = [
        {**then, **{name: own[name] for name in ("capturable",) if name in own}}
        for then, own in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict({**state, "param_groups": groups})


def _on_cuda(group: ParameterGroup) -> bool:
    return any(isinstance(parameter, Tensor) and parameter.is_cuda for parameter in group["params"])
