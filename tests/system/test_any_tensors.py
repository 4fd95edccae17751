"""Losses that apply the generator and read the discriminator's activations for tensors of their own: CUT, FastCUT,
feature matching. This module is a plugin itself.

The references are plain PyTorch loops on copies of the networks, in float64.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, l1_loss, normalize

import ganlab
from ganlab import Translation
from ganlab.components.registry import Registry, installed
from ganlab.engine.summary import describe_terms
from ganlab.engine.trainer import Trainer
from ganlab.errors import SpecError
from ganlab.spec.files import merge
from ganlab.spec.resolve import resolve
from ganlab.system.build import build
from ganlab.system.forward_cache import ForwardCache
from helpers.plain_loop import LR, PlainLoop, check_training, images
from helpers.systems import DIRECTIONS, TINY, RandomImages, make_trainer, stir

PLAYERS = ("generator", "discriminator")
TEMPERATURE = 0.07


class PatchNCE(ganlab.Loss):
    """CUT's contrastive terms (arXiv:2007.15651, eq. 5): a patch of the fake finds its own patch of the source among
    all patches of the image, at each layer; the same for the identity."""

    def generator(self, t: Translation) -> dict[str, Tensor]:
        return {
            "fake": self.of(t.features(t.fake), t.features("source")),
            "identity": self.of(t.features(t.identity), t.features(t.target)),
        }

    def of(self, queries: list[Tensor], keys: list[Tensor]) -> Tensor:
        layers = []
        for query, key in zip(queries, keys, strict=True):
            q, k = (normalize(x.flatten(2).mT, dim=2) for x in (query, key.detach()))
            logits = q @ k.mT / TEMPERATURE  # (N, patches, patches)
            own = torch.arange(logits.shape[1]).expand(len(logits), -1)
            layers.append(cross_entropy(logits.flatten(0, 1), own.flatten()))
        return torch.stack(layers).mean()


class FlipEquivariance(ganlab.Loss):
    """FastCUT's flip: the translation of a mirrored image is the mirrored translation."""

    def generator(self, t: Translation) -> Tensor:
        mirrored = t.source.flip(-1)
        t.log("spread", t.translate(mirrored).std())
        return l1_loss(t.translate(mirrored), t.fake.flip(-1))


class FeatureMatching(ganlab.Loss):
    """The distance of a fake's and a real image's activations in the discriminator (arXiv:1711.11585, eq. 4)."""

    def generator(self, t: Translation) -> Tensor:
        *reals, _ = t.activations(t.target)
        *fakes, _ = t.activations(t.fake)
        return torch.stack([l1_loss(fake, real.detach()) for fake, real in zip(fakes, reals, strict=True)]).mean()


class OfMirrored(ganlab.Loss):
    """The discriminators also learn from the translations of mirrored images."""

    def discriminator(self, t: Translation) -> Tensor:
        return t.score(t.translate(t.source.flip(-1))).square().mean()


class Step(ganlab.Loss):
    """Logs the step, and a number in every second step."""

    def generator(self, t: Translation) -> Tensor:
        t.log("step", t.step)
        if t.step % 2:
            t.log("twice", torch.tensor([1.0]))
            t.log("twice", 2)
        return t.score(t.fake).mean()


class Spoils(ganlab.Loss):
    """Does what is refused, by its name."""

    def __init__(self, how: str = "encode") -> None:
        super().__init__()
        self.how = how

    def generator(self, t: Translation) -> Tensor:
        flipped = t.source.flip(-1)
        if self.how == "encode":
            t.encode(flipped).mul_(2)
        elif self.how == "decode":
            t.reverse.decode(t.reverse.encode(flipped)).mul_(2)
        elif self.how == "activations":
            t.activations(t.fake)[0].mul_(2)
        elif self.how == "log":
            t.log("much", flipped)
        elif self.how == "name":
            t.log("", 1.0)
        return t.score(t.fake).mean() + t.decode(t.encode(flipped)).mean()


