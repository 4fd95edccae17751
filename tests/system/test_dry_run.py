"""The dry run refuses what does not fit: gradients that reach no network, tensors changed in place, a forward that is
not what is trained."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import relu

import ganlab
from ganlab import Domain, SpecError, Translation
from ganlab.components.registry import Registry, installed
from ganlab.engine.trainer import Trainer
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from ganlab.spec.resolve import resolve
from ganlab.system.build import System, build
from ganlab.testing.simple import SimpleDiscriminator, SimpleGenerator
from helpers.systems import TINY, RandomImages

Start = Callable[[Json], Trainer]


def spoilt(t: Translation) -> Tensor:
    bounded = t.fake.tanh()
    return bounded.mul_(2).mean()


def spoilt_for_nothing(t: Translation) -> Tensor:
    bounded = t.fake.tanh()
    bounded.mul_(2)
    return t.fake.mean()


def changed(x: Tensor) -> Tensor:
    x.detach().clamp_(-0.5, 0.5)
    return x.mean()


TERMS: dict[str, Callable[[Translation], Tensor]] = {
    "detached": lambda t: t.score(t.fake.detach()).mean(),
    "constant": lambda t: t.fake.detach().mean(),
    "zero": lambda t: 0 * t.fake.detach().mean(),
    "unmoved": lambda t: t.fake_for_discriminator.mean(),
    "spoilt": spoilt,
    "spoilt for nothing": spoilt_for_nothing,
    "t.source": lambda t: t.fake.mean() + changed(t.source),
    "t.target": lambda t: t.fake.mean() + changed(t.target),
    "t.fake": lambda t: changed(t.fake),
    "t.identity": lambda t: changed(t.identity),
    "t.cycled": lambda t: changed(t.cycled),
    "t.reconstructed": lambda t: changed(t.reconstructed),
    "t.fake_embedding": lambda t: changed(t.fake_embedding),
    "t.embedding or features()": lambda t: changed(t.embedding),
    "t.features('target')": lambda t: changed(t.features("target")[0]),
    "t.reverse.fake": lambda t: changed(t.reverse.fake),
    "the scores of discriminator/image/b": lambda t: changed(t.score(t.fake)),
}


class Mine(ganlab.Loss):
    def __init__(self, how: str = "spoilt", player: str = "generator") -> None:
        super().__init__()
        self.how, self.player = how, player

    def generator(self, t: Translation) -> Tensor | None:
        return TERMS[self.how](t) if self.player == "generator" else None

    def discriminator(self, t: Translation) -> Tensor | None:
        return TERMS[self.how](t) if self.player == "discriminator" else None


class Learning(ganlab.Loss):
    """Has a critic of its own, and names the generator as the critic's player unless `right`."""

    def __init__(self, right: bool = False, half: bool = False, idle: bool = False) -> None:
        super().__init__()
        self.half, self.idle = half, idle
        self.trains = "discriminator" if right else "generator"
        self.scale, self.shift = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(()))

    def discriminator(self, t: Translation) -> Tensor:
        if self.idle:
            return t.score(t.target).mean()
        return (self.scale * t.target.mean() + (0 if self.half else self.shift)).square()


