"""XGAN's networks by their layers' sizes, its losses by NumPy, its training by a plain loop."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from ganlab_xgan import XGAN, DomainAdversarial, Reconstruction, SemanticConsistency, Teacher
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

import ganlab
from ganlab import Domain, Translation
from ganlab.engine.trainer import Trainer
from helpers.one_turn import Linear, noise, number, one_turn
from helpers.systems import SIZE, RandomImages

Make = Callable[..., Trainer]

GENERATOR = {"type": "xgan", "width": 2, "embedding": 8}


def domain(name: str, height: int = 64, width: int = 64, channels: int = 3) -> Domain:
    return Domain(name, channels, height, width)


def count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def test_parameters() -> None:
    """The paper's layers as (input channels, output channels, kernel side) give the number of weights and biases."""
    own = [(3, 32, 4), (32, 64, 4), (256, 128, 4), (128, 64, 4), (64, 3, 4)]
    shared = [(64, 128, 4), (128, 256, 4), (256, 1024, 4), (1024, 1024, 1), (1024, 512, 4), (512, 256, 4)]
    sizes = [sum(i * o * k * k + o for i, o, k in layers) for layers in (own, shared)]
    with torch.device("meta"):
        made = XGAN.pair({name: domain(name) for name in "ab"}, ("ab", "ba"))
    ab, ba = made.values()
    assert [count(g) for g in (ab, ba)] == [sum(sizes)] * 2
    assert count(nn.ModuleList([ab, ba])) == 2 * sizes[0] + sizes[1]
    text = re.sub(r"\s+", " ", inspect.getdoc(XGAN) or "")
    assert f"{sum(sizes):,} parameters, and {sizes[1]:,} of them are shared" in text


@pytest.mark.parametrize("directions", [("ab", "ba"), ("ab",)])
def test_the_directions_share_the_inner_layers_alone(directions: tuple[str, ...]) -> None:
    made: dict[str, Any] = XGAN.pair({name: domain(name) for name in "ab"}, directions, width=2, embedding=8)
    assert tuple(made) == directions
    assert len({id(g.inner_encoder) for g in made.values()} | {id(g.inner_decoder) for g in made.values()}) == 2
    assert len({id(part) for g in made.values() for part in (g.encoder, g.decoder)}) == 2 * len(directions)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (32, 48), (64, 64)])