class Overriding(ganlab.Discriminator):
    """Has a forward that is not the last of its features."""

    def __init__(self, shape: ganlab.Domain, twice: float = 2.0) -> None:
        super().__init__()
        self.net, self.twice = nn.Conv2d(shape.channels, 1, 3), twice

    def features(self, x: Tensor) -> list[Tensor]:
        return [x, self.net(x)]

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.net(x) * self.twice
        return scores


class NotAList(Overriding):
    def features(self, x: Tensor) -> Any:
        return self.net(x)


@ganlab.hookimpl
def ganlab_losses() -> dict[str, type[ganlab.Loss]]:
    return {
        "nce": PatchNCE,
        "flip": FlipEquivariance,
        "matching": FeatureMatching,
        "of_mirrored": OfMirrored,
        "step": Step,
        "spoils": Spoils,
    }


@ganlab.hookimpl
def ganlab_discriminators() -> dict[str, type[ganlab.Discriminator]]:
    return {"overriding": Overriding, "not_a_list": NotAList}


REGISTRY = Registry([*installed(), EntryPoint("probes", __name__, "ganlab")])


def make(patch: dict[str, Any]) -> Trainer:
    """Returns a trainer in float64 that knows the components of this module."""
    trainer = make_trainer(patch, known=REGISTRY)
    stir(trainer)
    return trainer


NETWORKS = make({}).system.networks


def turn(player: str) -> tuple[Translation, ForwardCache]:
    cache = ForwardCache(NETWORKS, RandomImages()(0), {}, 0)
    cache.begin(player, (3, 0), with_graph=player == "generator")
    NETWORKS.forwards.clear()
    return Translation("ab", cache), cache


@pytest.mark.parametrize("player", PLAYERS)
@pytest.mark.parametrize("named_first", [True, False])
def test_values_of_t_are_not_computed_again(player: str, named_first: bool) -> None:
    pairs: list[tuple[Callable[[Translation], Any], Callable[[Translation], Any]]] = [
        (lambda t: t.embedding, lambda t: t.encode(t.source)),
        (lambda t: t.fake, lambda t: t.translate(t.source)),
        (lambda t: t.fake, lambda t: t.decode(t.embedding)),
        (lambda t: t.identity, lambda t: t.translate(t.target)),
        (lambda t: t.fake_embedding, lambda t: t.reverse.encode(t.fake)),
        (lambda t: t.cycled, lambda t: t.reverse.translate(t.fake)),
        (lambda t: t.reconstructed, lambda t: t.reverse.decode(t.embedding)),
        (lambda t: t.features("fake")[0], lambda t: t.features(t.fake)[0]),
        (lambda t: t.features("target")[-1], lambda t: t.encode(t.target)),
    ]
    for pair in pairs:
        t, _ = turn(player)
        first, second = pair if named_first else pair[::-1]
        one, forwards = first(t), NETWORKS.forwards.copy()
        assert second(t) is one
        assert forwards == NETWORKS.forwards


@pytest.mark.parametrize("player", PLAYERS)
def test_any_other_tensor_is_translated_once_in_a_turn(player: str) -> None:
    t, cache = turn(player)
    g = NETWORKS.generator("ab")
    flipped = t.source.flip(-1)
    assert t.translate(flipped) is t.decode(t.encode(flipped))
    assert t.features(flipped)[-1] is t.encode(flipped)
    assert dict(NETWORKS.forwards) == {"generator/ab.features": 1, "generator/ab.decode": 1}
    torch.testing.assert_close(t.translate(flipped), g(images(0)["a"].flip(-1)), rtol=0, atol=1e-14)
    torch.testing.assert_close(t.features(flipped), list(g.features(images(0)["a"].flip(-1))), rtol=0, atol=1e-14)
    before = t.translate(flipped)
    cache.begin(player, (3, 1), with_graph=player == "generator")
    assert t.translate(flipped) is not before
    assert NETWORKS.forwards["generator/ab.features"] == 2


