"""The engine against the papers: terms by formulas written out, gradients and weights by plain PyTorch loops.

The references here share the networks' own code with the engine, as copies, and nothing else but the documented key of
a draw.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from conftest import RandomImages
from torch import Tensor, nn

from ganlab.draws import keyed
from ganlab.engine import Engine

Make = Callable[..., Engine]
Modules = dict[str, nn.Module]
Named = dict[str, Tensor]

WAYS = ("ab", "ba")
STILL = 1e-30
"""A learning rate that moves no weight by a bit that counts: every term of a step is that of the initial weights."""
LR = 2e-3

EMBEDDING = {"embedding": {"type": "embedding", "width": 4, "layers": 1}}
HALVES = {
    # CycleGAN's code halves the discriminators' term: here by its weight, so the record has it whole
    "adversarial": {"weight": {"discriminator": 0.5}},
    "cycle": {"weight": 10},
    "identity": {"type": "identity", "weight": 5},
}
SEED_LOSSES = {
    "adversarial": {"type": "noisy_lsgan"},
    "embedding": {"type": "embedding_lsgan", "weight": {"generator": 0.5}},
    "cycle": {"type": "cycle", "weight": 1},
}


def critic(clamp: float) -> dict[str, Any]:
    return {"image": {"type": "critic", "of": {"type": "patch", "width": 4, "layers": 1}, "clamp": clamp}}


def stir(engine: Engine, critics: bool = True) -> Modules:
    """Move every weight well away from its small initial value, so that no term hides behind another; then copy."""
    noise = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, module in engine.system.networks.modules.items():
            if critics or name.startswith("generator"):
                for p in module.parameters():
                    p.add_(0.1 * torch.randn(p.shape, generator=noise, dtype=p.dtype))
    return copy.deepcopy(engine.system.networks.modules)


def first_terms(engine: Engine) -> dict[str, float]:
    engine.step()
    (record,) = engine.read()
    return {name: value for name, value in record.items() if name.startswith("loss/")}


def check_terms(engine: Engine, expected: dict[str, Tensor]) -> None:
    found = first_terms(engine)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value.item(), abs=1e-10, rel=0), name
    # a term that is nearly nothing would agree with anything
    assert min(abs(value.item()) for value in expected.values()) > 1e-4


def images(draw: int) -> Named:
    return RandomImages()(draw).images


def uniform(step: int, turn: int, way: str, call: int, count: int = 4) -> Tensor:
    """The draw of one number an image, by its documented key; the spec's seed is 0."""
    return torch.from_numpy(keyed(0, "draw", step, turn, way, call).random((count, 1, 1, 1)))


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("target", ["other", "as_printed"])
def test_terms_of_the_seeds_equations(make_engine: Make, target: str, norm: str) -> None:
    losses = SEED_LOSSES | {"embedding": {"type": "embedding_lsgan", "target": target}, "cycle": {"norm": norm}}
    patch = {"discriminators": EMBEDDING, "losses": losses, "schedule": {"type": "alternating", "lr": STILL}}
    engine = make_engine(patch)
    nets, x = stir(engine), images(0)
    e = nets["discriminator/embedding"]
    printed = {"ab": 0, "ba": 0}
    other = {"ab": 1, "ba": 0}
    expected = {}
    for index, way in enumerate(WAYS):
        a, b = x[way[0]], x[way[1]]
        g, back, d = nets[f"generator/{way}"], nets[f"generator/{way[::-1]}"], nets[f"discriminator/image/{way[1]}"]
        embedded, fake = g.encode(a), g(a)  # type: ignore[operator]
        t = other[way] if target == "other" else printed[way]
        cycled = back(fake)
        u = 0.2 * uniform(0, 1 + 2 * index, way, 1)
        expected |= {
            f"loss/generator/{way}/adversarial": torch.mean((d(fake) - 1) ** 2),
            f"loss/generator/{way}/embedding": torch.mean((e(embedded) - t) ** 2),
            f"loss/generator/{way}/cycle": torch.mean(abs(a - cycled) if norm == "l1" else (a - cycled) ** 2),
            f"loss/discriminator/{way}/adversarial/real": torch.mean((d(b) - 1) ** 2),
            f"loss/discriminator/{way}/adversarial/fake": torch.mean((d(fake) - u) ** 2),
            f"loss/discriminator/{way}/embedding": torch.mean((e(embedded) - {"ab": 0, "ba": 1}[way]) ** 2),
        }
    check_terms(engine, expected)


