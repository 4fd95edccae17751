"""`check_loss` and each requirement that a loss can fail."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import numpy as np
import pytest
import torch
from pydantic import AfterValidator
from torch import Tensor, nn

import ganlab
from ganlab import Domain, Translation, testing
from ganlab.testing import building, losses
from ganlab.testing.simple import SimpleDiscriminator, SimpleGenerator, SimpleLoss
from helpers.broken import Broken, names_of, verify_every_condition_fails, verify_sentence

EXTRAS = {"mask": ganlab.Extra(1, "classes"), "depth": ganlab.Extra(2)}
LABELLED = Domain("labelled", 3, 16, 16, classes=3)


class Untyped(SimpleLoss):
    def __init__(self, margin=1.0):  # type: ignore[no-untyped-def]
        super().__init__()


class Required(SimpleLoss):
    def __init__(self, margin: float) -> None:
        super().__init__()


class Doubles(SimpleLoss):
    def __init__(self, margin: Annotated[float, AfterValidator(lambda margin: 2 * margin)]) -> None:
        super().__init__()


class OneWay(SimpleLoss):
    def prepare(self, t: Translation) -> None:
        self.weight = {"ab": 1.0}[t.direction]


class OnExtras(SimpleLoss):
    def generator(self, t: Translation) -> Tensor:
        mask, depth = t.source_extras["mask"], t.reverse.target_extras["depth"]
        assert mask.unique().tolist() == [0, 1]
        assert depth.dtype == t.source.dtype
        return ((t.fake - depth[:, :1]) * mask).square().mean()


class SpoilsExtras(OnExtras):
    def generator(self, t: Translation) -> Tensor:
        t.target_extras["depth"].zero_()
        return super().generator(t)


class Vector(SimpleLoss):
    def generator(self, t: Translation) -> Tensor:
        return (t.score(t.fake) - 1).square().mean((1, 2, 3))


class Infinite(SimpleLoss):
    def generator(self, t: Translation) -> Tensor:
        return t.score(t.fake).mean() / 0


class KeepsCritic(SimpleLoss):
    def prepare(self, t: Translation) -> None:
        setattr(self, f"critic_{t.direction}", t.discriminator())


class FewerDimensions(SimpleLoss):
    def generator(self, t: Translation) -> Tensor:
        return t.score(t.fake.mean(1)).mean()


class Silent(ganlab.Loss):
    """No terms."""


class Writes(SimpleLoss):
    def discriminator(self, t: Translation) -> Tensor:
        t.target.detach().clamp_(-0.5, 0.5)
        return super().discriminator(t)


class Bypasses(SimpleLoss):
    def discriminator(self, t: Translation) -> Tensor:
        return t.score(t.fake.detach()).mean() - t.score(t.target).mean()


class Misspelt(SimpleLoss):
    def prepair(self, t: Translation) -> None:
        """Never called."""


class Detached(SimpleLoss):
    def generator(self, t: Translation) -> Tensor:
        return t.score(t.fake.detach()).detach().mean()


class WrongPlayer(SimpleLoss):
    def generator(self, t: Translation) -> Tensor:
        return t.score(t.target).mean()


class RootAtZero(SimpleLoss):
    def generator(self, t: Translation) -> Tensor:
        return (t.fake - t.fake.detach()).square().sum().sqrt()


class KeepsGraph(SimpleLoss):
    def generator(self, t: Translation) -> Tensor:
        self.kept = t.fake
        return super().generator(t)

    def discriminator(self, t: Translation) -> Tensor:
        return t.score(self.kept).mean()


class NeverLearns(SimpleLoss):
    trains = "discriminator"

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def generator(self, t: Translation) -> Tensor:
        return self.scale * super().generator(t)


class Remembers(SimpleLoss):
    """Keeps a value of the first direction that it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("first", torch.zeros(()))

    def generator(self, t: Translation) -> Tensor:
        if not self.first:
            self.first = t.fake.detach().mean()
        return super().generator(t) * self.first


class RemembersAside(SimpleLoss):
    """Keeps a value of the first direction that it sees in a plain attribute."""

    first: Tensor | None = None

    def generator(self, t: Translation) -> Tensor:
        if self.first is None:
            self.first = t.fake.detach().mean()
        return super().generator(t) * self.first


