"""The check for losses."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ganlab.data.sampler import Batch
from ganlab.interfaces.losses import Loss, Translation
from ganlab.interfaces.networks import Domain
from ganlab.interfaces.schedules import PLAYERS
from ganlab.system.autograd_checks import MutationCheckingCache
from ganlab.system.forward_cache import ForwardCache
from ganlab.system.networks import Networks
from ganlab.system.terms import checked_terms
from ganlab.testing.building import build, check_class
from ganlab.testing.requirement import Check, close, equal, keeps_random_state, requirement, terms_text
from ganlab.testing.simple import DIRECTIONS, IMAGES, SimpleDiscriminator, SimpleGenerator, noise

__tracebackhide__ = True


@keeps_random_state
def check_loss(cls: type[Loss], /, *, images: Domain = IMAGES, scores: int = 1, **options: Any) -> None:
    """Checks a loss in both directions of a small system.

    If `images.classes` is not 0, the images have labels. The discriminators' scores are (N, `scores`, h, w).
    """
    check_class(cls, "loss", options)

    def make(seed: int, dtype: torch.dtype = torch.float64) -> tuple[Loss, _System]:
        system = _System.make(images, scores, dtype)
        torch.manual_seed(seed)
        loss: Loss = build(cls, options)
        loss.to(dtype)
        with torch.no_grad():
            for direction in DIRECTIONS:
                loss.prepare(Translation(direction, system.cache()))
        return loss.to(dtype), system

    with requirement(cls, "can be built from its options and prepared for each direction"):
        loss, system = make(0)
    with requirement(cls, "has none of the system's networks as a submodule") as check:
        kept = system.networks.holding(map(id, loss.parameters()))
        check(not kept, f"it keeps {', '.join(kept)}, which the {loss.trains}s' turn would update")
    with requirement(cls, "gives finite scalars to at least one player and changes nothing of t in place") as check:
        caches = {player: system.cache(player) for player in PLAYERS}
        tried = copy.deepcopy(loss)
        found: dict[str, Tensor] = {}
        for player, cache in caches.items():
            for direction in DIRECTIONS:
                found |= system.terms_of_direction(tried, cache, direction)
                changed = cache.changed(direction)
                check(
                    not changed, f"the {player}s' term in direction {direction} changes {', '.join(changed)} in place"
                )
        check(bool(found), "it gives no player a term in any direction")
        check(all(value.isfinite() for value in found.values()), terms_text(found))
    with requirement(cls, "has terms with gradients that reach the player's networks or its own parameters") as check:
        _check_reach(copy.deepcopy(loss), system, check)
    # a fake's class is its input's; the pool does not keep the classes of past fakes
    if not images.classes:
        with requirement(
            cls, "shows discriminators t.fake_for_discriminator, which the schedule's pool gives"
        ) as check:
            requests = caches["discriminator"].requests
            # a critic that belongs to the loss may need a fake's input, which a pool does not keep
            scoring = any(name.startswith("discriminator/") for name in requests)
            direct = [direction for direction in DIRECTIONS if scoring and f"{direction}.fake" in requests]
            check(
                not direct,
                f"the discriminators' term in direction {' and '.join(direct)} reads t.fake, which bypasses the pool",
            )
    with requirement(cls, "draws random numbers only with t.uniform and t.normal") as check:
        each = []
        for seed in range(2):
            torch.manual_seed(seed)
            each.append(system.terms(copy.deepcopy(loss)))
        check(equal(*each), f"with torch's seed 0 {terms_text(each[0])}, with seed 1 {terms_text(each[1])}")
    with requirement(cls, "gives the same terms whichever direction comes first") as check:
        other = system.terms(copy.deepcopy(loss), directions=DIRECTIONS[::-1])
        check(equal(found, other), f"ab first {terms_text(found)}, ba first {terms_text(other)}")
    with requirement(
        cls, "keeps its state in parameters and buffers: a copy that loads them continues equally"
    ) as check:
        system.terms(loss)
        fresh, _ = make(1)
        fresh.load_state_dict(loss.state_dict())
        one, other = system.terms(loss, step=1), system.terms(fresh, step=1)
        check(equal(one, other), f"it continues with {terms_text(one)}, the copy with {terms_text(other)}")
    with requirement(cls, "gives the same terms in float32 as in float64") as check:
        single, small = make(0, torch.float32)
        other = small.terms(single)
        near = other.keys() == found.keys() and all(close(value, other[key], 1e-3) for key, value in found.items())
        check(near, f"float64 {terms_text(found)}, float32 {terms_text(other)}")


class _System(NamedTuple):
    """The networks and the batch with which a loss is checked."""

    networks: Networks
    batch: Batch

    @classmethod
    def make(cls, images: Domain, scores: int, dtype: torch.dtype) -> _System:
        torch.manual_seed(0)
        domains = {name: images._replace(name=name) for name in "ab"}
        embedding = Domain("embedding", 4, images.height // 2, images.width // 2)
        networks = Networks(
            {direction: SimpleGenerator(domains[direction[0]], domains[direction[1]]) for direction in DIRECTIONS},
            {("image", name): SimpleDiscriminator(domain, scores) for name, domain in domains.items()},
            {"embedding": SimpleDiscriminator(embedding)},
        )
        for module in networks.modules.values():
            module.to(dtype)
        pictures = {name: noise(images, "loss", name).to(dtype) for name in "ab"}
        labels = {name: torch.arange(len(x)) % images.classes for name, x in pictures.items()} if images.classes else {}
        return cls(networks, Batch(pictures, labels, dict.fromkeys("ab", images.classes)))

    def cache(self, player: str = "generator", step: int = 0) -> MutationCheckingCache:
        """Returns an empty cache in the turn of `player`."""
        cache = MutationCheckingCache(self.networks, self.batch, seed=0)
        cache.begin(player, (step, PLAYERS.index(player)), with_graph=player == "generator")
        return cache

    def terms(self, loss: Loss, step: int = 0, directions: tuple[str, ...] = DIRECTIONS) -> dict[str, Tensor]:
        """Returns {"PLAYER/DIRECTION/PART": scalar} of one step: the generators' turn, then the discriminators'."""
        return {
            key: value
            for player in PLAYERS
            for key, value in self.terms_of_turn(loss, player, step, directions).items()
        }

    def terms_of_turn(
        self, loss: Loss, player: str, step: int = 0, directions: tuple[str, ...] = DIRECTIONS
    ) -> dict[str, Tensor]:
        cache = self.cache(player, step)
        found: dict[str, Tensor] = {}
        for direction in directions:
            found |= self.terms_of_direction(loss, cache, direction)
        return found

    def terms_of_direction(self, loss: Loss, cache: ForwardCache, direction: str) -> dict[str, Tensor]:
        parts = checked_terms(loss, cache.player, Translation(direction, cache))
        return {f"{cache.player}/{direction}/{part}".rstrip("/"): value for part, value in parts.items()}


def _check_reach(loss: Loss, system: _System, check: Check) -> None:
    own = {name: parameter for name, parameter in loss.named_parameters() if parameter.requires_grad}
    trained: set[str] = set()
    # in the trainer's order, because a loss may change its state in the discriminators' turn
    for key, value in (pair for player in PLAYERS for pair in system.terms_of_turn(loss, player).items()):
        player, direction, *part = key.split("/")
        term = f"the {player}s' term {''.join(f'{name!r} ' for name in part)}in direction {direction}"
        check(value.requires_grad, f"{term} is {value.item():.3g} and has no gradient")
        named = own | {
            f"{name}.{part}": parameter
            for name, module in system.networks.modules.items()
            for part, parameter in module.named_parameters()
        }
        gradients = torch.autograd.grad(value, list(named.values()), allow_unused=True, retain_graph=True)
        reached = {name: gradient for name, gradient in zip(named, gradients, strict=True) if gradient is not None}
        check(all(g.isfinite().all() for g in reached.values()), f"{term} has gradients that are not finite")
        theirs = [name for name in reached if name.startswith(f"{player}/") or (name in own and player == loss.trains)]
        where = list(dict.fromkeys(name.split(".")[0] for name in reached))
        check(bool(theirs), f"{term} reaches no {player}, only {', '.join(where) or 'the images'}")
        if player == "discriminator":
            strange = [name for name in where if name.startswith("generator/")]
            check(not strange, f"{term} reaches {', '.join(strange)}, which a discriminators' turn does not update")
        if player == loss.trains:
            trained |= reached.keys()
    missing = [name for name in own if name not in trained]
    check(not missing, f"no {loss.trains}s' term reaches the loss's own {', '.join(missing)}")