def test_shapes_and_ranges(height: int, width: int) -> None:
    torch.manual_seed(0)
    domains = {"a": domain("a", height, width, 1), "b": domain("b", height, width)}
    for direction, g in XGAN.pair(domains, ("ab", "ba"), width=2, embedding=12).items():
        x = noise(3, domains[direction[0]].channels, height, width).float()
        features = g.features(x)
        sides = [(height // 2**n, width // 2**n) for n in (1, 2, 3, 4)]
        shapes = [(c, *side) for c, side in zip((2, 4, 8, 16), sides, strict=True)] + [(12, 1, 1)] * 2
        assert [f.shape[1:] for f in features] == shapes
        # all embeddings have the same length
        torch.testing.assert_close(features[-1].square().mean(dim=(1, 2, 3)), torch.ones(3))
        y = g(x)
        assert y.shape == (3, domains[direction[1]].channels, height, width)
        assert y.abs().max() <= 1
        # the initial weights keep the size of activations
        assert all(0.1 < f.std() < 10 for f in features)
        assert y.std() > 0.1


def test_initial_weights() -> None:
    """Each layer gives a mean square of 2 for inputs from N(0, 1)."""
    torch.manual_seed(0)
    network = XGAN(domain("a"), domain("b"), 16, 64)
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(layers) == 11
    for layer in layers:
        # without the border, where outputs have fewer inputs
        y = layer(noise(8, layer.in_channels, 16, 16).float())[..., 2:-2, 2:-2]
        assert number(y.square().mean()) == pytest.approx(2, rel=0.15)
        assert layer.bias is not None
        assert not layer.bias.any()


def norms(a: Tensor, b: Tensor) -> float:
    """Returns the mean norm of the differences, divided by the square root of the number of values of one image."""
    flat = (a - b).detach().numpy().reshape(len(a), -1)
    return float(np.sqrt((flat**2).sum(axis=1)).mean() / flat.shape[1] ** 0.5)


@pytest.mark.parametrize("direction", ["ab", "ba"])
def test_distances(direction: str) -> None:
    made = one_turn(Linear(noise(1, 3, SIZE, SIZE)), "generator")
    t = Translation(direction, made)
    g, back = made.networks.generator(direction), made.networks.generator(direction[::-1])
    expected = {
        Reconstruction(): norms(t.source, back.decode(g.encode(t.source))),
        SemanticConsistency(): norms(g.encode(t.source), back.encode(g(t.source))),
    }
    for loss, value in expected.items():
        assert value > 1e-2
        assert number(loss.generator(t)) == pytest.approx(value, rel=1e-12)
        assert loss.discriminator(t) is None


def test_the_domain_classifier_learns_and_the_encoders_unlearn() -> None:
    """The cross-entropy with labels 0 for ab and 1 for ba. The classifier lowers it, the embedding raises it."""
    made = one_turn(Linear(noise(1, 3, SIZE, SIZE)), "generator")
    loss = DomainAdversarial(width=5)
    directions = {direction: Translation(direction, made) for direction in ("ab", "ba")}
    for t in directions.values():
        loss.prepare(t)
    parameters = list(loss.double().parameters())
    assert [p.shape for p in parameters] == [(5, 8, 1, 1), (5,), (1, 5, 1, 1), (1,)]
    for label, t in enumerate(directions.values()):
        term = loss.generator(t)
        first, bias, second, offset = (p.detach().numpy().reshape(len(p), -1) for p in parameters)
        x = np.moveaxis(t.embedding.detach().numpy(), 1, -1)
        logits = np.maximum(x @ first.T + bias[:, 0], 0) @ second[0] + offset[0]
        of_b = 1 / (1 + np.exp(-logits))
        expected = -np.log(of_b if label else 1 - of_b).mean()
        assert number(term) == pytest.approx(expected, rel=1e-12)
        # torch's cross-entropy, without the gradient reversal
        plain = loss.classifier(t.embedding)
        entropy = binary_cross_entropy_with_logits(plain, torch.full_like(plain, label))
        found = torch.autograd.grad(term, [t.embedding, *parameters], retain_graph=True)
        wanted = torch.autograd.grad(entropy, [t.embedding, *parameters])
        assert all(g.abs().max() > 1e-6 for g in wanted)
        signs = [-1, 1, 1, 1, 1]
        for one, other, sign in zip(found, wanted, signs, strict=True):
            torch.testing.assert_close(one, sign * other, rtol=0, atol=1e-14)


def test_one_domain_has_no_domain_to_be_told_from(make_trainer: Make) -> None:
    losses = {"cycle": None, "domain": {"type": "domain_adversarial"}}
    with pytest.raises(ganlab.SpecError, match=r"losses\.domain.* direction ba, which `directions` leaves out"):
        make_trainer({"directions": ["ab"], "losses": losses})


class Averages(ganlab.Features):
    """The mean of each channel, times a weight that must not change."""

    size = SIZE

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3)) * self.factor


@pytest.mark.parametrize("only", ["a", "b", "both"])
def test_the_teacher(only: Any) -> None:
    made = one_turn(Linear(noise(1, 3, SIZE, SIZE)), "generator")
    loss = Teacher(Averages().requires_grad_(False), only)
    directions = {direction: Translation(direction, made) for direction in ("ab", "ba")}
    for t in directions.values():
        loss.prepare(t)
    learned = [p for p in loss.double().parameters() if p.requires_grad]
    assert [p.shape for p in learned] == [(3, 8), (3,)]
    weight, bias = (p.detach().numpy() for p in learned)
    for direction, t in directions.items():
        term = loss.generator(t)
        if only not in (direction[0], "both"):
            assert term is None
            continue
        taught = t.source.numpy().mean(axis=(2, 3)) * [1, 2, 3]
        mapped = t.embedding.detach().numpy().mean(axis=(2, 3)) @ weight.T + bias
        assert term is not None
        assert number(term) == pytest.approx(np.sqrt(((taught - mapped) ** 2).sum(axis=1)).mean() / 3**0.5, rel=1e-9)
        assert all(g.any() for g in torch.autograd.grad(term, [*learned, t.embedding]))


