"""One training step. A step is a list of turns; a turn updates one player, generators or discriminators, once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

from ganlab import distributed
from ganlab.data.sampler import Batch, BatchSource, first_images
from ganlab.engine import optimizers
from ganlab.engine.capture import CudaGraphs, StepCapture
from ganlab.engine.state import TrainingState
from ganlab.engine.step_log import Row, StepLog, Terms
from ganlab.engine.turns import Plan, PlannedTurn, finite_number
from ganlab.interfaces.losses import Translation
from ganlab.parts import Part, own_parts
from ganlab.system.build import System
from ganlab.system.compile_networks import compile_networks
from ganlab.system.dry_run import dry_run, prepare_losses
from ganlab.system.error_attribution import Position
from ganlab.system.forward_cache import ForwardCache
from ganlab.system.host_inputs import HostInputs, HostNumbers
from ganlab.system.image_size import explaining_size
from ganlab.system.terms import checked_terms


class Trainer:
    """Trains a system step by step.

    `position` follows what the step does. `attributing` catches an exception inside a plugin and names the plugin and
    the position in one sentence. `warn` receives sentences about the networks that are compiled, and about steps that
    can't be captured as CUDA graphs.
    """

    def __init__(self, system: System, batches: BatchSource, warn: Callable[[str], object] = str) -> None:
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
        self.numbers = HostNumbers(system.device)
        self._first_draw = 0
        self.capture: StepCapture | None = None
        runtime = system.spec.runtime
        if runtime.compile:
            compile_networks(system, self.dry_run.differentiated_twice, example, warn)
        # neither can be captured: recomputing reads the state of the random generator, and ranks wait for one another
        alone = not runtime.checkpoint_activations and distributed.size() == 1
        if system.device.type == "cuda" and runtime.capture and alone:
            self.capture = StepCapture(system, self.state, self.position, CudaGraphs(system.device), warn)

    def step(self) -> None:
        """Takes one step. Does not synchronise with the device."""
        self.position.step = self.state.step + 1
        with (
            self.system.components.attributing(self.position),
            self.log.step(self.state, self.batches.batch),
            self.networks.settings(),
        ):
            distributed.reseed(self.system.spec.seed, self.state.step)
            turns = self.plan(self.state.step, self.position)
            self._first_draw = self.state.draws
            self.set_numbers(turns)
            take = functools.partial(self.take, turns)
            self.log.row = take(HostInputs()) if self.capture is None else self.capture(self.kind(turns), take)
            self.state.step += 1

    def kind(self, turns: Sequence[PlannedTurn]) -> Hashable:
        """Returns what the operations of a step depend on: its turns, and which weights are 0."""
        weights = [_weight(turn.player, label) for turn in turns for label in turn.labels]
        # a turn is planned once
        return tuple(map(id, turns)), tuple(self.numbers.value(weight) == 0 for weight in weights)

    def take(self, turns: Sequence[PlannedTurn], inputs: HostInputs) -> Row | None:
        """Takes the turns of one step: everything that the device computes. The host's values come through `inputs`."""
        self.log.begin()
        caches = self.next_batch(inputs)
        for index, turn in enumerate(turns):
            if turn.new_batch and index > 0:
                caches = self.next_batch(inputs)
            for cache in caches:
                cache.begin(turn.player, (self.state.step, index), turn.with_graph)
                terms = self.loss_terms(turn, cache)
                # the last part completes the gradients
                with distributed.averaged_gradients(turn.parameters if cache is caches[-1] else ()):
                    self.backward(turn, terms)
                self.log.add(turn, terms)
            self.log.add_norm(turn, self.update(turn))
        distributed.average_buffers([*self.networks.modules.values(), *self.system.losses.values()])
        self.update_average()
        return self.log.collected()

    def set_numbers(self, turns: Sequence[PlannedTurn]) -> None:
        """Sets the numbers that change from step to step: weights, learning rates, and the rate of the average."""
        dtype = self.system.dtype
        for player, label in dict.fromkeys((turn.player, label) for turn in turns for label in turn.labels):
            self.numbers.set(_weight(player, label), self.weight(label, player), dtype)
        for player in dict.fromkeys(turn.player for turn in turns):
            self.set_learning_rate(player)
        self.numbers.set("average", self.state.average_rate(), dtype)

    def next_batch(self, inputs: HostInputs) -> list[ForwardCache]:
        """Draws the next batch of both domains, in the parts over which gradients are averaged."""
        self.position.move("", "the next batch")
        draw, self.state.draws = self.state.draws, self.state.draws + 1
        pools, seed = self.state.pools, self.system.spec.seed
        return [
            ForwardCache(self.networks, self._batch(draw, part, inputs), pools, seed, part, inputs)
            for part in self.parts
        ]

    def _batch(self, draw: int, part: Part, inputs: HostInputs) -> Batch:
        # counted from the step's first batch, because a captured step asks for those of later steps
        place = draw - self._first_draw
        return inputs(lambda step: self.batches(self._first_draw + place, part), self.state.step)

    def loss_terms(self, turn: PlannedTurn, cache: ForwardCache) -> Terms:
        """Calls the losses of the turn, except those of weight 0.

        Returns {(direction, label, part): (weight, scalar)}.
        """
        terms: Terms = {}
        for direction, label in turn.terms:
            weight = _weight(turn.player, label)
            if self.numbers.value(weight) == 0:
                continue
            self.position.move_to_term(label, turn.player, direction)
            parts = checked_terms(self.system.losses[label], turn.player, Translation(direction, cache))
            for part, value in parts.items():
                terms[direction, label, part] = self.numbers[weight], value
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
        """Takes one optimizer step along the turn's gradients, clipped if the schedule says so.

        Returns the gradient's norm before clipping, or None if no parameter of the turn has a gradient.
        """
        updated = [p for p in turn.parameters if p.grad is not None]
        if not updated:
            return None
        norm = torch.nn.utils.get_total_norm([p.grad for p in updated if p.grad is not None])
        if self.schedule.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(updated, self.schedule.clip, norm)
        self.step_optimizer(turn.player)
        changed = self.networks.updated(updated)
        self.after_update([name for name in turn.networks if name in changed])
        for p in updated:
            p.grad = None
        return norm

    def step_optimizer(self, player: str) -> None:
        """One step of the player's optimizer, at the learning rate of this step."""
        self.position.move_to_schedule(f"optimizer of the {player}")
        self.state.optimizers[player].step()
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
        rate = self.numbers["average"]
        with torch.no_grad():
            for average, weight in self.state.averaged_parameters():
                average.lerp_(weight, rate)
            for average, buffer in self.state.averaged_buffers():
                average.copy_(buffer)

    def weight(self, label: str, player: str) -> float:
        """The weight of a term: the spec's, times the schedule's factor at this step. A lazy loss has `every` times
        that in every `every`-th step, and 0 in the others (arXiv:1912.04958, section 3.1)."""
        self.position.move_to_schedule(f"weight of {label} for the {player}")
        factor = finite_number(self.schedule.weight(label, player, self.state.step))
        every = self.system.losses[label].every
        return self.system.spec.weight(label)[player] * factor * every if self.state.step % every == 0 else 0.0

    def set_learning_rate(self, player: str) -> None:
        """Sets the learning rate of a player's optimizer: its own, times the schedule's factor at this step."""
        if player in self.state.optimizers:
            self.position.move_to_schedule(f"learning rate of the {player}")
            factor = finite_number(self.schedule.learning_rate(player, self.state.step))
            self.state.rates[player] = [rate * factor for rate in self.state.base_rates[player]]
            optimizers.set_rates(self.state.optimizers[player], self.state.rates[player], player, self.numbers)


def _weight(player: str, label: str) -> str:
    """Names the weight of a loss's terms for a player among the numbers."""
    return f"weight {player} {label}"
