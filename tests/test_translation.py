"""What a loss sees: values computed once and never stale, draws by key, and clear errors. This file is a plugin itself.

The references are plain PyTorch loops on copies of the networks.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint
from typing import Any, Literal

import numpy as np
import pytest
import torch
from conftest import SIZE, TINY, Around, RandomImages
from ganlab_cyclegan.pool import Pool
from torch import Tensor, nn
from torch.nn.functional import l1_loss

import ganlab
from ganlab import Domain, Translation, Turn
from ganlab.build import build
from ganlab.engine import Engine
from ganlab.errors import SpecError
from ganlab.registry import Registry, installed
from ganlab.spec import merge, resolve
from ganlab.translation import Memo

Modules = dict[str, nn.Module]
Named = dict[str, Tensor]

WAYS = ("ab", "ba")
LR = 2e-3


class R1(ganlab.Loss):
    """The squared gradient of the scores at reals (arXiv:1801.04406)."""

    def discriminator(self, t: Translation) -> Tensor:
        target = t.target
        (gradient,) = torch.autograd.grad(t.score(target).sum(), target, create_graph=True)
        return gradient.square().flatten(1).sum(dim=1).mean()


class R2(ganlab.Loss):
    """The same at fakes."""

    def discriminator(self, t: Translation) -> Tensor:
        fake = t.fake_for_discriminator
        (gradient,) = torch.autograd.grad(t.score(fake).sum(), fake, create_graph=True)
        return gradient.square().flatten(1).sum(dim=1).mean()


class Relativistic(ganlab.Loss):
    """Each player compares the score of a real with that of a fake (arXiv:1807.00734, with squares)."""

    def generator(self, t: Translation) -> Tensor:
        return (t.score(t.fake) - t.score(t.target) - 1).square().mean()

    def discriminator(self, t: Translation) -> Tensor:
        return (t.score(t.target) - t.score(t.fake_for_discriminator) - 1).square().mean()


class Xgan(ganlab.Loss):
    """XGAN's reconstruction and semantic consistency (arXiv:1711.05139)."""

    def generator(self, t: Translation) -> Mapping[str, Tensor]:
        return {
            "reconstruction": l1_loss(t.reconstructed, t.real),
            "semantic": l1_loss(t.fake_embedding, t.embedding),
        }


class Shared(ganlab.Generator):
    """The ways share the last layer of their encoders."""

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
    def pair(cls, domains: Mapping[str, Domain], ways: Sequence[str], **options: Any) -> dict[str, ganlab.Generator]:
        generators = super().pair(domains, ways, **options)
        middle = nn.Conv2d(4, 4, 3, 1, 1)
        for generator in generators.values():
            generator.middle = middle
        return generators


class Drawing(ganlab.Discriminator):
    """Scores that are of each use: for the reason `why`, or none."""

    def __init__(self, shape: Domain, why: Literal["", "says so", "dropout", "spectral norm"] = "") -> None:
        super().__init__()
        self.stateful = why == "says so"
        convolution = nn.Conv2d(shape.channels, 1, 4, 4)
        if why == "spectral norm":
            nn.utils.parametrizations.spectral_norm(convolution)
        self.net = nn.Sequential(nn.Dropout() if why == "dropout" else nn.Identity(), convolution)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.net(x)
        return scores


