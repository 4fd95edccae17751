"""One batch going one way, computed lazily: what no loss asks for is not computed, what several ask for once.

A value is valid for a generators' turn while every network it went through is at the version it was made with. A
discriminators' turn takes any value of this batch, even from before a generator's update, as a leaf that takes
gradients: so nothing reaches a generator, and a penalty on the scores' gradient shares the scores' forward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ganlab.data.sampler import Batch, to_device
from ganlab.draws import keyed
from ganlab.errors import SpecError
from ganlab.interfaces import Discriminator
from ganlab.networks import Networks


class _Held(NamedTuple):
    value: Any
    made: dict[str, int]
    graph: bool


class _Bridge(torch.autograd.Function):
    """`scores` were computed from `leaf`, a detached copy of `x`; this makes them a function of `x`.

    The discriminator's graph then ends at `leaf` and outlives the generators' backward: its turn reuses it. `anew`
    computes the scores from `x` itself, for a second derivative.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, leaf: Tensor, scores: Tensor, anew: Callable[[], Tensor]) -> Tensor:
        ctx.x, ctx.leaf, ctx.scores, ctx.anew = x, leaf, scores, anew
        return scores.detach().clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        if torch.is_grad_enabled():
            # create_graph: the second derivative has to reach x
            (at_x,) = torch.autograd.grad(ctx.anew(), ctx.x, gradient, create_graph=True)
            return at_x, None, None, None
        with torch.enable_grad():
            (at_leaf,) = torch.autograd.grad(ctx.scores, ctx.leaf, gradient, retain_graph=True)
        return at_leaf, None, None, None


class Memo:
    """What is known of one batch, shared by both ways. The engine says whose turn it is."""

    def __init__(self, networks: Networks, batch: Batch, pools: dict[str, nn.Module], seed: int) -> None:
        self.networks, self.batch, self.pools, self.seed = networks, batch, pools, seed
        self.asked: set[str] = set()
        """Names of what was asked for: "WAY.VALUE", and discriminators'."""
        self._held: dict[tuple[Any, ...], _Held] = {}
        self._leaves: dict[int, tuple[Tensor, Tensor]] = {}
        self.fakes: dict[str, Tensor] = {}
        """{way: what its discriminator was shown}."""
        self.begin(player="generator", where=(0, 0))

    def begin(
        self,
        player: str,
        where: tuple[int, int],
        graph: bool = True,
        again: frozenset[str] = frozenset(),
        planned: frozenset[str] = frozenset(),
    ) -> None:
        """A turn begins: `where` is (step, turn); a generators' turn on this batch is still to come, or is this one, if
        `graph`; `again` names the discriminators that a later turn asks, unmoved until then; `planned` what this turn
        will ask for, if a network's uses are to be joined."""
        self.player, self.where, self.graph, self.again, self.planned = player, where, graph, again, planned
        self.calls: dict[str, int] = {}

    def value(
        self,
        key: tuple[Any, ...],
        through: tuple[str, ...],
        compute: Callable[[], Any],
        fresh: bool,
        of: tuple[Any, ...] | None = None,
    ) -> Any:
        """The held value, or a new one; a `fresh` one has gone through the networks as they are now.

        `of` is the key of the value that this one is computed from: it is no younger.
        """
        held = self._held.get(key)
        if held is not None:
            current = all(self.networks.versions[name] == version for name, version in held.made.items())
            if (current and (held.graph or not self.graph)) or not fresh:
                return held.value
        with torch.set_grad_enabled(self.graph):
            value = compute()
        self.keep(key, through, value)
        if of in self._held:
            self._held[key].made.update(self._held[of].made)
        return value

    def keep(self, key: tuple[Any, ...], through: tuple[str, ...], value: Any) -> None:
        self._held[key] = _Held(value, {name: self.networks.versions[name] for name in through}, self.graph)

    def held(self, key: tuple[Any, ...]) -> Any:
        """The value, of whatever version; None where there is none."""
        return self._held[key].value if key in self._held else None

    def leaf(self, x: Tensor) -> Tensor:
        """`x` without its history, as a leaf that takes gradients; always the same one for the same tensor."""
        if id(x) not in self._leaves:
            # x itself is held too: the id of a tensor that was freed is given to another
            self._leaves[id(x)] = (x, x.detach().requires_grad_())
        return self._leaves[id(x)][1]

    def score(self, name: str, x: Tensor) -> Tensor:
        again = name in self.again and not self.networks.stateful(name)
        if self.player == "generator" and again and not self._pooled(name, x):
            leaf = self.leaf(x)
            scores = self._score(name, leaf)
            return _Bridge.apply(x, leaf, scores, lambda: self._score(name, x)) if x.requires_grad else scores
        return self._score(name, x)

    def _pooled(self, name: str, x: Tensor) -> bool:
        """Whether a pool may show the discriminator another image in place of this fake."""
        return bool(self.pools) and x.requires_grad and name in self.networks.discriminators("images")

    def _score(self, name: str, x: Tensor) -> Tensor:

        def compute() -> tuple[Tensor, Tensor]:
            with torch.enable_grad():
                return x, self.networks.score(name, x)

        scores: Tensor = self.value(self._score_key(name, x), (name,), compute, fresh=True)[1]
        return scores

    def _score_key(self, name: str, x: Tensor) -> tuple[Any, ...]:
        # a graph that began at a leaf can be had again in another turn, one that began at a generator can't
        return ("score", name, id(x), "any turn" if x.is_leaf and not self.networks.stateful(name) else self.where)

    def keep_score(self, name: str, x: Tensor, scores: Tensor) -> None:
        self.keep(self._score_key(name, x), (name,), (x, scores))

    def scored(self, name: str, x: Tensor) -> bool:
        held = self._held.get(self._score_key(name, x))
        return held is not None and held.made == {name: self.networks.versions[name]}


