"""The generators' outputs and the discriminators' scores for one batch. Each is computed when a loss first reads it.

In a generators' turn a cached tensor is reused only if no network that made it has been updated since. In a
discriminators' turn any cached tensor is reused, even one from before a generator's update. Losses then get a detached
copy that takes gradients, so no gradient reaches a generator. Scores are kept for one turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import EllipsisType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ganlab import distributed
from ganlab.data.sampler import Batch
from ganlab.errors import SpecError
from ganlab.interfaces.networks import Discriminator
from ganlab.parts import WHOLE, Part
from ganlab.system.cache_checks import Extras, check_domain, checked_logged, checked_pool, find_discriminator
from ganlab.system.host_inputs import Draw, HostInputs
from ganlab.system.networks import Networks
from ganlab.torch_utils import as_float


class Recipe(NamedTuple):
    """The step that makes one value of a direction from another."""

    made_from: str
    """Another value, or the real images "source" or "target"."""
    by: str
    """The generator: "own", this direction's, or "reverse", the reverse direction's."""
    half: str
    """"encode" or "decode"."""


VALUES = {
    "features": Recipe("source", "own", "encode"),
    "fake": Recipe("features", "own", "decode"),
    "target_features": Recipe("target", "own", "encode"),
    "identity": Recipe("target_features", "own", "decode"),
    "fake_features": Recipe("fake", "own", "encode"),
    "fake_embedding": Recipe("fake", "reverse", "encode"),
    "cycled": Recipe("fake_embedding", "reverse", "decode"),
    "reconstructed": Recipe("features", "reverse", "decode"),
}
"""{value: how it is made}. Encoding gives activations; decoding takes the last activation, the embedding."""


class CacheEntry(NamedTuple):
    tensors: list[Tensor]
    """The encoder's activations, or a list of one batch of images."""
    versions: dict[str, int]
    """The version of every network that made the tensors: the older one if a network was used twice."""


class Scored(NamedTuple):
    """The output of a discriminator for a tensor."""

    x: Tensor
    """The tensor, kept because the id of a freed tensor is given to another."""
    network: Discriminator
    inner: list[Tensor]
    """The activations before the scores, in the precision of the computation."""
    scores: Tensor
    """In at least float32."""


class Logged(NamedTuple):
    """A value that a loss logged."""

    direction: str
    name: str
    value: Tensor
    """A scalar without history."""


