"""What the engine relies on, checked in a plugin author's own test: `check_loss(Hinge, margin=2.0)`.

A component is given as in a spec, by its class and its options; a nested one by its class, and where it isn't given a
simple one stands in. `images` is the shape of both domains' images. A broken promise raises AssertionError with one
sentence, which says what was promised and shows the numbers. `Unavailable` passes: where weights are missing, nothing
can be said.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from ganlab.data.sampler import Batch
from ganlab.draws import keyed
from ganlab.errors import Unavailable
from ganlab.evaluation.evidence import Evidence, Images
from ganlab.interfaces import (
    PLAYERS,
    SEES,
    Discriminator,
    Domain,
    Estimate,
    Features,
    Generator,
    Loss,
    Metric,
    Number,
    Pair,
    Schedule,
    Source,
    Turn,
)
from ganlab.networks import Networks, evaluating
from ganlab.options import KINDS, signature, validate
from ganlab.registry import check_contract
from ganlab.rehearsal import terms
from ganlab.translation import Memo, Translation

IMAGES = Domain("images", 3, 16, 16)
EMBEDDING = Domain("embedding", 4, 8, 8)
WAYS = ("ab", "ba")
STEPS = 20
"""So many of a schedule's steps are looked at, and the last."""

T = TypeVar("T")


class SimpleGenerator(Generator):
    """Two convolutions: embeddings (N, 4, H / 2, W / 2)."""

    def __init__(self, source: Domain, target: Domain) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(source.channels, 4, 4, 2, 1), nn.Tanh())
        self.decoder = nn.Sequential(nn.ConvTranspose2d(4, target.channels, 4, 2, 1), nn.Tanh())

    def encode(self, images: Tensor) -> Tensor:
        embedding: Tensor = self.encoder(images)
        return embedding

    def decode(self, embedding: Tensor) -> Tensor:
        images: Tensor = self.decoder(embedding)
        return images


class SimpleDiscriminator(Discriminator):
    """Two convolutions: scores (N, `scores`, H / 2, W / 2)."""

    def __init__(self, shape: Domain, scores: int = 1) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(shape.channels, 4, 4, 2, 1), nn.Tanh(), nn.Conv2d(4, scores, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.net(x)
        return scores


class SimpleLoss(Loss):
    """Least squares (arXiv:1611.04076)."""

    def generator(self, t: Translation) -> Tensor:
        return (t.score(t.fake) - 1).square().mean()

    def discriminator(self, t: Translation) -> Tensor:
        return (t.score(t.target) - 1).square().mean() + t.score(t.fake_for_discriminator).square().mean()


class SimpleFeatures(Features):
    """The means of four convolved channels."""

    size = 8
    shipped = True

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh())

    def forward(self, images: Tensor) -> Tensor:
        vectors: Tensor = self.net(images).mean((2, 3))
        return vectors


STAND_INS: dict[str, type] = {
    "generator": SimpleGenerator,
    "discriminator": SimpleDiscriminator,
    "loss": SimpleLoss,
    "features": SimpleFeatures,
}


