"""What the engine relies on in a loss."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ganlab.data.sampler import Batch
from ganlab.interfaces import (
    PLAYERS,
    Domain,
    Loss,
)
from ganlab.networks import Networks
from ganlab.rehearsal import terms
from ganlab.testing.making import check_class, made_of
from ganlab.testing.promise import So, close, equal, promise, told, unseen
from ganlab.testing.simple import (
    IMAGES,
    WAYS,
    SimpleDiscriminator,
    SimpleGenerator,
    noise,
)
from ganlab.translation import Memo, Translation
from ganlab.watched import Watched

__tracebackhide__ = True


@unseen
def check_loss(cls: type[Loss], /, *, images: Domain = IMAGES, scores: int = 1, **options: Any) -> None:
    """A loss's promises, on both ways of a small system. `images.classes` gives images labels; discriminators give
    `scores` numbers at each place."""
    check_class(cls, "loss", options)

    def make(seed: int, dtype: torch.dtype = torch.float64) -> tuple[Loss, _Stage]:
        stage = _Stage.make(images, scores, dtype)
        torch.manual_seed(seed)
        loss: Loss = made_of(cls, options)
        loss.to(dtype)
        with torch.no_grad():
            for way in WAYS:
                loss.prepare(Translation(way, stage.memo()))
        return loss.to(dtype), stage

    with promise(cls, "is made of its options, and prepares itself for each way"):
        loss, stage = make(0)
    with promise(cls, "has no network of the system among its own parts") as so:
        kept = stage.networks.holding(map(id, loss.parameters()))
        so(not kept, f"it keeps {', '.join(kept)}, which the {loss.trains}s' turn would move")
    with promise(cls, "gives finite scalars, to one player at least, and leaves what t gives as it is") as so:
        memos = {player: stage.memo(player) for player in PLAYERS}
        tried = copy.deepcopy(loss)
        found: dict[str, Tensor] = {}
        for player, memo in memos.items():
            for way in WAYS:
                found |= stage.given(tried, memo, way)
                changed = memo.changed(way)
                so(not changed, f"the {player}s' term on way {way} changes {', '.join(changed)} in place")
        so(bool(found), "it gives no player a term on any way")
        so(all(value.isfinite() for value in found.values()), told(found))
    with promise(cls, "has terms whose gradients reach the player's networks, or the loss's own parameters") as so:
        _check_reach(copy.deepcopy(loss), stage, so)
    # a fake's class is its input's; of those that a pool has kept it isn't known
    if not images.classes:
        with promise(cls, "shows discriminators the fakes of the schedule's pool, t.fake_for_discriminator") as so:
            asked = memos["discriminator"].asked
            # a critic of the loss's own may have to pair a fake with its input, which a pool has lost
            scoring = any(name.startswith("discriminator/") for name in asked)
            direct = [way for way in WAYS if scoring and f"{way}.fake" in asked]
            so(not direct, f"their term on way {' and '.join(direct)} reads t.fake, which comes through no pool")
    with promise(cls, "draws by t.uniform and t.normal alone, so that what else draws changes nothing") as so:
        each = []
        for seed in range(2):
            torch.manual_seed(seed)
            each.append(stage.terms(copy.deepcopy(loss)))
        so(equal(*each), f"with torch's seed 0 {told(each[0])}, with seed 1 {told(each[1])}")
    with promise(cls, "gives each way the same whichever comes first") as so:
        other = stage.terms(copy.deepcopy(loss), ways=WAYS[::-1])
        so(equal(found, other), f"ab first {told(found)}, ba first {told(other)}")
    with promise(cls, "keeps its state in parameters and buffers: loaded into another one, it goes on the same") as so:
        stage.terms(loss)
        fresh, _ = make(1)
        fresh.load_state_dict(loss.state_dict())
        one, other = stage.terms(loss, step=1), stage.terms(fresh, step=1)
        so(equal(one, other), f"it goes on with {told(one)}, the loaded one with {told(other)}")
    with promise(cls, "computes in float32 what it does in float64") as so:
        single, small = make(0, torch.float32)
        other = small.terms(single)
        near = other.keys() == found.keys() and all(close(value, other[key], 1e-3) for key, value in found.items())
        so(near, f"float64 {told(found)}, float32 {told(other)}")


class _Stage(NamedTuple):
    """A small system on which losses are tried."""

    networks: Networks
    batch: Batch

    @classmethod
    def make(cls, images: Domain, scores: int, dtype: torch.dtype) -> _Stage:
        torch.manual_seed(0)
        domains = {name: images._replace(name=name) for name in "ab"}
        embedding = Domain("embedding", 4, images.height // 2, images.width // 2)
        networks = Networks(
            {way: SimpleGenerator(domains[way[0]], domains[way[1]]) for way in WAYS},
            {("image", name): SimpleDiscriminator(domain, scores) for name, domain in domains.items()},
            {"embedding": SimpleDiscriminator(embedding)},
        )
        for module in networks.modules.values():
            module.to(dtype)
        pictures = {name: noise(images, "loss", name).to(dtype) for name in "ab"}
        labels = {name: torch.arange(len(x)) % images.classes for name, x in pictures.items()} if images.classes else {}
        return cls(networks, Batch(pictures, labels, dict.fromkeys("ab", images.classes)))

    def memo(self, player: str = "generator", step: int = 0) -> Watched:
        memo = Watched(self.networks, self.batch, seed=0)
        memo.begin(player, (step, PLAYERS.index(player)), graph=player == "generator")
        return memo

    def terms(self, loss: Loss, step: int = 0, ways: tuple[str, ...] = WAYS) -> dict[str, Tensor]:
        """{"PLAYER/WAY/PART": scalar} of one step: the generators' turn, then the discriminators'."""
        return {key: value for player in PLAYERS for key, value in self.turn(loss, player, step, ways).items()}

    def turn(self, loss: Loss, player: str, step: int = 0, ways: tuple[str, ...] = WAYS) -> dict[str, Tensor]:
        """The same of one player."""
        memo = self.memo(player, step)
        found: dict[str, Tensor] = {}
        for way in ways:
            found |= self.given(loss, memo, way)
        return found

    def given(self, loss: Loss, memo: Memo, way: str) -> dict[str, Tensor]:
        """The same of one way."""
        parts = terms(loss, memo.player, Translation(way, memo))
        return {f"{memo.player}/{way}/{part}".rstrip("/"): value for part, value in parts.items()}


def _check_reach(loss: Loss, stage: _Stage, so: So) -> None:
    own = {name: parameter for name, parameter in loss.named_parameters() if parameter.requires_grad}
    learnt: set[str] = set()
    # as the engine takes them: the generators' before the discriminators' turn, in which a loss may move what it keeps
    for key, value in (pair for player in PLAYERS for pair in stage.turn(loss, player).items()):
        player, way, *part = key.split("/")
        term = f"the {player}s' term {''.join(f'{name!r} ' for name in part)}on way {way}"
        so(value.requires_grad, f"{term} is {value.item():.3g} and has no gradient")
        named = own | {
            f"{name}.{part}": parameter
            for name, module in stage.networks.modules.items()
            for part, parameter in module.named_parameters()
        }
        gradients = torch.autograd.grad(value, list(named.values()), allow_unused=True, retain_graph=True)
        reached = {name: gradient for name, gradient in zip(named, gradients, strict=True) if gradient is not None}
        so(all(g.isfinite().all() for g in reached.values()), f"{term} has gradients that are not finite")
        theirs = [name for name in reached if name.startswith(f"{player}/") or (name in own and player == loss.trains)]
        where = list(dict.fromkeys(name.split(".")[0] for name in reached))
        so(bool(theirs), f"{term} reaches no {player}, only {', '.join(where) or 'the images'}")
        if player == "discriminator":
            strange = [name for name in where if name.startswith("generator/")]
            so(not strange, f"{term} reaches {', '.join(strange)}, which its turn doesn't move")
        if player == loss.trains:
            learnt |= reached.keys()
    missed = [name for name in own if name not in learnt]
    so(not missed, f"no {loss.trains}s' term reaches the loss's own {', '.join(missed)}")
