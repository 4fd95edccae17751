"""Batch norms of a run with several processes take their statistics from the whole part that the processes compute."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ganlab import distributed
from ganlab.errors import SpecError
from ganlab.system.build import System


def synchronise(system: System) -> None:
    """Makes each batch norm in training mode a `SyncBatchNorm`, if there are several processes.

    Raises SpecError on CPUs, for which torch has no `SyncBatchNorm`.
    """
    if distributed.size() == 1:
        return
    losses = {f"losses.{label}": loss for label, loss in system.losses.items()}
    for name, module in (system.networks.modules | losses).items():
        for place, part in batch_norms(module):
            if system.device.type == "cpu":
                raise SpecError(
                    f"{name} has batch norms, which torch does not compute in several processes on CPUs: use one"
                    " process, or networks with another norm"
                )
            owner, _, own = place.rpartition(".")
            synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(part)  # type: ignore[no-untyped-call]
            setattr(module.get_submodule(owner), own, synchronised)
            distributed.send_after_backward()


def batch_norms(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Returns (place, module) of the batch norms in a module that are in training mode and not synchronised."""
    return [
        (place, part)
        for place, part in module.named_modules()
        if isinstance(part, _BatchNorm) and not isinstance(part, nn.SyncBatchNorm) and part.training
    ]
