"""The values that a loss reads from `t`: computed once, never stale, drawn by key. This module is a plugin itself.

The references are plain PyTorch loops on copies of the networks.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint
from typing import Any

import numpy as np
import pytest
import torch
from ganlab_cyclegan.pool import Pool
from torch import Tensor, nn
from torch.nn.functional import l1_loss

import ganlab
from ganlab import Domain, Translation, Turn
from ganlab.components.registry import Registry, installed
from ganlab.engine.trainer import Trainer
from ganlab.errors import SpecError
from ganlab.system.forward_cache import ForwardCache
from helpers.plain_loop import LR, PlainLoop, check_training, images
from helpers.systems import DIRECTIONS, SIZE, RandomImages, make_trainer, stir


class R1(ganlab.Loss):
    """The squared gradient of the scores at reals (arXiv:1801.04406)."""

    def discriminator(self, t: Translation) -> Tensor:
        target = t.target
        (gradient,) = torch.autograd.grad(t.score(target).sum(), target, create_graph=True)
        return gradient.square().flatten(1).sum(dim=1).mean()


class R2(ganlab.Loss):
    """The squared gradient of the scores at fakes."""

    def discriminator(self, t: Translation) -> Tensor:
        fake = t.fake_for_discriminator
        (gradient,) = torch.autograd.grad(t.score(fake).sum(), fake, create_graph=True)
        return gradient.square().flatten(1).sum(dim=1).mean()


class Relativistic(ganlab.Loss):
    """Each player compares the score of a real with the score of a fake (arXiv:1807.00734, with squares)."""

    def generator(self, t: Translation) -> Tensor:
        return (t.score(t.fake) - t.score(t.target) - 1).square().mean()

    def discriminator(self, t: Translation) -> Tensor:
        return (t.score(t.target) - t.score(t.fake_for_discriminator) - 1).square().mean()


class Xgan(ganlab.Loss):
    """XGAN's reconstruction and semantic consistency (arXiv:1711.05139)."""

    def generator(self, t: Translation) -> Mapping[str, Tensor]:
        return {
            "reconstruction": l1_loss(t.reconstructed, t.source),
            "semantic": l1_loss(t.fake_embedding, t.embedding),
        }


class Shared(ganlab.Generator):
    """The directions share the last layer of their encoders."""

    middle: nn.Module

    def __init__(self, source: Domain, target: Domain) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(source.channels, 4, 4, 2, 1)
        self.decoder = nn.ConvTranspose2d(4, target.channels, 4, 2, 1)

    def encode(self, images: Tensor) -> Tensor:
        return torch.tanh(self.middle(torch.tanh(self.encoder(images))))

    def decode(self, embedding: Tensor) -> Tensor:
        return torch.tanh(self.decoder(embedding))

    @classmethod
    def pair(
        cls, domains: Mapping[str, Domain], directions: Sequence[str], **options: Any
    ) -> dict[str, ganlab.Generator]:
        generators = super().pair(domains, directions, **options)
        middle = nn.Conv2d(4, 4, 3, 1, 1)
        for generator in generators.values():
            generator.middle = middle
        return generators