class Fading(ganlab.Schedule):
    """Simultaneous; the identity loss has weight 0 in every second step."""

    def __init__(self, steps: int = 4) -> None:
        self.steps = steps

    def turns(self, step: int) -> list[Turn]:
        return [Turn("generator", self.ways), Turn("discriminator", self.ways)]

    def optimizer(self, player: str, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
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
def ganlab_discriminators() -> dict[str, type[ganlab.Discriminator]]:
    return {"drawing": Drawing, "around": Around}


@ganlab.hookimpl
def ganlab_schedules() -> dict[str, type[ganlab.Schedule]]:
    return {"fading": Fading}


REGISTRY = Registry([*installed(), EntryPoint("probes", __name__, "ganlab")])


def make(patch: dict[str, Any], stir: bool = True) -> Engine:
    """An engine in float64, its weights moved well away from their small initial values."""
    spec = resolve(REGISTRY, merge(merge(TINY, {"runtime": {"precision": "float64"}}), patch))
    images = RandomImages()
    engine = Engine(build(REGISTRY, spec, images.domains), images)  # type: ignore[arg-type]
    noise = torch.Generator().manual_seed(5)
    if stir:
        with torch.no_grad():
            for module in engine.system.networks.modules.values():
                for p in module.parameters():
                    p.add_(0.1 * torch.randn(p.shape, generator=noise, dtype=p.dtype))
    return engine


def images(draw: int) -> Named:
    return RandomImages()(draw).images


def gradients(modules: Modules) -> Named:
    return {
        f"{name} {key}": p.grad.clone()
        for name, module in modules.items()
        for key, p in module.named_parameters()
        if p.grad is not None
    }


class Plain:
    """A loop's networks, with one Adam for all; what is frozen has no gradient, and Adam leaves it alone."""

    def __init__(self, engine: Engine) -> None:
        self.modules = copy.deepcopy(engine.system.networks.modules)
        parameters = {id(p): p for module in self.modules.values() for p in module.parameters()}
        self.adam = torch.optim.Adam(parameters.values(), lr=LR, betas=(0.5, 0.999), fused=False, foreach=False)
        self.gradients: list[Named] = []

    def way(self, way: str) -> tuple[Any, Any, Any]:
        """G, the generator back, and D."""
        return (
            self.modules[f"generator/{way}"],
            self.modules[f"generator/{way[::-1]}"],
            self.modules[f"discriminator/image/{way[1]}"],
        )

    def update(self, moves: str, loss: Callable[[], Tensor]) -> None:
        """Move the networks whose name begins so."""
        for module in self.modules.values():
            module.requires_grad_(False)
        for name, module in self.modules.items():
            if name.startswith(moves):
                module.requires_grad_(True)
        loss().backward()
        self.gradients.append(gradients(self.modules))
        self.adam.step()
        self.adam.zero_grad()


def check_training(engine: Engine, plain: Plain, step: Callable[[Named], None], steps: int = 3) -> None:
    seen: list[Named] = []
    for optimizer in engine.optimizers.values():
        optimizer.register_step_pre_hook(lambda *_: seen.append(gradients(engine.system.networks.modules)))
    for number in range(steps):
        engine.step()
        step(images(number))
    assert len(seen) == len(plain.gradients)
    for mine, theirs in zip(seen, plain.gradients, strict=True):
        assert mine.keys() == theirs.keys()
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-10)
    for name, module in engine.system.networks.modules.items():
        torch.testing.assert_close(module.state_dict(), plain.modules[name].state_dict(), rtol=1e-8, atol=1e-8)


def both_ways(term: Callable[[str], Tensor]) -> Tensor:
    return term("ab") + term("ba")