def check_loss(cls: type[Loss], /, *, images: Domain = IMAGES, scores: int = 1, **options: Any) -> None:
    """A loss's promises, on both ways of a small system. `images.classes` gives images labels; discriminators give
    `scores` numbers at each place."""
    _check_class(cls, "loss", options)

    def make(seed: int, dtype: torch.dtype = torch.float64) -> tuple[Loss, _Stage]:
        stage = _Stage.make(images, scores, dtype)
        torch.manual_seed(seed)
        loss: Loss = _make(cls, options)
        loss.to(dtype)
        with torch.no_grad():
            for way in WAYS:
                loss.prepare(Translation(way, stage.memo()))
        return loss.to(dtype), stage

    with _promise(cls, "is made of its options, and prepares itself for each way"):
        loss, stage = make(0)
    with _promise(cls, "gives finite scalars, to one player at least, and leaves the images as they are") as so:
        before = {domain: x.clone() for domain, x in stage.batch.images.items()}
        found = stage.terms(copy.deepcopy(loss))
        so(bool(found), "it gives no player a term on any way")
        so(all(value.isfinite() for value in found.values()), _shown(found))
        so(all(torch.equal(x, before[domain]) for domain, x in stage.batch.images.items()), "it has changed the images")
    with _promise(cls, "has terms whose gradients reach the player's networks, or the loss's own parameters") as so:
        _check_reach(copy.deepcopy(loss), stage, so)
    with _promise(cls, "draws by t.uniform and t.normal alone, so that a resumed run draws the same") as so:
        each = []
        for seed in range(2):
            torch.manual_seed(seed)
            each.append(stage.terms(copy.deepcopy(loss)))
        so(_equal(*each), f"with torch's seed 0 {_shown(each[0])}, with seed 1 {_shown(each[1])}")
    with _promise(cls, "gives each way the same whichever comes first") as so:
        other = stage.terms(copy.deepcopy(loss), ways=WAYS[::-1])
        so(_equal(found, other), f"ab first {_shown(found)}, ba first {_shown(other)}")
    with _promise(cls, "keeps its state in parameters and buffers: loaded into another one, it goes on the same") as so:
        stage.terms(loss)
        fresh, _ = make(1)
        fresh.load_state_dict(loss.state_dict())
        one, other = stage.terms(loss, step=1), stage.terms(fresh, step=1)
        so(_equal(one, other), f"it goes on with {_shown(one)}, the loaded one with {_shown(other)}")
    with _promise(cls, "computes in float32 what it does in float64") as so:
        single, small = make(0, torch.float32)
        other = small.terms(single)
        near = other.keys() == found.keys() and all(_close(value, other[key], 1e-3) for key, value in found.items())
        so(near, f"float64 {_shown(found)}, float32 {_shown(other)}")


def check_generator(cls: type[Generator], /, *, images: Domain = IMAGES, **options: Any) -> None:
    """A generator's promises, on both ways."""
    _check_class(cls, "generator", options)
    domains = {name: images._replace(name=name) for name in "ab"}
    for way in WAYS:

        def make(way: str = way) -> Generator:
            return _pair(cls, domains, options)[way]

        x = _noise(images, "generator", way)
        torch.manual_seed(0)
        with _promise(cls, "is made of its options"):
            network = make().double()
        with _promise(cls, "encodes to (N, E, h, w)") as so:
            embedding = _seeded(_encoded, network, x)
            so(embedding.dim() == 4 and len(embedding) == len(x), f"it encodes {_shape(x)} to {_shape(embedding)}")
        with _promise(cls, "decodes to images of the target domain in [-1, 1], however large its weights") as so:
            large = copy.deepcopy(network)
            for parameter in large.parameters():
                parameter.data.mul_(30)
            fake = large(x)
            so(fake.shape == x.shape, f"of {_shape(x)} it makes {_shape(fake)}")
            so(bool((fake.abs() <= 1).all()), f"values go from {fake.min():.3g} to {fake.max():.3g}")
        with _promise(cls, "has a decoder through which gradients reach the embedding") as so:
            leaf = embedding.requires_grad_()
            (gradient,) = torch.autograd.grad(_weighted(network.decode(leaf)), leaf, allow_unused=True)
            _check_gradients({"the embedding": gradient}, so)
        _check_network(cls, make, lambda network, x: network(x), x)
        with _promise(cls, "has features whose last is the embedding") as so:
            embedding, last = (_seeded(run, copy.deepcopy(network), x) for run in (_encoded, _last))
            so(_close(embedding, last), f"they differ by up to {_apart(embedding, last):.3g}")