class Fading(ganlab.Schedule):
    """A simultaneous schedule that gives the identity loss weight 0 in every second step."""

    def __init__(self, steps: int = 4) -> None:
        self.steps = steps

    def turns(self, step: int) -> list[Turn]:
        return [Turn("generator", self.directions), Turn("discriminator", self.directions)]

    def optimizer(self, player: str, parameters: list[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=LR)

    def weight(self, loss: str, player: str, step: int) -> float:
        return 0.0 if loss == "identity" and step % 2 else 1.0


@ganlab.hookimpl
def ganlab_losses() -> dict[str, type[ganlab.Loss]]:
    return {"probe_r1": R1, "probe_r2": R2, "probe_relativistic": Relativistic, "xgan": Xgan}


@ganlab.hookimpl
def ganlab_generators() -> dict[str, type[ganlab.Generator]]:
    return {"shared": Shared}


@ganlab.hookimpl
def ganlab_schedules() -> dict[str, type[ganlab.Schedule]]:
    return {"fading": Fading}


REGISTRY = Registry([*installed(), EntryPoint("probes", __name__, "ganlab")])


def make(patch: dict[str, Any], stirred: bool = True) -> Trainer:
    """Returns a trainer in float64 that knows the components of this module."""
    trainer = make_trainer(patch, known=REGISTRY)
    if stirred:
        stir(trainer)
    return trainer


def plain_copy(trainer: Trainer) -> PlainLoop:
    """Returns one Adam for all networks. A frozen network has no gradient, so Adam does not change it."""
    return PlainLoop(copy.deepcopy(trainer.system.networks.modules))


def both_directions(term: Callable[[str], Tensor]) -> Tensor:
    return term("ab") + term("ba")


def penalty(d: nn.Module, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(d(x).sum(), x, create_graph=True)
    return (gradient**2).sum() / len(x)


@pytest.mark.parametrize("first", ["penalties", "adversarial"])
def test_penalties_share_the_scores_forward(first: str) -> None:
    """R1 and R2 differentiate the scores that the adversarial term has: three forwards a step, the fake for the
    generator, the real and the fake for the discriminator."""
    r1, r2 = {"type": "probe_r1", "weight": 0.3}, {"type": "probe_r2", "weight": 0.2}
    adversarial, cycle = {"type": "lsgan", "weight": 1}, {"type": "cycle", "weight": 1}
    # the two losses of TINY come first, whatever types the patch gives them
    losses = {
        "penalties": {"adversarial": r1, "cycle": r2, "third": adversarial, "fourth": cycle},
        "adversarial": {"adversarial": adversarial, "cycle": cycle, "third": r1, "fourth": r2},
    }
    trainer = make({"losses": losses[first], "schedule": {"lr": LR}})
    plain = plain_copy(trainer)

    def step(number: int) -> None:
        x = images(number)
        fakes = {direction: plain.direction(direction)[0](x[direction[0]]).detach() for direction in DIRECTIONS}

        def generators(direction: str) -> Tensor:
            g, back, d = plain.direction(direction)
            a = x[direction[0]]
            return torch.mean((d(g(a)) - 1) ** 2) + torch.mean(abs(back(g(a)) - a))

        def discriminators(direction: str) -> Tensor:
            b, d = x[direction[1]], plain.direction(direction)[2]
            total = torch.mean((d(b) - 1) ** 2) + torch.mean(d(fakes[direction]) ** 2)
            return total + 0.3 * penalty(d, b) + 0.2 * penalty(d, fakes[direction])

        plain.update_player("generator", lambda: both_directions(generators))
        plain.update_player("discriminator", lambda: both_directions(discriminators))

    check_training(trainer, plain, step, rtol=1e-9)
    assert trainer.system.networks.forwards["discriminator/image/b.forward"] == 3 * 3


def test_relativistic_pairing() -> None:
    """Each player compares both scores in its own turn: four forwards a step."""
    losses = {"adversarial": {"type": "probe_relativistic"}, "cycle": {"weight": 1}}
    trainer = make({"losses": losses, "schedule": {"lr": LR}})
    plain = plain_copy(trainer)

    def step(number: int) -> None:
        x = images(number)
        fakes = {direction: plain.direction(direction)[0](x[direction[0]]).detach() for direction in DIRECTIONS}

        def generators(direction: str) -> Tensor:
            g, back, d = plain.direction(direction)
            a, b = x[direction[0]], x[direction[1]]
            return torch.mean((d(g(a)) - d(b) - 1) ** 2) + torch.mean(abs(back(g(a)) - a))

        def discriminators(direction: str) -> Tensor:
            d = plain.direction(direction)[2]
            return torch.mean((d(x[direction[1]]) - d(fakes[direction]) - 1) ** 2)

        plain.update_player("generator", lambda: both_directions(generators))
        plain.update_player("discriminator", lambda: both_directions(discriminators))

    check_training(trainer, plain, step, rtol=1e-9)
    for domain in "ab":
        assert trainer.system.networks.forwards[f"discriminator/image/{domain}.forward"] == 3 * 4


def test_relativistic_pairing_in_turn() -> None:
    """The discriminator moves first, so its scores are computed again for the generator: four forwards a step."""
    losses = {"adversarial": {"type": "probe_relativistic"}, "cycle": {"weight": 1}}
    trainer = make({"losses": losses, "schedule": {"type": "alternating", "lr": LR}})
    plain = plain_copy(trainer)

    def step(number: int) -> None:
        x = images(number)
        for direction in DIRECTIONS:
            g, back, d = plain.direction(direction)
            a, b = x[direction[0]], x[direction[1]]

            def discriminator(g: Any = g, d: Any = d, a: Tensor = a, b: Tensor = b) -> Tensor:
                return torch.mean((d(b) - d(g(a)) - 1) ** 2)

            def generator(g: Any = g, back: Any = back, d: Any = d, a: Tensor = a, b: Tensor = b) -> Tensor:
                return torch.mean((d(g(a)) - d(b) - 1) ** 2) + torch.mean(abs(back(g(a)) - a))

            plain.update([f"discriminator/image/{direction[1]}"], discriminator)
            plain.update([f"generator/{direction}"], generator)

    check_training(trainer, plain, step, rtol=1e-9)
    assert trainer.system.networks.forwards["discriminator/image/b.forward"] == 3 * 4


def test_relativistic_pairing_behind_a_pool() -> None:
    """The discriminator compares the real with what the pool shows, here the fakes of this step."""
    losses = {"adversarial": {"type": "probe_relativistic"}, "cycle": {"weight": 1}}
    trainer = make({"losses": losses, "schedule": {"lr": LR, "pool": 100}})
    plain = plain_copy(trainer)

    def step(number: int) -> None:
        x = images(number)
        fakes = {direction: plain.direction(direction)[0](x[direction[0]]).detach() for direction in DIRECTIONS}

        def generators(direction: str) -> Tensor:
            g, back, d = plain.direction(direction)
            a, b = x[direction[0]], x[direction[1]]
            return torch.mean((d(g(a)) - d(b) - 1) ** 2) + torch.mean(abs(back(g(a)) - a))

        plain.update_player("generator", lambda: both_directions(generators))
        plain.update_player(
            "discriminator",
            lambda: both_directions(
                lambda direction: torch.mean(
                    (
                        plain.direction(direction)[2](x[direction[1]])
                        - plain.direction(direction)[2](fakes[direction])
                        - 1
                    )
                    ** 2
                )
            ),
        )

    check_training(trainer, plain, step, rtol=1e-9)
    assert trainer.system.networks.forwards["discriminator/image/b.forward"] == 3 * 4


def test_shared_layers_of_both_directions() -> None:
    """XGAN's terms, alternating: an update of a shared layer makes the other direction's values stale too."""
    losses = {
        "cycle": None,
        "xgan": {"type": "xgan", "weight": 0.7},
        "embedding": {"type": "embedding_lsgan", "weight": {"generator": 0.5}},
    }
    patch = {
        "generator": {"type": "shared"},
        "discriminators": {"embedding": {"type": "embedding", "width": 4, "layers": 1}},
        "losses": losses,
        "schedule": {"type": "alternating", "lr": LR},
    }
    trainer = make(patch)
    generators = [trainer.system.networks.generator(direction) for direction in DIRECTIONS]
    assert generators[0].middle is generators[1].middle
    plain = plain_copy(trainer)

    def step(number: int) -> None:
        x = images(number)
        d_e = plain.modules["discriminator/embedding"]
        plain.update(
            ["discriminator/embedding"],
            lambda: both_directions(
                lambda direction: torch.mean(
                    (d_e(plain.direction(direction)[0].encode(x[direction[0]])) - {"ab": 0, "ba": 1}[direction]) ** 2
                )
            ),
        )
        for direction in DIRECTIONS:
            g, back, d = plain.direction(direction)
            a, b = x[direction[0]], x[direction[1]]

            def discriminator(g: Any = g, d: Any = d, a: Tensor = a, b: Tensor = b) -> Tensor:
                return torch.mean((d(b) - 1) ** 2) + torch.mean(d(g(a)) ** 2)

            def generator(
                g: Any = g, back: Any = back, d: Any = d, a: Tensor = a, t: int = {"ab": 1, "ba": 0}[direction]
            ) -> Tensor:
                reconstruction = torch.mean(abs(back.decode(g.encode(a)) - a))
                semantic = torch.mean(abs(back.encode(g(a)) - g.encode(a)))
                on_embedding = torch.mean((d_e(g.encode(a)) - t) ** 2)
                return torch.mean((d(g(a)) - 1) ** 2) + 0.7 * (reconstruction + semantic) + 0.5 * on_embedding

            plain.update([f"discriminator/image/{direction[1]}"], discriminator)
            plain.update([f"generator/{direction}"], generator)

    check_training(trainer, plain, step, rtol=1e-9)
    # each direction's turn moves the shared layer, and so is an update of both
    versions = trainer.system.networks.versions
    assert (versions["generator/ab"], versions["generator/ba"]) == (6, 6)
    # G_ba encodes x_b for D_emb and, moved by G_ab's turn, again for its own; and the fake for ab's semantic term
    assert trainer.system.networks.forwards["generator/ba.features"] == 3 * 3
    assert trainer.system.networks.forwards["generator/ab.features"] == 3 * 2


def test_an_update_is_one_of_the_networks_that_moved() -> None:
    """If networks share nothing, each network's version counts its own updates."""
    trainer = make({"schedule": {"type": "alternating", "lr": LR}})
    trainer.step()
    assert set(trainer.system.networks.versions.values()) == {1}


def test_a_schedule_can_silence_a_loss_for_a_step() -> None:
    """If the weight of a term is 0 in a step, nothing is computed for the term."""
    losses = {"identity": {"type": "identity", "weight": 5}}
    trainer = make({"losses": losses, "schedule": {"type": "fading"}})
    seen: list[int] = []
    encoder = trainer.system.networks.modules["generator/ab"].encoder
    encoder[0].register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))  # type: ignore[operator, index]
    counts, names = [], []
    for _ in range(4):
        seen.clear()
        trainer.step()
        counts.append(sum(seen))
        names.append("loss/generator/ab/identity" in trainer.log.read(trainer.state)[0])
    assert counts == [12, 8, 12, 8]
    assert names == [True, False, True, False]