def penalty(d: nn.Module, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(d(x).sum(), x, create_graph=True)
    return (gradient**2).sum() / len(x)


@pytest.mark.parametrize("first", ["penalties", "adversarial"])
@pytest.mark.parametrize("joint", [False, True], ids=["apart", "joint"])
def test_penalties_share_the_scores_forward(joint: bool, first: str) -> None:
    """R1 and R2 differentiate the scores that the adversarial term has; the fake's are even the generators' turn's."""
    r1, r2 = {"type": "probe_r1", "weight": 0.3}, {"type": "probe_r2", "weight": 0.2}
    adversarial, cycle = {"type": "lsgan", "weight": 1}, {"type": "cycle", "weight": 1}
    # TINY names its two losses first, so those two slots come first whatever their types are
    losses = {
        "penalties": {"adversarial": r1, "cycle": r2, "third": adversarial, "fourth": cycle},
        "adversarial": {"adversarial": adversarial, "cycle": cycle, "third": r1, "fourth": r2},
    }
    engine = make({"losses": losses[first], "schedule": {"lr": LR}, "runtime": {"joint": joint}})
    plain = Plain(engine)

    def step(x: Named) -> None:
        fakes = {way: plain.way(way)[0](x[way[0]]).detach() for way in WAYS}

        def generators(way: str) -> Tensor:
            g, back, d = plain.way(way)
            a = x[way[0]]
            return torch.mean((d(g(a)) - 1) ** 2) + torch.mean(abs(back(g(a)) - a))

        def discriminators(way: str) -> Tensor:
            b, d = x[way[1]], plain.way(way)[2]
            total = torch.mean((d(b) - 1) ** 2) + torch.mean(d(fakes[way]) ** 2)
            return total + 0.3 * penalty(d, b) + 0.2 * penalty(d, fakes[way])

        plain.update("generator", lambda: both_ways(generators))
        plain.update("discriminator", lambda: both_ways(discriminators))

    check_training(engine, plain, step)
    assert engine.system.networks.forwards["discriminator/image/b.forward"] == 3 * 2


@pytest.mark.parametrize("joint", [False, True], ids=["apart", "joint"])
def test_relativistic_pairing(joint: bool) -> None:
    """Both scores of the generators' turn are the discriminators' too: two forwards of each a step."""
    losses = {"adversarial": {"type": "probe_relativistic"}, "cycle": {"weight": 1}}
    engine = make({"losses": losses, "schedule": {"lr": LR}, "runtime": {"joint": joint}})
    plain = Plain(engine)

    def step(x: Named) -> None:
        fakes = {way: plain.way(way)[0](x[way[0]]).detach() for way in WAYS}

        def generators(way: str) -> Tensor:
            g, back, d = plain.way(way)
            a, b = x[way[0]], x[way[1]]
            return torch.mean((d(g(a)) - d(b) - 1) ** 2) + torch.mean(abs(back(g(a)) - a))

        def discriminators(way: str) -> Tensor:
            d = plain.way(way)[2]
            return torch.mean((d(x[way[1]]) - d(fakes[way]) - 1) ** 2)

        plain.update("generator", lambda: both_ways(generators))
        plain.update("discriminator", lambda: both_ways(discriminators))

    check_training(engine, plain, step)
    for domain in "ab":
        assert engine.system.networks.forwards[f"discriminator/image/{domain}.forward"] == 3 * 2


def test_relativistic_pairing_in_turn() -> None:
    """The discriminator moves first, so its scores are computed again for the generator: four forwards a step."""
    losses = {"adversarial": {"type": "probe_relativistic"}, "cycle": {"weight": 1}}
    engine = make({"losses": losses, "schedule": {"type": "alternating", "lr": LR}})
    plain = Plain(engine)

    def step(x: Named) -> None:
        for way in WAYS:
            g, back, d = plain.way(way)
            a, b = x[way[0]], x[way[1]]

            def discriminator(g: Any = g, d: Any = d, a: Tensor = a, b: Tensor = b) -> Tensor:
                return torch.mean((d(b) - d(g(a)) - 1) ** 2)

            def generator(g: Any = g, back: Any = back, d: Any = d, a: Tensor = a, b: Tensor = b) -> Tensor:
                return torch.mean((d(g(a)) - d(b) - 1) ** 2) + torch.mean(abs(back(g(a)) - a))

            plain.update(f"discriminator/image/{way[1]}", discriminator)
            plain.update(f"generator/{way}", generator)

    check_training(engine, plain, step)
    assert engine.system.networks.forwards["discriminator/image/b.forward"] == 3 * 4


def test_relativistic_pairing_behind_a_pool() -> None:
    """The pool may show another fake, but the target is the same: three forwards a step."""
    losses = {"adversarial": {"type": "probe_relativistic"}, "cycle": {"weight": 1}}
    engine = make({"losses": losses, "schedule": {"lr": LR, "pool": 100}})
    plain = Plain(engine)

    def step(x: Named) -> None:
        fakes = {way: plain.way(way)[0](x[way[0]]).detach() for way in WAYS}

        def generators(way: str) -> Tensor:
            g, back, d = plain.way(way)
            a, b = x[way[0]], x[way[1]]
            return torch.mean((d(g(a)) - d(b) - 1) ** 2) + torch.mean(abs(back(g(a)) - a))

        plain.update("generator", lambda: both_ways(generators))
        plain.update(
            "discriminator",
            lambda: both_ways(
                lambda way: torch.mean((plain.way(way)[2](x[way[1]]) - plain.way(way)[2](fakes[way]) - 1) ** 2)
            ),
        )

    check_training(engine, plain, step)
    assert engine.system.networks.forwards["discriminator/image/b.forward"] == 3 * 3


def test_shared_layers_of_both_ways() -> None:
    """XGAN's terms on generators that share a layer, in turn: an update makes the other way's values stale too."""
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
    engine = make(patch)
    generators = [engine.system.networks.generator(way) for way in WAYS]
    assert generators[0].middle is generators[1].middle
    plain = Plain(engine)

    def step(x: Named) -> None:
        d_e = plain.modules["discriminator/embedding"]
        plain.update(
            "discriminator/embedding",
            lambda: both_ways(
                lambda way: torch.mean((d_e(plain.way(way)[0].encode(x[way[0]])) - {"ab": 0, "ba": 1}[way]) ** 2)
            ),
        )
        for way in WAYS:
            g, back, d = plain.way(way)
            a, b = x[way[0]], x[way[1]]

            def discriminator(g: Any = g, d: Any = d, a: Tensor = a, b: Tensor = b) -> Tensor:
                return torch.mean((d(b) - 1) ** 2) + torch.mean(d(g(a)) ** 2)

            def generator(
                g: Any = g, back: Any = back, d: Any = d, a: Tensor = a, t: int = {"ab": 1, "ba": 0}[way]
            ) -> Tensor:
                reconstruction = torch.mean(abs(back.decode(g.encode(a)) - a))
                semantic = torch.mean(abs(back.encode(g(a)) - g.encode(a)))
                on_embedding = torch.mean((d_e(g.encode(a)) - t) ** 2)
                return torch.mean((d(g(a)) - 1) ** 2) + 0.7 * (reconstruction + semantic) + 0.5 * on_embedding

            plain.update(f"discriminator/image/{way[1]}", discriminator)
            plain.update(f"generator/{way}", generator)

    check_training(engine, plain, step)
    # each way's turn moves the shared layer, and so is an update of both
    versions = engine.system.networks.versions
    assert (versions["generator/ab"], versions["generator/ba"]) == (6, 6)
    # G_ba encodes x_b for D_emb and, moved by G_ab's turn, anew for its own; and the fake for ab's semantic term
    assert engine.system.networks.forwards["generator/ba.features"] == 3 * 3
    assert engine.system.networks.forwards["generator/ab.features"] == 3 * 2


def test_an_update_is_one_of_the_networks_that_moved() -> None:
    """Nothing shared: each network's version counts its own updates."""
    engine = make({"schedule": {"type": "alternating", "lr": LR}})
    engine.step()
    assert set(engine.system.networks.versions.values()) == {1}


def trained(engine: Engine, steps: int = 3) -> tuple[list[dict[str, float]], dict[str, dict[str, Tensor]]]:
    for _ in range(steps):
        engine.step()
    terms = [{k: v for k, v in record.items() if "/" in k} for record in engine.read()]
    return terms, {name: dict(module.state_dict()) for name, module in engine.system.networks.modules.items()}


IDENTITY = {"identity": {"type": "identity", "weight": 5}}
CRITIC = {"type": "critic", "of": {"type": "patch", "width": 4, "layers": 1}}
JOINED: dict[str, tuple[dict[str, Any], set[str]]] = {
    "simultaneous": ({"losses": IDENTITY}, {"features", "decode"}),
    "simultaneous, pool": ({"losses": IDENTITY, "schedule": {"pool": 6}}, {"features", "decode", "forward"}),
    "alternating, penalties": (
        {"losses": {"r1": {"type": "probe_r1"}, "r2": {"type": "probe_r2"}}, "schedule": {"type": "alternating"}},
        {"forward"},
    ),
    "wgan": (
        {
            "discriminators": {"image": CRITIC},
            "losses": {"adversarial": {"type": "wasserstein"}},
            "schedule": {"type": "wgan"},
        },
        {"forward"},
    ),
}
"""Systems, and which parts of a network then have fewer forwards."""


@pytest.mark.parametrize("system", JOINED)
def test_joint_uses_change_nothing_but_the_number_of_forwards(system: str) -> None:
    patch, fewer = JOINED[system]
    # A bias before an instance norm has no effect, and a gradient that is rounding alone. An optimiser divides that by
    # its own size, so the learning rate is what bounds the difference.
    small = merge(patch, {"schedule": {"lr": 1e-5}})
    engines = [make(merge(small, {"runtime": {"joint": joint}})) for joint in (False, True)]
    (apart, weights), (together, same) = (trained(engine) for engine in engines)
    for one, other in zip(apart, together, strict=True):
        assert other == pytest.approx(one, rel=0, abs=1e-10)
    torch.testing.assert_close(same, weights, rtol=0, atol=1e-10)
    many, few = (engine.system.networks.forwards for engine in engines)
    assert few.keys() == many.keys()
    assert {name.rpartition(".")[2] for name in many if few[name] < many[name]} == fewer
    assert all(few[name] <= many[name] for name in many)


@pytest.mark.parametrize("schedule", ["simultaneous", "alternating"])
def test_networks_that_mix_a_batch_are_not_joined(schedule: str) -> None:
    """A batch norm's statistics are those of one use: reals and fakes apart."""
    patch = {
        "losses": {"identity": {"type": "identity", "weight": 5}},
        "generator": {"norm": "batch"},
        "discriminators": {"image": {"norm": "batch", "layers": 2}},
        "schedule": {"type": schedule, "lr": LR},
    }
    engines = [make(merge(patch, {"runtime": {"joint": joint}})) for joint in (False, True)]
    (apart, weights), (together, same) = (trained(engine) for engine in engines)
    assert together == apart
    torch.testing.assert_close(same, weights, rtol=0, atol=0)
    assert engines[0].system.networks.forwards == engines[1].system.networks.forwards


@pytest.mark.parametrize("joint", [False, True], ids=["apart", "joint"])
@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "wrapped"])
@pytest.mark.parametrize("why", ["", "says so", "dropout", "spectral norm"])
def test_each_use_of_a_stateful_network_is_its_own(why: str, wrapped: bool, joint: bool) -> None:
    """The fake for the generators, then both for the discriminators, each alone; of any other network, the fake's score
    is used again."""
    discriminator: dict[str, Any] = {"type": "drawing", "why": why}
    if wrapped:
        discriminator = {"type": "around", "of": discriminator}
    # a pool's images are scored anew anyway, and may be joined with the reals
    for pool, plain in ((0, 2), (6, 2 if joint else 3)):
        patch = {"discriminators": {"image": discriminator}, "schedule": {"pool": pool}, "runtime": {"joint": joint}}
        engine = make(patch, stir=False)
        engine.step()
        assert engine.system.networks.forwards["discriminator/image/a.forward"] == (3 if why else plain)


