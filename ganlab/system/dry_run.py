"""The dry run: every loss is evaluated once on two images before training, to find what does not fit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ganlab.data.sampler import Batch
from ganlab.determinism import untouched_randomness
from ganlab.errors import SpecError
from ganlab.interfaces.losses import Loss, Translation
from ganlab.interfaces.networks import Discriminator, Generator
from ganlab.interfaces.schedules import PLAYERS
from ganlab.system.autograd_checks import (
    MutationCheckingCache,
    Saved,
    check_saved,
    graph_leaves,
    saved_bytes,
    saving,
)
from ganlab.system.build import System
from ganlab.system.error_attribution import Position
from ganlab.system.forward_cache import ForwardCache
from ganlab.system.plain_state import Snapshot, overwritten, plain_state
from ganlab.system.terms import checked_terms
from ganlab.system.weights import WeightsCopy
from ganlab.torch_utils import as_float, evaluating, trainable


class LossRequests(NamedTuple):
    """The terms that one loss gave one player in one direction, and the values that it read."""

    parts: tuple[str, ...]
    """The names of the terms: "" for a plain scalar; empty if there is no term."""
    logged: tuple[tuple[str, str], ...]
    """(direction, name) of each value that the loss logged."""
    values: frozenset[str]
    """The values that the loss read, as "DIRECTION.VALUE", and the names of the discriminators that scored for it."""


class DryRun(NamedTuple):
    requests: dict[tuple[str, str, str], LossRequests]
    """{(player, direction, label of the loss): its terms and requests}."""
    saved_bytes: dict[str, int]
    """{player: bytes that autograd and the forward cache keep for one image, summed over the directions}.

    If activations are computed again, those of one use of each network are included."""
    differentiated_twice: set[str]
    """The names of the networks that a loss differentiates twice, as gradient penalties do."""
    warnings: list[str]
    """A sentence for each fault that may be none: terms without a gradient, state that no checkpoint keeps."""


def prepare_losses(system: System, batch: Batch) -> None:
    """Calls every loss's `prepare`, in which it creates parameters whose shapes depend on the data."""
    cache = ForwardCache(system.networks, batch, {}, system.spec.seed)
    checks = _Checks(system)
    with (
        system.components.attributing(checks.position),
        buffers_restored(system),
        checks.weights.restored(),
        torch.no_grad(),
    ):
        for label, loss in system.losses.items():
            place = f"losses.{label}"
            for direction in system.schedule.directions:
                checks.position.move(place, f"{place}'s preparation in direction {direction}")
                loss.prepare(Translation(direction, cache))
                checks.no_parameter_frozen()
                # a network that has been used may have changed its weights itself
                checks.may_change_own_weights(system.networks.used())
                checks.no_weight_changed()
            checks.position.move(place, place)
            checks.loss_owns_its_parts(loss)
            loss.to(system.device, system.dtype)


