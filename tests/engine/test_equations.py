"""The trainer against the papers: terms by formulas written out, gradients and weights by plain PyTorch loops.

The references share only two things with the trainer: copies of the networks, and the documented keys of random draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ganlab.determinism import keyed
from ganlab.engine.trainer import Trainer
from helpers.plain_loop import (
    LR,
    Modules,
    Named,
    PlainLoop,
    adam,
    check_training,
    images,
    networks_of,
    record_gradients,
    rmsprop,
    stirred_copies,
)
from helpers.systems import DIRECTIONS, RandomImages, stir

Make = Callable[..., Trainer]

STILL = 1e-30
"""A learning rate so small that no weight changes: every term of a step is that of the initial weights."""

EMBEDDING = {"embedding": {"type": "embedding", "width": 4, "layers": 1}}
HALVES = {
    # CycleGAN's code halves the discriminators' term; here the weight does, so the record has the whole term
    "adversarial": {"weight": {"discriminator": 0.5}},
    "cycle": {"weight": 10},
    "identity": {"type": "identity", "weight": 5},
}
FACE2COMIC_LOSSES = {
    "adversarial": {"type": "noisy_lsgan"},
    "embedding": {"type": "embedding_lsgan", "weight": {"generator": 0.5}},
    "cycle": {"type": "cycle", "weight": 1},
}


def critic(clamp: float) -> dict[str, Any]:
    return {"image": {"type": "critic", "of": {"type": "patch", "width": 4, "layers": 1}, "clamp": clamp}}


def first_terms(trainer: Trainer) -> dict[str, float]:
    trainer.step()
    (record,) = trainer.log.read(trainer.state)
    return {name: value for name, value in record.items() if name.startswith("loss/")}


def check_terms(trainer: Trainer, expected: dict[str, Tensor]) -> None:
    found = first_terms(trainer)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value.item(), abs=1e-10, rel=0), name
    # a term near 0 would agree with any other
    assert min(abs(value.item()) for value in expected.values()) > 1e-4


def uniform(step: int, turn: int, direction: str, call: int, count: int = 4) -> Tensor:
    """Returns the draw of one number for each image, by its documented key; the spec's seed is 0."""
    return torch.from_numpy(keyed(0, "draw", step, turn, direction, call).random((count, 1, 1, 1)))


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("target", ["other", "as_printed"])
def test_terms_of_the_paper_of_face2comic(make_trainer: Make, target: str, norm: str) -> None:
    losses = FACE2COMIC_LOSSES | {"embedding": {"type": "embedding_lsgan", "target": target}, "cycle": {"norm": norm}}
    patch = {"discriminators": EMBEDDING, "losses": losses, "schedule": {"type": "alternating", "lr": STILL}}
    trainer = make_trainer(patch)
    nets, x = stirred_copies(trainer), images(0)
    e = nets["discriminator/embedding"]
    printed = {"ab": 0, "ba": 0}
    other = {"ab": 1, "ba": 0}
    expected = {}
    for index, direction in enumerate(DIRECTIONS):
        a, b = x[direction[0]], x[direction[1]]
        g, back, d = networks_of(nets, direction)
        embedded, fake = g.encode(a), g(a)  # type: ignore[operator]
        t = other[direction] if target == "other" else printed[direction]
        cycled = back(fake)
        u = 0.2 * uniform(0, 1 + 2 * index, direction, 1)
        expected |= {
            f"loss/generator/{direction}/adversarial": torch.mean((d(fake) - 1) ** 2),
            f"loss/generator/{direction}/embedding": torch.mean((e(embedded) - t) ** 2),
            f"loss/generator/{direction}/cycle": torch.mean(abs(a - cycled) if norm == "l1" else (a - cycled) ** 2),
            f"loss/discriminator/{direction}/adversarial/real": torch.mean((d(b) - 1) ** 2),
            f"loss/discriminator/{direction}/adversarial/fake": torch.mean((d(fake) - u) ** 2),
            f"loss/discriminator/{direction}/embedding": torch.mean((e(embedded) - {"ab": 0, "ba": 1}[direction]) ** 2),
        }
    check_terms(trainer, expected)