@pytest.mark.parametrize("joint", [False, True], ids=["apart", "joint"])
def test_a_schedule_can_silence_a_loss_for_a_step(joint: bool) -> None:
    """Where its weight is 0 nothing is computed for it, not even in a batch that two uses would share."""
    losses = {"identity": {"type": "identity", "weight": 5}}
    engine = make({"losses": losses, "schedule": {"type": "fading"}, "runtime": {"joint": joint}})
    seen: list[int] = []
    encoder = engine.system.networks.modules["generator/ab"].encoder
    encoder[0].register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))  # type: ignore[operator, index]
    counts, names = [], []
    for _ in range(4):
        seen.clear()
        engine.step()
        counts.append(sum(seen))
        names.append("loss/generator/ab/identity" in engine.read()[0])
    assert counts == [12, 8, 12, 8]
    assert names == [True, False, True, False]


def memo(seed: int, player: str = "discriminator", where: tuple[int, int] = (0, 0)) -> Memo:
    """A batch of the tiny system, in a turn."""
    made = Memo(NETWORKS, RandomImages()(0), {}, seed)
    made.begin(player, where)
    return made


NETWORKS = make({}).system.networks


@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_draws_are_a_function_of_seed_step_turn_way_and_call(kind: str) -> None:
    keys = list(itertools.product((0, 1), (0, 1, 10), (0, 1, 10), WAYS, range(3)))
    drawn = {}
    for seed, step, turn, way, call in keys:
        t = Translation(way, memo(seed, where=(step, turn)))
        calls = [getattr(t, kind)(2, 3) for _ in range(call + 1)]
        drawn[seed, step, turn, way, call] = tuple(calls[-1].flatten().tolist())
    assert len(set(drawn.values())) == len(keys)
    # the other way's calls, those of another turn and torch's own generators change nothing
    torch.manual_seed(99)
    shared = memo(1, where=(7, 7))
    Translation("ba", shared).uniform(5)
    Translation("ab", shared).normal(5)
    shared.begin("discriminator", (10, 1))
    Translation("ba", shared).normal(4)
    t = Translation("ab", shared)
    for call in range(3):
        assert tuple(getattr(t, kind)(2, 3).flatten().tolist()) == drawn[1, 10, 1, "ab", call]