def dry_run(system: System, batch: Batch) -> DryRun:
    """Computes every term once and leaves the system unchanged. Raises SpecError if something does not fit."""
    checks = _Checks(system)
    with _unchanged(system, checks):
        recomputed = 0
        for direction in system.schedule.directions:
            once: list[Saved] = []
            with system.networks.keeping_activations(), saving(once):
                checks.shapes_fit(direction, batch)
            recomputed = max(recomputed, saved_bytes(once) // _images(batch))
            checks.forward_is_decode_of_features(direction, batch.images[direction[0]])
        # some networks normalise their weights in every forward
        checks.may_change_own_weights(checks.weights.changed())
        state = _PlainState(system)
        with system.networks.noting_second_derivatives() as twice:
            found = DryRun({}, {}, twice, [])
            for turn, player in enumerate(PLAYERS):
                _run_turn(system, batch, turn, player, checks, found, state)
                if system.spec.runtime.checkpoint_activations:
                    found.saved_bytes[player] += recomputed
        found.warnings.extend(state.warnings())
    return found


def check_forwards(system: System, batch: Batch) -> None:
    """Calls every network and leaves the system unchanged. Raises SpecError if a network does not fit, as `dry_run`
    does."""
    checks = _Checks(system)
    with _unchanged(system, checks):
        for direction in system.schedule.directions:
            checks.shapes_fit(direction, batch)


@contextmanager
def _unchanged(system: System, checks: _Checks) -> Iterator[None]:
    """Leaves a system as it was before the block. An error inside names the component at fault."""
    with (
        system.components.attributing(checks.position),
        buffers_restored(system),
        checks.weights.restored(),
        untouched_randomness(system.device),
    ):
        yield
    system.networks.forwards.clear()


def _run_turn(
    system: System, batch: Batch, turn: int, player: str, checks: _Checks, found: DryRun, state: _PlainState
) -> None:
    cache = MutationCheckingCache(system.networks, batch, system.spec.seed)
    cache.begin(player, (0, turn), with_graph=player == "generator")
    parameters = list(trainable([*system.networks.modules.values(), *system.losses.values()]))
    saved: list[Saved] = []
    minimised: list[Tensor] = []
    reached: dict[str, set[int]] = {label: set() for label in system.losses}
    terms: dict[str, dict[str, Tensor]] = {label: {} for label in system.losses}
    for direction in system.schedule.directions:
        for label, loss in system.losses.items():
            cache.requests = set()
            checks.position.move_to_term(label, player, direction)
            with saving(saved):
                parts = checked_terms(loss, player, Translation(direction, cache))
            logged = tuple(dict.fromkeys((way, name) for way, name, _ in cache.take_logged()))
            state.look(f"losses.{label}", loss)
            checks.no_parameter_frozen()
            checks.no_weight_changed()
            if changed := cache.changed(direction):
                raise SpecError(f"changes {changed[0]} in place")
            if system.spec.weight(label)[player]:
                minimised += parts.values()
                terms[label] |= {f"{direction}/{part}".rstrip("/"): value for part, value in parts.items()}
                for value in parts.values():
                    reached[label] |= checks.player_is_reached(loss, player, value)
            found.requests[player, direction, label] = LossRequests(tuple(parts), logged, frozenset(cache.requests))
            checks.position.move_to_gradients(player, (label,), (direction,))
            check_saved(saved, minimised, parameters)
    for label, loss in system.losses.items():
        checks.position.move(f"losses.{label}", f"losses.{label}")
        checks.own_parameters_are_reached(loss, player, reached[label])
        if (fault := _constant_terms(player, terms[label])) is not None:
            found.warnings.append(system.components.sentence(f"losses.{label}", fault))
    held = [Saved(tensor.detach(), tensor._version, is_parameter=False) for tensor in cache.held()]
    found.saved_bytes[player] = saved_bytes([*saved, *held]) // _images(batch)


def _images(batch: Batch) -> int:
    return len(next(iter(batch.images.values())))


class _PlainState:
    """Finds the plain attributes that losses overwrite: `look` is called after each use of a loss."""

    def __init__(self, system: System) -> None:
        self._components = system.components
        self._last: dict[str, dict[str, Snapshot]] = {}
        self._found: dict[str, str] = {}
        for label, loss in system.losses.items():
            self.look(f"losses.{label}", loss)

    def look(self, place: str, loss: Loss) -> None:
        # an attribute may be any object, and raise anything when it is looked at
        with suppress(Exception):
            now = plain_state(loss)
            if place in self._last and (changed := overwritten(self._last[place], now)):
                self._found.setdefault(place, changed[0])
            self._last[place] = now

    def warnings(self) -> list[str]:
        return [
            self._components.sentence(
                place,
                f"changes {changed}, which checkpoints do not keep; if a later term depends on it, use register_buffer,"
                " or t.step to count",
            )
            for place, changed in self._found.items()
        ]


class _Checks:
    """The checks of a system. Each raises SpecError with the fault; `position` says where the fault is."""

    def __init__(self, system: System) -> None:
        self.position = Position()
        self.weights = WeightsCopy(system.networks)
        self._changing: set[str] = set()
        self._networks = system.networks
        self._trained = list(trainable(system.networks.modules.values()))

    def loss_owns_its_parts(self, loss: Loss) -> None:
        if not any(getattr(type(loss), player) is not getattr(Loss, player) for player in PLAYERS):
            raise SpecError(f"has no term: it needs a method {' or '.join(PLAYERS)}")
        if held := self._networks.holding(map(id, loss.parameters())):
            raise SpecError(
                f"keeps {', '.join(held)} as its own, which the {loss.trains}s' turn would update: read it from t each"
                " time"
            )

    def no_parameter_frozen(self) -> None:
        if names := self._networks.holding(id(p) for p in self._trained if not p.requires_grad):
            player = names[0].split("/")[0]
            raise SpecError(f"freezes parameters of {', '.join(names)}, which the {player}s' turn updates")

    def may_change_own_weights(self, names: Iterable[str]) -> None:
        """Accepts from now on that the weights of these networks change."""
        self._changing.update(names)

    def no_weight_changed(self) -> None:
        if names := [name for name in self.weights.changed() if name not in self._changing]:
            kind = names[0].split("/")[0].capitalize()
            raise SpecError(
                f"changes the weights of {', '.join(names)}; a network adjusts its weights in {kind}.after_update,"
                " which is called after each update"
            )

    def shapes_fit(self, direction: str, batch: Batch) -> None:
        source, target = batch.images[direction[0]], batch.images[direction[1]]
        versions = source._version
        self.position.move("generator", f"generator: can't translate images of {_shape(source)}")
        embedding = self._networks.features(direction, source)[-1]
        versions += embedding._version
        fake = self._networks.decode(direction, embedding)
        self.position.move("generator", "generator")
        self._parameters_are_held(fake)
        embedding, fake = embedding.detach(), fake.detach()
        if source._version + embedding._version != versions:
            raise SpecError("changes in place the images or the embedding that it is given")
        for name in self._networks.discriminators("images", direction[1]):
            self._discriminator_fits(name, self._networks.seen(name, source, target))
        for name in self._networks.discriminators("embeddings"):
            self._discriminator_fits(name, embedding)
        self.position.move("generator", "generator")
        if len(fake) != len(source):
            raise SpecError(f"makes {len(fake)} images of {len(source)}")
        if fake.shape != target.shape:
            raise SpecError(
                f"makes images of {_shape(fake)} from {_shape(source)}; those of domain {direction[1]} are"
                f" {_shape(target)}; is data.size a multiple of its downsampling?"
            )

    def _discriminator_fits(self, name: str, seen: Tensor) -> None:
        place = f"discriminators.{name.split('/')[1]}"
        version = seen._version
        self.position.move(place, f"{place}: can't score what is {_shape(seen)}")
        scores = self._networks.score(name, seen)
        self.position.move(place, place)
        self._parameters_are_held(scores)
        if seen._version != version:
            raise SpecError("changes in place what it is given")
        if scores.dim() != 4 or len(scores) != len(seen):
            raise SpecError(f"expected scores of shape (N, K, h, w), got {tuple(scores.shape)}")
        self._forward_is_last_of_features(self._networks.discriminator(name), seen)

    def _forward_is_last_of_features(self, network: Discriminator, seen: Tensor) -> None:
        cls = type(network)
        if cls.forward is Discriminator.forward or cls.features is Discriminator.features:
            return
        with evaluating(network), torch.no_grad():
            torch.manual_seed(0)
            trained = network.features(seen)[-1]
            torch.manual_seed(0)
            apart = _largest_difference(network(seen), trained)
        if apart is not None:
            raise SpecError(
                f"its forward differs by up to {apart:.3g} from the last of its features, which are trained: override"
                " one of the two"
            )

    def forward_is_decode_of_features(self, direction: str, images: Tensor) -> None:
        """Training calls `features` and `decode`; samples and evaluations call `forward`: both must agree."""
        generator = self._networks.generator(direction)
        cls = type(generator)
        inherits_half = cls.encode is Generator.encode or cls.features is Generator.features
        if cls.forward is Generator.forward and inherits_half:
            return
        self.position.move("generator", "generator: can't translate")
        with evaluating(generator), torch.no_grad():
            torch.manual_seed(0)
            trained = generator.decode(generator.features(images)[-1])
            torch.manual_seed(0)
            apart = _largest_difference(as_float(generator, generator(images)), trained)
        self.position.move("generator", "generator")
        if apart is not None:
            raise SpecError(
                f"forward, which makes samples, differs by up to {apart:.3g} from decode of features, which is trained,"
                f" in direction {direction}"
            )

    def player_is_reached(self, loss: Loss, player: str, value: Tensor) -> set[int]:
        """Returns the ids of the tensors that a term's gradients reach.

        Accepts a term without gradients, which it may have in a later step.
        """
        networks = [module for name, module in self._networks.modules.items() if name.startswith(f"{player}/")]
        updated = {id(p) for p in trainable([*networks, loss] if loss.trains == player else networks)}
        reached = {id(leaf) for leaf in graph_leaves(value)}
        if value.requires_grad and updated and updated.isdisjoint(reached):
            others = self._networks.holding(reached)
            if any(id(p) in reached for p in loss.parameters()):
                others.append(f"its own parameters, which it gives to the {loss.trains}")
            found = f"only for {', '.join(others)}" if others else "nor for anything else"
            raise SpecError(f"has no gradients for any {player}, {found}")
        return reached

    def own_parameters_are_reached(self, loss: Loss, player: str, reached: set[int]) -> None:
        own = {name: parameter for name, parameter in loss.named_parameters() if parameter.requires_grad}
        # a parameter may be used in the other direction only, or in a later step
        if loss.trains == player and reached and own and reached.isdisjoint(map(id, own.values())):
            raise SpecError(f"no {player} term has gradients for its own {', '.join(own)}")

    def _parameters_are_held(self, output: Tensor) -> None:
        held = {id(p) for module in self._networks.modules.values() for p in module.parameters()}
        lost = [leaf for leaf in graph_leaves(output) if isinstance(leaf, nn.Parameter) and id(leaf) not in held]
        if lost:
            shapes = ", ".join(map(str, sorted(tuple(leaf.shape) for leaf in lost)))
            raise SpecError(
                f"uses parameters {shapes} that no module holds, so that they are not trained; is a layer in a plain"
                " list?"
            )


def _largest_difference(one: Tensor, other: Tensor) -> float | None:
    """Returns the largest difference of two outputs; None if only the last digits differ, as the order of operations
    makes them."""
    apart = float((one - other).abs().max()) if one.shape == other.shape else math.inf
    return None if apart <= 1e-3 * float(other.abs().max()) else apart


def _constant_terms(player: str, terms: dict[str, Tensor]) -> str | None:
    """Returns the fault of a loss if its terms have values but none has a gradient.

    One of several terms may exist only to be logged, and a term of 0 may become another value in a later step.
    """
    if any(value.requires_grad for value in terms.values()) or not any(terms.values()):
        return None
    values = ", ".join(f"{name} {value.item():.3g}" for name, value in terms.items())
    return f"its {player} terms are {values} and have no gradient: while that is so, no {player} learns from them"


def _shape(images: Tensor) -> tuple[int, ...]:
    """Returns the shape without the batch size."""
    return tuple(images.shape[1:])


@contextmanager
def buffers_restored(system: System) -> Iterator[None]:
    """Restores the buffers of networks and losses afterwards: a forward may change them, as in batch norm."""
    modules = [*system.networks.modules.values(), *system.losses.values()]
    before = [{name: buffer.clone() for name, buffer in module.named_buffers()} for module in modules]
    yield
    with torch.no_grad():
        for module, buffers in zip(modules, before, strict=True):
            for name, buffer in module.named_buffers():
                if name in buffers:
                    buffer.copy_(buffers[name])