def check_discriminator(cls: type[Discriminator], /, *, images: Domain | None = None, **options: Any) -> None:
    """A discriminator's promises. One that sees embeddings is given those of 4 channels, 8x8, unless `images` says
    otherwise."""
    _check_class(cls, "discriminator", options)
    torch.manual_seed(0)
    with _promise(cls, "is made of its options"):
        sees = _make(cls, options, IMAGES if images is None else images).sees
    shape = images or (EMBEDDING if sees == "embeddings" else IMAGES)

    def make() -> Discriminator:
        network: Discriminator = _make(cls, options, shape)
        return network

    network = make().double()
    x = _noise(shape, "discriminator")
    with _promise(cls, "gives scores (N, K, h, w), through which gradients reach what it sees") as so:
        x.requires_grad_()
        scores = network(x)
        so(scores.dim() == 4 and len(scores) == len(x), f"of {_shape(x)} it gives {_shape(scores)}")
        so(scores.requires_grad, "the scores have no gradient")
        (gradient,) = torch.autograd.grad(_weighted(scores), x, allow_unused=True)
        _check_gradients({"what it sees": gradient}, so)
        x = x.detach()
    with _promise(cls, "can be differentiated twice, as gradient penalties do: by autograd as by differences") as so:
        by_autograd, by_differences, size = _second(network, x)
        near = abs(by_autograd - by_differences) <= 1e-3 * (abs(by_autograd) + abs(by_differences)) + 1e-6 * size
        so(near, f"a penalty's slope is {by_autograd:.6g} by autograd, {by_differences:.6g} by differences")
    with _promise(cls, "keeps its parameters in after_update, where the optimiser has them, and finite") as so:
        updated = make()
        before = [id(parameter) for parameter in updated.parameters()]
        with torch.no_grad():
            updated.after_update()
        kept = [id(parameter) for parameter in updated.parameters()] == before
        so(kept, f"of {len(before)} parameters some are others now")
        finite = [name for name, parameter in updated.named_parameters() if not parameter.isfinite().all()]
        so(not finite, f"not finite: {', '.join(finite)}")
    _check_network(cls, make, lambda network, x: network(x), x)


def check_schedule(cls: type[Schedule], /, *, images: Domain = IMAGES, **options: Any) -> None:
    """A schedule's promises: its first steps, its last, and its optimisers."""
    _check_class(cls, "schedule", options)

    def make(ways: tuple[str, ...] = WAYS) -> Schedule:
        schedule: Schedule = _make(cls, options)
        schedule.ways = ways
        return schedule

    with _promise(cls, "has steps, a number from 1 up") as so:
        steps = getattr(make(), "steps", None)
        so(type(steps) is int and steps >= 1, f"steps is {steps!r}")
    assert isinstance(steps, int)
    asked = sorted({*range(min(steps, STEPS)), steps - 1})
    with _promise(cls, "names players, and of the ways only those that the core has set") as so:
        for ways in (WAYS, WAYS[:1]):
            schedule = make(ways)
            for step in asked:
                for turn in schedule.turns(step):
                    so(_fits(turn, ways), f"with the ways {ways} step {step} has {turn}")
    with _promise(cls, "is a function of the step alone, so that a resumed run goes on the same") as so:
        walked = make()
        one = {step: _plan(walked, step) for step in asked}
        for step in asked:
            other = _plan(make(), step)
            so(one[step] == other, f"step {step} is {one[step]} after those before it, {other} when asked first")
    with _promise(cls, "gives finite factors, from 0 up") as so:
        factors = [factor for _, *factors in one.values() for factor in factors]
        so(all(np.isfinite(factor) and factor >= 0 for factor in factors), f"they are {sorted(set(factors))}")
    for player in PLAYERS:
        with _promise(cls, "gives each player one optimiser, of all its parameters") as so:
            parameters = _parameters()
            optimizer = make().optimizer(player, parameters)
            so(isinstance(optimizer, torch.optim.Optimizer), f"the {player}'s is {optimizer!r}")
            held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
            count = f"the {player}'s holds {len(held)} of {len(parameters)} parameters"
            so(sorted(held) == sorted(map(id, parameters)), count)
        with _promise(cls, "has optimisers whose state, saved and loaded, goes on the same") as so:
            for _ in range(2):
                _descend(optimizer, parameters)
            copies = [nn.Parameter(parameter.detach().clone()) for parameter in parameters]
            loaded = make().optimizer(player, copies)
            loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            for each, values in ((optimizer, parameters), (loaded, copies)):
                _descend(each, values)
            ours, theirs = (torch.cat([p.detach().flatten() for p in values]) for values in (parameters, copies))
            so(bool(ours.isfinite().all()), f"the {player}'s parameters become {ours.tolist()}")
            so(torch.equal(ours, theirs), f"the {player}'s differ by up to {_apart(ours, theirs):.3g}")
    _check_pool(cls, lambda: make().pool(images), images)