def test_terms_of_cyclegan(make_engine: Make) -> None:
    engine = make_engine({"losses": HALVES, "schedule": {"lr": STILL}})
    nets, x = stir(engine), images(0)
    expected = {}
    for way in WAYS:
        a, b = x[way[0]], x[way[1]]
        g, back, d = nets[f"generator/{way}"], nets[f"generator/{way[::-1]}"], nets[f"discriminator/image/{way[1]}"]
        expected |= {
            f"loss/generator/{way}/adversarial": torch.mean((d(g(a)) - 1) ** 2),
            f"loss/generator/{way}/cycle": torch.mean(abs(back(g(a)) - a)),
            f"loss/generator/{way}/identity": torch.mean(abs(g(b) - b)),
            f"loss/discriminator/{way}/adversarial/real": torch.mean((d(b) - 1) ** 2),
            f"loss/discriminator/{way}/adversarial/fake": torch.mean(d(g(a)) ** 2),
        }
    check_terms(engine, expected)


def penalty_by_hand(d: nn.Module, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """arXiv:1704.00028, eq. (3), an image at a time."""
    found = []
    for index in range(len(real)):
        point = (mix[index] * real[index] + (1 - mix[index]) * fake[index]).detach()[None].requires_grad_()
        (gradient,) = torch.autograd.grad(d(point).mean(), point, create_graph=True)
        found.append((gradient.square().sum().sqrt() - 1) ** 2)
    return torch.stack(found).mean()


@pytest.mark.parametrize("penalty", [False, True], ids=["clamp", "penalty"])
def test_terms_of_wgan(make_engine: Make, penalty: bool) -> None:
    losses: dict[str, Any] = {"adversarial": {"type": "wasserstein"}}
    if penalty:
        losses["penalty"] = {"type": "gradient_penalty", "weight": 10}
    patch = {
        "discriminators": critic(0 if penalty else 0.01),
        "losses": losses,
        "schedule": {"type": "wgan", "lr": STILL, "steps": 6},
    }
    engine = make_engine(patch)
    nets = stir(engine, critics=penalty)
    expected: dict[str, Tensor] = {}
    for way in WAYS:
        g, back, f = nets[f"generator/{way}"], nets[f"generator/{way[::-1]}"], nets[f"discriminator/image/{way[1]}"]
        if not penalty:
            assert max(p.abs().max() for p in f.parameters()) <= 0.01
        critics, penalties = [], []
        for update in range(5):
            x = images(update)
            a, b = x[way[0]], x[way[1]]
            critics.append(torch.mean(f(g(a))) - torch.mean(f(b)))
            penalties.append(penalty_by_hand(f, b, g(a), uniform(0, update, way, 0)))
        last = images(5)[way[0]]
        expected |= {
            f"loss/generator/{way}/adversarial": -torch.mean(f(g(last))),
            f"loss/generator/{way}/cycle": torch.mean(abs(back(g(last)) - last)),
            f"loss/discriminator/{way}/adversarial": torch.stack(critics).mean(),
        }
        if penalty:
            expected[f"loss/discriminator/{way}/penalty"] = torch.stack(penalties).mean()
    check_terms(engine, expected)


class Plain:
    """Updates as one writes them from a paper: frozen by `requires_grad`, an optimiser for each of `groups`."""

    def __init__(self, modules: Modules, optimizer: Callable[[Any], torch.optim.Optimizer], groups: list[list[str]]):
        self.modules = modules
        self.optimizers = {
            tuple(names): optimizer([p for name in names for p in modules[name].parameters()]) for names in groups
        }
        self.gradients: list[Named] = []

    def update(self, names: Iterable[str], loss: Callable[[], Tensor]) -> None:
        names = set(names)
        for name, module in self.modules.items():
            module.requires_grad_(name in names)
        moved = [o for group, o in self.optimizers.items() if names & set(group)]
        for optimizer in moved:
            optimizer.zero_grad()
        loss().backward()
        self.gradients.append(gradients(self.modules))
        for optimizer in moved:
            optimizer.step()
            optimizer.zero_grad()


def gradients(modules: Modules) -> Named:
    return {
        f"{name} {key}": p.grad.clone()
        for name, module in modules.items()
        for key, p in module.named_parameters()
        if p.grad is not None
    }


def watch(engine: Engine) -> list[Named]:
    """The gradients of all networks at each update that the engine makes, as they come."""
    seen: list[Named] = []
    for optimizer in engine.optimizers.values():
        optimizer.register_step_pre_hook(lambda *_: seen.append(gradients(engine.system.networks.modules)))
    return seen


def check_training(engine: Engine, plain: Plain, step: Callable[[int], None], steps: int = 3) -> None:
    """Both train; the gradients of every update and the weights at the end are the same. Running statistics, which
    count forwards, are not compared."""
    before = copy.deepcopy(plain.modules)
    seen = watch(engine)
    for number in range(steps):
        engine.step()
        step(number)
    assert len(seen) == len(plain.gradients)
    for mine, theirs in zip(seen, plain.gradients, strict=True):
        assert mine.keys() == theirs.keys()
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-8)
    for name, module in engine.system.networks.modules.items():
        mine, theirs = (dict(m.named_parameters()) for m in (module, plain.modules[name]))
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-8)
        assert any(not torch.equal(p, q) for p, q in zip(module.parameters(), before[name].parameters(), strict=True))


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=LR, betas=(0.5, 0.999), fused=False, foreach=False)


