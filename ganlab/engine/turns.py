"""The plan of a step: the schedule's turns, checked, with the losses and parameters of each turn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple

from torch import nn

from ganlab.interfaces.schedules import PLAYERS, SEEN_IN_TURN, Turn
from ganlab.system.build import System
from ganlab.system.dry_run import LossRequests
from ganlab.system.error_attribution import Position
from ganlab.torch_utils import shown, trainable


class PlannedTurn(NamedTuple):
    """A turn of the schedule, with its terms, networks and parameters."""

    player: str
    directions: tuple[str, ...]
    new_batch: bool
    with_graph: bool
    """True if this turn, or a later turn with the same batch, is the generators'."""
    terms: tuple[tuple[str, str], ...]
    """(direction, label of the loss) of every term that the turn sums."""
    networks: tuple[str, ...]
    """The names of the networks that the turn updates."""
    parameters: tuple[nn.Parameter, ...]
    """The trainable parameters that the turn updates: those of `networks`, and the losses' own."""
    name: str
    """Names the turn's gradients in a record: "ab+ba", or "embeddings"."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the turn's losses, each once."""
        return tuple(dict.fromkeys(label for _, label in self.terms))


class Plan:
    """Plans the turns of each step. `requests`, from the dry run, name the discriminators that each loss uses."""

    def __init__(self, system: System, requests: Mapping[tuple[str, str, str], LossRequests]) -> None:
        self._system, self._requests = system, requests
        self._planned: dict[tuple[Turn, bool], PlannedTurn] = {}

    def __call__(self, step: int, position: Position) -> list[PlannedTurn]:
        """Returns the turns of step `step`, counted from 0. Raises TypeError or ValueError if a turn is invalid."""
        position.move_to_schedule("turns")
        turns = [self._checked(turn) for turn in self._system.schedule.turns(step)]
        return [self._plan(turn, _generators_use_batch(turns[index:])) for index, turn in enumerate(turns)]

    def _checked(self, turn: object) -> Turn:
        if not isinstance(turn, Turn):
            raise TypeError(f"expected a Turn, got {shown(turn)}")
        lists: dict[str, Any] = {
            part: tuple(names) for part, names in turn._asdict().items() if isinstance(names, list)
        }
        checked = turn._replace(**lists)
        directions = self._system.schedule.directions
        allowed: dict[str, tuple[Sequence[str | None], Any]] = {
            "player": (PLAYERS, (checked.player,)),
            "directions": (directions, checked.directions),
            "moves": (directions, checked.moves or ()),
            "losses": (tuple(self._system.losses), checked.losses or ()),
            "sees": ((None, *SEEN_IN_TURN), (checked.sees,)),
        }
        for part, (known, names) in allowed.items():
            if isinstance(names, str) or not set(names) <= set(known):
                raise ValueError(f"expected {part} of {', '.join(map(str, known))}, got {turn}")
        return checked

    def _plan(self, turn: Turn, with_graph: bool) -> PlannedTurn:
        if (turn, with_graph) not in self._planned:
            terms = tuple(
                (direction, label)
                for direction in turn.directions
                for label in self._system.losses
                if self._takes_part(turn, direction, label)
            )
            networks = self._updated_networks(turn)
            labels = dict.fromkeys(label for _, label in terms)
            losses = [self._system.losses[label] for label in labels]
            modules = [self._system.networks.modules[name] for name in networks]
            own = [loss for loss in losses if loss.trains == turn.player]
            self._planned[turn, with_graph] = PlannedTurn(
                turn.player,
                turn.directions,
                turn.new_batch,
                with_graph,
                terms,
                networks,
                tuple(trainable([*modules, *own])),
                "embeddings" if turn.sees == "embeddings" else "+".join(turn.directions),
            )
        return self._planned[turn, with_graph]

    def _takes_part(self, turn: Turn, direction: str, label: str) -> bool:
        if turn.losses is not None and label not in turn.losses:
            return False
        if turn.sees is None:
            return True
        asked = self._requests[turn.player, direction, label].values
        on_embeddings = not asked.isdisjoint(self._system.networks.discriminators("embeddings"))
        on_images = not asked.isdisjoint(self._system.networks.discriminators("images"))
        return on_embeddings if turn.sees == "embeddings" else on_images or not on_embeddings

    def _updated_networks(self, turn: Turn) -> tuple[str, ...]:
        directions = turn.directions if turn.moves is None else turn.moves
        if turn.player == "generator":
            return tuple(f"generator/{direction}" for direction in directions)
        networks = self._system.networks
        names = [] if turn.sees == "images" else networks.discriminators("embeddings")
        if turn.sees != "embeddings":
            names += [name for direction in directions for name in networks.discriminators("images", direction[1])]
        return tuple(names)


def _generators_use_batch(turns: Sequence[Turn]) -> bool:
    """Returns True if a turn with the first turn's batch is the generators'."""
    same_batch = [turns[0]]
    for turn in turns[1:]:
        if turn.new_batch:
            break
        same_batch.append(turn)
    return any(turn.player == "generator" for turn in same_batch)


def finite_number(value: Any) -> float:
    """Returns the value as a float. Raises TypeError if it is not a number, ValueError if it is not finite."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"expected a number, got {shown(value)}")
    if not math.isfinite(value):
        raise ValueError(f"expected a finite number, got {value!r}")
    return float(value)