def check_source(cls: type[Source], /, *, size: int = 16, **options: Any) -> None:
    """A source's promises, on the first eight images of each domain."""
    _check_class(cls, "source", options)

    def make() -> Source:
        source: Source = _make(cls, options)
        return source

    with _promise(cls, "is made of its options"):
        source = make()
    for domain in "ab":
        with _promise(cls, "names its images in a fixed order, each by a key of its own") as so:
            keys = source.keys(domain)
            so(bool(keys) and all(type(key) is str for key in keys), f"domain {domain} has the keys {keys[:8]}")
            so(len(set(keys)) == len(keys), f"of {len(keys)} keys {len(keys) - len(set(keys))} come again")
            again = make().keys(domain)
            so(again == keys, f"domain {domain} has the keys {keys[:8]}, and then {again[:8]}")
        some = keys[:8]
        with _promise(cls, "gives images (size, size, channels) of uint8") as so:
            pictures = [source.image(key, size) for key in some]
            for key, picture in zip(some, pictures, strict=True):
                fit = picture.shape == (size, size, source.channels) and picture.dtype == np.uint8
                so(fit, f"{key!r} is {picture.shape} of {picture.dtype}, where {(size, size, source.channels)} is due")
        with _promise(cls, "gives the same image for the same key, from several threads too") as so:
            with ThreadPoolExecutor(4) as pool:
                others = list(pool.map(partial(make().image, size=size), some[::-1]))
            for key, picture, other in zip(some, pictures, others[::-1], strict=True):
                so(np.array_equal(picture, other), f"{key!r} differs in {(picture != other).sum()} values")
        if source.classes:
            with _promise(cls, "has labels from 0 to less than classes") as so:
                labels = [source.label(key) for key in some]
                fit = all(isinstance(label, int) and 0 <= label < source.classes for label in labels)
                so(fit, f"of {source.classes} classes there are the labels {sorted(set(labels))}")
        with _promise(cls, "has attributes that are {text: text}") as so:
            for key in some:
                known = source.attributes(key)
                so(all(type(part) is str for pair in known.items() for part in pair), f"{key!r} has {known}")


def check_metric(cls: type[Metric], /, **options: Any) -> None:
    """A metric's promises, on noise in the place of images."""
    _check_class(cls, "metric", options)

    def make() -> Metric:
        metric: Metric = _make(cls, options)
        return metric

    with _promise(cls, "has numbers, {name: Number}") as so:
        numbers = getattr(make(), "numbers", None)
        fit = isinstance(numbers, Mapping) and all(isinstance(number, Number) for number in numbers.values())
        so(bool(numbers) and fit, f"they are {numbers!r}")
    whole = _evidence()
    with _promise(cls, "measures numbers that it has named, one at least, each inside its interval") as so:
        found = _measured(make(), whole)
        so(bool(found), "of complete evidence it measures none")
        so(set(found) <= set(numbers or ()), f"it has named {sorted(numbers or ())} and measures {sorted(found)}")
        for name, figure in found.items():
            so(isinstance(figure, Estimate | Unavailable), f"{name} is {figure!r}")
            if isinstance(figure, Estimate):
                ordered = np.isfinite(figure[:3]).all() and figure.low <= figure.value <= figure.high
                so(bool(ordered), f"{name} is {figure.value} in [{figure.low}, {figure.high}]")
    with _promise(cls, "measures the same twice, and leaves the images as they are") as so:
        again = _measured(make(), whole)
        so(repr(again) == repr(found), f"it measures {found}, and then {again}")
        for name in ("outputs", "targets", "inputs"):
            kept = zip(getattr(whole, name).pixels, getattr(_evidence(), name).pixels, strict=True)
            so(all(np.array_equal(one, other) for one, other in kept), f"it has changed the {name}")
    with _promise(cls, "raises Unavailable, and nothing else, where it needs what isn't there"):
        folders = Evidence("", whole.outputs, whole.targets)
        for lacking in (folders, replace(whole, cycled=None), replace(whole, outputs=whole.outputs.take([0]))):
            try:
                _measured(make(), replace(lacking, kept={}))
            except Unavailable:
                continue