def rmsprop(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(parameters, lr=LR, foreach=False)


class PastFakes:
    """The pool of CycleGAN's section 4, as a list."""

    def __init__(self, size: int) -> None:
        self.size, self.kept = size, list[Tensor]()

    def __call__(self, fakes: Tensor, step: int, way: str) -> Tensor:
        if not self.size:
            return fakes
        shown = []
        rolls = keyed(0, "pool", step, 1, way).random((len(fakes), 2))
        for fake, (coin, place) in zip(fakes, rolls, strict=True):
            if len(self.kept) < self.size:
                self.kept.append(fake)
                shown.append(fake)
            elif coin > 0.5:
                shown.append(self.kept[int(place * self.size)])
                self.kept[int(place * self.size)] = fake
            else:
                shown.append(fake)
        return torch.stack(shown)


def cyclegan(nets: Modules, pool: int = 0, embedding: bool = False) -> tuple[Plain, Callable[[int], None]]:
    """arXiv:1703.10593 and its code: Adam over both generators, then over both discriminators."""
    generators = [n for n in nets if n.startswith("generator")]
    discriminators = [n for n in nets if n.startswith("discriminator")]
    plain = Plain(nets, adam, [generators, discriminators])
    g, f = (nets[f"generator/{way}"] for way in WAYS)
    d_a, d_b = (nets[f"discriminator/image/{domain}"] for domain in "ab")
    pools = {way: PastFakes(pool) for way in WAYS}

    def step(number: int) -> None:
        x = images(number)
        a, b = x["a"], x["b"]
        fake: dict[str, Tensor] = {}
        embedded: dict[str, Tensor] = {}

        def both_generators() -> Tensor:
            embedded.update(ab=g.encode(a), ba=f.encode(b))  # type: ignore[operator]
            fake.update(ab=g(a), ba=f(b))
            adversarial = torch.mean((d_b(fake["ab"]) - 1) ** 2) + torch.mean((d_a(fake["ba"]) - 1) ** 2)
            cycle = torch.mean(abs(f(fake["ab"]) - a)) + torch.mean(abs(g(fake["ba"]) - b))
            identity = torch.mean(abs(g(b) - b)) + torch.mean(abs(f(a) - a))
            total = adversarial + 10 * cycle + 5 * identity
            if embedding:
                d_e = nets["discriminator/embedding"]
                total = total + 0.5 * (
                    torch.mean((d_e(embedded["ab"]) - 1) ** 2) + torch.mean(d_e(embedded["ba"]) ** 2)
                )
            return total

        def all_discriminators() -> Tensor:
            shown = {way: pools[way](fake[way].detach(), number, way) for way in WAYS}
            of_b = (torch.mean((d_b(b) - 1) ** 2) + torch.mean(d_b(shown["ab"]) ** 2)) / 2
            of_a = (torch.mean((d_a(a) - 1) ** 2) + torch.mean(d_a(shown["ba"]) ** 2)) / 2
            total = of_a + of_b
            if embedding:
                d_e = nets["discriminator/embedding"]
                total = total + torch.mean(d_e(embedded["ab"].detach()) ** 2)
                total = total + torch.mean((d_e(embedded["ba"].detach()) - 1) ** 2)
            return total

        plain.update(generators, both_generators)
        plain.update(discriminators, all_discriminators)

    return plain, step


def test_training_of_cyclegan(make_engine: Make) -> None:
    engine = make_engine({"losses": HALVES, "schedule": {"lr": LR}})
    check_training(engine, *cyclegan(stir(engine)))


@pytest.mark.parametrize("steps", [1, 2, 6])
def test_training_of_cyclegan_with_a_pool(make_engine: Make, steps: int) -> None:
    """Of batches of 4 the pool of 6 holds one, then fills amid the second; by six steps it has swapped many times."""
    engine = make_engine({"losses": HALVES, "schedule": {"lr": LR, "pool": 6}})
    check_training(engine, *cyclegan(stir(engine), pool=6), steps=steps)


def test_training_of_cyclegan_with_an_embedding_discriminator(make_engine: Make) -> None:
    """In one turn with the others, D_emb sees the embeddings from before the generators' update."""
    losses = HALVES | {"embedding": SEED_LOSSES["embedding"]}
    engine = make_engine({"discriminators": EMBEDDING, "losses": losses, "schedule": {"lr": LR}})
    check_training(engine, *cyclegan(stir(engine), embedding=True))


def seeds_step(nets: Modules, moves: str, variant: bool) -> tuple[Plain, Callable[[int], None]]:
    """The seed's step, an Adam for each network. The variant has D_emb and noisy labels."""
    plain = Plain(nets, adam, [[name] for name in nets])

    def step(number: int) -> None:
        x = images(number)
        g_ab, g_ba = (nets[f"generator/{way}"] for way in WAYS)
        if variant:
            d_e = nets["discriminator/embedding"]
            plain.update(
                ["discriminator/embedding"],
                lambda: (
                    torch.mean(d_e(g_ab.encode(x["a"])) ** 2)  # type: ignore[operator]
                    + torch.mean((d_e(g_ba.encode(x["b"])) - 1) ** 2)  # type: ignore[operator]
                ),
            )
        for index, way in enumerate(WAYS):
            a, b = x[way[0]], x[way[1]]
            g, back, d = nets[f"generator/{way}"], nets[f"generator/{way[::-1]}"], nets[f"discriminator/image/{way[1]}"]
            u = 0.2 * uniform(number, 1 + 2 * index, way, 1) if variant else 0.0

            def eq_2(a: Tensor = a, b: Tensor = b, g: Any = g, d: Any = d, u: Any = u) -> Tensor:
                return torch.mean((d(b) - 1) ** 2) + torch.mean((d(g(a)) - u) ** 2)

            def eq_1(a: Tensor = a, g: Any = g, back: Any = back, d: Any = d, t: float = 1.0 - index) -> Tensor:
                total = torch.mean((d(g(a)) - 1) ** 2) + torch.mean(abs(back(g(a)) - a))
                if variant:
                    total = total + 0.5 * torch.mean((nets["discriminator/embedding"](g.encode(a)) - t) ** 2)
                return total

            plain.update([f"discriminator/image/{way[1]}"], eq_2)
            plain.update([f"generator/{way}"] if moves == "own" else ["generator/ab", "generator/ba"], eq_1)

    return plain, step


@pytest.mark.parametrize("variant", [False, True], ids=["plain", "emb"])
@pytest.mark.parametrize("moves", ["own", "both"])
def test_training_of_the_seed(make_engine: Make, moves: str, variant: bool) -> None:
    patch: dict[str, Any] = {
        "losses": SEED_LOSSES if variant else {"cycle": {"weight": 1}},
        "discriminators": EMBEDDING if variant else {},
        "schedule": {"type": "alternating", "moves": moves, "lr": LR},
    }
    engine = make_engine(patch)
    check_training(engine, *seeds_step(stir(engine), moves, variant))


def wgan(nets: Modules, penalty: bool) -> tuple[Plain, Callable[[int], None]]:
    """arXiv:1701.07875, algorithm 1, or with the penalty of arXiv:1704.00028: RMSprop for each network."""
    plain = Plain(nets, rmsprop, [[name] for name in nets])

    def step(number: int) -> None:
        for update in range(5):
            x = images(6 * number + update)

            def critics(x: Named = x, update: int = update) -> Tensor:
                total = torch.zeros((), dtype=torch.float64)
                for way in WAYS:
                    f, real = nets[f"discriminator/image/{way[1]}"], x[way[1]]
                    fake = nets[f"generator/{way}"](x[way[0]]).detach()
                    total = total - (torch.mean(f(real)) - torch.mean(f(fake)))
                    if penalty:
                        mix = uniform(number, update, way, 0)
                        total = total + 10 * penalty_by_hand(f, real, fake, mix)
                return total

            plain.update(["discriminator/image/a", "discriminator/image/b"], critics)
            if not penalty:
                with torch.no_grad():
                    for domain in "ab":
                        for p in nets[f"discriminator/image/{domain}"].parameters():
                            p.copy_(torch.where(p > 0.01, 0.01, torch.where(p < -0.01, -0.01, p)))
        x = images(6 * number + 5)

        def generators() -> Tensor:
            total = torch.zeros((), dtype=torch.float64)
            for way in WAYS:
                fake = nets[f"generator/{way}"](x[way[0]])
                total = total - torch.mean(nets[f"discriminator/image/{way[1]}"](fake))
                total = total + 10 * torch.mean(abs(nets[f"generator/{way[::-1]}"](fake) - x[way[0]]))
            return total

        plain.update(["generator/ab", "generator/ba"], generators)

    return plain, step


@pytest.mark.parametrize("penalty", [False, True], ids=["clamp", "penalty"])
def test_training_of_wgan(make_engine: Make, penalty: bool) -> None:
    losses: dict[str, Any] = {"adversarial": {"type": "wasserstein"}}
    if penalty:
        losses["penalty"] = {"type": "gradient_penalty", "weight": 10}
    discriminators = critic(0 if penalty else 0.01)
    engine = make_engine({"discriminators": discriminators, "losses": losses, "schedule": {"type": "wgan", "lr": LR}})
    check_training(engine, *wgan(stir(engine, critics=penalty), penalty))
    assert engine.draws == 18


def yunjey(nets: Modules, labels: bool) -> tuple[Plain, Callable[[int], None]]:
    """yunjey/mnist-svhn-transfer's four updates: an Adam over both generators, one over both discriminators."""
    generators = [n for n in nets if n.startswith("generator")]
    discriminators = [n for n in nets if n.startswith("discriminator")]
    plain = Plain(nets, adam, [generators, discriminators])
    g_ab, g_ba = (nets[f"generator/{way}"] for way in WAYS)
    d_a, d_b = (nets[f"discriminator/image/{domain}"] for domain in "ab")

    def step(number: int) -> None:
        batch = RandomImages(size=32, classes=10)(number)
        a, b = batch.images["a"], batch.images["b"]
        of_a, of_b = (batch.labels.get(domain) for domain in "ab")

        def answers(scores: Tensor, one: float, classes: Tensor | None) -> Tensor:
            """How far scores are from `one`, or with labels from the class of each image."""
            assert scores.shape == (4, 11 if labels else 1, 1, 1)
            if not labels:
                return torch.mean((scores - one) ** 2)
            odds = torch.exp(scores[:, :, 0, 0])
            assert classes is not None
            each = [-torch.log(odds[i, k] / odds[i].sum()) for i, k in enumerate(classes.tolist())]
            return torch.stack(each).mean()

        fakes = torch.full((4,), 10)
        plain.update(discriminators, lambda: answers(d_a(a), 1, of_a) + answers(d_b(b), 1, of_b))
        plain.update(discriminators, lambda: answers(d_b(g_ab(a)), 0, fakes) + answers(d_a(g_ba(b)), 0, fakes))
        plain.update(generators, lambda: answers(d_b(g_ab(a)), 1, of_a) + torch.mean((a - g_ba(g_ab(a))) ** 2))
        plain.update(generators, lambda: answers(d_a(g_ba(b)), 1, of_b) + torch.mean((b - g_ab(g_ba(b))) ** 2))

    return plain, step


@pytest.mark.parametrize("labels", [False, True])
def test_training_of_mnist_svhn_transfer(make_engine: Make, labels: bool) -> None:
    kind = "class" if labels else "lsgan"
    losses = {
        "adversarial": None,
        "real": {"type": f"{kind}_real"},
        "fake": {"type": f"{kind}_fake"},
        "cycle": {"norm": "l2", "weight": 1},
    }
    patch = {
        "data": {"size": 32},
        "generator": {"type": "digits", "width": 3},
        "discriminators": {"image": {"type": "digits", "width": 3, "labels": labels}},
        "losses": losses,
        "schedule": {"type": "four_updates", "lr": LR},
    }
    engine = make_engine(patch, classes=10)
    check_training(engine, *yunjey(stir(engine), labels))


def test_one_way_alone(make_engine: Make) -> None:
    """With `translations` ["ab"], G_ab and D_b play as each way does; there is no G_ba."""
    engine = make_engine(
        {"translations": ["ab"], "losses": {"cycle": None}, "schedule": {"type": "alternating", "lr": LR}}
    )
    nets = stir(engine)
    assert sorted(nets) == ["discriminator/image/b", "generator/ab"]
    plain, g, d = Plain(nets, adam, [[name] for name in nets]), nets["generator/ab"], nets["discriminator/image/b"]

    def step(number: int) -> None:
        x = images(number)
        plain.update(
            ["discriminator/image/b"], lambda: torch.mean((d(x["b"]) - 1) ** 2) + torch.mean(d(g(x["a"])) ** 2)
        )
        plain.update(["generator/ab"], lambda: torch.mean((d(g(x["a"])) - 1) ** 2))

    check_training(engine, plain, step)


def test_the_learning_rate_decays_as_in_a_plain_loop(make_engine: Make) -> None:
    """Over 4 steps, the last half falling: factors 1, 1, 1, 1/2."""
    schedule = {"type": "alternating", "lr": LR, "steps": 4, "decay_from": 0.5}
    engine = make_engine({"losses": {"cycle": {"weight": 1}}, "schedule": schedule})
    plain, step = seeds_step(stir(engine), "own", False)

    def decaying(number: int) -> None:
        for optimizer in plain.optimizers.values():
            optimizer.param_groups[0]["lr"] = LR * (1, 1, 1, 0.5)[number]
        step(number)

    check_training(engine, plain, decaying, steps=4)


def test_gradient_norms_are_those_of_the_updates(make_engine: Make) -> None:
    engine = make_engine({"discriminators": EMBEDDING, "losses": SEED_LOSSES, "schedule": {"type": "alternating"}})
    stir(engine)
    seen = watch(engine)
    engine.step()
    (record,) = engine.read()
    norms = [sum(g.square().sum() for g in update.values()) ** 0.5 for update in seen]
    names = ["discriminator/embeddings", "discriminator/ab", "generator/ab", "discriminator/ba", "generator/ba"]
    found = {name: value for name, value in record.items() if name.startswith("gradient/")}
    assert found == pytest.approx({f"gradient/{n}": float(v) for n, v in zip(names, norms, strict=True)}, rel=1e-12)


def test_the_average_of_the_generators(make_engine: Make) -> None:
    """w' += (w - w') (1 - 2^(-batch / halflife)) after each step, from the initial weights."""
    engine = make_engine({"ema_halflife_images": 10.0, "schedule": {"lr": LR}})
    averages = {
        way: {
            key: value.clone() for key, value in engine.system.networks.modules[f"generator/{way}"].state_dict().items()
        }
        for way in WAYS
    }
    for _ in range(3):
        engine.step()
        for way, average in averages.items():
            for key, value in engine.system.networks.modules[f"generator/{way}"].state_dict().items():
                average[key] = 0.5 ** (4 / 10) * average[key] + (1 - 0.5 ** (4 / 10)) * value
    for way, translator in engine.translators().items():
        torch.testing.assert_close(dict(translator.state_dict()), averages[way], rtol=0, atol=1e-14)
    assert {name for name in engine.modules() if name.startswith("ema/")} == {"ema/ab", "ema/ba"}
