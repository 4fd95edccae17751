"""The small system in which a loss is checked: generators, discriminators and batches of noise."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ganlab.data.sampler import Batch
from ganlab.interfaces.losses import Loss, Translation
from ganlab.interfaces.networks import Discriminator, Domain
from ganlab.interfaces.schedules import PLAYERS
from ganlab.interfaces.sources import Extra
from ganlab.system.autograd_checks import MutationCheckingCache
from ganlab.system.networks import Networks
from ganlab.system.terms import checked_terms
from ganlab.system.weights import WeightsCopy
from ganlab.testing.building import Given, build, build_pair, check_given, sees
from ganlab.testing.simple import DIRECTIONS, noise, paired
from ganlab.torch_utils import shape_lazy

__tracebackhide__ = True

STEPS = (*range(32), 100, 1_000, 10_000, 100_000)
"""The steps at which a term is looked for if a loss gives none at step 0: it may give one every 16th step, say."""


class Recipe:
    """The parts of a small system, checked: `make` builds it, with the same initial weights each time."""

    def __init__(
        self,
        images: Domain,
        generator: Given,
        discriminators: Mapping[str, Given],
        directions: Sequence[str],
        extras: Mapping[str, Extra],
    ) -> None:
        if isinstance(directions, str) or not directions or not set(directions) <= set(DIRECTIONS):
            raise ValueError(f"directions is {directions!r}; pass a tuple of 'ab', 'ba' or both")
        self.images, self.extras = images, extras
        self.directions = tuple(directions)
        self.generator = check_given(generator, "generator", "generator")
        self.discriminators = {
            label: check_given(given, "discriminator", f"discriminators[{label!r}]")
            for label, given in discriminators.items()
        }

    def make(self, dtype: torch.dtype) -> SmallSystem:
        """Builds the networks as the core does."""
        torch.manual_seed(0)
        domains = {name: self.images._replace(name=name) for name in "ab"}
        cls, options = self.generator
        generators = build_pair(cls, domains, self.directions, options)
        for network in generators.values():
            shape_lazy(network, _blank(self.images))
        with torch.no_grad():
            embedded = generators[self.directions[0]].encode(_blank(self.images))
        embedding = Domain("embedding", *embedded.shape[1:])
        on_images: dict[tuple[str, str], Discriminator] = {}
        on_embeddings: dict[str, Discriminator] = {}
        inputs = {f"generator/{direction}": _blank(self.images).to(dtype) for direction in self.directions}
        for label, given in self.discriminators.items():
            kind = sees(*given)
            if kind == "embeddings":
                on_embeddings[label] = _discriminator(given, embedding)
                inputs[f"discriminator/{label}"] = _blank(embedding).to(dtype)
                continue
            for direction in sorted(self.directions, key=lambda direction: direction[1]):
                target = domains[direction[1]]
                shape = paired(target) if kind == "pairs" else target
                on_images[label, direction[1]] = _discriminator(given, shape)
                inputs[f"discriminator/{label}/{direction[1]}"] = _blank(shape).to(dtype)
        networks = Networks(generators, on_images, on_embeddings)
        for module in networks.modules.values():
            module.to(dtype)
            _seed_forwards(module)
        return SmallSystem(networks, inputs, self.directions, self.images, self.extras, dtype)


class SmallSystem:
    """Networks, and a batch for each number. Every evaluation of a loss starts from the initial weights."""

    def __init__(
        self,
        networks: Networks,
        inputs: Mapping[str, Tensor],
        directions: tuple[str, ...],
        images: Domain,
        extras: Mapping[str, Extra],
        dtype: torch.dtype,
    ) -> None:
        self.networks, self.directions = networks, directions
        self._inputs = inputs
        self._images, self._extras, self._dtype = images, extras, dtype
        self.weights = WeightsCopy(networks)
        self._initial = {
            name: {key: value.clone() for key, value in module.state_dict().items()}
            for name, module in networks.modules.items()
        }
        self._initial_modes = {name: _modes(module) for name, module in networks.modules.items()}

    def disturbed(self) -> str:
        """Returns what a term has done to the networks besides using them, for a message; "" if nothing."""
        if (names := self.weights.changed()) and (names := self._not_by_itself(names)):
            kind = names[0].split("/")[0].capitalize()
            return f"changes the weights of {', '.join(names)}; a network adjusts its weights in {kind}.after_update"
        for name, module in self.networks.modules.items():
            if _modes(module) != self._initial_modes[name]:
                return f"leaves {name} in another mode; a copy can be put into eval mode"
            if any(parameter.grad is not None for parameter in module.parameters()):
                return f"gives gradients to the parameters of {name}; return the term instead of calling backward"
        return ""

    def _not_by_itself(self, names: list[str]) -> list[str]:
        """Leaves out the networks that change their weights in each forward, as some normalise them."""
        self.restore()
        for name in names:
            self.networks.modules[name](self._inputs[name])
        by_itself = self.weights.changed()
        self.restore()
        return [name for name in names if name not in by_itself]

    def restore(self) -> None:
        """Gives the networks their initial weights, buffers and modes, and takes their gradients away."""
        for name, module in self.networks.modules.items():
            module.load_state_dict(self._initial[name])
            module.zero_grad()
            for part, mode in zip(module.modules(), self._initial_modes[name], strict=True):
                part.training = mode

    def cache(self, player: str = "generator", step: int = 0, batch: int = 0) -> MutationCheckingCache:
        """Returns an empty cache in the turn of `player`."""
        cache = MutationCheckingCache(self.networks, self._batch(batch), seed=0)
        cache.begin(player, (step, PLAYERS.index(player)), with_graph=player == "generator")
        return cache

    def _batch(self, number: int) -> Batch:
        classes = self._images.classes
        pictures = {name: noise(self._images, "loss", name, number).to(self._dtype) for name in "ab"}
        labels = {name: torch.arange(len(x)) % classes for name, x in pictures.items()} if classes else {}
        extras = {
            name: {of: self._extra(extra, name, of, number) for of, extra in self._extras.items()} for name in "ab"
        }
        return Batch(pictures, labels, dict.fromkeys("ab", classes), extras)

    def _extra(self, extra: Extra, *key: int | str) -> Tensor:
        values = noise(self._images._replace(channels=extra.channels), "extra", *key)
        return values.to(self._dtype) if extra.values == "picture" else (values > 0).long()

    def terms(self, loss: Loss, steps: Mapping[str, int], reverse: bool = False, batch: int = 0) -> dict[str, Tensor]:
        """Returns {"PLAYER/DIRECTION/PART": scalar} of one step: the generators' turn, then the discriminators'.

        `steps` gives each player's step. `reverse` calls the directions in the reverse order.
        """
        self.restore()
        return {
            key: value
            for player in PLAYERS
            for key, value in self.terms_of_turn(loss, self.cache(player, steps[player], batch), reverse).items()
        }

    def terms_of_turn(self, loss: Loss, cache: MutationCheckingCache, reverse: bool = False) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for direction in self.directions[::-1] if reverse else self.directions:
            found |= terms_of_direction(loss, cache, direction)
        return found

    def active_steps(self, loss: Loss) -> dict[str, int]:
        """Returns {player: the first step at which the loss gives it a term with a gradient}; 0 if there is none."""
        steps = dict.fromkeys(PLAYERS, 0)
        for player in PLAYERS:
            if getattr(type(loss), player) is not getattr(Loss, player):
                self.restore()
                active = (step for step in STEPS if self._is_active(loss, player, step))
                steps[player] = next(active, 0)
        return steps

    def _is_active(self, loss: Loss, player: str, step: int) -> bool:
        terms = self.terms_of_turn(loss, self.cache(player, step))
        return any(value.requires_grad for value in terms.values())


def terms_of_direction(loss: Loss, cache: MutationCheckingCache, direction: str) -> dict[str, Tensor]:
    """Returns {"PLAYER/DIRECTION/PART": scalar} of one turn in one direction."""
    parts = checked_terms(loss, cache.player, Translation(direction, cache))
    return {f"{cache.player}/{direction}/{part}".rstrip("/"): value for part, value in parts.items()}


def _discriminator(given: tuple[type, Mapping[str, Any]], domain: Domain) -> Discriminator:
    network: Discriminator = build(*given, domain)
    shape_lazy(network, _blank(domain))
    return network


def _modes(module: nn.Module) -> list[bool]:
    return [part.training for part in module.modules()]


def _blank(domain: Domain) -> Tensor:
    return torch.zeros(2, domain.channels, domain.height, domain.width)


def _seed_forwards(network: nn.Module) -> None:
    """Lets each forward of a network draw from a seed of its own, so that torch's generator shows the loss's draws."""
    for name in ("features", "encode", "decode", "forward"):
        if hasattr(network, name):
            setattr(network, name, _seeded(getattr(network, name)))


def _seeded(method: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    @functools.wraps(method)
    def seeded(x: Tensor) -> Any:
        state = torch.get_rng_state()
        # torch.manual_seed would seed every kind of device, which takes longer than a small forward
        torch.default_generator.manual_seed(0)
        try:
            return method(x)
        finally:
            torch.set_rng_state(state)

    return seeded
