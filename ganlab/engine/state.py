"""The state of training apart from the networks: counters, optimizers, pools of past fakes, averaged generators."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator
from typing import Annotated, Any, NotRequired

import torch
from annotated_types import Ge
from pydantic import AllowInfNan, ConfigDict, TypeAdapter
from torch import Tensor, nn
from typing_extensions import TypedDict

from ganlab.data.sampler import BatchSource
from ganlab.engine import optimizers
from ganlab.errors import SpecError
from ganlab.interfaces.schedules import PLAYERS
from ganlab.system.build import System
from ganlab.system.error_attribution import Position
from ganlab.system.module_state import load_own_state, own_state
from ganlab.torch_utils import named_trainable, shown

EMA_RAMPUP = 0.05
"""The half-life of the averaged generators is at most this share of the images so far, as in EDM (arXiv:2206.00364, its
`ema_rampup_ratio`) and StyleGAN3 (arXiv:2106.12423, its `ema_rampup`): an average forgets the initial weights."""


class _Optimizer(TypedDict):
    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    state: dict[Any, Any]
    param_groups: list[dict[str, Any]]


class _Saved(TypedDict):
    __pydantic_config__ = ConfigDict(extra="allow", arbitrary_types_allowed=True, strict=True)  # type: ignore[misc]
    step: Annotated[int, Ge(0)]
    draws: Annotated[int, Ge(0)]
    seconds: Annotated[float, Ge(0), AllowInfNan(False)]
    optimizers: dict[str, _Optimizer]
    losses: dict[str, dict[str, Any]]
    pools: dict[str, dict[str, Any]]
    random: Tensor
    random_cuda: NotRequired[Tensor]


_SAVED = TypeAdapter(_Saved)


class TrainingState:
    """Everything besides the networks' tensors on which the next step depends. Checkpoints keep it.

    Attributes:
        step: the number of steps done.
        draws: the number of batches drawn.
        seconds: the time spent in steps.
        optimizers: {player: optimizer}; a player without trainable parameters has none.
        base_rates: {player: [learning rate of each parameter group]}, without the schedule's factor.
        rates: the same with the factor of the player's last update.
        pools: {direction: pool of past fakes}, if the schedule has pools.
        average: {direction: averaged generator}, or None.
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
        self.rates = dict(self.base_rates)
        self._batch = batches.batch
        self.average = copy.deepcopy(self._generators()) if system.spec.ema_halflife_images else None

    def _generators(self) -> dict[str, nn.Module]:
        networks = self._system.networks
        return {direction: networks.generator(direction) for direction in self._system.schedule.directions}

    def sampling_generators(self) -> dict[str, nn.Module]:
        """Returns {direction: generator} for samples and evaluation: the averaged generators if there are any."""
        return dict(self.average or self._generators())

    def average_rate(self) -> float:
        """Returns the fraction of its distance to the weights that the average moves in the next step."""
        halflife = min(self._system.spec.ema_halflife_images or 0.0, EMA_RAMPUP * self.step * self._batch)
        return 1 - 0.5 ** (self._batch / halflife) if halflife else 1.0

    def learning_rates(self, players: Collection[str]) -> dict[str, float]:
        """Returns {"learning_rate/PLAYER": rate of its last update}; several parameter groups add "/0", "/1", ..."""
        return {
            f"learning_rate/{player}{f'/{index}' if len(rates) > 1 else ''}": rate
            for player, rates in self.rates.items()
            if player in players
            for index, rate in enumerate(rates)
        }

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
            "optimizers": {player: self._optimizer_state(player) for player in self.optimizers},
            "losses": {label: own_state(loss) for label, loss in self._system.losses.items()},
            "pools": {direction: pool.state_dict() for direction, pool in self.pools.items()},
            "random": torch.get_rng_state(),
        }
        if self._system.device.type == "cuda":
            state["random_cuda"] = torch.cuda.get_rng_state(self._system.device)
        return state

    def _optimizer_state(self, player: str) -> dict[str, Any]:
        """Returns an optimizer's state, with the names of its parameters if it does not keep them itself."""
        optimizer = self.optimizers[player]
        state = optimizers.saved(optimizer, self.rates[player])
        names = {id(parameter): name for name, parameter in _parameters(self._system, player)}
        for group, held in zip(state["param_groups"], optimizer.param_groups, strict=True):
            group.setdefault("param_names", [names.get(id(parameter), "") for parameter in held["params"]])
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state. Raises an exception of any type if it is another system's."""
        _SAVED.validate_python(state)
        for player, optimizer in self.optimizers.items():
            _check_optimizer(player, optimizer, self._optimizer_state(player), state["optimizers"][player])
        self.step, self.draws, self.seconds = state["step"], state["draws"], state["seconds"]
        for player, optimizer in self.optimizers.items():
            optimizers.load(optimizer, state["optimizers"][player])
            self.rates[player] = [float(group["lr"]) for group in optimizer.param_groups]
        for label, loss in self._system.losses.items():
            load_own_state(loss, state["losses"][label])
        for direction, pool in self.pools.items():
            load_own_state(pool, state["pools"][direction])
        torch.set_rng_state(state["random"])
        if self._system.device.type == "cuda" and "random_cuda" in state:
            torch.cuda.set_rng_state(state["random_cuda"], self._system.device)


