"""`check_generator`, `check_discriminator`, and each requirement that a network can fail."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle, relu

import ganlab
from ganlab import Domain, testing
from ganlab.testing import networks, requirement
from ganlab.testing.simple import IMAGES, SimpleDiscriminator, SimpleGenerator
from helpers.broken import Broken, names_of, verify_every_condition_fails, verify_sentence
from helpers.systems import Around


class Odd(SimpleGenerator):
    def __init__(self, source: Domain, target: Domain) -> None:
        super().__init__(source, target)
        self.grouped = nn.Conv2d(source.channels, 4, 3, groups=2)


class Rank3(SimpleGenerator):
    def encode(self, images: Tensor) -> Tensor:
        return super().encode(images).flatten(2)

    def decode(self, embedding: Tensor) -> Tensor:
        return super().decode(embedding.unflatten(2, (8, 8)))


class TwoEmbeddings(SimpleGenerator):
    def features(self, images: Tensor) -> Sequence[Tensor]:
        return [2 * self.encode(images)]


class Unbounded(SimpleGenerator):
    def __init__(self, source: Domain, target: Domain) -> None:
        super().__init__(source, target)
        self.decoder = nn.Sequential(self.decoder[0])


class Smaller(SimpleGenerator):
    def decode(self, embedding: Tensor) -> Tensor:
        return super().decode(embedding)[..., 1:]


class Rounds(SimpleGenerator):
    def decode(self, embedding: Tensor) -> Tensor:
        return super().decode(embedding.round())


class Keeps(SimpleGenerator):
    """Keeps its last embedding, with the graph."""

    def encode(self, images: Tensor) -> Tensor:
        self.last = super().encode(images)
        return self.last


class HiddenSkip(SimpleGenerator):
    def encode(self, images: Tensor) -> Tensor:
        self.skip = images.detach()
        return super().encode(images)

    def decode(self, embedding: Tensor) -> Tensor:
        return (super().decode(embedding) + self.skip) / 2


class DecodesInPlace(SimpleGenerator):
    def decode(self, embedding: Tensor) -> Tensor:
        return super().decode(relu(embedding, inplace=True))


class EncodesInPlace(SimpleGenerator):
    def encode(self, images: Tensor) -> Tensor:
        return super().encode(images.clamp_(-0.5, 0.5))


class OwnForward(SimpleGenerator):
    def forward(self, images: Tensor) -> Tensor:
        return (super().forward(images) + images) / 2


class UnusedLayer(SimpleGenerator):
    def __init__(self, source: Domain, target: Domain) -> None:
        super().__init__(source, target)
        self.head = nn.Conv2d(4, 4, 1)


class Clock(SimpleGenerator):
    def __init__(self, source: Domain, target: Domain) -> None:
        super().__init__(source, target)
        self.encoder[0].weight.data += time.perf_counter_ns() % 1_000_003


class OwnRandom(SimpleGenerator):
    def encode(self, images: Tensor) -> Tensor:
        return super().encode(images) + float(np.random.default_rng().random())


class HiddenNoise(SimpleGenerator):
    def encode(self, images: Tensor) -> Tensor:
        embedding = super().encode(images)
        return embedding + torch.randn_like(embedding)


class DrawsRarely(SimpleGenerator):
    def encode(self, images: Tensor) -> Tensor:
        return super().encode(images if random.random() > 1e-9 else images.flip(3))


class HiddenTurns(SimpleGenerator):
    """Turns every second image, as a buffer counts them."""

    def __init__(self, source: Domain, target: Domain) -> None:
        super().__init__(source, target)
        self.register_buffer("uses", torch.zeros(()))

    def encode(self, images: Tensor) -> Tensor:
        self.uses += 1
        return super().encode(images.flip(3) if self.uses % 2 else images)


class Centred(SimpleGenerator):
    """Subtracts the mean of the first images that it sees."""

    stateful = True
    mean: Tensor | None = None

    def encode(self, images: Tensor) -> Tensor:
        self.mean = images.detach().mean() if self.mean is None else self.mean
        return super().encode(images - self.mean)


class OutsideState(SimpleGenerator):
    stateful = True
    uses = 0

    def encode(self, images: Tensor) -> Tensor:
        self.uses += self.training
        return super().encode(images) * self.uses


class Lerps(SimpleGenerator):
    def __init__(self, source: Domain, target: Domain) -> None:
        super().__init__(source, target)
        self.paint = nn.Conv2d(target.channels, target.channels, 1)

    def decode(self, embedding: Tensor) -> Tensor:
        images = super().decode(embedding).float() if embedding.dtype != torch.float64 else super().decode(embedding)
        return images.lerp(self.paint(images).tanh(), 0.5)


class Views(SimpleGenerator):
    def encode(self, images: Tensor) -> Tensor:
        embedding = super().encode(images)
        return embedding.view(len(embedding), -1).view(embedding.shape)


class Chaotic(SimpleGenerator):
    def decode(self, embedding: Tensor) -> Tensor:
        return super().decode((1000 * embedding).sin())


class Strides(SimpleGenerator):
    """Reads its input's memory as if the input were contiguous."""

    def encode(self, images: Tensor) -> Tensor:
        embedding = super().encode(images)
        return embedding.as_strided(embedding.shape, torch.empty(embedding.shape).stride())


