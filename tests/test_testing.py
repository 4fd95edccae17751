"""`ganlab.testing` lets every shipped component pass, and names each promise that a component breaks on purpose."""

from __future__ import annotations

import ast
import copy
import functools
import itertools
import re
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pytest
import torch
from conftest import SHIPPED, Around, choices, write_mnist
from ganlab_cyclegan.schedules import Alternating
from pydantic import AfterValidator
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle, relu

import ganlab
from ganlab import Domain, Estimate, Evidence, Number, Translation, Turn, testing
from ganlab.engine import Engine
from ganlab.options import signature
from ganlab.registry import Component
from ganlab.testing.simple import IMAGES, SimpleDiscriminator, SimpleFeatures, SimpleGenerator, SimpleLoss

HERE = Path(testing.__file__).parent
LABELLED = Domain("labelled", 3, 16, 16, classes=3)
DIGITS = Domain("digits", 1, 32, 32, classes=10)

WHERE: dict[tuple[str, str], dict[str, Any]] = {
    ("generator", "resnet"): {"width": 4, "blocks": 2},
    ("generator", "large_kernel"): {"width": 4, "blocks": 2},
    ("generator", "dcgan"): {"width": 4, "latents": 8},
    ("generator", "digits"): {"width": 4, "images": DIGITS},
    ("generator", "xgan"): {"width": 2, "embedding": 8},
    ("discriminator", "acgan"): {"width": 4, "layers": 1, "images": LABELLED},
    ("discriminator", "minibatch_discrimination"): {"width": 4, "layers": 1, "kernels": 4},
    ("discriminator", "patch"): {"width": 4, "layers": 1},
    ("discriminator", "dcgan"): {"width": 4},
    ("discriminator", "digits"): {"width": 4, "images": DIGITS, "labels": True},
    ("discriminator", "embedding"): {"width": 4},
    ("loss", "acgan_class"): {"images": LABELLED, "scores": 4},
    ("loss", "acgan_source"): {"images": LABELLED, "scores": 4},
    ("loss", "class_real"): {"images": LABELLED, "scores": 4},
    ("loss", "class_fake"): {"images": LABELLED, "scores": 4},
    ("loss", "noisy_lsgan"): {"flip": 0.1},
    ("schedule", "sgd_discriminator"): {"of": Alternating, "momentum": 0.5},
    ("schedule", "alternating"): {"pool": 4},
    ("schedule", "simultaneous"): {"pool": 4, "decay_from": 0.5},
    ("source", "avatars"): {"style": "big-ears"},
    ("source", "interpolation"): {"latents": 20, "steps": 3},
}
"""What a component needs to be tried at a small size."""


def variants(component: Component) -> list[dict[str, Any]]:
    """What is tried: the component with the options above, and with each other value of each option that has few."""
    fields = signature(component.cls).model.model_fields
    usual = {name: field.default for name, field in fields.items()} | WHERE.get((component.kind, component.name), {})
    # the other set's files need more than can be had here: tests/plugins/test_digits.py
    elsewhere = {("torchvision", "dataset")}
    some = [pair for pair in choices(component) if (component.name, pair[0]) not in elsewhere]
    return [{}, *({option: value} for option, value in some if value != usual[option])]


def named(value: Any) -> str:
    if isinstance(value, Component):
        return f"{value.kind}-{value.name}"
    return "".join(f"{option}={choice}" for option, choice in value.items())