@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_an_images_draws_do_not_depend_on_how_many_follow(kind: str) -> None:
    few, many = (getattr(Translation("ab", memo(3)), kind)(count, 2, 5) for count in (2, 7))
    torch.testing.assert_close(many[:2], few, rtol=0, atol=0)


def test_draws_have_their_distributions() -> None:
    """10^5 of each: within five standard errors."""
    t, count = Translation("ab", memo(0)), 100_000
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
    """The largest number that is drawn would be rounded up to 1, which an index can't stand."""

    class Largest:
        def random(self, size: tuple[int, ...]) -> np.ndarray:
            return np.full(size, 1 - 2.0**-53)

    monkeypatch.setattr("ganlab.translation.keyed", lambda *key: Largest())
    made = Memo(NETWORKS, RandomImages(dtype=torch.float32)(0), {}, 0)
    drawn = Translation("ab", made).uniform(3)
    assert drawn.dtype == torch.float32
    assert drawn.max() < 1


def test_a_discriminators_turn_sees_leaves() -> None:
    """Nothing reaches a generator, every image can be differentiated, and asking twice gives the same tensor."""
    t = Translation("ab", memo(0))
    for what in ("real", "target", "fake", "fake_for_discriminator", "embedding", "cycled", "identity"):
        value = getattr(t, what)
        assert value.is_leaf, what
        assert value.requires_grad, what
        assert getattr(t, what) is value, what
    assert t.score(t.fake) is t.score(t.fake_for_discriminator)
    assert t.back.target is t.real


