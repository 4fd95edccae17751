"""One training step. A step is a list of turns; a turn updates one player, generators or discriminators, once."""

from __future__ import annotations

import torch
from torch import Tensor

from ganlab import distributed
from ganlab.data.sampler import BatchSource, first_images
from ganlab.engine.state import TrainingState
from ganlab.engine.step_log import StepLog, Terms
from ganlab.engine.turns import Plan, PlannedTurn, finite_number
from ganlab.interfaces.losses import Translation
from ganlab.parts import own_parts
from ganlab.system.build import System
from ganlab.system.dry_run import dry_run, prepare_losses
from ganlab.system.error_attribution import Position
from ganlab.system.forward_cache import ForwardCache
from ganlab.system.image_size import explaining_size
from ganlab.system.terms import checked_terms


class Trainer:
    """Trains a system step by step.

    `position` follows what the step does. `attributing` catches an exception inside a plugin and names the plugin and
    the position in one sentence.
    """

    def __init__(self, system: System, batches: BatchSource) -> None:
        self.system, self.networks, self.schedule = system, system.networks, system.schedule
        self.batches = batches
        self.parts = own_parts(system.spec.runtime.accumulate)
        example = first_images(batches(0), 2)
        with explaining_size(self.networks, batches.domains, system.components):
            prepare_losses(system, example)
            self.dry_run = dry_run(system, example)
        # which discriminators a loss uses decides in which turns it takes part
        self.plan = Plan(system, self.dry_run.requests)
        self.state = TrainingState(system, batches)
        self.log = StepLog()
        self.position = Position()

    def step(self) -> None:
        """Takes the turns of one step. Does not synchronise with the device."""
        self.position.step = self.state.step + 1
        with self.system.components.attributing(self.position), self.log.step(self.state, self.batches.batch):
            distributed.reseed(self.system.spec.seed, self.state.step)
            caches = self.next_batch()
            for index, turn in enumerate(self.plan(self.state.step, self.position)):
                if turn.new_batch and index > 0:
                    caches = self.next_batch()
                for cache in caches:
                    cache.begin(turn.player, (self.state.step, index), turn.with_graph)
                    terms = self.loss_terms(turn, cache)
                    self.backward(turn, terms)
                    self.log.add(turn, terms)
                self.log.add_norm(turn, self.update(turn))
            self.update_average()
            self.state.step += 1

    def next_batch(self) -> list[ForwardCache]:
        """Draws the next batch of both domains, in the parts over which gradients are averaged."""
        self.position.move("", "the next batch")
        draw, self.state.draws = self.state.draws, self.state.draws + 1
        return [
            ForwardCache(self.networks, self.batches(draw, part), self.state.pools, self.system.spec.seed, part)
            for part in self.parts
        ]

    def loss_terms(self, turn: PlannedTurn, cache: ForwardCache) -> Terms:
        """Calls the losses of the turn, except those of weight 0.

        Returns {(direction, label, part): (weight, scalar)}.
        """
        terms: Terms = {}
        for direction, label in turn.terms:
            if (weight := self.weight(label, turn.player)) == 0:
                continue
            self.position.move_to_term(label, turn.player, direction)
            parts = checked_terms(self.system.losses[label], turn.player, Translation(direction, cache))
            for part, value in parts.items():
                terms[direction, label, part] = weight, value
            self.log.add_logged(turn.player, label, cache.take_logged())
        return terms

    def backward(self, turn: PlannedTurn, terms: Terms) -> None:
        """Adds the gradient of the weighted sum of one part's terms to the turn's parameters."""
        self.position.move_to_gradients(turn.player, [label for _, label, _ in terms], turn.directions)
        total = torch.stack([weight * value for weight, value in terms.values()]).sum() if terms else None
        if total is not None and total.requires_grad and turn.parameters:
            # only these parameters get gradients, so no network has to be frozen
            torch.autograd.backward(total / len(self.parts), inputs=turn.parameters)

    def update(self, turn: PlannedTurn) -> Tensor | None:
        """Takes one optimizer step along the turn's gradients.

        Returns the gradient's norm, or None if no parameter of the turn has a gradient.
        """
        distributed.average_gradients(turn.parameters)
        updated = [p for p in turn.parameters if p.grad is not None]
        if not updated:
            return None
        norm = torch.nn.utils.get_total_norm([p.grad for p in updated if p.grad is not None])
        self.step_optimizer(turn.player)
        changed = self.networks.updated(updated)
        self.after_update([name for name in turn.networks if name in changed])
        for p in updated:
            p.grad = None
        return norm

    def step_optimizer(self, player: str) -> None:
        """One step of the player's optimizer, at the schedule's learning rate."""
        self.position.move_to_schedule(f"learning rate of the {player}")
        factor = finite_number(self.schedule.learning_rate(player, self.state.step))
        optimizer = self.state.optimizers[player]
        for group, rate in zip(optimizer.param_groups, self.state.base_rates[player], strict=True):
            group["lr"] = rate * factor
        self.position.move_to_schedule(f"optimizer of the {player}")
        optimizer.step()
        self.position.move("", "the turn")

    def after_update(self, networks: list[str]) -> None:
        """Lets each updated network adjust its parameters: WGAN clips its critics (arXiv:1701.07875, algorithm 1)."""
        with torch.no_grad():
            for name in networks:
                self.position.move_to_network(name, "after_update")
                self.networks[name].after_update()
        self.position.move("", "the turn")

    def update_average(self) -> None:
        """Moves the averaged generators towards the trained ones: average += rate * (weight - average)."""
        self.position.move("", "the average of the generators")
        rate = self.state.average_rate()
        with torch.no_grad():
            for average, weight in self.state.averaged_parameters():
                average.lerp_(weight, rate)
            for average, buffer in self.state.averaged_buffers():
                average.copy_(buffer)

    def weight(self, label: str, player: str) -> float:
        """The weight of a term: the spec's, times the schedule's factor at this step."""
        self.position.move_to_schedule(f"weight of {label} for the {player}")
        factor = finite_number(self.schedule.weight(label, player, self.state.step))
        return self.system.spec.weight(label)[player] * factor