def _make_pools(system: System, batches: BatchSource, position: Position) -> dict[str, nn.Module]:
    pools = {}
    for direction in system.schedule.directions:
        position.move_to_schedule(f"pool of direction {direction}")
        if (pool := system.schedule.pool(batches.domains[direction[1]])) is not None:
            pairs = [
                name
                for name in system.networks.discriminators("images", direction[1])
                if system.networks.discriminator(name).sees == "pairs"
            ]
            if pairs:
                raise SpecError(
                    f"its pool of past fakes keeps no sources, and {pairs[0]} sees pairs of a source and a fake: use a"
                    " schedule without a pool"
                )
            pools[direction] = pool.to(system.device, system.dtype)
            system.components.add(pool, system.components.at("schedule"))
    return pools


def _make_optimizers(system: System, position: Position) -> dict[str, torch.optim.Optimizer]:
    made_for = {}
    for player in PLAYERS:
        if not (parameters := _parameters(system, player)):
            continue
        position.move_to_schedule(f"optimizer of the {player}")
        made = system.schedule.optimizer(player, parameters)
        if not isinstance(made, torch.optim.Optimizer):
            raise TypeError(f"expected a torch.optim.Optimizer, got {shown(made)}")
        if system.device.type == "cuda":
            optimizers.make_capturable(made)
        made_for[player] = made
    return made_for


def _parameters(system: System, player: str) -> list[tuple[str, nn.Parameter]]:
    """Returns (name, parameter) of everything that a player trains."""
    networks = [(name, m) for name, m in system.networks.modules.items() if name.startswith(f"{player}/")]
    losses = [(f"losses/{label}", loss) for label, loss in system.losses.items() if loss.trains == player]
    return list(named_trainable([*networks, *losses]))


_STEP = torch.empty((), dtype=torch.float32, device="meta")
"""The count of updates of a fused optimizer."""


def _check_optimizer(player: str, optimizer: torch.optim.Optimizer, present: dict[str, Any], saved: _Optimizer) -> None:
    """Raises ValueError if `saved` is not the state of this optimizer, which has the state `present`.

    A fused update reads and writes as many values as the parameter has, whatever the shape of a moment is.
    """
    own = present["param_groups"]
    if [group.get("params") for group in saved["param_groups"]] != [group["params"] for group in own]:
        raise ValueError(f"optimizers.{player}: its parameters are others")
    for group, mine, then in zip(optimizer.param_groups, own, saved["param_groups"], strict=True):
        # torch matches by position: moments of other parameters may have the same shapes
        for was, now in zip(then.get("param_names", ()), mine["param_names"], strict=False):
            if was != now:
                raise ValueError(f"optimizers.{player}: the parameters have another order: {was!r} is {now!r} now")
        for name in mine.keys() & then.keys():
            if not _alike(name, mine[name], then[name]):
                raise ValueError(f"optimizers.{player}: {name}: {shown(then[name])} does not fit {shown(mine[name])}")
        for index, parameter in zip(mine["params"], group["params"], strict=True):
            moments = saved["state"].get(index, {})
            if not isinstance(moments, dict):
                raise ValueError(f"optimizers.{player}: the state of parameter {index} is no dictionary")
            for name, value in moments.items() if group.get("fused") else ():
                expected = _STEP if name == "step" else torch.empty_like(parameter, device="meta")
                if _layout(value) != _layout(expected):
                    raise ValueError(
                        f"optimizers.{player}: {name} of parameter {index}: expected {_layout(expected)},"
                        f" got {_layout(value)}"
                    )


def _alike(name: str, one: Any, other: Any) -> bool:
    """True if an optimizer's setting may become `other`: they choose the kernels, or have the same type."""
    if name in ("fused", "foreach", "differentiable", "amsgrad"):
        return bool(one is other)
    numbers = (int, float)
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) == len(other) and all(_alike("", *pair) for pair in zip(one, other, strict=True))
    return type(one) is type(other) or (type(one) in numbers and type(other) in numbers)


def _layout(value: Any) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)} with strides {value.stride()}"