def one_batch(seed: int = 0, player: str = "discriminator", position: tuple[int, int] = (0, 0)) -> ForwardCache:
    """A batch of the tiny system, in a turn."""
    cache = ForwardCache(NETWORKS, RandomImages()(0), {}, seed)
    cache.begin(player, position, with_graph=True)
    return cache


NETWORKS = make({}).system.networks


@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_draws_are_a_function_of_seed_step_turn_direction_and_call(kind: str) -> None:
    keys = list(itertools.product((0, 1), (0, 1, 10), (0, 1, 10), DIRECTIONS, range(3)))
    drawn = {}
    for seed, step, turn, direction, call in keys:
        t = Translation(direction, one_batch(seed, position=(step, turn)))
        calls = [getattr(t, kind)(2, 3) for _ in range(call + 1)]
        drawn[seed, step, turn, direction, call] = tuple(calls[-1].flatten().tolist())
    assert len(set(drawn.values())) == len(keys)
    # the other direction's calls, those of another turn and torch's own generators change nothing
    torch.manual_seed(99)
    shared = one_batch(1, position=(7, 7))
    Translation("ba", shared).uniform(5)
    Translation("ab", shared).normal(5)
    shared.begin("discriminator", (10, 1), with_graph=True)
    Translation("ba", shared).normal(4)
    t = Translation("ab", shared)
    for call in range(3):
        assert tuple(getattr(t, kind)(2, 3).flatten().tolist()) == drawn[1, 10, 1, "ab", call]