def test_a_pool_is_asked_once_a_batch() -> None:
    """However many losses ask for its fake, all see the same."""
    made = memo(0)
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
    t = Translation("ab", memo(0, "generator"))
    found = {
        "real": x["a"],
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
    for of, image in {"real": x["a"], "target": x["b"], "fake": g(x["a"])}.items():
        torch.testing.assert_close(t.features(of), list(g.features(image)), rtol=0, atol=1e-14)
    assert t.discriminator() is NETWORKS.discriminator("discriminator/image/b")
    assert t.back.name == "ba"
    torch.testing.assert_close(t.back.fake, back(x["b"]), rtol=0, atol=1e-14)


def test_values_are_made_anew_once_a_network_has_moved() -> None:
    """A generators' turn wants values of the weights as they are; a discriminators' takes those of the batch."""
    networks = make({}).system.networks
    made = Memo(networks, RandomImages()(0), {}, 0)
    t = Translation("ab", made)
    old = {what: getattr(t, what) for what in ("embedding", "fake", "cycled", "fake_embedding", "reconstructed")}
    moved = list(networks.generator("ba").parameters())
    with torch.no_grad():
        for p in moved:
            p.mul_(1.1)
    networks.updated(moved)
    made.begin("discriminator", (0, 1))
    for what, value in old.items():
        torch.testing.assert_close(getattr(t, what), value, rtol=0, atol=0)
    made.begin("generator", (0, 2))
    for what, value in old.items():
        through_ba = what in ("cycled", "fake_embedding", "reconstructed")
        assert (getattr(t, what) is value) == (not through_ba), what
        assert torch.equal(getattr(t, what), value) == (not through_ba), what


TWO = {"discriminators": {"second": {"type": "patch", "width": 4, "layers": 1}}}


def test_an_ambiguous_discriminator_is_an_error() -> None:
    with pytest.raises(SpecError, match=r"losses\.adversarial's generator term on way ab: .*2, so it must name one"):
        make(TWO)


def test_a_discriminator_is_chosen_by_its_name() -> None:
    networks = make(TWO | {"losses": {"adversarial": None}}).system.networks
    t = Translation("ab", Memo(networks, RandomImages()(0), {}, 0))
    for name in ("image", "second"):
        own = networks.discriminator(f"discriminator/{name}/b")
        assert t.discriminator(name) is own
        torch.testing.assert_close(t.score(t.fake, name), own(t.fake), rtol=0, atol=1e-14)
    with pytest.raises(SpecError, match="asks for a discriminator on images; the spec has 2"):
        t.score(t.fake)
    with pytest.raises(SpecError, match="on images named 'third'; the spec has none"):
        t.discriminator("third")
    with pytest.raises(SpecError, match="asks for a discriminator on embeddings; the spec has none"):
        t.score_embedding(t.embedding)


@pytest.mark.parametrize("loss", ["cycle", "xgan"])
def test_a_way_that_is_left_out_is_an_error(loss: str) -> None:
    losses = {"cycle": None, loss: {"type": loss}}
    with pytest.raises(SpecError, match=rf"losses\.{loss}'s generator term on way ab: .*`translations` leaves out"):
        make({"translations": ["ab"], "losses": losses})


def test_labels_that_a_source_lacks_are_an_error() -> None:
    t = Translation("ab", memo(0))
    with pytest.raises(SpecError, match="labels of domain a"):
        _ = t.labels
    with pytest.raises(SpecError, match="labels of domain b"):
        _ = t.target_labels


def test_features_of_something_unknown_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"'cycled'.*'real', 'fake', 'target'"):
        Translation("ab", memo(0)).features("cycled")
