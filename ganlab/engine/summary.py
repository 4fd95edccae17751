"""Describes a trainer without training it: networks, terms, turns and the memory that a run needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ganlab.engine.trainer import Trainer
from ganlab.engine.turns import PlannedTurn
from ganlab.interfaces.networks import Domain
from ganlab.system.build import System
from ganlab.system.dry_run import buffers_restored
from ganlab.system.error_attribution import Position
from ganlab.torch_utils import trainable


def describe_networks(system: System, domains: Mapping[str, Domain]) -> list[dict[str, Any]]:
    """[{"name", "type", "parameters", "input", "output"}] of all networks, then of the losses that have parameters.

    "parameters" is the number of trainable parameters. Shapes are "CxHxW", "" for a loss.
    """
    networks = system.networks
    described: list[dict[str, Any]] = []

    def images(domain: str) -> Tensor:
        shape = domains[domain]
        return torch.zeros(2, shape.channels, shape.height, shape.width, device=system.device, dtype=system.dtype)

    def describe(name: str, place: str, module: nn.Module, x: str, y: str) -> None:
        parameters = sum(p.numel() for p in trainable([module]))
        title = system.spec.components[place].title
        described.append({"name": name, "type": title, "parameters": parameters, "input": x, "output": y})

    with buffers_restored(system), torch.no_grad():
        for name, module in networks.modules.items():
            kind, *rest = name.split("/")
            if kind == "generator":
                x = images(rest[0][0])
                y = networks.decode(rest[0], networks.features(rest[0], x)[-1])
            else:
                direction = next(d for d in system.schedule.directions if d[1] in rest[1:] or len(rest) == 1)
                source = images(direction[0])
                embeds = len(rest) == 1
                x = networks.features(direction, source)[-1] if embeds else networks.seen(name, source, images(rest[1]))
                y = networks.score(name, x)
            place = kind if kind == "generator" else f"discriminators.{rest[0]}"
            describe(name, place, module, *("x".join(map(str, tensor.shape[1:])) for tensor in (x, y)))
    for label, loss in system.losses.items():
        if any(True for _ in trainable([loss])):
            describe(f"loss/{label}", f"losses.{label}", loss, "", "")
    return described


def describe_terms(trainer: Trainer) -> list[dict[str, Any]]:
    """[{"player", "direction", "term", "weight"}] of every term that the dry run found, and of every logged value.

    The weight of a logged value is None.
    """
    found: list[dict[str, Any]] = []
    for (player, direction, label), requests in trainer.dry_run.requests.items():
        if weight := trainer.system.spec.weight(label)[player]:
            terms = [(direction, part, weight) for part in requests.parts]
            logged = [(way, name, None) for way, name in requests.logged]
            found += [
                {"player": player, "direction": way, "term": f"{label}/{part}".rstrip("/"), "weight": factor}
                for way, part, factor in (*terms, *logged)
            ]
    return found


def describe_turns(trainer: Trainer) -> list[dict[str, Any]]:
    """[{"player", "directions", "moves", "new_batch"}] of the first step's turns that update anything."""
    position = Position(step=1)
    with trainer.system.components.attributing(position):
        turns = trainer.plan(0, position)
    return [
        {
            "player": turn.player,
            "directions": list(turn.directions),
            "moves": updated,
            "new_batch": turn.new_batch,
        }
        for turn in turns
        if (updated := updated_by(trainer, turn))
    ]


def updated_by(trainer: Trainer, turn: PlannedTurn) -> list[str]:
    """Returns the names of the networks and losses that a turn updates; none if the turn has no terms."""
    if not any(trainer.dry_run.requests[turn.player, direction, label].parts for direction, label in turn.terms):
        return []
    losses = trainer.system.losses
    own = [
        f"loss/{label}"
        for label in turn.labels
        if losses[label].trains == turn.player and any(p.requires_grad for p in losses[label].parameters())
    ]
    return [*turn.networks, *own]


def state_bytes(trainer: Trainer) -> int:
    """The memory of weights, gradients, averages, pools and optimizers. Lets each optimizer take a step on zeros."""
    state, system = trainer.state, trainer.system
    kept_whole = [*(state.average or {}).values(), *state.pools.values(), *system.losses.values()]
    total: int = sum(tensor.nbytes for module in kept_whole for tensor in module.state_dict().values())
    position = Position()
    with system.components.attributing(position):
        for player, optimizer in state.optimizers.items():
            position.move_to_schedule(f"optimizer of the {player}")
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            for p in parameters:
                p.grad = torch.zeros_like(p)
            optimizer.step()
            optimizer.zero_grad()
            kept = [t for values in optimizer.state.values() for t in values.values() if isinstance(t, Tensor)]
            total += sum(t.nbytes for t in (*parameters, *parameters, *kept))
    return total


def activation_bytes(trainer: Trainer, batch: int, parts: int) -> int:
    """The memory that autograd keeps during the larger player's turn, for a batch of `batch` images of each domain.

    The batch is computed in equal parts. If a step begins with a discriminators' turn whose fakes a generators' turn
    uses later, the graphs of all parts are kept at once; otherwise one at a time.
    """
    position = Position(step=1)
    with trainer.system.components.attributing(position):
        first = next(iter(trainer.plan(0, position)), None)
    at_once = parts if first and first.player == "discriminator" and first.with_graph else 1
    return max(trainer.dry_run.saved_bytes.values()) * (batch // parts) * at_once