class Rolls(SimpleLoss):
    def discriminator(self, t: Translation) -> Tensor:
        return super().discriminator(t) * torch.rand(())


class RollsRarely(SimpleLoss):
    """Flips labels rarely."""

    def discriminator(self, t: Translation) -> Tensor:
        return super().discriminator(t) * (-1 if random.random() < 1e-9 else 1)


class RollsArrays(SimpleLoss):
    def discriminator(self, t: Translation) -> Tensor:
        return super().discriminator(t) * (-1 if np.random.rand() < 1e-9 else 1)  # noqa: NPY002


class RollsAside(SimpleLoss):
    """Draws from torch's generator and puts it back."""

    def discriminator(self, t: Translation) -> Tensor:
        with torch.random.fork_rng():
            return super().discriminator(t) * torch.rand(())


class Counts(SimpleLoss):
    count = 0

    def discriminator(self, t: Translation) -> Tensor:
        self.count += t.direction == "ba"
        return super().discriminator(t) * (1 + self.count // 2)


class FirstSeen(SimpleLoss):
    """Divides by the mean of the first fakes that it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.mean: dict[str, Tensor] = {}

    def generator(self, t: Translation) -> Tensor:
        mean = self.mean.setdefault(t.direction, t.fake.detach().mean())
        return super().generator(t) / mean


class PreparesWeights(SimpleLoss):
    def prepare(self, t: Translation) -> None:
        for weights in t.discriminator().parameters():
            weights.zero_()


class Clamps(SimpleLoss):
    """The idiom of the code of WGAN's authors."""

    def discriminator(self, t: Translation) -> Tensor:
        for weights in t.discriminator().parameters():
            weights.data.clamp_(-0.01, 0.01)
        return super().discriminator(t)


class TakesCritic(SimpleLoss):
    def __init__(self, critic: ganlab.Discriminator) -> None:
        super().__init__()


class LeavesEvalMode(SimpleLoss):
    def generator(self, t: Translation) -> Tensor:
        t.discriminator().eval()
        return super().generator(t)


class CallsBackward(SimpleLoss):
    def generator(self, t: Translation) -> Tensor:
        t.fake.mean().backward(retain_graph=True)  # type: ignore[no-untyped-call]
        return super().generator(t)


class LogsInfinity(SimpleLoss):
    def generator(self, t: Translation) -> Tensor:
        t.log("ratio", t.score(t.fake).mean() / 0)
        return super().generator(t)


class Overdescribed(Required):
    """A loss.

    Args:
        gamma: there is none.
    """


class Scaled(SimpleLoss):
    """Multiplies the terms of another loss."""

    def __init__(self, of: ganlab.Loss, factor: float = 2.0) -> None:
        super().__init__()
        self.of, self.factor = of, factor

    def generator(self, t: Translation) -> Tensor:
        term = self.of.generator(t)
        assert isinstance(term, Tensor)
        return self.factor * term


class OnlyDouble(SimpleLoss):
    def generator(self, t: Translation) -> Tensor:
        return (t.score(t.fake) @ torch.eye(8, dtype=torch.float64)).mean()


class Cancels(SimpleLoss):
    def generator(self, t: Translation) -> Tensor:
        return super().generator(t) + 1e12 - 1e12


BROKEN: list[Broken] = [
    (testing.check_loss, Untyped, "round trip through JSON.* gives its option 'margin' no type"),
    (testing.check_loss, Required, "round trip through JSON.* margin: .* Field required"),
    (partial(testing.check_loss, margin=1.0), Doubles, "round trip.*margin=2.0.* comes back as .*margin=4.0"),
    (
        partial(testing.check_loss, margin=1.0),
        Overdescribed,
        "describes only options.* there is no option 'gamma'.* known are: margin",
    ),
    (
        testing.check_loss,
        TakesCritic,
        "is a Loss.* takes a discriminator, 'critic': name it in the spec's `discriminators` and read its scores with",
    ),
    (partial(testing.check_loss, of=SimpleLoss()), Scaled, r"round trip.* of is SimpleLoss\(\); pass a class, or "),
    (testing.check_loss, Misspelt, "spells.* it has 'prepair'; did you mean 'prepare'"),
    (testing.check_loss, OneWay, "prepared for each direction.* KeyError: 'ba'"),
    (testing.check_loss, PreparesWeights, "prepared.* its prepare changes the weights of discriminator/image/a, "),
    (testing.check_loss, SimpleDiscriminator, "is a Loss .*it is <class"),
    (
        testing.check_loss,
        KeepsCritic,
        "submodule.* it keeps discriminator/image/a, discriminator/image/b, which the gen",
    ),
    (
        testing.check_loss,
        FewerDimensions,
        "finite scalars.* RuntimeError: Given groups=1, .* to have 3 channels, but got 2",
    ),
    (testing.check_loss, Vector, r"finite scalars.* shape \(2,\)"),
    (testing.check_loss, Infinite, "finite scalars.* generator/ab = -?inf"),
    (testing.check_loss, Silent, "at least.* gives no player a term"),
    (
        testing.check_loss,
        Clamps,
        "nothing else.* the discriminators' term in direction ab changes the weights of discriminator/image/b; a"
        " network adjusts its weights in Discriminator.after_update",
    ),
    (
        testing.check_loss,
        LeavesEvalMode,
        "the generators' term in direction ab leaves discriminator/image/b in another",
    ),
    (testing.check_loss, LogsInfinity, "finite scalars.* the generators' term in direction ab logs 'ratio' as -?inf"),
    (
        testing.check_loss,
        CallsBackward,
        "ab gives gradients to the parameters of generator/ab; return the term instead",
    ),
    (testing.check_loss, Writes, "nothing else.* the discriminators' term in direction ab changes t.target in place"),
    (
        testing.check_loss,
        Detached,
        "gradients that reach.* the generators' term in direction ab has no gradient: .* return None",
    ),
    (testing.check_loss, WrongPlayer, "in direction ab reaches no generator, only discriminator/image/b"),
    (testing.check_loss, RootAtZero, "the generators' term in direction ab has gradients that are not finite"),
    (
        testing.check_loss,
        KeepsGraph,
        "in direction ab reaches generator/.*, which a discriminators' turn does not update",
    ),
    (
        testing.check_loss,
        Bypasses,
        "schedule's pool.* term in direction ab and ba reads t.fake, which bypasses the pool",
    ),
    (testing.check_loss, NeverLearns, "gradients that reach.* no discriminators' term reaches the loss's own scale"),
    (testing.check_loss, Remembers, "whichever direction comes first.* ab first .*ba first"),
    (testing.check_loss, RemembersAside, r"state.* its use has changed 'first' \(None, then an array \(\)\), which"),
    (testing.check_loss, Rolls, "t.uniform.* it draws from torch's global generator"),
    (testing.check_loss, RollsRarely, "t.uniform.* it draws from Python's random"),
    (testing.check_loss, RollsArrays, "t.uniform.* it draws from numpy's global generator"),
    (testing.check_loss, RollsAside, r"t.uniform.* seeds 0 and 1, differ by up to 0\.\d"),
    (testing.check_loss, Counts, r"state.* each use changes 'count' \(1, then 2\), .* register_buffer, or t.step"),
    (
        testing.check_loss,
        FirstSeen,
        r"state.* its use has changed 'mean' \(dict of 0, then dict of 2\), which",
    ),
    (testing.check_loss, OnlyDouble, "float32.* RuntimeError"),
    (testing.check_loss, Cancels, "float32.* float64 .*, float32 "),
]


@pytest.mark.parametrize(("check", "cls", "sentence"), BROKEN, ids=names_of)
def test_a_failed_requirement_is_named(check: Callable[..., None], cls: type, sentence: str) -> None:
    verify_sentence(check, cls, sentence)


def test_every_requirement_and_condition_fails_for_one_of_them() -> None:
    verify_every_condition_fails([losses, building], BROKEN)


def test_a_discriminators_term_may_read_fakes_where_images_have_classes() -> None:
    """A pool does not keep the classes of its fakes, so a loss with classes may read `t.fake`."""
    testing.check_loss(Bypasses, images=LABELLED)


def test_the_loss_that_they_derive_from_passes() -> None:
    before = torch.manual_seed(99).get_state()
    testing.check_loss(SimpleLoss)
    # the check leaves torch's global generator as it was
    assert torch.equal(torch.get_rng_state(), before)


def test_nested_components_have_options() -> None:
    testing.check_loss(Scaled, factor=3.0)
    testing.check_loss(Scaled, of=(Scaled, {"factor": 3.0, "of": SimpleLoss}))
    with pytest.raises(AssertionError, match=r'^Scaled failed the requirement "is a Loss .* rate: 3: Extra inputs'):
        testing.check_loss(Scaled, of=(Scaled, {"rate": 3}))
    with pytest.raises(AssertionError, match=r'^SimpleDiscriminator failed the requirement "is a Loss '):
        testing.check_loss(Scaled, of=SimpleDiscriminator)


def test_a_loss_may_read_extras_and_may_not_change_them() -> None:
    testing.check_loss(OnExtras, extras=EXTRAS)
    with pytest.raises(AssertionError, match=r"term in direction ab changes t.target_extras\['depth'\] in place"):
        testing.check_loss(SpoilsExtras, extras=EXTRAS)
    with pytest.raises(AssertionError, match="asks for the extra 'mask' of domain a, and its source gives none"):
        testing.check_loss(OnExtras)


def test_a_loss_may_need_one_direction_alone() -> None:
    testing.check_loss(OneWay, directions=("ab",))
    with pytest.raises(AssertionError, match="asks for the direction ba, which `directions` leaves out"):
        testing.check_loss(Cycled, directions=("ab",))


class Cycled(ganlab.Loss):
    def generator(self, t: Translation) -> Tensor:
        return (t.cycled - t.source).abs().mean()


@pytest.mark.parametrize("directions", ["ab", (), ("ab", "bb")])
def test_directions_that_there_are_not_are_refused(directions: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"^directions is .*; pass a tuple of 'ab', 'ba' or both$"):
        testing.check_loss(SimpleLoss, directions=directions)


class Drops(SimpleDiscriminator):
    """Draws in each forward, and changes its buffers."""

    def __init__(self, shape: Domain) -> None:
        super().__init__(shape)
        self.net = nn.Sequential(self.net[0], nn.BatchNorm2d(4), nn.Dropout(0.5), *self.net[1:])


class Wide(SimpleGenerator):
    """Has embeddings of another shape, and layers that get their shapes from a first forward."""

    def __init__(self, source: Domain, target: Domain, width: int = 4) -> None:
        super().__init__(source, target)
        self.encoder = nn.Sequential(nn.Conv2d(source.channels, width, 4, 4), nn.Tanh())
        self.decoder = nn.Sequential(nn.LazyConvTranspose2d(target.channels, 4, 4), nn.Tanh())


class Normalises(SimpleGenerator):
    """Divides its weights by their norms in every forward (arXiv:2312.02696, section 2.3)."""

    def encode(self, images: Tensor) -> Tensor:
        weight = self.encoder[0].weight
        weight.data /= torch.linalg.vector_norm(weight.data, dim=(1, 2, 3), keepdim=True)
        return super().encode(images)


class OnEmbeddings(ganlab.Loss):
    def generator(self, t: Translation) -> Tensor:
        assert t.embedding.shape[1:] == (6, 4, 4)
        return t.score_embedding(t.embedding).square().mean()


def test_the_networks_of_a_system_are_given() -> None:
    """Networks may draw and change; the loss is not blamed."""
    testing.check_loss(SimpleLoss, discriminators={"image": Drops})
    testing.check_loss(OnEmbeddings, generator=(Wide, {"width": 6}))
    testing.check_loss(SimpleLoss, generator=Normalises)
    with pytest.raises(AssertionError, match="changes the weights of discriminator/image/b; a network adjusts"):
        testing.check_loss(Clamps, generator=Normalises)


@pytest.mark.parametrize("argument", [{"generator": "resnet"}, {"discriminators": {"image": (Drops, "wide")}}])
def test_a_network_is_given_as_a_class(argument: Any) -> None:
    with pytest.raises(TypeError, match=r" is .*; pass a class, or \(class, \{option: value\}\)$"):
        testing.check_loss(SimpleLoss, **argument)


class OfPairs(SimpleDiscriminator):
    sees = "pairs"


def test_a_discriminator_of_pairs_has_no_pool() -> None:
    testing.check_loss(SimpleLoss, discriminators={"image": OfPairs})
    testing.check_loss(Bypasses, discriminators={"image": OfPairs})