@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_an_images_draws_do_not_depend_on_how_many_follow(kind: str) -> None:
    few, many = (getattr(Translation("ab", one_batch(3)), kind)(count, 2, 5) for count in (2, 7))
    torch.testing.assert_close(many[:2], few, rtol=0, atol=0)


def test_draws_have_their_distributions() -> None:
    """The mean and the variance of 10^5 draws are within five standard errors."""
    t, count = Translation("ab", one_batch()), 100_000
    uniform, normal = t.uniform(count), t.normal(count)
    assert uniform.dtype == torch.float64
    assert uniform.min() >= 0
    assert uniform.max() < 1
    error = 5 / count**0.5
    assert abs(uniform.mean() - 1 / 2) < error * (1 / 12) ** 0.5
    assert abs(uniform.var() - 1 / 12) < error * (1 / 180) ** 0.5
    assert abs(normal.mean()) < error
    assert abs(normal.var() - 1) < error * 2**0.5


def test_uniform_stays_below_one_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest draw would be rounded up to 1, which would be an invalid index."""

    class Largest:
        def random(self, size: tuple[int, ...]) -> np.ndarray:
            return np.full(size, 1 - 2.0**-53)

    monkeypatch.setattr("ganlab.system.host_inputs.keyed", lambda *key: Largest())
    made = ForwardCache(NETWORKS, RandomImages(dtype=torch.float32)(0), {}, 0)
    drawn = Translation("ab", made).uniform(3)
    assert drawn.dtype == torch.float32
    assert drawn.max() < 1


def test_a_discriminators_turn_sees_leaves() -> None:
    """Nothing reaches a generator, every image can be differentiated, and asking twice gives the same tensor."""
    t = Translation("ab", one_batch())
    for what in ("source", "target", "fake", "fake_for_discriminator", "embedding", "cycled", "identity"):
        value = getattr(t, what)
        assert value.is_leaf, what
        assert value.requires_grad, what
        assert getattr(t, what) is value, what
    assert t.score(t.fake) is t.score(t.fake_for_discriminator)
    assert t.reverse.target is t.source


def test_a_pool_is_asked_once_a_batch() -> None:
    """All losses that read the pool's fakes get the same tensor."""
    made = one_batch()
    made.pools = {"ab": Pool(100, 3, SIZE, SIZE).double()}
    t = Translation("ab", made)
    shown = t.fake_for_discriminator
    assert t.fake_for_discriminator is shown
    assert shown.is_leaf
    assert shown.requires_grad
    assert int(made.pools["ab"].held) == len(shown)  # type: ignore[arg-type]