class ForwardCache:
    """The values of one batch, or of a part of it, in both directions. `begin` says whose turn it is.

    Random numbers come through `inputs`.
    """

    def __init__(
        self,
        networks: Networks,
        batch: Batch,
        pools: dict[str, nn.Module],
        seed: int,
        part: Part = WHOLE,
        inputs: HostInputs | None = None,
    ) -> None:
        self.networks, self.batch, self.pools, self.seed, self.part = networks, batch, pools, seed, part
        self._inputs = inputs or HostInputs()
        self.requests: set[str] = set()
        """The values that were read, as "DIRECTION.VALUE", and the names of the discriminators that scored."""
        self._logged: list[Logged] = []
        self._entries: dict[tuple[str, str], CacheEntry] = {}
        self._pooled: dict[str, Tensor] = {}
        self._leaves: dict[int, tuple[Tensor, Tensor]] = {}
        self._origins: dict[int, Tensor] = {}
        """{id of a leaf: the tensor of which it is a copy}."""
        self.begin("generator", (0, 0), with_graph=True)

    def begin(self, player: str, position: tuple[int, int], with_graph: bool) -> None:
        """Starts a turn.

        Args:
            player: "generator" or "discriminator".
            position: (step, turn), both counted from 0.
            with_graph: Record the graph, because this turn or a later one on this batch updates generators. Once
                false, it stays false for the rest of the batch.
        """
        self.player, self.position, self.with_graph = player, position, with_graph
        self._draws: dict[str, int] = {}
        self._scores: dict[tuple[str, int], Scored] = {}
        self._made: dict[tuple[str, str, int], tuple[Tensor, list[Tensor]]] = {}
        """{(direction of the generator, half, id of its input): (input, outputs)} for inputs that no value names."""

    def get(self, direction: str, value: str, up_to_date: bool) -> CacheEntry:
        """Returns the cached entry, or makes it. With `up_to_date` an entry of changed networks is made again."""
        entry = self._entries.get((direction, value))
        if entry is None or (up_to_date and not self._is_up_to_date(entry)):
            entry = self._entries[direction, value] = self._make(direction, value, up_to_date)
        return entry

    def _is_up_to_date(self, entry: CacheEntry) -> bool:
        return all(self.networks.versions[name] == version for name, version in entry.versions.items())

    def _make(self, direction: str, value: str, up_to_date: bool) -> CacheEntry:
        recipe = VALUES[value]
        generator = direction if recipe.by == "own" else direction[::-1]
        self._check_trained(generator)
        source, target = direction[0], direction[1]
        if recipe.made_from in ("source", "target"):
            images = self.batch.images[source if recipe.made_from == "source" else target]
            made_from = CacheEntry([images], {})
        else:
            # a generator translates real images with one version of its weights; an existing fake is not made again
            translates = (recipe.by, recipe.half) == ("own", "decode")
            made_from = self.get(direction, recipe.made_from, up_to_date or translates)
        with torch.set_grad_enabled(self.with_graph):
            tensors = self._half(generator, recipe.half, made_from.tensors[-1])
        # the input's version of a network is the older one, and wins
        name = f"generator/{generator}"
        return CacheEntry(tensors, {name: self.networks.versions[name]} | made_from.versions)

    def leaf(self, x: Tensor) -> Tensor:
        """Returns `x` detached, as a leaf that takes gradients; always the same leaf for the same tensor."""
        if id(x) not in self._leaves:
            # x is kept too: the id of a freed tensor is given to another
            self._leaves[id(x)] = x, x.detach().requires_grad_()
            self._origins[id(self._leaves[id(x)][1])] = x
        return self._leaves[id(x)][1]

    def _as_input(self, x: Tensor) -> Tensor:
        return self.leaf(x) if self.player == "discriminator" else x

    # the values that a Translation reads

    def images(self, domain: str) -> Tensor:
        return self._as_input(self.batch.images[domain])

    def labels(self, domain: str) -> Tensor:
        if domain not in self.batch.labels:
            raise SpecError(f"asks for labels of domain {domain}, and its source has none")
        return self.batch.labels[domain]

    def extras(self, domain: str) -> Mapping[str, Tensor]:
        return Extras(domain, self.batch.extras.get(domain, {}))

    def classes(self, domain: str) -> int:
        return self.batch.classes[domain]

    def translated(self, direction: str, value: str) -> list[Tensor]:
        self.requests.add(f"{direction}.{value}")
        entry = self.get(direction, value, up_to_date=self.player == "generator")
        return [self._as_input(tensor) for tensor in entry.tensors]

    def encoded(self, direction: str, images: Tensor) -> list[Tensor]:
        return self._applied(direction, "encode", images)

    def decoded(self, direction: str, embedding: Tensor) -> Tensor:
        return self._applied(direction, "decode", embedding)[-1]

    def _applied(self, generator: str, half: str, x: Tensor) -> list[Tensor]:
        """The outputs of a half of a generator for any tensor."""
        if (named := self._name(generator, half, x)) is not None:
            return self.translated(*named)
        if (generator, half, id(x)) not in self._made:
            # x is kept too: the id of a freed tensor is given to another
            self._made[generator, half, id(x)] = x, self._apply(generator, half, x)
        return self._made[generator, half, id(x)][1]

    def _name(self, generator: str, half: str, x: Tensor) -> tuple[str, str] | None:
        """Returns (direction, value) of the value that a half of a generator makes from `x`, or None."""
        if self.player == "discriminator":
            # in the generators' turn a leaf stays one: no gradient may pass through it
            x = self._origins.get(id(x), x)
        for value, recipe in VALUES.items():
            direction = generator if recipe.by == "own" else generator[::-1]
            if recipe.half == half and self._made_from(direction, recipe) is x:
                return direction, value
        return None

    def _made_from(self, direction: str, recipe: Recipe) -> Tensor | None:
        """Returns the input of a recipe; None if there is none, or if this turn would make it again."""
        if recipe.made_from in ("source", "target"):
            return self.batch.images[direction[recipe.made_from == "target"]]
        entry = self._entries.get((direction, recipe.made_from))
        if entry is None or (self.player == "generator" and not self._is_up_to_date(entry)):
            return None
        return entry.tensors[-1]

    def _apply(self, generator: str, half: str, x: Tensor) -> list[Tensor]:
        self._check_trained(generator)
        trains = self.player == "generator"
        with torch.set_grad_enabled(trains):
            tensors = self._half(generator, half, x)
        return tensors if trains else [tensor.detach().requires_grad_() for tensor in tensors]

    def _half(self, generator: str, half: str, x: Tensor) -> list[Tensor]:
        return self.networks.features(generator, x) if half == "encode" else [self.networks.decode(generator, x)]

    def _check_trained(self, generator: str) -> None:
        if f"generator/{generator}" not in self.networks.modules:
            raise SpecError(f"asks for the direction {generator}, which `directions` leaves out")

    def fake_for_discriminator(self, direction: str) -> Tensor:
        self.requests.add(f"{direction}.fake_for_discriminator")
        fake = self.get(direction, "fake", up_to_date=False).tensors[-1]
        if direction not in self.pools:
            return self.leaf(fake)
        if direction not in self._pooled:
            # every process has the same pool, which sees the fakes of all of them
            fakes = distributed.gather_rows(fake.detach())
            turn, own = self.part.turn.rows(len(fakes)), Part(distributed.rank(), distributed.size()).rows(len(fake))
            rolls = self._draw((len(fake) * self.part.parts, 2), turn, "pool", direction).uniform
            with torch.no_grad():
                pooled = checked_pool(self.pools[direction], fakes, self._inputs(rolls, self.position[0]))
            self._pooled[direction] = pooled[own].detach().requires_grad_()
        return self._pooled[direction]

    def score(self, direction: str, sees: str, label: str | None, x: Tensor) -> Tensor:
        return self.scored(direction, sees, label, x).scores

    def activations(self, direction: str, label: str | None, images: Tensor) -> list[Tensor]:
        found = self.scored(direction, "images", label, images)
        return [*(as_float(found.network, inner) for inner in found.inner), found.scores]

    def scored(self, direction: str, sees: str, label: str | None, x: Tensor) -> Scored:
        """Returns the output of a discriminator for `x`, computed once in a turn."""
        name = find_discriminator(self.networks, direction, sees, label)
        self.requests.add(name)
        if sees == "images":
            check_domain(direction, x, self._images_of(direction[0]))
        if (name, id(x)) not in self._scores:
            # scores are shared by losses: one that asks without gradients must not take them from the others
            with torch.enable_grad():
                self._scores[name, id(x)] = self._score(name, x, self.images(direction[0]))
        return self._scores[name, id(x)]

    def _score(self, name: str, x: Tensor, source: Tensor) -> Scored:
        network = self.networks.discriminator(name)
        *inner, scores = self.networks.activations(name, self.networks.seen(name, source, x))
        return Scored(x, network, inner, as_float(network, scores))

    def discriminator(self, direction: str, label: str | None) -> Discriminator:
        return self.networks.discriminator(find_discriminator(self.networks, direction, "images", label))

    @property
    def step(self) -> int:
        return self._inputs.read_step(self.position[0])

    def log(self, direction: str, name: str, value: Tensor | float) -> None:
        like = next(iter(self.batch.images.values()))
        self._logged.append(Logged(direction, name, checked_logged(name, value, like)))

    def uniform(self, direction: str, size: tuple[int, ...]) -> Tensor:
        return self._inputs(self._numbers(direction, size).uniform, self.position[0])

    def normal(self, direction: str, size: tuple[int, ...]) -> Tensor:
        return self._inputs(self._numbers(direction, size).normal, self.position[0])

    def shapes(self, direction: str) -> dict[str, tuple[int, ...]]:
        real = {"source": self.batch.images[direction[0]], "target": self.batch.images[direction[1]]}
        made = {value: self._entries.get((direction, value)) for value in ("fake", "identity", "cycled")}
        images = real | {value: entry.tensors[-1] for value, entry in made.items() if entry is not None}
        return {name: tuple(tensor.shape) for name, tensor in images.items()}

    def _images_of(self, domain: str) -> list[Tensor]:
        """The cached tensors that hold images of a domain, and their leaves."""
        found = [self.batch.images[domain]]
        for (direction, value), entry in self._entries.items():
            output_domain = direction[1] if VALUES[value].by == "own" else direction[0]
            if VALUES[value].half == "decode" and output_domain == domain:
                found += entry.tensors
        for (generator, half, _), (_, tensors) in self._made.items():
            if half == "decode" and generator[1] == domain:
                found += tensors
        leaves = [self._leaves[id(images)][1] for images in found if id(images) in self._leaves]
        pooled = [images for direction, images in self._pooled.items() if direction[1] == domain]
        return found + leaves + pooled

    def held(self) -> list[Tensor]:
        """Returns what is kept of the networks' outputs: the values, and this turn's scores and other results."""
        outputs = [entry.tensors for entry in self._entries.values()]
        outputs += [tensors for _, tensors in self._made.values()]
        outputs += [[*scored.inner, scored.scores] for scored in self._scores.values()]
        return [tensor for tensors in outputs for tensor in tensors]

    def take_logged(self) -> list[Logged]:
        """Returns the values that losses logged since the last call."""
        logged, self._logged = self._logged, []
        return logged

    def _next_draw(self, direction: str) -> int:
        draw = self._draws[direction] = self._draws.get(direction, -1) + 1
        return draw

    def _numbers(self, direction: str, size: tuple[int, ...]) -> Draw:
        """Random numbers of shape `size`. If there is a row for each image, they are this part's rows of the whole
        batch's."""
        images = len(next(iter(self.batch.images.values())))
        rows: slice | EllipsisType = ...
        if size[:1] == (images,):
            size, rows = (images * self.part.parts, *size[1:]), self.part.rows(images)
        return self._draw(size, rows, "draw", direction, self._next_draw(direction))

    def _draw(self, size: tuple[int, ...], rows: slice | EllipsisType, what: str, *rest: int | str) -> Draw:
        like = next(iter(self.batch.images.values()))
        return Draw((self.seed, what), (self.position[1], *rest), size, rows, like.dtype, like.device)