def check_features(cls: type[Features], /, **options: Any) -> None:
    """The promises of a feature network. Raises Unavailable where its weights are not to be had."""
    _check_class(cls, "features", options)
    torch.manual_seed(0)
    with _promise(cls, "is made of its options"):
        network: Features = _make(cls, options)
        network.requires_grad_(False).eval()
    x = _noise(Domain("images", 3, cls.size, cls.size), "features").float().requires_grad_()
    with _promise(cls, "gives finite vectors (N, D), each image's its own, the same twice") as so:
        vectors = network(x)
        so(vectors.dim() == 2 and len(vectors) == len(x), f"of {_shape(x)} it gives {_shape(vectors)}")
        so(bool(vectors.isfinite().all()), f"{int((~vectors.isfinite()).sum())} of {vectors.numel()} are not finite")
        alone = torch.cat([network(image[None]) for image in x])
        so(_close(vectors, alone, 1e-3), f"alone and in a batch they differ by up to {_apart(vectors, alone):.3g}")
        again = network(x)
        so(torch.equal(vectors, again), f"twice they differ by up to {_apart(vectors, again):.3g}")
    with _promise(cls, "can be differentiated by the images") as so:
        so(vectors.requires_grad, "the vectors have no gradient")
        (gradient,) = torch.autograd.grad(_weighted(vectors), x, allow_unused=True)
        _check_gradients({"the images": gradient}, so)
    with _promise(cls, "names weight files that are there, and packages that are installed") as so:
        missing = [str(file) for file in network.files() if not Path(file).is_file()]
        so(not missing, f"missing: {', '.join(missing)}")
        for package in network.packages:
            version(package)


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
        pictures = {name: _noise(images, "loss", name).to(dtype) for name in "ab"}
        labels = {name: torch.arange(len(x)) % images.classes for name, x in pictures.items()} if images.classes else {}
        return cls(networks, Batch(pictures, labels))

    def memo(self, player: str = "generator", step: int = 0) -> Memo:
        memo = Memo(self.networks, self.batch, {}, seed=0)
        memo.begin(player, (step, PLAYERS.index(player)), graph=player == "generator")
        return memo

    def terms(self, loss: Loss, step: int = 0, ways: tuple[str, ...] = WAYS) -> dict[str, Tensor]:
        """{"PLAYER/WAY/PART": scalar} of one step: the generators' turn, then the discriminators'."""
        found = {}
        for player in PLAYERS:
            memo = self.memo(player, step)
            for way in ways:
                for part, value in terms(loss, player, Translation(way, memo)).items():
                    found[f"{player}/{way}/{part}".rstrip("/")] = value
        return found


_So = Callable[[bool, str], None]


@contextmanager
def _promise(cls: type, promise: str) -> Iterator[_So]:
    """Within it, `so(whether it holds, what was seen)`; any error breaks the promise too."""

    def so(holds: bool, seen: str) -> None:
        if not holds:
            raise AssertionError(f"{cls.__name__} {promise}: that is broken; {seen}")

    try:
        yield so
    except (AssertionError, Unavailable):
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        raise AssertionError(f"{cls.__name__} {promise}: that is broken; {type(error).__name__}: {text}") from error


def _check_class(cls: type, kind: str, options: Mapping[str, Any]) -> None:
    with _promise(cls, f"is a {KINDS[kind].__name__} whose options come back from JSON as they are") as so:
        so(issubclass(cls, KINDS[kind]), f"it is {cls!r}")
        check_contract(cls)
        plain = {name: value for name, value in options.items() if name not in signature(cls).nested}
        try:
            checked = validate(cls, plain)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            so(False, f"{'.'.join(map(str, first['loc']))}: {first['input']!r}: {first['msg']}")
        again = validate(cls, json.loads(checked.model_dump_json()))
        so(again == checked, f"{checked!r} comes back as {again!r}")


def _make(cls: type, options: Mapping[str, Any], domain: Domain | None = None) -> Any:
    """A component as the core makes it, its nested ones too."""
    sign = signature(cls)
    return cls(
        **_plain(cls, options),
        **{name: _make(_nested(cls, options, name), {}, domain) for name in sign.nested},
        **dict.fromkeys(sign.supplied, domain),
    )