def test_values_are_what_the_networks_make() -> None:
    g, back = NETWORKS.generator("ab"), NETWORKS.generator("ba")
    x = images(0)
    t = Translation("ab", one_batch(player="generator"))
    found = {
        "source": x["a"],
        "target": x["b"],
        "embedding": g.encode(x["a"]),
        "fake": g(x["a"]),
        "identity": g(x["b"]),
        "fake_embedding": back.encode(g(x["a"])),
        "cycled": back(g(x["a"])),
        "reconstructed": back.decode(g.encode(x["a"])),
    }
    for what, value in found.items():
        torch.testing.assert_close(getattr(t, what), value, rtol=0, atol=1e-14, msg=what)
        assert getattr(t, what) is getattr(t, what), what
    for of, image in {"source": x["a"], "target": x["b"], "fake": g(x["a"])}.items():
        torch.testing.assert_close(t.features(of), list(g.features(image)), rtol=0, atol=1e-14)
    assert t.discriminator() is NETWORKS.discriminator("discriminator/image/b")
    assert t.reverse.direction == "ba"
    torch.testing.assert_close(t.reverse.fake, back(x["b"]), rtol=0, atol=1e-14)


def test_values_are_made_again_once_a_network_has_moved() -> None:
    """A generators' turn wants values of the weights as they are; a discriminators' takes those of the batch."""
    networks = make({}).system.networks
    made = ForwardCache(networks, RandomImages()(0), {}, 0)
    t = Translation("ab", made)
    old = {what: getattr(t, what) for what in ("embedding", "fake", "cycled", "fake_embedding", "reconstructed")}
    moved = list(networks.generator("ba").parameters())
    with torch.no_grad():
        for p in moved:
            p.mul_(1.1)
    networks.updated(moved)
    made.begin("discriminator", (0, 1), with_graph=True)
    for what, value in old.items():
        torch.testing.assert_close(getattr(t, what), value, rtol=0, atol=0)
    made.begin("generator", (0, 2), with_graph=True)
    for what, value in old.items():
        through_ba = what in ("cycled", "fake_embedding", "reconstructed")
        assert (getattr(t, what) is value) == (not through_ba), what
        assert torch.equal(getattr(t, what), value) == (not through_ba), what