def test_a_discriminators_turn_gets_leaves() -> None:
    t, _ = turn("discriminator")
    flipped = t.source.flip(-1)
    for tensor in (*t.features(flipped), t.translate(flipped), t.reverse.translate(t.translate(flipped))):
        assert tensor.is_leaf
        assert tensor.requires_grad
    (gradient,) = torch.autograd.grad(t.score(t.translate(flipped)).sum(), t.translate(flipped))
    assert gradient.abs().sum() > 0


def test_a_value_of_older_weights_is_no_input_of_a_new_one() -> None:
    """The generators' turn after an update: a tensor that a loss kept is translated as it is."""
    trainer = make({})
    networks = trainer.system.networks
    cache = ForwardCache(networks, RandomImages()(0), {}, 0)
    t = Translation("ab", cache)
    kept = t.fake
    moved = list(networks.generator("ab").parameters())
    with torch.no_grad():
        for p in moved:
            p.mul_(1.1)
    networks.updated(moved)
    cache.begin("generator", (0, 1), with_graph=True)
    again = t.reverse.translate(kept)
    torch.testing.assert_close(again, networks.generator("ba")(kept), rtol=0, atol=1e-14)
    assert again is not t.cycled


def test_no_gradient_passes_through_a_fake_without_history() -> None:
    t, _ = turn("generator")
    shown = t.fake_for_discriminator
    embedding = t.reverse.encode(shown)
    assert embedding is not t.fake_embedding
    torch.testing.assert_close(embedding, t.fake_embedding, rtol=0, atol=0)
    own, reverse = (list(NETWORKS.generator(direction).parameters()) for direction in ("ab", "ba"))
    gradients = torch.autograd.grad(embedding.sum(), [*own, *reverse, shown], allow_unused=True)
    assert all(gradient is None for gradient in gradients[: len(own)])
    assert gradients[-1] is not None


@pytest.mark.parametrize("player", PLAYERS)
def test_translations_into_the_source_domain_are_not_scored(player: str) -> None:
    t, _ = turn(player)
    flipped = t.source.flip(-1)
    back = t.reverse.translate(t.translate(flipped))
    for refused in (lambda: t.score(back), lambda: t.activations(back)):
        with pytest.raises(SpecError, match="shows images of domain a to the discriminator of domain b"):
            refused()
    t.reverse.score(back)
    t.score(t.translate(flipped))
    with pytest.raises(SpecError, match="shows images of domain b to the discriminator of domain a"):
        t.reverse.activations(t.translate(flipped))


def test_a_direction_that_is_not_trained_is_named() -> None:
    networks = make({"directions": ["ab"], "losses": {"cycle": None}}).system.networks
    t = Translation("ab", ForwardCache(networks, RandomImages()(0), {}, 0))
    for ask in (lambda: t.reverse.encode(t.fake), lambda: t.reverse.decode(t.fake.flip(-1))):
        with pytest.raises(SpecError, match="asks for the direction ba, which `directions` leaves out"):
            ask()


@pytest.mark.parametrize("of", ["cycled", 3])
def test_features_of_something_unknown_are_an_error(of: Any) -> None:
    with pytest.raises(ValueError, match=r"known are 'source', 'fake', 'target', and a tensor of images"):
        turn("generator")[0].features(of)


@pytest.mark.parametrize("player", PLAYERS)
def test_activations_and_scores_share_a_forward(player: str) -> None:
    t, cache = turn(player)
    with torch.no_grad():
        activations = t.activations(t.target)
    assert activations[-1] is t.score(t.target)
    assert t.activations(t.target)[0] is activations[0]
    assert cache.requests >= {"discriminator/image/b"}
    assert NETWORKS.forwards["discriminator/image/b.forward"] == 1
    net: Any = NETWORKS.discriminator("discriminator/image/b").net
    x = images(0)["b"]
    expected = [net[:2](x), net[:5](x), net(x)]
    torch.testing.assert_close(activations, expected, rtol=0, atol=1e-14)


def test_activations_have_float32_under_autocast() -> None:
    source = RandomImages(dtype=torch.float32)
    system = build(resolve(merge(TINY, {"runtime": {"precision": "bfloat16"}})), source.domains)
    t = Translation("ab", ForwardCache(system.networks, source(0), {}, 0))
    inner = system.networks.activations("discriminator/image/b", source(0).images["b"])
    assert {activation.dtype for activation in inner} == {torch.bfloat16}
    assert {activation.dtype for activation in t.activations(t.target)} == {torch.float32}
    assert t.activations(t.target)[-1] is t.score(t.target)