def _pair(cls: type[Generator], domains: Mapping[str, Domain], options: Mapping[str, Any]) -> dict[str, Generator]:
    nested: dict[str, Any] = {}
    for name, kind in signature(cls).nested.items():
        inner = _nested(cls, options, name)
        nested[name] = Pair(_pair(inner, domains, {})) if kind == "generator" else _make(inner, {})
    return cls.pair(domains, WAYS, **_plain(cls, options), **nested)


def _plain(cls: type, options: Mapping[str, Any]) -> dict[str, Any]:
    named = {name: value for name, value in options.items() if name not in signature(cls).nested}
    checked = validate(cls, named)
    return {name: getattr(checked, name) for name in named}


def _nested(cls: type, options: Mapping[str, Any], name: str) -> type:
    kind = signature(cls).nested[name]
    inner = options.get(name) or STAND_INS.get(kind)
    if inner is None:
        raise AssertionError(f"{cls.__name__} wraps a {kind}, and none is given: {name}=a class")
    return cast(type, inner)


def _check_reach(loss: Loss, stage: _Stage, so: _So) -> None:
    own = [(name, parameter) for name, parameter in loss.named_parameters() if parameter.requires_grad]
    learnt: set[str] = set()
    # as the engine has them: the discriminators' turn comes while what the generators' turn kept is still there
    for key, value in stage.terms(loss).items():
        player = key.split("/")[0]
        so(value.requires_grad, f"{key} is {value.item():.3g} and has no gradient")
        moved = [
            (f"{name}.{part}", parameter)
            for name, module in stage.networks.modules.items()
            for part, parameter in module.named_parameters()
        ]
        gradients = torch.autograd.grad(value, [p for _, p in (*moved, *own)], allow_unused=True, retain_graph=True)
        reached = {
            name: gradient
            for (name, _), gradient in zip((*moved, *own), gradients, strict=True)
            if gradient is not None
        }
        so(all(g.isfinite().all() for g in reached.values()), f"{key} has gradients that are not finite")
        of_player = [name for name in reached if name.startswith(player) or name in dict(own)]
        so(bool(of_player), f"{key} reaches {', '.join(reached) or 'nothing'}")
        if player == "discriminator":
            strange = [name for name in reached if name.startswith("generator/")]
            so(not strange, f"{key} reaches {', '.join(strange)}")
        if player == loss.trains:
            learnt.update(name for name, _ in own if name in reached)
    missed = [name for name, _ in own if name not in learnt]
    so(not missed, f"no {loss.trains}s' term reaches the loss's own {', '.join(missed)}")