@pytest.mark.parametrize(
    ("component", "variant"), [(each, variant) for each in SHIPPED for variant in variants(each)], ids=named
)
def test_every_shipped_component_keeps_its_promises(
    component: Component,
    variant: dict[str, Any],
    pictures: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*where: object, **how: object) -> None:
        raise OSError("no test downloads weights")

    monkeypatch.setattr("socket.create_connection", refuse)
    where = WHERE.get((component.kind, component.name), {})
    if component.name == "folder":
        where = {"path": str(pictures["a"])}
    if component.name == "torchvision":
        digits = np.arange(12, dtype=np.uint8)
        write_mnist(tmp_path, np.broadcast_to(20 * digits[:, None, None], (12, 28, 28)), digits % 10)
        where = {"dataset": "mnist", "path": str(tmp_path)}
    if (kernel := variant.get("kernel", 0)) > 7:
        # at a quarter of the images' size, padding by reflection needs a side of more than half the kernel
        where = {**where, "images": IMAGES._replace(height=4 * (kernel // 2 + 1), width=4 * (kernel // 2 + 1))}
        # dense, the largest take long
        where |= {"form": "depthwise"} if kernel > 15 else {}
    try:
        getattr(testing, f"check_{component.kind}")(component.cls, **{**where, **variant})
    except ganlab.Unavailable as missing:
        pytest.skip(str(missing))


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
        self.weight = {"ab": 1.0}[t.name]


class Vector(SimpleLoss):
    def generator(self, t: Translation) -> Tensor:
        return (t.score(t.fake) - 1).square().mean((1, 2, 3))


class Infinite(SimpleLoss):
    def generator(self, t: Translation) -> Tensor:
        return t.score(t.fake).mean() / 0


class KeepsCritic(SimpleLoss):
    def prepare(self, t: Translation) -> None:
        setattr(self, f"critic_{t.name}", t.discriminator())


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
    """Of the first way that it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("first", torch.zeros(()))

    def generator(self, t: Translation) -> Tensor:
        if not self.first:
            self.first = t.fake.detach().mean()
        return super().generator(t) * self.first


class Rolls(SimpleLoss):
    def discriminator(self, t: Translation) -> Tensor:
        return super().discriminator(t) * torch.rand(())


class Counts(SimpleLoss):
    count = 0

    def discriminator(self, t: Translation) -> Tensor:
        self.count += t.name == "ba"
        return super().discriminator(t) * (1 + self.count // 2)


class OnlyDouble(SimpleLoss):
    def generator(self, t: Translation) -> Tensor:
        return (t.score(t.fake) @ torch.eye(8, dtype=torch.float64)).mean()


class Cancels(SimpleLoss):
    def generator(self, t: Translation) -> Tensor:
        return super().generator(t) + 1e12 - 1e12


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
    """An activation with its history."""

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


class Mixes(SimpleGenerator):
    def encode(self, images: Tensor) -> Tensor:
        embedding = super().encode(images)
        return embedding - embedding.mean(0)


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
    """Reads memory as if it were contiguous."""

    def encode(self, images: Tensor) -> Tensor:
        embedding = super().encode(images)
        return embedding.as_strided(embedding.shape, torch.empty(embedding.shape).stride())


class OddScores(SimpleDiscriminator):
    def __init__(self, shape: Domain) -> None:
        super().__init__(shape)
        self.grouped = nn.Conv2d(shape.channels, 4, 3, groups=2)


class Frozen(SimpleDiscriminator):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).detach()


class ScoresRootAtZero(SimpleDiscriminator):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + (x - x.detach()).square().sum().sqrt()


class Flat(SimpleDiscriminator):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).mean((1, 2, 3))


class Blind(SimpleDiscriminator):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.detach())


class _OneSided(torch.autograd.Function):
    """tanh, whose second derivative is forgotten."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.slope = 1 - x.detach().tanh().square()
        return x.tanh()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * ctx.slope


class FirstOrder(SimpleDiscriminator):
    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = _OneSided.apply(super().forward(x))
        return scores


class Replaces(SimpleDiscriminator):
    def after_update(self) -> None:
        self.net[0].weight = nn.Parameter(self.net[0].weight.clamp(-0.01, 0.01))


class Poisons(SimpleDiscriminator):
    def after_update(self) -> None:
        self.net[0].weight /= 0


class NumpyWeights(SimpleDiscriminator):
    def __init__(self, shape: Domain) -> None:
        super().__init__(shape)
        self.net[0].weight.data += float(np.random.default_rng().random())


class Plain(ganlab.Schedule):
    """A schedule that is in order."""

    steps = 30

    def turns(self, step: int) -> Iterable[Turn]:
        return [Turn("generator", self.ways), Turn("discriminator", self.ways)]

    def optimizer(self, player: str, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters)


class NoSteps(Plain):
    steps = 0


class OwnWays(Plain):
    def turns(self, step: int) -> Iterable[Turn]:
        return [Turn("generator", ("ab", "ba"))]


class CountsSteps(Plain):
    def __init__(self) -> None:
        self.asked = 0

    def turns(self, step: int) -> Iterable[Turn]:
        self.asked += 1
        return [Turn("generator" if self.asked % 3 else "discriminator", self.ways)]


class Negative(Plain):
    def learning_rate(self, player: str, step: int) -> float:
        return 1 - step / 10


class Half(Plain):
    def optimizer(self, player: str, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters[:1])


class NoOptimizer(Plain):
    def optimizer(self, player: str, parameters: list[nn.Parameter]) -> Any:
        return parameters


class Explodes(Plain):
    def optimizer(self, player: str, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=float("inf"))


class ForgetfulSGD(torch.optim.SGD):
    """Momentum, not in its state."""

    def step(self, closure: Any = None) -> None:
        self.count = getattr(self, "count", 0) + 1
        for group in self.param_groups:
            group["lr"] = 0.1 / self.count
        super().step()


class Forgets(Plain):
    def optimizer(self, player: str, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return ForgetfulSGD(parameters, lr=0.1)


class _Pool(nn.Module):
    last: Tensor | None = None

    def __init__(self, keep: bool) -> None:
        super().__init__()
        self.keep = keep

    def forward(self, fakes: Tensor, draws: Tensor) -> Tensor:
        before, self.last = self.last, fakes
        return fakes[:1] if not self.keep else fakes if before is None else before


class OneFake(Plain):
    def pool(self, target: Domain) -> nn.Module:
        return _Pool(keep=False)


class _Spoiling(nn.Module):
    def forward(self, fakes: Tensor, draws: Tensor) -> Tensor:
        return fakes.mul_(0.5)


class SpoiltFakes(Plain):
    def pool(self, target: Domain) -> nn.Module:
        return _Spoiling()


class LostFakes(Plain):
    def pool(self, target: Domain) -> nn.Module:
        return _Pool(keep=True)


class Squares(ganlab.Source):
    """A source that is in order."""

    classes = 2

    def keys(self, domain: str) -> list[str]:
        return [f"{domain}{i}" for i in range(9)]

    def image(self, key: str, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        return np.full((size, size, 3), 20 * int(key[1:]), np.uint8)

    def label(self, key: str) -> int:
        return int(key[1:]) % 2


class NoPictures(Squares):
    def __init__(self) -> None:
        raise LookupError("there are none")


class Numbered(Squares):
    def keys(self, domain: str) -> Any:
        return list(range(9))


class Repeats(Squares):
    def keys(self, domain: str) -> list[str]:
        return ["a1", "a2", "a1"]


class Shuffles(Squares):
    order = itertools.count()

    def keys(self, domain: str) -> list[str]:
        keys = super().keys(domain)
        start = next(self.order) % 2
        return keys[start:] + keys[:start]


class Floats(Squares):
    def image(self, key: str, size: int) -> Any:
        return super().image(key, size) / 255


class Stream(Squares):
    count = 0

    def image(self, key: str, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        self.count += 1
        return np.full((size, size, 3), self.count, np.uint8)


class OneTooFar(Squares):
    def label(self, key: str) -> int:
        return int(key[1:]) % 3


class NoLabels(Squares):
    def label(self, key: str) -> Any:
        return None


class NumberedAttributes(Squares):
    def attributes(self, key: str) -> Any:
        return {"grey": 20}


class Light(ganlab.Metric):
    """A metric that is in order."""

    numbers: Mapping[str, Number] = {"light": Number("how light outputs are", "")}

    def value(self, evidence: Evidence) -> float:
        return float(evidence.outputs.tensor().mean())

    def measure(self, evidence: Evidence) -> dict[str, Estimate | ganlab.Unavailable]:
        value = self.value(evidence)
        return {"light": Estimate(value, value - 1, value + 1, {"outputs": len(evidence.outputs)})}


class Nameless(Light):
    numbers: Mapping[str, Number] = {}


class OtherName(Light):
    numbers: Mapping[str, Number] = {"dark": Number("how dark outputs are")}


class Sentence(Light):
    numbers: Mapping[str, Number] = {"light": Number("how light outputs are", "higher is better")}  # type: ignore[arg-type]


class Mute(Light):
    def measure(self, evidence: Evidence) -> dict[str, Estimate | ganlab.Unavailable]:
        return {}


class Bare(Light):
    def measure(self, evidence: Evidence) -> Any:
        return {"light": 0.5}


class Counted(Light):
    def measure(self, evidence: Evidence) -> Any:
        return {"light": Estimate(0.0, -1.0, 1.0, 3)}  # type: ignore[arg-type]


class InTensors(Light):
    def value(self, evidence: Evidence) -> Any:
        return evidence.outputs.tensor().mean()


class Outside(Light):
    def measure(self, evidence: Evidence) -> dict[str, Estimate | ganlab.Unavailable]:
        return {"light": Estimate(0.5, 0.6, 0.7, {})}


class Unseeded(Light):
    def value(self, evidence: Evidence) -> float:
        return float(np.random.default_rng().random())


class Darkens(Light):
    def value(self, evidence: Evidence) -> float:
        evidence.outputs.pixels[0][:] = 0
        return super().value(evidence)


class NeedsInputs(Light):
    def value(self, evidence: Evidence) -> float:
        return float(evidence.inputs.tensor().mean())  # type: ignore[union-attr]


class NoWeights(SimpleFeatures):
    def __init__(self) -> None:
        super().__init__()
        self.load_state_dict({})


class Logarithms(SimpleFeatures):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).log()


class Maps(SimpleFeatures):
    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.net(images)
        return maps


class Centred(SimpleFeatures):
    def forward(self, images: Tensor) -> Tensor:
        vectors = super().forward(images)
        return vectors - vectors.mean(0)


class Noisy(SimpleFeatures):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + 1e-5 * torch.rand(1)


class NoGrad(SimpleFeatures):
    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)


class NoFile(SimpleFeatures):
    def files(self) -> Sequence[Path]:
        return (Path("no-such-file.pt"),)


class NoPackage(SimpleFeatures):
    packages = ("no-such-package-of-anybody",)


class Dead(SimpleFeatures):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(relu(images - 2))


BROKEN = [
    (testing.check_loss, Untyped, "options come back from JSON.* gives its option 'margin' no type"),
    (testing.check_loss, Required, "options come back from JSON.* margin: .* Field required"),
    (partial(testing.check_loss, margin=1.0), Doubles, "from JSON.*margin=2.0.* comes back as .*margin=4.0"),
    (testing.check_loss, Misspelt, "spells.* it has 'prepair'; did you mean 'prepare'"),
    (testing.check_loss, OneWay, "prepares itself for each way.* KeyError: 'ba'"),
    (testing.check_loss, SimpleDiscriminator, "is a Loss .*it is <class"),
    (
        testing.check_loss,
        KeepsCritic,
        "own parts.* it keeps discriminator/image/a, discriminator/image/b, which the gen",
    ),
    (
        testing.check_loss,
        FewerDimensions,
        "finite scalars.* RuntimeError: Given groups=1, .* to have 3 channels, but got 2",
    ),
    (testing.check_loss, Vector, r"finite scalars.* shape \(2,\) where a scalar"),
    (testing.check_loss, Infinite, "finite scalars.* generator/ab = -?inf"),
    (testing.check_loss, Silent, "at least.* gives no player a term"),
    (testing.check_loss, Writes, "leaves what t gives.* the discriminators' term on way ab changes t.target in place"),
    (testing.check_loss, Detached, "gradients reach.* the generators' term on way ab is .* has no gradient"),
    (
        testing.check_loss,
        WrongPlayer,
        "gradients reach.* term on way ab reaches no generator, only discriminator/image/b",
    ),
    (
        testing.check_loss,
        RootAtZero,
        "gradients reach.* the generators' term on way ab has gradients that are not finite",
    ),
    (
        testing.check_loss,
        KeepsGraph,
        "gradients reach.* term on way ab reaches generator/.*, which its turn doesn't move",
    ),
    (testing.check_loss, Bypasses, "fakes of the schedule's pool.* term on way ab and ba reads t.fake, which comes"),
    (testing.check_loss, NeverLearns, "gradients reach.* no discriminators' term reaches the loss's own scale"),
    (testing.check_loss, Remembers, "whichever comes first.* ab first .*ba first"),
    (testing.check_loss, Rolls, "t.uniform.* seed 0 discriminator/ab = .* seed 1"),
    (testing.check_loss, Counts, "state.* goes on with discriminator/ab = "),
    (testing.check_loss, OnlyDouble, "float32.* RuntimeError"),
    (testing.check_loss, Cancels, "float32.* float64 .*, float32 "),
    (testing.check_generator, Odd, "made of its options.* ValueError: in_channels must be divisible"),
    (testing.check_generator, Rank3, r"encodes to.* \(2, 3, 16, 16\) to \(2, 4, 64\)"),
    (testing.check_generator, TwoEmbeddings, "last is the embedding.* differ by up to "),
    (testing.check_generator, Unbounded, r"in \[-1, 1\].* values go from -\d"),
    (testing.check_generator, Smaller, r"images of the target domain.* makes \(2, 3, 16, 15\)"),
    (testing.check_generator, Keeps, "can be copied.* RuntimeError: Only Tensors created explicitly"),
    (testing.check_generator, HiddenSkip, "embedding alone.* after others were encoded its images differ by up to"),
    (testing.check_generator, DecodesInPlace, "leaves it as it is.* it changes it in place"),
    (testing.check_generator, EncodesInPlace, "leaves what it is given as it is.* it changes it in place"),
    (testing.check_generator, OwnForward, "forward that is decode of encode.* images differ by up to"),
    (testing.check_generator, Rounds, "reach the embedding.* all for the embedding are 0"),
    (testing.check_generator, UnusedLayer, "all parameters.* none reaches head.weight, head.bias"),
    (testing.check_generator, Clock, "initial weights.* encoder.0.weight differ"),
    (testing.check_generator, OwnRandom, "same seed.* with one seed its outputs differ by up to"),
    (testing.check_generator, HiddenNoise, "stateful.* twice its outputs differ by up to"),
    (testing.check_generator, Mixes, "per_image.* in a batch outputs differ by up to"),
    (testing.check_generator, OutsideState, "state.* in eval mode outputs differ by up to"),
    (testing.check_generator, Lerps, "autocast.* RuntimeError"),
    (testing.check_generator, Chaotic, "autocast.* off on average"),
    (testing.check_generator, Strides, "channels_last.* outputs differ by up to"),
    (testing.check_generator, Views, "channels_last.* RuntimeError: view"),
    (testing.check_discriminator, OddScores, "made of its options.* ValueError: in_channels must be divisible"),
    (testing.check_discriminator, Frozen, "reach what it sees.* the scores have no gradient"),
    (
        testing.check_discriminator,
        ScoresRootAtZero,
        "reach what it sees.* of 1536 for what it sees 1536 are not",
    ),
    (testing.check_discriminator, Flat, r"scores \(N, K, h, w\).* it gives \(2\)"),
    (testing.check_discriminator, Blind, "reach what it sees.* none reaches what it sees"),
    (testing.check_discriminator, FirstOrder, r"differentiated twice.* is \S+ by autograd, \S+ by differences"),
    (testing.check_discriminator, Replaces, "after_update.* of 4 parameters some are others"),
    (testing.check_discriminator, Poisons, "after_update.* not finite: net.0.weight"),
    (testing.check_discriminator, NumpyWeights, "initial weights.* net.0.weight differ"),
    (testing.check_schedule, NoSteps, "has steps.* steps is 0"),
    (testing.check_schedule, OwnWays, r"only those.* with the ways \('ab',\) step 0 has Turn"),
    (testing.check_schedule, CountsSteps, "of the step alone.* step 0 is|of the step alone.* step 2 is"),
    (testing.check_schedule, Negative, "factors.* they are .-"),
    (testing.check_schedule, Half, "one optimiser.* holds 1 of 2 parameters"),
    (testing.check_schedule, NoOptimizer, "one optimiser.* the generator's is .Parameter containing: tensor"),
    (testing.check_schedule, Explodes, "saved and loaded.* the generator's parameters become .*nan"),
    (testing.check_schedule, Forgets, "saved and loaded.* differ by up to"),
    (testing.check_schedule, OneFake, r"as many images.* it makes \(1, 3, 16, 16\)"),
    (testing.check_schedule, SpoiltFakes, "pool.* it changes in place those that it is given"),
    (testing.check_schedule, LostFakes, "buffers.* what they show differs"),
    (testing.check_source, NoPictures, "made of its options.* LookupError: there are none"),
    (testing.check_source, Numbered, r"fixed order.* has the keys \[0, 1, "),
    (testing.check_source, Repeats, "key of its own.* of 3 keys 1 come again"),
    (testing.check_source, Shuffles, "fixed order.*'a0', .* and then .'a1'"),
    (testing.check_source, Floats, "uint8.* of float64"),
    (testing.check_source, Stream, "same image.* differs in 768 values"),
    (testing.check_source, OneTooFar, r"labels.* of 2 classes .*\[0, 1, 2\]"),
    (testing.check_source, NoLabels, "labels.* TypeError: 'NoneType' object cannot be interpreted as an integer"),
    (testing.check_source, NumberedAttributes, "attributes.* {'grey': 20}"),
    (testing.check_metric, Nameless, "has numbers.* they are {}"),
    (testing.check_metric, Sentence, "has numbers.* light has better='higher is better', not one of 'lower', 'higher'"),
    (testing.check_metric, OtherName, r"it has named.* \['dark'\] and measures \['light'\]"),
    (testing.check_metric, Mute, "one at least.* of complete evidence it measures none"),
    (testing.check_metric, Bare, "measures numbers.* light is 0.5"),
    (testing.check_metric, Counted, "measures numbers.* light has the counts 3, not {text: whole number}"),
    (testing.check_metric, InTensors, r"measures numbers.* light has the value tensor\(\S+\), not a finite number"),
    (testing.check_metric, Outside, r"inside its interval.* 0.5 in \[0.6, 0.7\]"),
    (testing.check_metric, Unseeded, "same twice.* and then"),
    (testing.check_metric, Darkens, "as they are.* changed the outputs"),
    (testing.check_metric, NeedsInputs, "raises Unavailable.* AttributeError"),
    (testing.check_features, NoWeights, "made of its options.* RuntimeError: Error"),
    (testing.check_features, Logarithms, "finite vectors.* of 8 are not finite"),
    (testing.check_features, Maps, r"vectors \(N, D\).* it gives \(2, 4, 6, 6\)"),
    (testing.check_features, Centred, "each image's own.*|alone and in a batch they differ by up to"),
    (testing.check_features, Noisy, "same twice.* twice they differ by up to"),
    (testing.check_features, NoGrad, "by the images.* have no gradient"),
    (testing.check_features, Dead, "by the images.* all for the images are 0"),
    (testing.check_features, NoFile, "weight files.* missing: no-such-file.pt"),
    (testing.check_features, NoPackage, "packages that are installed.* PackageNotFoundError"),
]


class Failure(NamedTuple):
    said: str
    where: list[tuple[str, int]]
    """(file, line) of every call in ganlab.testing that it came through."""
    shown: list[Path]
    """Where the calls are that pytest shows."""
    cause: BaseException | None


@functools.cache
def failure(check: Callable[..., None], cls: type) -> Failure:
    with pytest.raises(AssertionError) as caught:
        check(cls)
    frames = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(caught.value.__traceback__)]
    where = [(path.name, line) for path, line in frames if path.parent == HERE and line is not None]
    shown = [Path(entry.path) for entry in caught.traceback.filter(caught)]
    assert caught.value.__suppress_context__
    return Failure(str(caught.value), where, shown, caught.value.__cause__)


@pytest.mark.parametrize(("check", "cls", "sentence"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_promise_is_named(check: Callable[..., None], cls: type, sentence: str) -> None:
    said, _, shown, cause = failure(check, cls)
    assert shown == [Path(__file__)]
    # of an error of their own authors see where it was, of a comparison that is broken all is said
    assert (cause is not None) == (re.search(r"that is broken; \w+(Error|Exception)(: |$)", said) is not None)
    assert re.match(f"(?s){cls.__name__} .*?({sentence})", said), said
    assert "\n" not in said


def asserted(node: ast.AST) -> bool:
    """Whether this is a block `with promise(...)`, or a call `so(...)` in one."""
    if isinstance(node, ast.With):
        return any(ast.unparse(item.context_expr).startswith("promise(") for item in node.items)
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "so"


def test_each_promise_and_each_condition_of_one_is_broken_by_one_of_them() -> None:
    seen = {place for check, cls, _ in BROKEN for place in failure(check, cls).where}
    found = {path.name: list(filter(asserted, ast.walk(ast.parse(path.read_text())))) for path in HERE.glob("*.py")}
    assert sum(map(len, found.values())) > 90
    kept = [
        f"{name}:{node.lineno}: {ast.unparse(node).splitlines()[0]}"
        for name, nodes in found.items()
        for node in nodes
        if not any((name, line) in seen for line in range(node.lineno, node.end_lineno + 1))
    ]
    assert kept == []


@pytest.mark.parametrize(
    ("check", "cls"),
    [
        (testing.check_loss, SimpleLoss),
        (testing.check_generator, SimpleGenerator),
        (testing.check_discriminator, SimpleDiscriminator),
        (testing.check_features, SimpleFeatures),
        (testing.check_schedule, Plain),
        (testing.check_source, Squares),
        (testing.check_metric, Light),
    ],
)
def test_what_the_broken_ones_are_made_of_is_in_order(check: Callable[[type], None], cls: type) -> None:
    before = torch.manual_seed(99).get_state()
    check(cls)
    # which others draw from after the check
    assert torch.equal(torch.get_rng_state(), before)


class Seeds(Squares):
    def keys(self, domain: str) -> list[str]:
        torch.manual_seed(5)
        return super().keys(domain)


@pytest.mark.parametrize(("check", "cls"), [(testing.check_source, Seeds), (testing.check_generator, Rank3)])
def test_torchs_generator_is_put_back_whatever_a_component_does(check: Callable[[type], None], cls: type) -> None:
    before = torch.manual_seed(99).get_state()
    with suppress(AssertionError):
        check(cls)
    assert torch.equal(torch.get_rng_state(), before)


class UNet(SimpleGenerator):
    """Its skip travels in the embedding, as the interface says."""

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


def test_a_discriminators_term_may_read_fakes_where_images_have_classes() -> None:
    """Of fakes that a pool has kept the classes are not known."""
    testing.check_loss(Bypasses, images=LABELLED)


def test_a_nested_component_is_the_class_that_is_given() -> None:
    testing.check_discriminator(Around)
    with pytest.raises(AssertionError, match=r"^Around gives scores"):
        testing.check_discriminator(Around, of=Flat)


def test_an_option_that_is_not_allowed_is_named() -> None:
    with pytest.raises(AssertionError, match=r"^Around is a Discriminator .* clamp: 1: Extra inputs"):
        testing.check_discriminator(Around, clamp=1)


class Paired(ganlab.Loss):
    """A critic of its own, on pairs of inputs and outputs."""

    trains = "discriminator"

    def __init__(self) -> None:
        super().__init__()
        self.critic = nn.Conv2d(6, 1, 3)

    def generator(self, t: Translation) -> Tensor:
        return self.discriminate(t.real, t.fake).mean()

    def discriminator(self, t: Translation) -> Tensor:
        return -self.discriminate(t.real, t.fake).mean()

    def discriminate(self, real: Tensor, fake: Tensor) -> Tensor:
        scores: Tensor = self.critic(torch.cat([real, fake], dim=1))
        return scores


def test_a_critic_of_pairs_shows_what_no_pool_has_and_helpers_are_no_misspellings() -> None:
    testing.check_loss(Paired)


class Relative(ganlab.Loss):
    """Scores against the mean of earlier ones, which moves in the discriminators' turn."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.ones(()))

    def generator(self, t: Translation) -> Tensor:
        return -t.score(t.fake).mean() * self.mean

    def discriminator(self, t: Translation) -> Tensor:
        real = t.score(t.target).mean()
        self.mean.lerp_(real.detach(), 0.1)
        return t.score(t.fake_for_discriminator).mean() - real


def train(engine: Engine, loss: ganlab.Loss) -> None:
    engine.system.losses["adversarial"] = loss.to(engine.system.dtype)
    for _ in range(2):
        engine.step()


def test_a_loss_may_move_its_state_in_the_discriminators_turn(make_engine: Callable[..., Engine]) -> None:
    train(make_engine(), Relative())
    testing.check_loss(Relative)


class MovesTooSoon(Relative):
    """While the term of the other way still needs it, of which the engine takes the gradients with this one's."""

    def generator(self, t: Translation) -> Tensor:
        self.mean.lerp_(t.fake.detach().mean(), 0.1)
        return super().generator(t)


def test_but_not_between_the_ways_of_a_turn(make_engine: Callable[..., Engine]) -> None:
    with pytest.raises(ganlab.RunError, match="modified by an inplace operation"):
        train(make_engine(), MovesTooSoon())
    with pytest.raises(AssertionError, match=r"gradients reach.* modified by an inplace operation"):
        testing.check_loss(MovesTooSoon)


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


class NumpyLabels(Squares):
    def label(self, key: str) -> Any:
        return np.int64(super().label(key))


def test_labels_are_what_torch_takes_for_whole_numbers() -> None:
    testing.check_source(NumpyLabels)
