"""Penalties, spectral norm, augmentation and perceptual distance against closed forms, NumPy, Pillow and the SVD."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from ganlab_cyclegan.discriminator import Patch
from ganlab_embedding import EmbeddingDiscriminator
from ganlab_regularisers.losses import R1, R2, Perceptual, TotalVariation, vectors
from ganlab_regularisers.wrappers import DiffAugment, SpectralNorm, cut, moved, recoloured
from PIL import Image
from torch import Tensor, nn

import ganlab
from ganlab import Translation
from ganlab.engine.trainer import Trainer
from helpers.one_turn import Linear, noise, number, one_turn
from helpers.systems import SIZE, RandomImages

Make = Callable[..., Trainer]
Floats = np.ndarray[Any, np.dtype[np.float64]]

PATCH = {"type": "patch", "width": 4, "layers": 1}


class Square(Linear):
    """(w x)^2 / 2, whose gradient at x is (w x) w."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).square() / 2


@pytest.mark.parametrize("gamma", [0.5, 10.0])
@pytest.mark.parametrize(("loss", "at"), [(R1, "target"), (R2, "fake_for_discriminator")])
def test_the_penalty_of_a_known_slope(loss: Any, at: str, gamma: float) -> None:
    """The penalty gamma / 2 * E (w x)^2 |w|^2 at reals or fakes, and its gradient by w; only for the discriminator."""
    weight = 0.1 * noise(1, 3, SIZE, SIZE)
    made = one_turn(Square(weight), "discriminator")
    t = Translation("ab", made)
    value = loss(gamma).discriminator(t)
    x, w = (v.detach().numpy().reshape(-1, 3 * SIZE * SIZE) for v in (getattr(t, at), weight))
    products, square = x @ w[0], (w[0] ** 2).sum()
    assert number(value) == pytest.approx(gamma / 2 * (products**2).mean() * square, rel=1e-12)
    (gradient,) = torch.autograd.grad(value, t.discriminator().weight)
    # d/dw (w x)^2 |w|^2 = 2 (w x) |w|^2 x + 2 (w x)^2 w
    expected = gamma * ((products[:, None] * x).mean(axis=0) * square + (products**2).mean() * w[0])
    np.testing.assert_allclose(gradient.numpy().reshape(-1), expected, rtol=0, atol=1e-10)
    made.begin("generator", (0, 1), with_graph=True)
    assert loss(gamma).generator(t) is None


@pytest.mark.parametrize("loss", [R1, R2])
def test_an_images_score_is_the_mean_of_its_map(loss: Any) -> None:
    """The gradient of a mean of linear scores is their mean weight."""
    weight = noise(5, 3, SIZE, SIZE)
    t = Translation("ba", one_turn(Linear(weight), "discriminator"))
    assert number(loss(2.0).discriminator(t)) == pytest.approx(number(weight.mean(dim=0).square().sum()), rel=1e-12)


def test_the_penalties_of_r3gan_share_the_scores_of_its_pairing(make_trainer: Make) -> None:
    """Each of the two turns scores the real images and the fakes once, for the pairing and both penalties."""
    losses = {"adversarial": {"type": "relativistic"}, "r1": {"type": "r1"}, "r2": {"type": "r2"}}
    trainer = make_trainer({"losses": losses})
    trainer.step()
    forwards = trainer.system.networks.forwards
    assert [forwards[f"discriminator/image/{domain}.forward"] for domain in "ab"] == [4, 4]


def test_total_variation() -> None:
    t = Translation("ab", one_turn(Linear(noise(1, 3, SIZE, SIZE)), "generator"))
    fake = t.fake.detach().numpy()
    expected = np.abs(np.diff(fake, axis=2)).mean() + np.abs(np.diff(fake, axis=3)).mean()
    assert expected > 1e-3
    assert number(TotalVariation().generator(t)) == pytest.approx(expected, rel=1e-12)