def _check_network(cls: type, make: Callable[[], nn.Module], run: Callable[[Any, Tensor], Tensor], x: Tensor) -> None:
    """What generators and discriminators have in common. `x` is float64."""
    with _promise(cls, "has initial weights that depend on torch's seed alone") as so:
        made = []
        for _ in range(2):
            torch.manual_seed(0)
            made.append(make().state_dict())
        differ = [name for name, value in made[0].items() if not torch.equal(value, made[1][name])]
        so(not differ, f"made twice with seed 0, {', '.join(differ)} differ")
    torch.manual_seed(0)
    network = make()
    full = copy.deepcopy(network).double()
    # under a generator's name, as which any network will do
    networks = Networks({"ab": cast(Generator, full)}, {}, {})
    with _promise(cls, "gives the same for the same seed, and without one unless it is stateful") as so:
        one, other = (_seeded(run, copy.deepcopy(full), x) for _ in range(2))
        so(torch.equal(one, other), f"with one seed its outputs differ by up to {_apart(one, other):.3g}")
        if not networks.stateful("generator/ab"):
            again = copy.deepcopy(full)
            one, other = _seeded(run, again, x), _seeded(run, again, x, seed=1)
            so(_close(one, other), f"stateful is False, and twice its outputs differ by up to {_apart(one, other):.3g}")
    if networks.joinable("generator/ab"):
        with _promise(cls, "treats each image of a batch as if alone, where per_image is True") as so:
            batch, alone = run(full, x), torch.cat([run(full, image[None]) for image in x])
            so(_close(batch, alone), f"alone and in a batch outputs differ by up to {_apart(batch, alone):.3g}")
    with _promise(cls, "passes finite gradients to all parameters that take any") as so:
        named = {name: parameter for name, parameter in full.named_parameters() if parameter.requires_grad}
        if named:
            gradients = torch.autograd.grad(_weighted(run(full, x)), list(named.values()), allow_unused=True)
            _check_gradients(dict(zip(named, gradients, strict=True)), so, nonzero=False)
    with _promise(cls, "keeps its state in parameters and buffers: loaded into another one, it gives the same") as so:
        run(full, x)
        torch.manual_seed(1)
        loaded = make().double()
        loaded.load_state_dict(full.state_dict())
        with evaluating(full), evaluating(loaded):
            settled = [_seeded(run, each, x) for each in (full, loaded)]
        for mode, (one, other) in (("eval", settled), ("train", [_seeded(run, each, x) for each in (full, loaded)])):
            so(torch.equal(one, other), f"in {mode} mode outputs differ by up to {_apart(one, other):.3g}")
    expected = _seeded(run, copy.deepcopy(network), x.float())
    with _promise(cls, "works under autocast to bfloat16") as so, torch.autocast("cpu", torch.bfloat16):
        rough = _seeded(run, copy.deepcopy(network), x.float()).float()
        error = float((rough - expected).abs().mean())
        allowed = 0.1 * float(expected.abs().mean()) + 0.01
        so(error <= allowed, f"outputs are {error:.3g} off on average, and {allowed:.3g} is allowed")
    with _promise(cls, "gives the same in the memory format channels_last") as so:
        last = copy.deepcopy(network).to(memory_format=torch.channels_last)
        other = _seeded(run, last, x.float().contiguous(memory_format=torch.channels_last))
        so(_close(expected, other, 1e-3), f"outputs differ by up to {_apart(expected, other):.3g}")


def _check_pool(cls: type, make: Callable[[], nn.Module | None], images: Domain) -> None:
    with _promise(cls, "has a pool, or None, that gives as many images as it is given") as so:
        pool = make()
        if pool is None:
            return
        fakes = [_noise(images, "pool", step).float() for step in range(4)]
        draws = [torch.from_numpy(keyed("draws", step).random((len(x), 2))).float() for step, x in enumerate(fakes)]
        for x, rolls in zip(fakes[:3], draws[:3], strict=True):
            shown = pool(x, rolls)
            so(shown.shape == x.shape and bool(shown.isfinite().all()), f"of {_shape(x)} it makes {_shape(shown)}")
    with _promise(cls, "has a pool whose state is in buffers: loaded into another one, it goes on the same") as so:
        loaded = make()
        assert loaded is not None
        loaded.load_state_dict(pool.state_dict())
        one, other = pool(fakes[3], draws[3]), loaded(fakes[3], draws[3])
        so(torch.equal(one, other), f"what they show differs by up to {_apart(one, other):.3g}")


def _check_gradients(gradients: Mapping[str, Tensor | None], so: _So, nonzero: bool = True) -> None:
    missed = [name for name, gradient in gradients.items() if gradient is None]
    so(not missed, f"none reaches {', '.join(missed)}")
    for name, gradient in gradients.items():
        assert gradient is not None
        wrong = int((~gradient.isfinite()).sum())
        so(wrong == 0, f"of {gradient.numel()} for {name} {wrong} are not finite")
        so(not nonzero or bool((gradient != 0).any()), f"all for {name} are 0")


def _encoded(network: Any, x: Tensor) -> Tensor:
    embedding: Tensor = network.encode(x)
    return embedding


def _last(network: Any, x: Tensor) -> Tensor:
    embedding: Tensor = network.features(x)[-1]
    return embedding