@pytest.mark.parametrize("player", ["generator", "discriminator"])
def test_scores_of_images_of_the_other_domain_are_refused(player: str) -> None:
    """`t.score` in direction ab is the discriminator of domain b; these images are of domain a."""
    t = Translation("ab", one_batch(player=player))
    for show in (lambda: t.source, lambda: t.cycled, lambda: t.reconstructed, lambda: t.reverse.fake):
        with pytest.raises(
            SpecError, match=r"shows images of domain a to the discriminator of domain b: t\.score judges"
        ):
            t.score(show())
    own = NETWORKS.discriminator("discriminator/image/a")
    torch.testing.assert_close(t.reverse.score(t.source), own(t.source), rtol=0, atol=1e-14)
    torch.testing.assert_close(t.reverse.score(t.cycled), own(t.cycled), rtol=0, atol=1e-14)


TWO = {"discriminators": {"second": {"type": "patch", "width": 4, "layers": 1}}}


def test_an_ambiguous_discriminator_is_an_error() -> None:
    with pytest.raises(
        SpecError, match=r"losses\.adversarial's generator term in direction ab: .*, so the loss must name one"
    ):
        make(TWO)


def test_a_discriminator_is_chosen_by_its_name() -> None:
    networks = make(TWO | {"losses": {"adversarial": None}}).system.networks
    t = Translation("ab", ForwardCache(networks, RandomImages()(0), {}, 0))
    for name in ("image", "second"):
        own = networks.discriminator(f"discriminator/{name}/b")
        assert t.discriminator(name) is own
        torch.testing.assert_close(t.score(t.fake, name), own(t.fake), rtol=0, atol=1e-14)
    with pytest.raises(
        SpecError, match=r"asks for a discriminator on images; there are .image., .second., so the loss must name one"
    ):
        t.score(t.fake)
    with pytest.raises(SpecError, match=r"on images named .third.; there are .image., .second.$"):
        t.discriminator("third")
    with pytest.raises(SpecError, match="asks for a discriminator on embeddings; the spec has none"):
        t.score_embedding(t.embedding)


@pytest.mark.parametrize("loss", ["cycle", "xgan"])
def test_a_direction_that_is_left_out_is_an_error(loss: str) -> None:
    losses = {"cycle": None, loss: {"type": loss}}
    with pytest.raises(SpecError, match=rf"losses\.{loss}'s generator term in direction ab: .*`directions` leaves out"):
        make({"directions": ["ab"], "losses": losses})


def test_labels_that_a_source_lacks_are_an_error() -> None:
    t = Translation("ab", one_batch())
    with pytest.raises(SpecError, match="labels of domain a"):
        _ = t.source_labels
    with pytest.raises(SpecError, match="labels of domain b"):
        _ = t.target_labels


def test_features_of_something_unknown_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"'cycled'.*'source', 'fake', 'target'"):
        Translation("ab", one_batch()).features("cycled")