class Projection(ganlab.Features):
    """Linear functions of the pixels."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.weight = nn.Parameter(noise(5, 3, size, size, seed=3))

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.weight.flatten(1).T


def by_pillow(features: Projection, images: Tensor) -> Floats:
    def resized(plane: Floats) -> Floats:
        image = Image.fromarray(plane.astype(np.float32)).resize((features.size,) * 2, Image.Resampling.BICUBIC)
        return np.asarray(image, np.float64).clip(-1, 1)

    planes = images.detach().expand(-1, 3, -1, -1).numpy()
    small = np.stack([np.stack([resized(plane) for plane in image]) for image in planes])
    return np.einsum("nchw,dchw->nd", small, features.weight.detach().numpy())


@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (2, 1, 12, 20)])
@pytest.mark.parametrize("size", [6, 16, 23])
def test_images_are_resized_as_pillow_does(shape: tuple[int, ...], size: int) -> None:
    images = noise(*shape).tanh()
    features = Projection(size)
    np.testing.assert_allclose(vectors(features, images).detach(), by_pillow(features, images), rtol=0, atol=1e-4)
    assert torch.autograd.gradcheck(lambda x: vectors(features, x), 0.3 * images[:1].requires_grad_())


@pytest.mark.parametrize("of", ["fake", "cycled"])
def test_perceptual_distance(of: Any) -> None:
    t = Translation("ab", one_turn(Linear(noise(1, 3, SIZE, SIZE)), "generator"))
    features = Projection(10)
    loss = Perceptual(features.requires_grad_(False), of)
    expected = ((by_pillow(features, getattr(t, of)) - by_pillow(features, t.source)) ** 2).mean()
    term = loss.generator(t)
    assert number(term) == pytest.approx(expected, rel=1e-5)
    assert loss.discriminator(t) is None
    (gradient,) = torch.autograd.grad(term, t.fake)
    assert gradient.abs().sum() > 0
    assert not any(p.requires_grad for p in loss.parameters())


def layers(module: nn.Module) -> list[Any]:
    return [m for m in module.modules() if isinstance(m, nn.Conv2d)]


def test_spectral_norm_divides_by_the_largest_singular_value() -> None:
    of = Patch(RandomImages().domains["a"], 4, 2, norm="none").double()
    before = [layer.weight.detach().clone() for layer in layers(of)]
    wrapped = SpectralNorm(of)
    assert sum(p.numel() for p in wrapped.parameters()) == sum(p.numel() for p in of.parameters())
    x = noise(2, 3, SIZE, SIZE)
    for _ in range(500):
        wrapped(x)
    assert len(before) == 4
    for layer, weight in zip(layers(of), before, strict=True):
        largest = torch.linalg.matrix_norm(weight.flatten(1), 2)
        torch.testing.assert_close(layer.weight, weight / largest, rtol=0, atol=1e-9)


def test_a_network_without_a_layer_to_normalise_is_refused() -> None:
    with pytest.raises(ValueError, match="Linear has no convolution"):
        SpectralNorm(Linear(noise(1, 3, SIZE, SIZE)))


@pytest.mark.parametrize("wrapper", [SpectralNorm, DiffAugment])
def test_a_wrapper_is_seen_as_what_it_wraps(wrapper: Any) -> None:
    assert wrapper(EmbeddingDiscriminator(ganlab.Domain("embedding", 4, 4, 4), 2, 1)).sees == "embeddings"


def test_colours() -> None:
    """Brightness, then saturation, then contrast, computed pixel by pixel."""
    x = noise(3, 3, 4, 5)
    torch.manual_seed(7)
    found = recoloured(x)
    torch.manual_seed(7)
    brightness, saturation, contrast = torch.rand(3, 3, dtype=torch.float64).tolist()
    for index, image in enumerate(x.numpy()):
        bright = image + brightness[index] - 0.5
        mixed = np.empty_like(bright)
        for row, column in itertools.product(range(4), range(5)):
            grey = bright[:, row, column].sum() / 3
            mixed[:, row, column] = grey + (bright[:, row, column] - grey) * 2 * saturation[index]
        expected = (mixed - mixed.mean()) * (0.5 + contrast[index]) + mixed.mean()
        np.testing.assert_allclose(found[index], expected, rtol=0, atol=1e-12)


def shifted(image: Floats, down: int, right: int) -> Floats:
    """Moves an image by `down` and `right` pixels and fills with zeros."""
    found = np.zeros_like(image)
    for row, column in itertools.product(range(image.shape[1]), range(image.shape[2])):
        if 0 <= row - down < image.shape[1] and 0 <= column - right < image.shape[2]:
            found[:, row, column] = image[:, row - down, column - right]
    return found


def test_translations() -> None:
    """An eighth of 8 x 12 pixels is 1 and 2 (1.5, rounded), so 3 x 5 moves occur, about equally often."""
    torch.manual_seed(0)
    image = noise(1, 3, 8, 12)
    known = {move: shifted(image[0].numpy(), *move) for move in itertools.product((-1, 0, 1), (-2, -1, 0, 1, 2))}
    count = 1500
    met = dict.fromkeys(known, 0)
    for one in moved(image.expand(count, -1, -1, -1), 0.125).numpy():
        (move,) = (move for move, expected in known.items() if np.array_equal(one, expected))
        met[move] += 1
    expected, error = count / 15, 5 * (count / 15) ** 0.5
    assert all(abs(times - expected) < error for times in met.values()), met


@pytest.mark.parametrize(("height", "width"), [(6, 8), (5, 9)])
def test_cutouts(height: int, width: int) -> None:
    """The hole has half of each side, rounded. Its centre is any pixel or, if its side is even, any edge of pixels."""
    torch.manual_seed(0)
    holes = {}
    sizes = [int(side / 2 + 0.5) for side in (height, width)]
    places = [range(side + 1 - size % 2) for side, size in zip((height, width), sizes, strict=True)]
    for row, column in itertools.product(*places):
        expected = np.ones((3, height, width))
        top, left = row - sizes[0] // 2, column - sizes[1] // 2
        expected[:, max(top, 0) : max(top + sizes[0], 0), max(left, 0) : max(left + sizes[1], 0)] = 0
        holes[expected.tobytes()] = 0
    count = 3000
    for one in cut(torch.ones(count, 3, height, width, dtype=torch.float64), 0.5).numpy():
        holes[one.tobytes()] += 1
    assert len(holes) == len(places[0]) * len(places[1])
    expected_count = count / len(holes)
    assert all(abs(times - expected_count) < 5 * expected_count**0.5 for times in holes.values())


def test_augmentation_is_differentiable_twice_and_can_be_left_out() -> None:
    of = Square(noise(1, 3, 4, 6))
    x = noise(2, 3, 4, 6)

    def scores(x: Tensor) -> Tensor:
        torch.manual_seed(3)
        return DiffAugment(of)(x)

    assert torch.autograd.gradcheck(scores, x.clone().requires_grad_())
    assert torch.autograd.gradgradcheck(scores, x.clone().requires_grad_())
    plain = DiffAugment(of, colour=False, translation=0, cutout=0)
    torch.testing.assert_close(plain(x), of(x), rtol=0, atol=0)
    for options in ({"colour": True}, {"translation": 0.25}, {"cutout": 0.5}):
        one = DiffAugment(of, **({"colour": False, "translation": 0.0, "cutout": 0.0} | options))
        assert not torch.allclose(one(x), of(x))


def test_both_images_of_a_pair_are_moved_and_cut_alike() -> None:
    seen: list[Tensor] = []
    of = Square(noise(1, 6, 8, 8))
    of.sees = "pairs"
    of.register_forward_pre_hook(lambda _, inputs: seen.append(*inputs))
    x = noise(5, 3, 8, 8)
    DiffAugment(of, colour=False, translation=0.25)(torch.cat([x, -x], dim=1))
    assert not torch.equal(seen[0][:, :3], x)
    torch.testing.assert_close(seen[0][:, :3], -seen[0][:, 3:], rtol=0, atol=0)
    with pytest.raises(ValueError, match="colour would mix the two images of a pair: set colour to false"):
        DiffAugment(of)


@pytest.mark.parametrize("wrapper", ["spectral_norm", "diff_augment"])
def test_each_use_is_its_own_and_a_run_resumes(make_trainer: Make, wrapper: str) -> None:
    """The next steps from a saved state are the same to the bit."""
    losses = {"adversarial": {"type": "non_saturating"}, "r1": {"type": "r1"}}
    patch = {"discriminators": {"image": {"type": wrapper, "of": PATCH}}, "losses": losses}
    patch |= {"schedule": {"lr": 2e-3}}
    trainer = make_trainer(patch)
    for _ in range(2):
        trainer.step()
    # the generator's turn scores the fake, the discriminator's turn the fake and the real
    assert trainer.system.networks.forwards["discriminator/image/a.forward"] == 2 * 3
    again = make_trainer(patch)
    for name, module in trainer.state.modules().items():
        again.state.modules()[name].load_state_dict(module.state_dict())
    state = copy.deepcopy(trainer.state.state_dict())
    trainer.step()
    again.state.load_state_dict(state)
    again.step()
    for name, module in trainer.state.modules().items():
        torch.testing.assert_close(again.state.modules()[name].state_dict(), module.state_dict(), rtol=0, atol=0)
    (record,) = again.log.read(again.state)
    assert all(np.isfinite(value) for value in record.values())


@pytest.mark.parametrize("penalty", ["r1", "r2", "gradient_penalty"])
def test_a_lazy_penalty_is_absent_or_has_its_whole_weight(make_trainer: Make, penalty: str) -> None:
    """Each step is that of a system with three times the penalty's weight, or of one without the penalty."""

    def made(**options: Any) -> Trainer:
        losses: dict[str, Any] = {"adversarial": {"type": "non_saturating"}}
        return make_trainer({"losses": losses | ({"penalty": {"type": penalty, **options}} if options else {})})

    lazy, again = (made(every=3, weight=0.5) for _ in range(2))
    for step in range(5):
        other = made(weight=1.5) if step % 3 == 0 else made()
        # `again` resumes from the state of each step: no counter decides
        for copied in (other, again):
            for name, module in lazy.state.modules().items():
                copied.state.modules()[name].load_state_dict(module.state_dict())
            copied.state.load_state_dict(copy.deepcopy(lazy.state.state_dict()))
        for trainer in (lazy, other, again):
            trainer.step()
            (record,) = trainer.log.read(trainer.state)
            assert ("loss/discriminator/ab/penalty" in record) == (step % 3 == 0)
        for name, module in lazy.state.modules().items():
            for copied in (other, again):
                torch.testing.assert_close(
                    copied.state.modules()[name].state_dict(), module.state_dict(), rtol=0, atol=0
                )