class Translation:
    """One batch going one way: what a loss sees. Images are (N, C, H, W) in [-1, 1]."""

    def __init__(self, name: str, memo: Memo) -> None:
        self.name = name
        """"ab" or "ba"."""
        self._memo = memo
        self._source, self._to = name[0], name[1]
        self._own, self._other = f"generator/{name}", f"generator/{self._to}{self._source}"

    @property
    def back(self) -> Translation:
        """The same batch going the other way."""
        return Translation(self._to + self._source, self._memo)

    @property
    def real(self) -> Tensor:
        """A batch of the source domain."""
        return self._image(self._source)

    @property
    def target(self) -> Tensor:
        """A batch of the target domain, no pairs of `real`."""
        return self._image(self._to)

    @property
    def labels(self) -> Tensor:
        """(N,): the classes of `real`."""
        return self._label(self._source)

    @property
    def target_labels(self) -> Tensor:
        """(N,): the classes of `target`."""
        return self._label(self._to)

    @property
    def classes(self) -> int:
        """How many classes `labels` are of; 0 where there are none."""
        return self._memo.batch.classes[self._source]

    @property
    def target_classes(self) -> int:
        """How many classes `target_labels` are of; 0 where there are none."""
        return self._memo.batch.classes[self._to]

    @property
    def embedding(self) -> Tensor:
        """(N, E, h, w): this way's generator's embedding of `real`."""
        self._ask("embedding")
        return self._seen(self._features("real", self._fresh)[-1])

    @property
    def fake(self) -> Tensor:
        """`real`, translated."""
        self._ask("fake")
        return self._seen(self._decoded("real", self._fresh))

    @property
    def identity(self) -> Tensor:
        """What this way's generator makes of `target`, which is of its target domain already."""
        self._ask("identity")
        return self._seen(self._decoded("target", self._fresh))

    @property
    def fake_embedding(self) -> Tensor:
        """`fake`, encoded by the other way's generator."""
        self._ask("fake_embedding")
        return self._seen(self._encoded_back(self._fresh)[-1])

    @property
    def cycled(self) -> Tensor:
        """`fake`, translated back by the other way's generator."""
        self._ask("cycled")
        of = ("encoded_back", self.name)
        return self._seen(self._decoded_back("cycled", lambda: self._encoded_back(self._fresh)[-1], of))

    @property
    def reconstructed(self) -> Tensor:
        """`real`, encoded by this way's generator and decoded by the other's."""
        self._ask("reconstructed")
        of = ("features", "real", self.name)
        return self._seen(self._decoded_back("reconstructed", lambda: self._features("real", self._fresh)[-1], of))

    @property
    def fake_for_discriminator(self) -> Tensor:
        """`fake` as the discriminator is to see it: without history, through the schedule's pool if it has one."""
        self._ask("fake_for_discriminator")
        fake = self._decoded("real", False)
        if (pool := self._memo.pools.get(self.name)) is None:
            self._memo.fakes[self.name] = self._memo.leaf(fake)
            return self._memo.fakes[self.name]

        def draw() -> Tensor:
            step, turn = self._memo.where
            rolls = keyed(self._memo.seed, "pool", step, turn, self.name).random((len(fake), 2))
            version = fake._version
            with torch.no_grad():
                pooled = pool(fake.detach(), self._like_images(torch.from_numpy(rolls)))
            if fake._version != version:
                raise SpecError("gets fakes from the schedule's pool, which changes in place those that it is given")
            if not isinstance(pooled, Tensor) or pooled.shape != fake.shape:
                made = tuple(pooled.shape) if isinstance(pooled, Tensor) else type(pooled).__name__
                raise SpecError(f"gets from the schedule's pool {made} for fakes {tuple(fake.shape)}")
            return pooled.requires_grad_()

        pooled: Tensor = self._memo.value(("pooled", self.name), (), draw, fresh=False)
        self._memo.fakes[self.name] = pooled
        return pooled

    def features(self, of: str = "real") -> list[Tensor]:
        """This way's generator's successive activations, the last the embedding, of "real", "fake" or "target"."""
        if of not in ("real", "fake", "target"):
            raise ValueError(f"features of {of!r}: known are 'real', 'fake', 'target'")
        self._ask(f"features({of})")
        return [self._seen(f) for f in self._features(of, self._fresh)]

    def score(self, images: Tensor, name: str | None = None) -> Tensor:
        """What the discriminator of the target domain says of images: (N, K, h, w). `name` where there are several."""
        return self._score(self._choose("images", name), images)

    def score_embedding(self, embedding: Tensor, name: str | None = None) -> Tensor:
        """What the discriminator on embeddings says: (N, K, h, w). `name` where there are several."""
        return self._score(self._choose("embeddings", name), embedding)

    def discriminator(self, name: str | None = None) -> Discriminator:
        """The network itself that scores images of the target domain. `name` where there are several."""
        return self._memo.networks.discriminator(self._choose("images", name))

    def uniform(self, *size: int) -> Tensor:
        """Uniform in [0, 1), of shape `size` whose first dimension counts images: a function of seed, step, turn,
        way and which call of the turn this is."""
        values = self._like_images(torch.from_numpy(self._draws().random(size)))
        # in float32 the largest of them were rounded up to 1
        return values.clamp_(max=1 - torch.finfo(values.dtype).eps / 2)

    def normal(self, *size: int) -> Tensor:
        """Standard normal, otherwise as `uniform`."""
        return self._like_images(torch.from_numpy(self._draws().standard_normal(size)))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """{value: shape} of both batches, and of what was already made of them."""
        batch = self._memo.batch.images
        made = {
            "fake": self._memo.held(("decoded", "real", self.name)),
            "identity": self._memo.held(("decoded", "target", self.name)),
            "cycled": self._memo.held(("cycled", self.name)),
        }
        there = {"real": batch[self._source], "target": batch[self._to], **made}
        return {name: tuple(value.shape) for name, value in there.items() if value is not None}

    def _draws(self) -> Any:
        call = self._memo.calls[self.name] = self._memo.calls.get(self.name, -1) + 1
        step, turn = self._memo.where
        return keyed(self._memo.seed, "draw", step, turn, self.name, call)

    def _like_images(self, values: Tensor) -> Tensor:
        like = self._memo.batch.images[self._source]
        return to_device(values.to(like.dtype), like.device)

    def _ask(self, what: str) -> None:
        self._memo.asked.add(f"{self.name}.{what}")

    def _image(self, domain: str) -> Tensor:
        images = self._memo.batch.images[domain]
        return self._memo.leaf(images) if self._memo.player == "discriminator" else images

    def _label(self, domain: str) -> Tensor:
        if domain not in self._memo.batch.labels:
            raise SpecError(f"asks for labels of domain {domain}, and its source has none")
        return self._memo.batch.labels[domain]

    @property
    def _fresh(self) -> bool:
        return self._memo.player == "generator"

    def _seen(self, value: Tensor) -> Tensor:
        return self._memo.leaf(value) if self._memo.player == "discriminator" else value

    def _network(self, name: str) -> str:
        if name not in self._memo.networks.modules:
            raise SpecError(f"asks for the way {name[-2:]}, which `translations` leaves out")
        return name

    def _input(self, of: str) -> Tensor:
        if of == "fake":
            return self._decoded("real", self._fresh)
        return self._memo.batch.images[self._source if of == "real" else self._to]

    def _features(self, of: str, fresh: bool) -> list[Tensor]:
        own = self._network(self._own)

        def compute() -> list[Tensor]:
            partner = self._partner("features", of)
            if partner is None:
                return self._memo.networks.features(self.name, self._input(of))
            both = self._memo.networks.features(self.name, torch.cat([self._input(of), self._input(partner)]))
            halves = [f.chunk(2) for f in both]
            self._memo.keep(("features", partner, self.name), (own,), [h[1] for h in halves])
            return [h[0] for h in halves]

        source = ("decoded", "real", self.name) if of == "fake" else None
        found: list[Tensor] = self._memo.value(("features", of, self.name), (own,), compute, fresh, source)
        return found

    def _decoded(self, of: str, fresh: bool) -> Tensor:
        own = self._network(self._own)

        def compute() -> Tensor:
            partner = self._partner("decoded", of)
            embedding = self._features(of, True)[-1]
            if partner is None:
                return self._memo.networks.decode(self.name, embedding)
            both = torch.cat([embedding, self._features(partner, True)[-1]])
            mine, its = self._memo.networks.decode(self.name, both).chunk(2)
            self._memo.keep(("decoded", partner, self.name), (own,), its)
            return mine

        found: Tensor = self._memo.value(("decoded", of, self.name), (own,), compute, fresh)
        return found

    def _partner(self, what: str, of: str) -> str | None:
        """The other image that this turn translates this way, if both are to share a batch."""
        partner = {"real": "target", "target": "real"}.get(of)
        planned = {f"{self.name}.fake", f"{self.name}.identity"} <= self._memo.planned
        if partner and planned and self._memo.networks.joinable(self._own):
            return partner if self._memo.held((what, partner, self.name)) is None else None
        return None

    def _encoded_back(self, fresh: bool) -> list[Tensor]:
        other = self._network(self._other)

        def compute() -> list[Tensor]:
            return self._memo.networks.features(other[-2:], self._decoded("real", fresh))

        key, of = ("encoded_back", self.name), ("decoded", "real", self.name)
        found: list[Tensor] = self._memo.value(key, (self._own, other), compute, fresh, of)
        return found

    def _decoded_back(self, what: str, embedding: Callable[[], Tensor], of: tuple[Any, ...]) -> Tensor:
        other = self._network(self._other)

        def compute() -> Tensor:
            return self._memo.networks.decode(other[-2:], embedding())

        found: Tensor = self._memo.value((what, self.name), (self._own, other), compute, self._fresh, of)
        return found

    def _choose(self, sees: str, label: str | None) -> str:
        to = self._to if sees == "images" else None
        names = self._memo.networks.discriminators(sees, to)
        if label is not None:
            names = [name for name in names if name.split("/")[1] == label]
        if len(names) != 1:
            asked = f" named {label!r}" if label is not None else ""
            found = f"{len(names)}, so it must name one" if names else "none"
            raise SpecError(f"asks for a discriminator on {sees}{asked}; the spec has {found}")
        return names[0]

    def _score(self, name: str, x: Tensor) -> Tensor:
        self._memo.asked.add(name)
        if self._memo.player == "discriminator" and name.endswith(f"/{self._to}"):
            self._join_scores(name, x)
        return self._memo.score(name, x)

    def _join_scores(self, name: str, x: Tensor) -> None:
        """Score the target and the fake as one batch where this turn asks for both."""
        memo = self._memo
        known = {"target": self.target, "fake": memo.fakes.get(self.name)}
        role = next((role for role, image in known.items() if image is x), None)
        if role is None:
            return
        memo.asked.add(f"{name} on {role}")
        if not {f"{name} on target", f"{name} on fake"} <= memo.planned or not memo.networks.joinable(name):
            return
        partner = self.fake_for_discriminator if role == "target" else self.target
        if memo.scored(name, x) or memo.scored(name, partner):
            return
        mine, its = memo.networks.score(name, torch.cat([x, partner])).chunk(2)
        memo.keep_score(name, x, mine)
        memo.keep_score(name, partner, its)