LOSSES = {
    "adversarial": {"type": "non_saturating"},
    "cycle": None,
    "reconstruction": {"type": "reconstruction", "weight": 3},
    "domain": {"type": "domain_adversarial", "weight": 0.5, "width": 4},
    "semantic": {"type": "semantic_consistency", "weight": 2},
}


def test_an_update_of_the_generators(make_trainer: Make) -> None:
    """The gradients are those of the paper's sum; the classifier's term has the opposite sign for the classifier."""
    trainer = make_trainer({"generator": GENERATOR, "losses": LOSSES})
    nets = copy.deepcopy(nn.ModuleDict({n.replace(".", "_"): m for n, m in trainer.system.networks.modules.items()}))
    classifier: Any = copy.deepcopy(trainer.system.losses["domain"].classifier)
    seen: list[list[Tensor | None]] = []
    moving = [*trainer.system.networks.modules["generator/ab"].parameters()]
    moving += [*trainer.system.networks.modules["generator/ba"].parameters()]
    moving += [*trainer.system.losses["domain"].parameters()]
    trainer.state.optimizers["generator"].register_step_pre_hook(lambda *_: seen.append([p.grad for p in moving]))
    trainer.step()
    x = RandomImages()(0).images
    total = torch.zeros((), dtype=torch.float64)
    entropy = torch.zeros((), dtype=torch.float64)
    for label, direction in enumerate(("ab", "ba")):
        g: Any = nets[f"generator/{direction}"]
        back: Any = nets[f"generator/{direction[::-1]}"]
        d, a = nets[f"discriminator/image/{direction[1]}"], x[direction[0]]
        e, fake = g.encode(a), g(a)
        total = total - torch.log(torch.sigmoid(d(fake))).mean()
        for weight, difference in ((3, back.decode(e) - a), (2, back.encode(fake) - e)):
            lengths = difference.flatten(1).square().sum(dim=1).sqrt() / difference[0].numel() ** 0.5
            total = total + weight * lengths.mean()
        logits = classifier(e)
        entropy = entropy + binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))
    generators = [p for direction in ("ab", "ba") for p in nets[f"generator/{direction}"].parameters()]
    wanted = [*torch.autograd.grad(total - 0.5 * entropy, generators, retain_graph=True)]
    wanted += [*torch.autograd.grad(0.5 * entropy, list(classifier.parameters()))]
    torch.testing.assert_close(seen[0], wanted, rtol=1e-8, atol=1e-12)


def test_a_run_resumes(make_trainer: Make) -> None:
    """The next steps from a saved state are the same to the bit, with shared layers, a classifier and averages."""
    patch = {"generator": GENERATOR, "losses": LOSSES, "schedule": {"lr": 2e-3}, "ema_halflife_images": 10}
    trainer, again = make_trainer(patch), make_trainer(patch)
    trainer.step()
    for name, module in trainer.state.modules().items():
        again.state.modules()[name].load_state_dict(module.state_dict())
    again.state.load_state_dict(copy.deepcopy(trainer.state.state_dict()))
    for one in (trainer, again):
        one.step()
        one.step()
    for name, module in trainer.state.modules().items():
        torch.testing.assert_close(again.state.modules()[name].state_dict(), module.state_dict(), rtol=0, atol=0)
    classifiers = [one.system.losses["domain"].state_dict() for one in (trainer, again)]
    torch.testing.assert_close(*classifiers, rtol=0, atol=0)