def test_terms_of_cyclegan(make_trainer: Make) -> None:
    trainer = make_trainer({"losses": HALVES, "schedule": {"lr": STILL}})
    nets, x = stirred_copies(trainer), images(0)
    expected = {}
    for direction in DIRECTIONS:
        a, b = x[direction[0]], x[direction[1]]
        g, back, d = networks_of(nets, direction)
        expected |= {
            f"loss/generator/{direction}/adversarial": torch.mean((d(g(a)) - 1) ** 2),
            f"loss/generator/{direction}/cycle": torch.mean(abs(back(g(a)) - a)),
            f"loss/generator/{direction}/identity": torch.mean(abs(g(b) - b)),
            f"loss/discriminator/{direction}/adversarial/real": torch.mean((d(b) - 1) ** 2),
            f"loss/discriminator/{direction}/adversarial/fake": torch.mean(d(g(a)) ** 2),
        }
    check_terms(trainer, expected)


def penalty_by_hand(d: nn.Module, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """arXiv:1704.00028, eq. (3), an image at a time."""
    found = []
    for index in range(len(real)):
        point = (mix[index] * real[index] + (1 - mix[index]) * fake[index]).detach()[None].requires_grad_()
        (gradient,) = torch.autograd.grad(d(point).mean(), point, create_graph=True)
        found.append((gradient.square().sum().sqrt() - 1) ** 2)
    return torch.stack(found).mean()


@pytest.mark.parametrize("penalty", [False, True], ids=["clamp", "penalty"])
def test_terms_of_wgan(make_trainer: Make, penalty: bool) -> None:
    losses: dict[str, Any] = {"adversarial": {"type": "wasserstein"}}
    if penalty:
        losses["penalty"] = {"type": "gradient_penalty", "weight": 10}
    patch = {
        "discriminators": critic(0 if penalty else 0.01),
        "losses": losses,
        "schedule": {"type": "wgan", "lr": STILL, "steps": 6},
    }
    trainer = make_trainer(patch)
    nets = stirred_copies(trainer, critics=penalty)
    expected: dict[str, Tensor] = {}
    for direction in DIRECTIONS:
        g, back, f = (
            nets[f"generator/{direction}"],
            nets[f"generator/{direction[::-1]}"],
            nets[f"discriminator/image/{direction[1]}"],
        )
        if not penalty:
            assert max(p.abs().max() for p in f.parameters()) <= 0.01
        critics, penalties = [], []
        for update in range(5):
            x = images(update)
            a, b = x[direction[0]], x[direction[1]]
            critics.append(torch.mean(f(g(a))) - torch.mean(f(b)))
            penalties.append(penalty_by_hand(f, b, g(a), uniform(0, update, direction, 0)))
        last = images(5)[direction[0]]
        expected |= {
            f"loss/generator/{direction}/adversarial": -torch.mean(f(g(last))),
            f"loss/generator/{direction}/cycle": torch.mean(abs(back(g(last)) - last)),
            f"loss/discriminator/{direction}/adversarial": torch.stack(critics).mean(),
        }
        if penalty:
            expected[f"loss/discriminator/{direction}/penalty"] = torch.stack(penalties).mean()
    check_terms(trainer, expected)


class PastFakes:
    """The pool of CycleGAN's section 4, as a list."""

    def __init__(self, size: int) -> None:
        self.size, self.kept = size, list[Tensor]()

    def __call__(self, fakes: Tensor, step: int, direction: str) -> Tensor:
        if not self.size:
            return fakes
        shown = []
        rolls = keyed(0, "pool", step, 1, direction).random((len(fakes), 2))
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


def cyclegan(nets: Modules, pool: int = 0, embedding: bool = False) -> tuple[PlainLoop, Callable[[int], None]]:
    """arXiv:1703.10593 and its code: Adam over both generators, then over both discriminators."""
    generators = [n for n in nets if n.startswith("generator")]
    discriminators = [n for n in nets if n.startswith("discriminator")]
    plain = PlainLoop(nets, adam, [generators, discriminators])
    g, f = (nets[f"generator/{direction}"] for direction in DIRECTIONS)
    d_a, d_b = (nets[f"discriminator/image/{domain}"] for domain in "ab")
    pools = {direction: PastFakes(pool) for direction in DIRECTIONS}

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
            shown = {
                direction: pools[direction](fake[direction].detach(), number, direction) for direction in DIRECTIONS
            }
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


def test_training_of_cyclegan(make_trainer: Make) -> None:
    trainer = make_trainer({"losses": HALVES, "schedule": {"lr": LR}})
    check_training(trainer, *cyclegan(stirred_copies(trainer)))


@pytest.mark.parametrize("steps", [1, 2, 6])
def test_training_of_cyclegan_with_a_pool(make_trainer: Make, steps: int) -> None:
    """With batches of 4, the pool of 6 fills in the second step; in six steps it has swapped many images."""
    trainer = make_trainer({"losses": HALVES, "schedule": {"lr": LR, "pool": 6}})
    check_training(trainer, *cyclegan(stirred_copies(trainer), pool=6), steps=steps)


def test_training_of_cyclegan_with_an_embedding_discriminator(make_trainer: Make) -> None:
    """D_emb learns in one turn with the others and sees the embeddings from before the generators' update."""
    losses = HALVES | {"embedding": FACE2COMIC_LOSSES["embedding"]}
    trainer = make_trainer({"discriminators": EMBEDDING, "losses": losses, "schedule": {"lr": LR}})
    check_training(trainer, *cyclegan(stirred_copies(trainer), embedding=True))


def face2comic_step(nets: Modules, moves: str, variant: bool) -> tuple[PlainLoop, Callable[[int], None]]:
    """face2comic's step, an Adam for each network. The variant has D_emb and noisy labels."""
    plain = PlainLoop(nets, adam, [[name] for name in nets])

    def step(number: int) -> None:
        x = images(number)
        g_ab, g_ba = (nets[f"generator/{direction}"] for direction in DIRECTIONS)
        if variant:
            d_e = nets["discriminator/embedding"]
            plain.update(
                ["discriminator/embedding"],
                lambda: (
                    torch.mean(d_e(g_ab.encode(x["a"])) ** 2)  # type: ignore[operator]
                    + torch.mean((d_e(g_ba.encode(x["b"])) - 1) ** 2)  # type: ignore[operator]
                ),
            )
        for index, direction in enumerate(DIRECTIONS):
            a, b = x[direction[0]], x[direction[1]]
            g, back, d = networks_of(nets, direction)
            u = 0.2 * uniform(number, 1 + 2 * index, direction, 1) if variant else 0.0

            def eq_2(a: Tensor = a, b: Tensor = b, g: Any = g, d: Any = d, u: Any = u) -> Tensor:
                return torch.mean((d(b) - 1) ** 2) + torch.mean((d(g(a)) - u) ** 2)

            def eq_1(a: Tensor = a, g: Any = g, back: Any = back, d: Any = d, t: float = 1.0 - index) -> Tensor:
                total = torch.mean((d(g(a)) - 1) ** 2) + torch.mean(abs(back(g(a)) - a))
                if variant:
                    total = total + 0.5 * torch.mean((nets["discriminator/embedding"](g.encode(a)) - t) ** 2)
                return total

            plain.update([f"discriminator/image/{direction[1]}"], eq_2)
            plain.update([f"generator/{direction}"] if moves == "own" else ["generator/ab", "generator/ba"], eq_1)

    return plain, step


@pytest.mark.parametrize("variant", [False, True], ids=["plain", "emb"])
@pytest.mark.parametrize("moves", ["own", "both"])
def test_training_of_face2comic(make_trainer: Make, moves: str, variant: bool) -> None:
    patch: dict[str, Any] = {
        "losses": FACE2COMIC_LOSSES if variant else {"cycle": {"weight": 1}},
        "discriminators": EMBEDDING if variant else {},
        "schedule": {"type": "alternating", "moves": moves, "lr": LR},
    }
    trainer = make_trainer(patch)
    check_training(trainer, *face2comic_step(stirred_copies(trainer), moves, variant))


def wgan(nets: Modules, penalty: bool) -> tuple[PlainLoop, Callable[[int], None]]:
    """arXiv:1701.07875, algorithm 1, or with the penalty of arXiv:1704.00028: RMSprop for each network."""
    plain = PlainLoop(nets, rmsprop, [[name] for name in nets])

    def step(number: int) -> None:
        for update in range(5):
            x = images(6 * number + update)

            def critics(x: Named = x, update: int = update) -> Tensor:
                total = torch.zeros((), dtype=torch.float64)
                for direction in DIRECTIONS:
                    f, real = nets[f"discriminator/image/{direction[1]}"], x[direction[1]]
                    fake = nets[f"generator/{direction}"](x[direction[0]]).detach()
                    total = total - (torch.mean(f(real)) - torch.mean(f(fake)))
                    if penalty:
                        mix = uniform(number, update, direction, 0)
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
            for direction in DIRECTIONS:
                fake = nets[f"generator/{direction}"](x[direction[0]])
                total = total - torch.mean(nets[f"discriminator/image/{direction[1]}"](fake))
                total = total + 10 * torch.mean(abs(nets[f"generator/{direction[::-1]}"](fake) - x[direction[0]]))
            return total

        plain.update(["generator/ab", "generator/ba"], generators)

    return plain, step


@pytest.mark.parametrize("penalty", [False, True], ids=["clamp", "penalty"])
def test_training_of_wgan(make_trainer: Make, penalty: bool) -> None:
    losses: dict[str, Any] = {"adversarial": {"type": "wasserstein"}}
    if penalty:
        losses["penalty"] = {"type": "gradient_penalty", "weight": 10}
    discriminators = critic(0 if penalty else 0.01)
    trainer = make_trainer({"discriminators": discriminators, "losses": losses, "schedule": {"type": "wgan", "lr": LR}})
    check_training(trainer, *wgan(stirred_copies(trainer, critics=penalty), penalty))
    assert trainer.state.draws == 18


def yunjey(nets: Modules, labels: bool) -> tuple[PlainLoop, Callable[[int], None]]:
    """yunjey/mnist-svhn-transfer's four updates: an Adam over both generators, one over both discriminators."""
    generators = [n for n in nets if n.startswith("generator")]
    discriminators = [n for n in nets if n.startswith("discriminator")]
    plain = PlainLoop(nets, adam, [generators, discriminators])
    g_ab, g_ba = (nets[f"generator/{direction}"] for direction in DIRECTIONS)
    d_a, d_b = (nets[f"discriminator/image/{domain}"] for domain in "ab")

    def step(number: int) -> None:
        batch = RandomImages(size=32, classes=10)(number)
        a, b = batch.images["a"], batch.images["b"]
        of_a, of_b = (batch.labels.get(domain) for domain in "ab")

        def answers(scores: Tensor, one: float, classes: Tensor | None) -> Tensor:
            """The squared distance of scores from `one`; with labels, the cross-entropy with each image's class."""
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
def test_training_of_mnist_svhn_transfer(make_trainer: Make, labels: bool) -> None:
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
    trainer = make_trainer(patch, classes=10)
    check_training(trainer, *yunjey(stirred_copies(trainer), labels))


def test_one_direction_alone(make_trainer: Make) -> None:
    """`directions` is ["ab"]: G_ab and D_b train as usual, and there is no G_ba."""
    trainer = make_trainer(
        {"directions": ["ab"], "losses": {"cycle": None}, "schedule": {"type": "alternating", "lr": LR}}
    )
    nets = stirred_copies(trainer)
    assert sorted(nets) == ["discriminator/image/b", "generator/ab"]
    plain, g, d = PlainLoop(nets, adam, [[name] for name in nets]), nets["generator/ab"], nets["discriminator/image/b"]

    def step(number: int) -> None:
        x = images(number)
        plain.update(
            ["discriminator/image/b"], lambda: torch.mean((d(x["b"]) - 1) ** 2) + torch.mean(d(g(x["a"])) ** 2)
        )
        plain.update(["generator/ab"], lambda: torch.mean((d(g(x["a"])) - 1) ** 2))

    check_training(trainer, plain, step)


def test_the_learning_rate_decays_as_in_a_plain_loop(make_trainer: Make) -> None:
    """The factors of the 4 steps are 1, 1, 1, 1/2: they fall in the last half."""
    schedule = {"type": "alternating", "lr": LR, "steps": 4, "decay_from": 0.5}
    trainer = make_trainer({"losses": {"cycle": {"weight": 1}}, "schedule": schedule})
    plain, step = face2comic_step(stirred_copies(trainer), "own", False)

    def decaying(number: int) -> None:
        for optimizer in plain.optimizers.values():
            optimizer.param_groups[0]["lr"] = LR * (1, 1, 1, 0.5)[number]
        step(number)

    check_training(trainer, plain, decaying, steps=4)


def test_gradient_norms_are_those_of_the_updates(make_trainer: Make) -> None:
    trainer = make_trainer(
        {"discriminators": EMBEDDING, "losses": FACE2COMIC_LOSSES, "schedule": {"type": "alternating"}}
    )
    stirred_copies(trainer)
    seen = record_gradients(trainer)
    trainer.step()
    (record,) = trainer.log.read(trainer.state)
    norms = [sum(g.square().sum() for g in update.values()) ** 0.5 for update in seen]
    names = ["discriminator/embeddings", "discriminator/ab", "generator/ab", "discriminator/ba", "generator/ba"]
    found = {name: value for name, value in record.items() if name.startswith("gradient/")}
    assert found == pytest.approx({f"gradient/{n}": float(v) for n, v in zip(names, norms, strict=True)}, rel=1e-12)


def test_the_average_of_the_generators(make_trainer: Make) -> None:
    """The average is the sum of w_k (1 - b_k) b_(k+1) ... b_n over the steps k, b_k = 2^(-batch / h_k), with the
    half-life h_k = min(h, 0.05 batch k) of EDM and StyleGAN3: 0 at the first step k = 0, h from step 5 on."""
    batch, halflife, steps = 4, 1.0, 8
    trainer = make_trainer({"ema_halflife_images": halflife, "schedule": {"lr": LR, "steps": steps}}, batch=batch)
    stir(trainer)
    kept = [0.0, *(0.5 ** (batch / min(halflife, 0.05 * batch * k)) for k in range(1, steps))]
    share = [(1 - b) * math.prod(kept[k + 1 :]) for k, b in enumerate(kept)]
    assert kept[4] < kept[5] == kept[6] == 0.5 ** (batch / halflife)
    assert sum(share) == pytest.approx(1, abs=1e-15)
    averages: dict[str, dict[str, Tensor]] = {direction: {} for direction in DIRECTIONS}
    for step in range(steps):
        trainer.step()
        for direction, average in averages.items():
            network = trainer.system.networks.modules[f"generator/{direction}"]
            for key, value in network.named_parameters():
                average[key] = average.get(key, 0) + share[step] * value.detach().clone()
            if step == 0:
                # nothing of the initial weights is left
                torch.testing.assert_close(
                    trainer.state.sampling_generators()[direction].state_dict(), network.state_dict(), rtol=0, atol=0
                )
    for direction, translator in trainer.state.sampling_generators().items():
        torch.testing.assert_close(dict(translator.named_parameters()), averages[direction], rtol=0, atol=1e-14)
    assert {name for name in trainer.state.modules() if name.startswith("ema/")} == {"ema/ab", "ema/ba"}
