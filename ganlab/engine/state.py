"""The state of training apart from the networks: counters, optimizers, pools of past fakes, averaged generators."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ganlab.data.sampler import BatchSource
from ganlab.interfaces.schedules import PLAYERS
from ganlab.system.build import System
from ganlab.system.error_attribution import Position
from ganlab.system.module_state import load_own_state, own_state
from ganlab.torch_utils import trainable


class TrainingState:
    """Everything besides the networks' tensors on which the next step depends. Checkpoints keep it.

    Attributes:
        step: the number of steps done.
        draws: the number of batches drawn.
        seconds: the time spent in steps.
        optimizers: {player: optimizer}; a player without trainable parameters has none.
        base_rates: {player: [learning rate of each parameter group]}, without the schedule's factor.
        pools: {direction: pool of past fakes}, if the schedule has pools.
        average: {direction: averaged generator}, or None.
        average_rate: the fraction of its distance to the weights that the average moves in a step.
    """

    def __init__(self, system: System, batches: BatchSource) -> None:
        self._system = system
        self.step = self.draws = 0
        self.seconds = 0.0
        position = Position()
        with system.components.attributing(position):
            self.pools = _make_pools(system, batches, position)
            self.optimizers = _make_optimizers(system, position)
        self.base_rates = {p: [float(g["lr"]) for g in o.param_groups] for p, o in self.optimizers.items()}
        halflife = system.spec.ema_halflife_images
        self.average = copy.deepcopy(self._generators()) if halflife else None
        self.average_rate = 1 - 0.5 ** (batches.batch / halflife) if halflife else 0.0

    def _generators(self) -> dict[str, nn.Module]:
        networks = self._system.networks
        return {direction: networks.generator(direction) for direction in self._system.schedule.directions}

    def sampling_generators(self) -> dict[str, nn.Module]:
        """Returns {direction: generator} for samples and evaluation: the averaged generators if there are any."""
        return dict(self.average or self._generators())

    def averaged_parameters(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields (average, parameter) pairs. A parameter that both directions share comes once."""
        if self.average is not None:
            averages, generators = nn.ModuleDict(self.average), nn.ModuleDict(self._generators())
            yield from zip(averages.parameters(), generators.parameters(), strict=True)

    def averaged_buffers(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields (average's buffer, generator's buffer) pairs."""
        if self.average is not None:
            averages, generators = nn.ModuleDict(self.average), nn.ModuleDict(self._generators())
            yield from zip(averages.buffers(), generators.buffers(), strict=True)

    def modules(self) -> dict[str, nn.Module]:
        """Returns {name: network}. The names of the averaged generators are `ema/DIRECTION`."""
        return self._system.networks.modules | {f"ema/{name}": module for name, module in (self.average or {}).items()}

    def state_dict(self) -> dict[str, Any]:
        """Returns plain values and tensors, from which `load_state_dict` restores the state."""
        state = {
            "step": self.step,
            "draws": self.draws,
            "seconds": self.seconds,
            "optimizers": {player: optimizer.state_dict() for player, optimizer in self.optimizers.items()},
            "losses": {label: own_state(loss) for label, loss in self._system.losses.items()},
            "pools": {direction: pool.state_dict() for direction, pool in self.pools.items()},
            "random": torch.get_rng_state(),
        }
        if self._system.device.type == "cuda":
            state["random_cuda"] = torch.cuda.get_rng_state(self._system.device)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state. Raises KeyError, TypeError, ValueError or RuntimeError if it is another system's."""
        self.step, self.draws, self.seconds = state["step"], state["draws"], state["seconds"]
        for player, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][player])
        for label, loss in self._system.losses.items():
            load_own_state(loss, state["losses"][label])
        for direction, pool in self.pools.items():
            pool.load_state_dict(state["pools"][direction])
        torch.set_rng_state(state["random"])
        if self._system.device.type == "cuda" and "random_cuda" in state:
            torch.cuda.set_rng_state(state["random_cuda"], self._system.device)


def _make_pools(system: System, batches: BatchSource, position: Position) -> dict[str, nn.Module]:
    pools = {}
    for direction in system.schedule.directions:
        position.move_to_schedule(f"pool of direction {direction}")
        if (pool := system.schedule.pool(batches.domains[direction[1]])) is not None:
            pools[direction] = pool.to(system.device, system.dtype)
            system.components.add(pool, system.components.at("schedule"))
    return pools


def _make_optimizers(system: System, position: Position) -> dict[str, torch.optim.Optimizer]:
    optimizers = {}
    for player in PLAYERS:
        networks = [module for name, module in system.networks.modules.items() if name.startswith(f"{player}/")]
        losses = [loss for loss in system.losses.values() if loss.trains == player]
        if not (parameters := list(trainable([*networks, *losses]))):
            continue
        position.move_to_schedule(f"optimizer of the {player}")
        made = system.schedule.optimizer(player, parameters)
        if not isinstance(made, torch.optim.Optimizer):
            raise TypeError(f"expected a torch.optim.Optimizer, got {made!r}")
        optimizers[player] = made
    return optimizers
