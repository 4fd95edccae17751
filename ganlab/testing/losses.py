"""The check for losses."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ganlab.interfaces.losses import Loss, Translation
from ganlab.interfaces.networks import Domain
from ganlab.interfaces.schedules import PLAYERS
from ganlab.interfaces.sources import Extra
from ganlab.system.plain_state import differences, drawn_by, moved_by, plain_state
from ganlab.testing.building import Given, build, check_class
from ganlab.testing.requirement import Check, close, equal, keeps_random_state, max_difference, requirement, terms_text
from ganlab.testing.simple import DIRECTIONS, IMAGES, SimpleDiscriminator, SimpleEmbeddingDiscriminator, SimpleGenerator
from ganlab.testing.system import STEPS, Recipe, SmallSystem, terms_of_direction

__tracebackhide__ = True


@keeps_random_state
def check_loss(
    cls: type[Loss],
    /,
    *,
    images: Domain = IMAGES,
    scores: int = 1,
    generator: Given | None = None,
    discriminators: Mapping[str, Given] | None = None,
    directions: Sequence[str] = DIRECTIONS,
    extras: Mapping[str, Extra] = {},
    **options: Any,
) -> None:
    """Checks a loss in a small system.

    If `images.classes` is not 0, the images have labels. A network is passed as its class, or as (class, {option:
    value}): one as `generator`, and `discriminators` as {label: network}. By default they are simple ones, with the
    labels "image" and "embedding"; the first one's scores are (N, `scores`, h, w). `directions` are those of a spec:
    ("ab",) for a loss that needs one direction alone. `extras` are those of both domains, {name: ganlab.Extra};
    their values are noise, or the classes 0 and 1.
    """
    check_class(cls, "loss", options)
    simple: dict[str, Given] = {
        "image": (SimpleDiscriminator, {"scores": scores}),
        "embedding": SimpleEmbeddingDiscriminator,
    }
    networks = simple if discriminators is None else discriminators
    recipe = Recipe(images, generator or SimpleGenerator, networks, directions, extras)

    def make(seed: int, dtype: torch.dtype = torch.float64) -> tuple[Loss, SmallSystem]:
        system = recipe.make(dtype)
        torch.manual_seed(seed)
        loss: Loss = build(cls, options)
        loss.to(dtype)
        with torch.no_grad():
            for direction in recipe.directions:
                loss.prepare(Translation(direction, system.cache()))
        return loss.to(dtype), system

    with requirement(cls, "can be built from its options and prepared for each direction") as check:
        loss, system = make(0)
        disturbed = system.disturbed()
        check(not disturbed, f"its prepare {disturbed}")
    with requirement(cls, "has none of the system's networks as a submodule") as check:
        kept = system.networks.holding(map(id, loss.parameters()))
        check(not kept, f"it keeps {', '.join(kept)}, which the {loss.trains}s' turn would update")
    with requirement(cls, "gives finite scalars to at least one player and changes nothing else") as check:
        steps = system.active_steps(copy.deepcopy(loss))
        system.restore()
        caches = {player: system.cache(player, steps[player]) for player in PLAYERS}
        tried = copy.deepcopy(loss)
        found: dict[str, Tensor] = {}
        for player, cache in caches.items():
            for direction in recipe.directions:
                found |= terms_of_direction(tried, cache, direction)
                term = f"the {player}s' term in direction {direction}"
                changed = cache.changed(direction)
                check(not changed, f"{term} changes {', '.join(changed)} in place")
                disturbed = system.disturbed()
                check(not disturbed, f"{term} {disturbed}")
                for _, name, value in cache.take_logged():
                    check(bool(value.isfinite()), f"{term} logs {name!r} as {value.item()}")
        check(bool(found), "it gives no player a term in any direction")
        check(all(value.isfinite() for value in found.values()), terms_text(found))
    with requirement(cls, "has terms with gradients that reach the player's networks or its own parameters") as check:
        _check_reach(copy.deepcopy(loss), system, steps, check)
    # a fake's class is its input's; the pool does not keep the classes of past fakes
    if not images.classes:
        with requirement(
            cls, "shows discriminators t.fake_for_discriminator, which the schedule's pool gives"
        ) as check:
            requests = caches["discriminator"].requests
            # a critic that belongs to the loss, or sees pairs, may need a fake's input, which a pool does not keep
            scoring = any(
                name in requests and system.networks.discriminator(name).sees != "pairs"
                for name in system.networks.modules
                if name.startswith("discriminator/")
            )
            direct = [direction for direction in recipe.directions if scoring and f"{direction}.fake" in requests]
            check(
                not direct,
                f"the discriminators' term in direction {' and '.join(direct)} reads t.fake, which bypasses the pool",
            )
    with requirement(cls, "draws random numbers only with t.uniform and t.normal") as check:
        each: list[dict[str, Tensor]] = []
        for seed in range(2):
            torch.manual_seed(seed)
            drawn = drawn_by(lambda: each.append(system.terms(copy.deepcopy(loss), steps)))
            check(not drawn, f"it draws from {', '.join(drawn)}")
        apart = max(max_difference(value, each[1].get(key, value)) for key, value in each[0].items())
        check(equal(*each), f"two evaluations, with torch's seeds 0 and 1, differ by up to {apart:.3g}")
    with requirement(
        cls, "keeps its state in parameters and buffers: a copy that loads them continues equally"
    ) as check:
        used = copy.deepcopy(loss)
        moved = moved_by(lambda: system.terms(used, steps), used)
        check(
            not moved,
            f"each use changes {', '.join(moved)}, which checkpoints do not keep: use register_buffer, or t.step to"
            " count",
        )
        fresh, _ = make(1)
        fresh.load_state_dict(used.state_dict())
        one, other = (system.terms(each, steps, batch=1) for each in (used, fresh))
        changed_by_use = ", ".join(differences(plain_state(loss), plain_state(used)))
        lost = f"; its use has changed {changed_by_use}, which checkpoints do not keep: use register_buffer"
        check(
            equal(one, other),
            f"it continues with {terms_text(one)}, the copy with {terms_text(other)}{lost if changed_by_use else ''}",
        )
    with requirement(cls, "gives the same terms whichever direction comes first") as check:
        other = system.terms(copy.deepcopy(loss), steps, reverse=True)
        check(equal(found, other), f"ab first {terms_text(found)}, ba first {terms_text(other)}")
    with requirement(cls, "gives the same terms in float32 as in float64") as check:
        single, small = make(0, torch.float32)
        other = small.terms(single, steps)
        near = other.keys() == found.keys() and all(close(value, other[key], 1e-3) for key, value in found.items())
        check(near, f"float64 {terms_text(found)}, float32 {terms_text(other)}")


def _check_reach(loss: Loss, system: SmallSystem, steps: Mapping[str, int], check: Check) -> None:
    system.restore()
    reached = []
    # in the trainer's order, because a loss may change its state in the discriminators' turn
    for player in PLAYERS:
        terms = system.terms_of_turn(loss, system.cache(player, steps[player]))
        for direction in system.directions:
            # a part of a dictionary may be there to be logged
            parts = {key: value for key, value in terms.items() if key.split("/")[1] == direction}
            learns = not parts or any(value.requires_grad for value in parts.values())
            term = f"the {player}s' term in direction {direction}"
            check(learns, f"{term} has no gradient: {terms_text(parts)}; return None if there is nothing to minimise")
        reached += _gradients(loss, system, terms)
    for key, gradients in reached:
        player, direction, *part = key.split("/")
        term = f"the {player}s' term {''.join(f'{name!r} ' for name in part)}in direction {direction}"
        check(all(g.isfinite().all() for g in gradients.values()), f"{term} has gradients that are not finite{ROOTS}")
        where = list(dict.fromkeys(name.split(".")[0] for name in gradients))
        theirs = [name for name in where if name.startswith(f"{player}/") or (name == OWN and player == loss.trains)]
        others = ", ".join("its own parameters" if name == OWN else name for name in where)
        check(bool(theirs), f"{term} reaches no {player}, only {others or 'the images'}")
        if player == "discriminator":
            strange = [name for name in where if name.startswith("generator/")]
            check(not strange, f"{term} reaches {', '.join(strange)}, which a discriminators' turn does not update")
    own = {f"{OWN}.{name}" for name, parameter in loss.named_parameters() if parameter.requires_grad}
    missing = sorted(own - _trained(loss, reached))
    for step in STEPS if missing else ():
        # a term of another step may reach it
        terms = system.terms_of_turn(loss, system.cache(loss.trains, step))
        missing = sorted({*missing} - _trained(loss, _gradients(loss, system, terms)))
    names = ", ".join(name.removeprefix(f"{OWN}.") for name in missing)
    check(not missing, f"no {loss.trains}s' term reaches the loss's own {names}")


OWN = "loss"
"""Names the loss beside the networks."""

ROOTS = "; the slope of a root or of a norm is infinite at 0: add a small number inside it"


def _gradients(loss: Loss, system: SmallSystem, terms: Mapping[str, Tensor]) -> list[tuple[str, dict[str, Tensor]]]:
    """Returns (key of the term, {"NETWORK.PARAMETER": gradient}) for each term that has gradients."""
    named = {
        f"{name}.{part}": parameter
        for name, module in {**system.networks.modules, OWN: loss}.items()
        for part, parameter in module.named_parameters()
        if parameter.requires_grad
    }
    found = []
    for key, value in terms.items():
        if value.requires_grad:
            gradients = torch.autograd.grad(value, list(named.values()), allow_unused=True, retain_graph=True)
            pairs = zip(named, gradients, strict=True)
            found.append((key, {name: gradient for name, gradient in pairs if gradient is not None}))
    return found


def _trained(loss: Loss, reached: list[tuple[str, dict[str, Tensor]]]) -> set[str]:
    """Returns the names of the parameters that the terms of the loss's own player reach."""
    return {name for key, gradients in reached if key.startswith(f"{loss.trains}/") for name in gradients}