class Keeping(ganlab.Loss):
    """Keeps or freezes a discriminator, which a loss must not do."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def prepare(self, t: Translation) -> None:
        if self.how == "kept":
            setattr(self, f"critic_{t.direction}", t.discriminator())
        if self.how == "frozen first":
            t.discriminator().requires_grad_(False)

    def generator(self, t: Translation) -> Tensor:
        if self.how == "frozen":
            t.discriminator().requires_grad_(False)
        return t.score(t.fake).mean()


class Remembering(ganlab.Loss):
    """Sets plain attributes."""

    def __init__(self, keeps: str) -> None:
        super().__init__()
        self.keeps, self.count, self.cache = keeps, 0, None
        self.kept: list[Tensor] = []
        self.of: dict[str, Tensor] = {}

    def generator(self, t: Translation) -> Tensor:
        term = t.fake.mean()
        if self.keeps == "a count":
            self.count += 1
        elif self.keeps == "a list":
            self.kept.append(term.detach())
        elif self.keeps == "a cache" and self.cache is None:
            self.cache = torch.ones(3)
        elif self.keeps == "one of each direction":
            self.of.setdefault(t.direction, term.detach())
        return term


class Termless(ganlab.Loss):
    def generate(self, t: Translation) -> Tensor:
        return t.fake.mean()


class Listed(SimpleGenerator):
    def __init__(self, source: Domain, target: Domain) -> None:
        super().__init__(source, target)
        self.more = [nn.Conv2d(source.channels, source.channels, 1)]

    def encode(self, images: Tensor) -> Tensor:
        return super().encode(self.more[0].to(images)(images))


class ListedCritic(SimpleDiscriminator):
    def __init__(self, shape: Domain) -> None:
        super().__init__(shape)
        self.more = [nn.Conv2d(shape.channels, shape.channels, 1, bias=False)]

    def features(self, x: Tensor) -> list[Tensor]:
        return super().features(self.more[0].to(x)(x))


class Doubtful(SimpleGenerator):
    def __init__(self, source: Domain, target: Domain, how: str = "") -> None:
        super().__init__(source, target)
        self.how = how

    def encode(self, images: Tensor) -> Tensor:
        return super().encode(images.clamp_(-0.5, 0.5) if self.how == "images" else images)

    def decode(self, embedding: Tensor) -> Tensor:
        made = super().decode(relu(embedding, inplace=self.how == "embedding"))
        return made[:1] if self.how == "first" else made

    def forward(self, images: Tensor) -> Any:
        made = super().forward(images)
        others: dict[str, Any] = {
            "forward": made / 2,
            "size": made[..., 1:],
            "pair": (made, made),
            "nan": made * math.nan,
        }
        return others.get(self.how, made * (1 + 1e-6))


class TwoEmbeddings(SimpleGenerator):
    def features(self, images: Tensor) -> list[Tensor]:
        return [2 * self.encode(images)]


class InPlace(SimpleDiscriminator):
    def __init__(self, shape: Domain) -> None:
        super().__init__(shape)

    def features(self, x: Tensor) -> list[Tensor]:
        return super().features(x.detach().mul_(2))


def clamp_data(weights: nn.Parameter) -> None:
    # leaves the tensor's version as it was
    weights.data.clamp_(-0.01, 0.01)


def clamp_in_place(weights: nn.Parameter) -> None:
    with torch.no_grad():
        weights.clamp_(-0.01, 0.01)


class Clamping(ganlab.Loss):
    """Clamps the critic's weights itself, as the code of WGAN's authors does."""

    def __init__(self, by: Literal["data", "no_grad"] = "data", where: str = "discriminator") -> None:
        super().__init__()
        self.by, self.where = by, where

    def clamp(self, t: Translation, where: str) -> None:
        for weights in t.discriminator().parameters() if where == self.where else ():
            {"data": clamp_data, "no_grad": clamp_in_place}[self.by](weights)

    def prepare(self, t: Translation) -> None:
        self.clamp(t, "prepare")

    def generator(self, t: Translation) -> Tensor:
        self.clamp(t, "generator")
        return -t.score(t.fake).mean()

    def discriminator(self, t: Translation) -> Tensor:
        self.clamp(t, "discriminator")
        return t.score(t.fake_for_discriminator).mean() - t.score(t.target).mean()


class Normalising(SimpleDiscriminator):
    """Divides its weights by their norms in every forward (arXiv:2312.02696, section 2.3)."""

    def features(self, x: Tensor) -> list[Tensor]:
        for layer in (self.net[0], self.net[2]):
            layer.weight.data /= torch.linalg.vector_norm(layer.weight.data, dim=(1, 2, 3), keepdim=True)
        return super().features(x)


@ganlab.hookimpl
def ganlab_losses() -> dict[str, type[ganlab.Loss]]:
    return {
        "mine": Mine,
        "learning": Learning,
        "keeping": Keeping,
        "termless": Termless,
        "remembering": Remembering,
        "clamping": Clamping,
    }


@ganlab.hookimpl
def ganlab_generators() -> dict[str, type[ganlab.Generator]]:
    return {"doubtful": Doubtful, "two_embeddings": TwoEmbeddings, "listed": Listed}


@ganlab.hookimpl
def ganlab_discriminators() -> dict[str, type[ganlab.Discriminator]]:
    return {"in_place": InPlace, "listed": ListedCritic, "normalising": Normalising}


OWNER = "of plugin 'dry' of unknown unknown)"


@pytest.fixture(scope="module")
def make_system() -> Callable[[Json], System]:
    known = Registry([*installed(), EntryPoint("dry", __name__, "ganlab")])

    def make(patch: Json) -> System:
        spec = resolve(merge(merge(TINY, {"runtime": {"precision": "float64"}}), patch), registry=known)
        return build(spec, RandomImages(size=spec.data.size).domains)

    return make


@pytest.fixture(scope="module")
def start(make_system: Callable[[Json], System]) -> Start:
    def make(patch: Json) -> Trainer:
        system = make_system(patch)
        return Trainer(system, RandomImages(size=system.spec.data.size))

    return make


def mine(how: str, player: str = "generator", **options: float) -> Json:
    return {"losses": {"mine": {"type": "mine", "how": how, "player": player, **options}}}


@pytest.mark.parametrize(
    ("patch", "sentence"),
    [
        (
            mine("detached"),
            "losses.mine's generator term in direction ab: has no gradients for any generator, only for"
            f" discriminator/image/b (loss 'mine' {OWNER}",
        ),
        (
            mine("unmoved", "discriminator"),
            "losses.mine's discriminator term in direction ab: has no gradients for any discriminator, nor for anything"
            f" else (loss 'mine' {OWNER}",
        ),
        (
            mine("spoilt"),
            "the generator's gradients of mine in direction ab: a tensor (2, 3, 16, 16) that they need was changed in"
            f" place (loss 'mine' {OWNER}",
        ),
        *(
            (mine(name), f"losses.mine's generator term in direction ab: changes {name} in place (loss 'mine' {OWNER}")
            for name in list(TERMS)[6:]
        ),
        (
            mine("t.target", "discriminator"),
            f"losses.mine's discriminator term in direction ab: changes t.target in place (loss 'mine' {OWNER}",
        ),
        (
            {"losses": {"mine": {"type": "learning"}}},
            "losses.mine's discriminator term in direction ab: has no gradients for any discriminator, only for its own"
            f" parameters, which it gives to the generator (loss 'learning' {OWNER}",
        ),
        (
            {"losses": {"mine": {"type": "learning", "right": True, "idle": True}}},
            f"losses.mine: no discriminator term has gradients for its own scale, shift (loss 'learning' {OWNER}",
        ),
        (
            {"losses": {"mine": {"type": "keeping", "how": "kept"}}},
            "losses.mine: keeps discriminator/image/a, discriminator/image/b as its own, which the generators' turn"
            f" would update: read it from t each time (loss 'keeping' {OWNER}",
        ),
        (
            {"losses": {"mine": {"type": "keeping", "how": "frozen"}}},
            "losses.mine's generator term in direction ab: freezes parameters of discriminator/image/b, which the"
            f" discriminators' turn updates (loss 'keeping' {OWNER}",
        ),
        (
            {"losses": {"mine": {"type": "keeping", "how": "frozen first"}}},
            "losses.mine's preparation in direction ab: freezes parameters of discriminator/image/b, which the"
            f" discriminators' turn updates (loss 'keeping' {OWNER}",
        ),
        (
            {"losses": {"mine": {"type": "termless"}}},
            f"losses.mine: has no term: it needs a method generator or discriminator (loss 'termless' {OWNER}",
        ),
        (
            {"generator": {"type": "listed"}},
            "generator: uses parameters (3,), (3, 3, 1, 1) that no module holds, so that they are not trained; is a"
            f" layer in a plain list? (generator 'listed' {OWNER}",
        ),
        (
            {"discriminators": {"image": {"type": "listed"}}},
            "discriminators.image: uses parameters (3, 3, 1, 1) that no module holds, so that they are not trained; is"
            f" a layer in a plain list? (discriminator 'listed' {OWNER}",
        ),
        (
            {"generator": {"type": "doubtful", "how": "images"}},
            f"generator: changes in place the images or the embedding that it is given (generator 'doubtful' {OWNER}",
        ),
        (
            {"generator": {"type": "doubtful", "how": "embedding"}},
            f"generator: changes in place the images or the embedding that it is given (generator 'doubtful' {OWNER}",
        ),
        (
            {"discriminators": {"image": {"type": "in_place"}}},
            f"discriminators.image: changes in place what it is given (discriminator 'in_place' {OWNER}",
        ),
        (
            {"generator": {"type": "doubtful", "how": "pair"}},
            "generator: can't translate: expected a tensor, got tuple "
            f"(generator 'doubtful' {OWNER[:-1]}; output[0] (2, 3, 16, 16), output[1] (2, 3, 16, 16))",
        ),
        (
            {"generator": {"type": "doubtful", "how": "nan"}},
            "generator: forward, which makes samples, differs by up to nan from decode of features, which is trained,"
            f" in direction ab (generator 'doubtful' {OWNER}",
        ),
        (
            {"generator": {"type": "doubtful", "how": "first"}},
            f"generator: makes 1 images of 2 (generator 'doubtful' {OWNER}",
        ),
        (
            {"generator": {"type": "doubtful", "how": "size"}},
            "generator: forward, which makes samples, differs by up to inf from decode of features, which is trained,"
            f" in direction ab (generator 'doubtful' {OWNER}",
        ),
    ],
)
def test_what_does_not_fit_is_named(start: Start, patch: Json, sentence: str) -> None:
    with pytest.raises(SpecError) as failed:
        start(patch)
    assert str(failed.value) == sentence


@pytest.mark.parametrize(
    ("size", "patch", "who", "takes"),
    [
        (4, {}, "generator 'resnet' of plugin 'resnet'", 8),
        (8, {"discriminators": {"image": {"layers": 3}}}, "discriminator 'patch' of plugin 'cyclegan'", 32),
    ],
)
def test_an_image_size_that_is_too_small_is_named(start: Start, size: int, patch: Json, who: str, takes: int) -> None:
    with pytest.raises(SpecError) as failed:
        start(merge({"data": {"size": size}}, patch))
    assert str(failed.value) == (f"data.size: {size} is too small for {who} of ganlab 0.1.0, which takes {takes}")
    start(merge({"data": {"size": takes}}, patch))


@pytest.mark.parametrize("generator", [{"type": "doubtful", "how": "forward"}, {"type": "two_embeddings"}])
def test_samples_are_made_by_what_is_trained(start: Start, generator: Json) -> None:
    with pytest.raises(
        SpecError, match=r"^generator: forward, .* differs by up to 0\.\d+ from decode .* in direction ab \("
    ):
        start({"generator": generator})


@pytest.mark.parametrize(
    "patch",
    [
        # no gradient needs the changed tensor
        mine("spoilt for nothing"),
        # a term without a gradient may have one in a later step
        mine("constant"),
        mine("constant", "discriminator"),
        # a term that is not minimised needs no gradient
        mine("unmoved", "discriminator", weight=0),
        {"losses": {"mine": {"type": "learning", "weight": 0}}},
        {"losses": {"mine": {"type": "learning", "right": True}}},
        # the other parameter may be used in a later step
        {"losses": {"mine": {"type": "learning", "right": True, "half": True}}},
        # the last digits may differ
        {"generator": {"type": "doubtful"}},
    ],
)
def test_what_fits_trains(start: Start, patch: Json) -> None:
    trainer = start(patch)
    trainer.step()
    assert trainer.state.step == 1


@pytest.mark.parametrize("player", ["generator", "discriminator"])
def test_constant_terms_are_warned_of(start: Start, player: str) -> None:
    (told,) = start(mine("constant", player)).dry_run.warnings
    number = r"-?\d\S+"
    assert re.fullmatch(
        rf"losses\.mine: its {player} terms are ab {number}, ba {number} and have no gradient: while that is so,"
        rf" no {player} learns from them \(loss 'mine' {re.escape(OWNER)}",
        told,
    )


@pytest.mark.parametrize("patch", [{}, mine("zero"), mine("constant", weight=0)])
def test_terms_that_wait_or_are_not_minimised_are_not_warned_of(start: Start, patch: Json) -> None:
    assert start(patch).dry_run.warnings == []


@pytest.mark.parametrize(
    ("keeps", "told"),
    [
        ("nothing", None),
        ("a cache", None),
        ("one of each direction", None),
        ("a count", "'count' (0, then 1)"),
        ("a list", "'kept' (list of 1, then list of 2)"),
    ],
)
def test_plain_attributes_that_a_loss_overwrites_are_warned_of(start: Start, keeps: str, told: str | None) -> None:
    warnings = start({"losses": {"mine": {"type": "remembering", "keeps": keeps}}}).dry_run.warnings
    assert warnings == [
        f"losses.mine: changes {told}, which checkpoints do not keep; if a later term depends on it, use"
        f" register_buffer, or t.step to count (loss 'remembering' {OWNER}"
        for _ in ([told] if told else [])
    ]


def initial_weights(system: System) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value.clone()
        for name, module in system.networks.modules.items()
        for key, value in module.state_dict().items()
    }


@pytest.mark.parametrize("by", ["data", "no_grad"])
@pytest.mark.parametrize(
    ("where", "doing"),
    [
        ("prepare", "preparation in direction ab"),
        ("generator", "generator term in direction ab"),
        ("discriminator", "discriminator term in direction ab"),
    ],
)
def test_a_loss_may_not_change_weights(make_system: Callable[[Json], System], by: str, where: str, doing: str) -> None:
    system = make_system({"losses": {"mine": {"type": "clamping", "by": by, "where": where}}})
    before = initial_weights(system)
    with pytest.raises(SpecError) as refused:
        Trainer(system, RandomImages())
    assert str(refused.value) == (
        f"losses.mine's {doing}: changes the weights of discriminator/image/b; a network adjusts its weights in"
        f" Discriminator.after_update, which is called after each update (loss 'clamping' {OWNER}"
    )
    torch.testing.assert_close(initial_weights(system), before, rtol=0, atol=0)


def test_a_network_may_change_its_own_weights(make_system: Callable[[Json], System]) -> None:
    system = make_system({"discriminators": {"image": {"type": "normalising"}}})
    before = initial_weights(system)
    trainer = Trainer(system, RandomImages())
    torch.testing.assert_close(initial_weights(system), before, rtol=0, atol=0)
    trainer.step()
    assert trainer.state.step == 1