class Plain(ganlab.Discriminator):
    """Implements `forward` alone."""

    def __init__(self, shape: Domain) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(shape.channels, 4, 4, 2, 1), nn.Tanh(), nn.Conv2d(4, 1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.net(x)
        return scores


class OddScores(SimpleDiscriminator):
    def __init__(self, shape: Domain) -> None:
        super().__init__(shape)
        self.grouped = nn.Conv2d(shape.channels, 4, 3, groups=2)


class Frozen(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).detach()


class ScoresRootAtZero(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + (x - x.detach()).square().sum().sqrt()


class Flat(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).mean((1, 2, 3))


class Blind(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.detach())


class _OneSided(torch.autograd.Function):
    """tanh without a second derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.slope = 1 - x.detach().tanh().square()
        return x.tanh()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * ctx.slope


class FirstOrder(Plain):
    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = _OneSided.apply(super().forward(x))
        return scores


class Replaces(SimpleDiscriminator):
    def after_update(self) -> None:
        self.net[0].weight = nn.Parameter(self.net[0].weight.clamp(-0.01, 0.01))


class DividesByZero(SimpleDiscriminator):
    def after_update(self) -> None:
        self.net[0].weight /= 0


class TwoScores(SimpleDiscriminator):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).tanh()


class SharpensAfterUpdate(SimpleGenerator):
    def after_update(self) -> None:
        self.encoder[0].weight = nn.Parameter(2 * self.encoder[0].weight)


class LateHead(ganlab.Discriminator):
    """Makes a layer once it knows the size of its input."""

    def __init__(self, shape: Domain) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(shape.channels, 4, 3), nn.Sequential()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.body(x).tanh()
        if not self.head:
            self.head.append(nn.Conv2d(hidden.shape[1], 1, 3).to(x))
        scores: Tensor = self.head(hidden)
        return scores


class CountsUpdates(SimpleDiscriminator):
    updates = 0

    def after_update(self) -> None:
        self.updates += 1


class NumpyWeights(SimpleDiscriminator):
    def __init__(self, shape: Domain) -> None:
        super().__init__(shape)
        self.net[0].weight.data += float(np.random.default_rng().random())


BROKEN: list[Broken] = [
    (testing.check_generator, Odd, "built from its options.* ValueError: in_channels must be divisible"),
    (testing.check_generator, Rank3, r"encodes to.* \(2, 3, 16, 16\) to \(2, 4, 64\)"),
    (testing.check_generator, TwoEmbeddings, "last one is the embedding.* differ by up to "),
    (testing.check_generator, Unbounded, r"in \[-1, 1\].* values go from -\d"),
    (testing.check_generator, Smaller, r"images of the target domain.* \(2, 3, 16, 16\) to \(2, 3, 16, 15\)"),
    (testing.check_generator, Keeps, "can be copied.* RuntimeError: Only Tensors created explicitly"),
    (
        testing.check_generator,
        HiddenSkip,
        "embedding alone.* after it encoded other images, its output differs by up to",
    ),
    (
        testing.check_generator,
        DecodesInPlace,
        "embedding alone and does not change it.* changes the embedding in place",
    ),
    (testing.check_generator, EncodesInPlace, "does not change its input.* it changes the input in place"),
    (testing.check_generator, OwnForward, r"equals decode\(encode\(images\)\).* images differ by up to"),
    (testing.check_generator, Rounds, "gradients to the embedding.* all gradients of the embedding are 0"),
    (testing.check_generator, UnusedLayer, "all parameters.* no gradient reaches head.weight, head.bias"),
    (testing.check_generator, Clock, "initial weights.* encoder.0.weight differ"),
    (testing.check_generator, OwnRandom, "same seed.* with one seed two outputs differ by up to"),
    (testing.check_generator, DrawsRarely, "same seed.* it draws from Python's random, not from torch's generator"),
    (testing.check_generator, HiddenNoise, "stateful is False, but it draws from torch's global generator"),
    (testing.check_generator, HiddenTurns, "stateful is False, but two outputs differ by up to"),
    (testing.check_generator, OutsideState, r"state.* each use changes 'uses' \(1, then 2\), .* use register_buffer"),
    (testing.check_generator, Centred, "state.* in eval mode outputs differ by up to"),
    (testing.check_discriminator, CountsUpdates, r"state.* each use changes 'updates' \(1, then 2\)"),
    (testing.check_generator, Lerps, "autocast.* RuntimeError"),
    (testing.check_generator, Chaotic, "autocast.* mean error of the output is"),
    (testing.check_generator, Strides, "channels_last.* outputs differ by up to"),
    (testing.check_generator, Views, "channels_last.* RuntimeError: view"),
    (testing.check_discriminator, OddScores, "built from its options.* ValueError: in_channels must be divisible"),
    (testing.check_discriminator, Frozen, "gradients to its input.* the scores have no gradient"),
    (testing.check_discriminator, ScoresRootAtZero, "gradients to its input.* 1536 of 1536 gradients of its input"),
    (testing.check_discriminator, Flat, r"scores \(N, K, h, w\).* it gives \(2\)"),
    (testing.check_discriminator, Blind, "gradients to its input.* no gradient reaches its input"),
    (testing.check_discriminator, FirstOrder, r"differentiated twice.* is \S+ by autograd, \S+ by finite differences"),
    (testing.check_discriminator, Replaces, "after_update.* some of its 4 parameters were replaced"),
    (testing.check_discriminator, DividesByZero, "after_update.* not finite: net.0.weight"),
    (testing.check_generator, SharpensAfterUpdate, "after_update.* some of its 4 parameters were replaced"),
    (testing.check_discriminator, TwoScores, r"has features.* they differ by up to \S+; losses read the features"),
    (
        testing.check_discriminator,
        LateHead,
        "initial weights.* its first forward makes head.0.weight, head.0.bias; make",
    ),
    (testing.check_discriminator, NumpyWeights, "initial weights.* net.0.weight differ"),
]


@pytest.mark.parametrize(("check", "cls", "sentence"), BROKEN, ids=names_of)
def test_a_failed_requirement_is_named(check: Callable[..., None], cls: type, sentence: str) -> None:
    verify_sentence(check, cls, sentence)


def test_every_requirement_and_condition_fails_for_one_of_them() -> None:
    verify_every_condition_fails([networks, requirement], BROKEN)


class UNet(SimpleGenerator):
    """Passes its skip connection inside the embedding, as the interface says."""

    def __init__(self, source: Domain, target: Domain) -> None:
        super().__init__(source, target)
        self.first = nn.Conv2d(source.channels, 2, 3, 1, 1)
        self.encoder = nn.Sequential(nn.Conv2d(2, 4, 4, 2, 1), nn.Tanh())
        self.last = nn.Conv2d(target.channels + 2, target.channels, 3, 1, 1)

    def encode(self, images: Tensor) -> Tensor:
        skip = self.first(images)
        return torch.cat([self.encoder(skip), pixel_unshuffle(skip, 2)], 1)

    def decode(self, embedding: Tensor) -> Tensor:
        deep, skip = embedding[:, :4], pixel_shuffle(embedding[:, 4:], 2)
        images: Tensor = self.last(torch.cat([self.decoder(deep), skip], 1)).tanh()
        return images


def test_skips_can_travel_in_the_embedding() -> None:
    testing.check_generator(UNet)


class Drops(SimpleGenerator):
    def decode(self, embedding: Tensor) -> Tensor:
        return super().decode(self.dropout(embedding))

    def __init__(self, source: Domain, target: Domain) -> None:
        super().__init__(source, target)
        self.dropout = nn.Dropout(0.5)


def test_a_generator_may_have_dropout() -> None:
    testing.check_generator(Drops)


def test_a_nested_component_is_the_class_that_is_given() -> None:
    testing.check_discriminator(Around)
    with pytest.raises(AssertionError, match=r'^Around failed the requirement "gives scores'):
        testing.check_discriminator(Around, of=Flat)


class Attentive(SimpleDiscriminator):
    """Has a second head that losses read among the activations."""

    def __init__(self, shape: Domain) -> None:
        super().__init__(shape)
        self.logits = nn.Conv2d(4, 3, 1)

    def features(self, x: Tensor) -> list[Tensor]:
        hidden, scores = super().features(x)
        return [hidden, self.logits(hidden), scores]


class AttentiveGenerator(SimpleGenerator):
    def __init__(self, source: Domain, target: Domain) -> None:
        super().__init__(source, target)
        self.logits = nn.Conv2d(4, 3, 1)

    def features(self, images: Tensor) -> list[Tensor]:
        embedding = self.encode(images)
        return [self.logits(embedding), embedding]


def test_a_head_may_serve_losses_alone() -> None:
    testing.check_discriminator(Attentive)
    testing.check_generator(AttentiveGenerator)


class OfPairs(SimpleDiscriminator):
    """Sees a source and its translation."""

    sees = "pairs"

    def __init__(self, shape: Domain) -> None:
        super().__init__(shape)
        assert shape.channels in (2, 6)


def test_a_discriminator_of_pairs_is_given_both_images() -> None:
    testing.check_discriminator(OfPairs)
    testing.check_discriminator(Around, of=OfPairs, images=IMAGES._replace(channels=1))


class Projected(ganlab.Discriminator):
    """A fixed projection and a head (arXiv:2111.01007)."""

    def __init__(self, shape: Domain, width: int = 8) -> None:
        super().__init__()
        self.fixed = nn.Conv2d(shape.channels, width, 3, 1, 1).requires_grad_(False)
        self.head = nn.Conv2d(width, 1, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.fixed(x).tanh())
        return scores


def test_parameters_may_be_frozen() -> None:
    testing.check_discriminator(Projected)


def test_a_nested_component_has_options() -> None:
    testing.check_discriminator(Around, of=(Around, {"of": (Projected, {"width": 2})}))
    with pytest.raises(AssertionError, match=r'^Projected failed the requirement "is a Discriminator .* depth: 1: '):
        testing.check_discriminator(Around, of=(Around, {"of": (Projected, {"depth": 1})}))


def test_an_option_that_is_not_allowed_is_named() -> None:
    with pytest.raises(
        AssertionError, match=r'^Around failed the requirement "is a Discriminator .* clamp: 1: Extra inputs'
    ):
        testing.check_discriminator(Around, clamp=1)


class Normed(SimpleDiscriminator):
    def __init__(self, shape: Domain, by: Literal["spectral", "weight"]) -> None:
        super().__init__(shape)
        norm = {"spectral": nn.utils.spectral_norm, "weight": nn.utils.weight_norm}[by]
        norm(self.net[0])


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("by", ["spectral", "weight"])
def test_a_discriminator_need_not_be_copied(by: str) -> None:
    network = Normed(IMAGES, by)  # type: ignore[arg-type]
    network(torch.zeros(1, 3, 16, 16))
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(network)
    testing.check_discriminator(Normed, by=by)


class LazyGenerator(SimpleGenerator):
    def __init__(self, source: Domain, target: Domain) -> None:
        super().__init__(source, target)
        self.encoder = nn.Sequential(nn.LazyConv2d(4, 4, 2, 1), nn.Tanh())
        self.decoder = nn.Sequential(nn.LazyConvTranspose2d(target.channels, 4, 2, 1), nn.Tanh())


class LazyDiscriminator(SimpleDiscriminator):
    def __init__(self, shape: Domain) -> None:
        super().__init__(shape)
        self.net = nn.Sequential(nn.Flatten(), nn.LazyLinear(1), nn.Unflatten(1, (1, 1, 1)))


class LazyNorm(SimpleDiscriminator):
    def __init__(self, shape: Domain) -> None:
        super().__init__(shape)
        self.net = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.LazyConv2d(1, 3))


def test_lazy_layers_have_their_shapes_from_a_first_forward() -> None:
    testing.check_generator(LazyGenerator)
    testing.check_discriminator(LazyDiscriminator)
    testing.check_discriminator(LazyNorm)
    testing.check_discriminator(Around, of=LazyDiscriminator)


@pytest.mark.parametrize(
    ("check", "cls", "passes"),
    [
        (testing.check_generator, SimpleGenerator, True),
        (testing.check_discriminator, SimpleDiscriminator, True),
        (testing.check_generator, Rank3, False),
    ],
)
def test_torchs_generator_is_restored(check: Callable[[type], None], cls: type, passes: bool) -> None:
    before = torch.manual_seed(99).get_state()
    with nullcontext() if passes else pytest.raises(AssertionError):
        check(cls)
    assert torch.equal(torch.get_rng_state(), before)