# training, compared with plain loops


def nce_by_hand(queries: list[Tensor], keys: list[Tensor]) -> Tensor:
    """-log(exp(q_i k_i / T) / sum_j exp(q_i k_j / T)), averaged over images, patches i and layers."""
    layers = []
    for query, key in zip(queries, keys, strict=True):
        found = []
        for q, k in zip(query, key.detach(), strict=True):
            one, other = q.flatten(1), k.flatten(1)
            # a patch may be all zeros behind a ReLU
            one, other = (x / torch.linalg.vector_norm(x, dim=0).clamp(min=1e-12) for x in (one, other))
            for i in range(one.shape[1]):
                similar = (one[:, i, None] * other).sum(0) / TEMPERATURE
                found.append(torch.log(torch.exp(similar - similar[i]).sum()))
        layers.append(sum(found) / len(found))
    return sum(layers) / len(layers)  # type: ignore[no-any-return,arg-type,call-overload]


def test_cut_in_one_direction() -> None:
    """CUT's and FastCUT's terms: G is applied to its own fake, to the identity and to mirrored images."""
    losses = {"cycle": None, "nce": {"type": "nce"}, "flip": {"type": "flip", "weight": 0.7}}
    trainer = make({"directions": ["ab"], "losses": losses, "schedule": {"type": "alternating", "lr": LR}})
    plain = PlainLoop(copy.deepcopy(trainer.system.networks.modules))
    g: Any = plain.modules["generator/ab"]
    d = plain.modules["discriminator/image/b"]

    def step(number: int) -> None:
        a, b = images(number)["a"], images(number)["b"]

        def generator() -> Tensor:
            total = torch.mean((d(g(a)) - 1) ** 2)
            total = total + nce_by_hand(g.features(g(a)), g.features(a))
            total = total + nce_by_hand(g.features(g(b)), g.features(b))
            return total + 0.7 * torch.mean(abs(g(a.flip(-1)) - g(a).flip(-1)))

        plain.update(["discriminator/image/b"], lambda: torch.mean((d(b) - 1) ** 2) + torch.mean(d(g(a)) ** 2))
        plain.update(["generator/ab"], generator)

    check_training(trainer, plain, step, steps=2, rtol=1e-8)
    # source, fake, target and identity, as in CUT; and the mirrored source
    forwards = trainer.system.networks.forwards
    assert (forwards["generator/ab.features"], forwards["generator/ab.decode"]) == (2 * 5, 2 * 3)
    record = trainer.log.read(trainer.state)[0]
    spread = make({"directions": ["ab"], "losses": {"cycle": None}}).system.networks.generator("ab")
    assert record["log/generator/ab/flip/spread"] == pytest.approx(spread(images(0)["a"].flip(-1)).std().item())


def test_feature_matching() -> None:
    """The discriminator moves first; the generator's turn scores the fake and the real image once."""
    losses = {"matching": {"type": "matching", "weight": 3}, "cycle": {"weight": 1}}
    trainer = make({"losses": losses, "schedule": {"type": "alternating", "lr": LR}})
    plain = PlainLoop(copy.deepcopy(trainer.system.networks.modules))

    def step(number: int) -> None:
        x = images(number)
        for direction in DIRECTIONS:
            g, back, d = plain.direction(direction)
            a, b = x[direction[0]], x[direction[1]]

            def discriminator(g: Any = g, d: Any = d, a: Tensor = a, b: Tensor = b) -> Tensor:
                return torch.mean((d(b) - 1) ** 2) + torch.mean(d(g(a)) ** 2)

            def generator(g: Any = g, back: Any = back, d: Any = d, a: Tensor = a, b: Tensor = b) -> Tensor:
                matching = [torch.mean(abs(d.net[:end](g(a)) - d.net[:end](b).detach())) for end in (2, 5)]
                return torch.mean((d(g(a)) - 1) ** 2) + torch.mean(abs(back(g(a)) - a)) + 3 * sum(matching) / 2

            plain.update([f"discriminator/image/{direction[1]}"], discriminator)
            plain.update([f"generator/{direction}"], generator)

    check_training(trainer, plain, step, rtol=1e-9)
    assert trainer.system.networks.forwards["discriminator/image/b.forward"] == 3 * 4