def _second(network: Discriminator, x: Tensor) -> tuple[float, float, float]:
    """The slope of a gradient penalty along the weights, by autograd and by central differences; and the penalty."""

    def penalty(network: Discriminator) -> Tensor:
        torch.manual_seed(0)
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(_weighted(network(leaf)), leaf, create_graph=True)
        return gradient.square().sum()

    def along(sign: float) -> float:
        moved = copy.deepcopy(network)
        with torch.no_grad():
            for parameter, direction in zip(moved.parameters(), directions, strict=True):
                parameter.add_(direction, alpha=sign * step)
        return float(penalty(moved).detach())

    # spectral norm's vectors are constants to autograd: in eval mode they stay
    with evaluating(network):
        step = 1e-7
        random = torch.Generator().manual_seed(0)
        directions = [
            p.detach() * (1 + 0.5 * torch.randn(p.shape, generator=random, dtype=p.dtype)) for p in network.parameters()
        ]
        value = penalty(network)
        parameters = [p for p in network.parameters() if p.requires_grad]
        slopes = torch.autograd.grad(value, parameters, allow_unused=True) if value.requires_grad else ()
        moving = [d for p, d in zip(network.parameters(), directions, strict=True) if p.requires_grad]
        by_autograd = sum(float((s * d).sum()) for s, d in zip(slopes, moving, strict=False) if s is not None)
        return by_autograd, (along(1) - along(-1)) / (2 * step), float(value.detach())


def _fits(turn: Turn, ways: tuple[str, ...]) -> bool:
    named = (turn.ways, turn.moves or ())
    return (
        turn.player in PLAYERS
        and turn.sees in (None, *SEES)
        and not any(isinstance(each, str) or not set(each) <= set(ways) for each in named)
    )


def _plan(schedule: Schedule, step: int) -> tuple[Any, ...]:
    """All that a schedule says of a step."""
    rates = [schedule.learning_rate(player, step) for player in PLAYERS]
    weights = [schedule.weight("adversarial", player, step) for player in PLAYERS]
    return [tuple(turn) for turn in schedule.turns(step)], *rates, *weights


def _parameters() -> list[nn.Parameter]:
    return [nn.Parameter(torch.linspace(-1, 1, count)) for count in (2, 3)]


def _descend(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = parameter.detach() + 0.5
    optimizer.step()


def _evidence() -> Evidence:
    def images(domain: str, what: str, count: int = 24) -> Images:
        pixels = keyed("evidence", domain, what).integers(0, 256, (count, 32, 32, 3), np.uint8)
        return Images(list(pixels), domain, real=what in ("held out", "learning"))

    def vectors(images: Images) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.stack([pixels[::8, ::8].mean(2).ravel() / 255 for pixels in images.pixels])

    def encode(way: str, images: Images) -> Tensor:
        return images.tensor()[:, :, ::8, ::8]

    return Evidence(
        way="ab",
        outputs=images("b", "outputs"),
        targets=images("b", "held out"),
        inputs=images("a", "held out"),
        cycled=images("a", "cycled"),
        learning={domain: images(domain, "learning") for domain in "ab"},
        vectors=vectors,
        encode=encode,
    )


def _measured(metric: Metric, evidence: Evidence) -> Mapping[str, Estimate | Unavailable]:
    torch.manual_seed(0)
    return metric.measure(replace(evidence, kept={}))


def _noise(shape: Domain, *key: int | str) -> Tensor:
    """(3, C, H, W) uniform in [-1, 1], float64."""
    values = keyed("testing", *key).uniform(-1, 1, (3, shape.channels, shape.height, shape.width))
    return torch.from_numpy(values)


def _seeded(run: Callable[[nn.Module, Tensor], Tensor], network: nn.Module, x: Tensor, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    with torch.no_grad():
        return run(network, x)


def _weighted(values: Tensor) -> Tensor:
    """A scalar in which no normalisation cancels."""
    weights = torch.from_numpy(keyed("weights").standard_normal(values.shape)).to(values.dtype)
    return (weights * values).sum()


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


def _close(one: Tensor, other: Tensor, tolerance: float = 1e-9) -> bool:
    return one.shape == other.shape and _apart(one, other) <= tolerance * (1 + float(one.detach().abs().max()))


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).detach().abs().max()) if one.shape == other.shape else float("inf")


def _shape(x: Tensor) -> str:
    return f"({', '.join(map(str, x.shape))})"


def _shown(values: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{key} = {value.item():.6g}" for key, value in sorted(values.items())) or "nothing"