def test_discriminators_learn_from_translations_of_other_images() -> None:
    losses = {"mirrored": {"type": "of_mirrored"}, "cycle": {"weight": 1}}
    trainer = make({"losses": losses, "schedule": {"lr": LR}})
    plain = PlainLoop(copy.deepcopy(trainer.system.networks.modules))

    def step(number: int) -> None:
        x = images(number)
        fakes = {direction: plain.direction(direction)[0](x[direction[0]]).detach() for direction in DIRECTIONS}

        def generators() -> Tensor:
            total = torch.zeros((), dtype=torch.float64)
            for direction in DIRECTIONS:
                g, back, d = plain.direction(direction)
                a = x[direction[0]]
                total = total + torch.mean((d(g(a)) - 1) ** 2) + torch.mean(abs(back(g(a)) - a))
            return total

        def discriminators() -> Tensor:
            total = torch.zeros((), dtype=torch.float64)
            for direction in DIRECTIONS:
                g, _, d = plain.direction(direction)
                total = total + torch.mean((d(x[direction[1]]) - 1) ** 2) + torch.mean(d(fakes[direction]) ** 2)
                # by the generators that have just been updated
                total = total + torch.mean(d(g(x[direction[0]].flip(-1)).detach()) ** 2)
            return total

        plain.update_player("generator", generators)
        plain.update_player("discriminator", discriminators)

    check_training(trainer, plain, step, rtol=1e-9)


def test_the_step_is_known_and_logged_values_are_recorded() -> None:
    trainer = make({"losses": {"step": {"type": "step"}}})
    for _ in range(3):
        trainer.step()
    records = trainer.log.read(trainer.state)
    for direction in DIRECTIONS:
        name = f"log/generator/{direction}/step"
        assert [record[f"{name}/step"] for record in records] == [0, 1, 2]
        assert [record.get(f"{name}/twice") for record in records] == [None, 1.5, None]
    rows = [tuple(row.values()) for row in describe_terms(trainer) if row["term"].startswith("step")]
    assert rows == [
        row
        for direction in DIRECTIONS
        for row in (("generator", direction, "step", 1), ("generator", direction, "step/step", None))
    ]


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("encode", "changes the result of t.encode in place"),
        ("decode", "changes the result of t.reverse.decode in place"),
        ("activations", "changes the activations of discriminator/image/b in place"),
        ("log", "logs a tensor of shape (2, 3, 16, 16) as 'much'; expected a number or a tensor with one element"),
        ("name", "logs a value under the name ''; a name is a string that is not empty"),
    ],
)
def test_what_a_loss_may_not_do(how: str, sentence: str) -> None:
    with pytest.raises(SpecError) as failed:
        make({"losses": {"mine": {"type": "spoils", "how": how}}})
    start = "losses.mine's generator term in direction ab: "
    assert str(failed.value) == f"{start}{sentence} (loss 'spoils' of plugin 'probes' of unknown unknown)"


def test_scores_are_the_last_of_the_activations() -> None:
    patch = {"losses": {"cycle": None}, "discriminators": {"image": {"type": "overriding", "width": None}}}
    patch["discriminators"]["image"] |= {"layers": None}  # type: ignore[operator]
    with pytest.raises(SpecError, match=r"image: its forward differs by up to 0?\.?\d.* from the last of its features"):
        make(patch)
    patch["discriminators"]["image"] |= {"twice": 1.0}  # type: ignore[operator]
    make(patch)
    patch["discriminators"]["image"] |= {"type": "not_a_list"}  # type: ignore[operator]
    with pytest.raises(SpecError, match="features: expected a list of tensors, got a Tensor"):
        make(patch)
