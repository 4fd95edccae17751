"""Components that the tests of runs need: small networks with every kind of state, and things that go wrong on time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

import ganlab
from ganlab import Domain, Estimate, Evidence, Number, Translation, Turn


class Sharing(ganlab.Generator):
    """Encoder, a middle that both ways share (XGAN's idea), decoder; batch norms, and one that stays in eval mode."""

    def __init__(self, source: Domain, target: Domain, width: Annotated[int, Field(ge=1)] = 2) -> None:
        super().__init__()
        self.frozen = nn.BatchNorm2d(source.channels).eval()
        self.encoder = nn.Sequential(nn.Conv2d(source.channels, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.middle = nn.Conv2d(width, width, 3, 1, 1)
        self.decoder = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(width, target.channels, 3, 1, 1), nn.Tanh())

    @classmethod
    def pair(cls, domains: Mapping[str, Domain], ways: Sequence[str], **options: Any) -> dict[str, ganlab.Generator]:
        made = super().pair(domains, ways, **options)
        for generator in made.values():
            generator.middle = made[ways[0]].middle
        return made

    def encode(self, images: Tensor) -> Tensor:
        embedding: Tensor = self.middle(self.encoder(self.frozen(images)))
        return embedding

    def decode(self, embedding: Tensor) -> Tensor:
        images: Tensor = self.decoder(embedding)
        return images


class Forgetful(ganlab.Discriminator):
    """Batch norm and dropout, which draws from torch's own stream."""

    def __init__(self, shape: Domain) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(shape.channels, 2, 4, 2, 1), nn.BatchNorm2d(2), nn.Dropout(0.3), nn.Conv2d(2, 1, 3, 2, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.net(x)
        return scores


class Plain(ganlab.Discriminator):
    """One convolution."""

    def __init__(self, shape: Domain) -> None:
        super().__init__()
        self.net = nn.Conv2d(shape.channels, 1, 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.net(x)
        return scores


class Learned(ganlab.Loss):
    """The way's embedding is to be a constant that is learned with the generators."""

    def __init__(self) -> None:
        super().__init__()
        self.constants = nn.ParameterDict()

    def prepare(self, t: Translation) -> None:
        self.constants[t.name] = nn.Parameter(torch.ones_like(t.embedding[0]))

    def generator(self, t: Translation) -> Tensor:
        return (t.embedding - self.constants[t.name]).square().mean()


class Scripted(ganlab.Loss):
    """A term whose value is `values[step]`, from each step named until the next; at `poisoned`, finite with a gradient
    that is not."""

    calls: Tensor

    def __init__(
        self,
        values: dict[int, Literal["nan", "inf", "-inf"] | float],
        player: Literal["generator", "discriminator", "both"] = "both",
        poisoned: int = 0,
    ) -> None:
        super().__init__()
        self.player, self.values, self.poisoned = player, values, poisoned
        # in checkpoints, and put back after the rehearsal: so it counts steps
        self.register_buffer("calls", torch.zeros(2, 2, dtype=torch.long))

    def generator(self, t: Translation) -> Tensor | None:
        return self._scripted(t.name, t.score(t.fake), 0) if self.player != "discriminator" else None

    def discriminator(self, t: Translation) -> Tensor | None:
        return self._scripted(t.name, t.score(t.target), 1) if self.player != "generator" else None

    def _scripted(self, way: str, scores: Tensor, player: int) -> Tensor:
        count = self.calls[player, ("ab", "ba").index(way)]
        count += 1
        step = int(count)
        began = max((known for known in self.values if known <= step), default=None)
        value = 0.0 if began is None else float(self.values[began])
        mean = scores.mean()
        if step == self.poisoned:
            # the root's slope at 0 is infinite
            return value + (mean - mean.detach()).sqrt()
        return value + 0 * mean


class Exploding(ganlab.Schedule):
    """Both generators, then both discriminators, by gradient descent; at step `at`, `player`'s rate is beyond all
    numbers."""

    def __init__(
        self,
        steps: Annotated[int, Field(ge=1)] = 6,
        lr: Annotated[float, Field(gt=0)] = 0.001,
        player: Literal["generator", "discriminator"] = "generator",
        at: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        self.steps, self.lr, self.player, self.at = steps, lr, player, at

    def turns(self, step: int) -> list[Turn]:
        return [Turn("generator", self.ways), Turn("discriminator", self.ways)]

    def optimizer(self, player: str, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return _Bursting(parameters, lr=self.lr)

    def learning_rate(self, player: str, step: int) -> float:
        return 2.0 if (player, step + 1) == (self.player, self.at) else 1.0


class _Bursting(torch.optim.SGD):
    """At more than its own rate weights end as infinite."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"] if group["lr"] > self.defaults["lr"] else []:
                parameter.fill_(float("inf"))


class Averages(ganlab.Features):
    """The colours of an image's quarters: (N, 12)."""

    size = 8
    shipped = True

    def forward(self, images: Tensor) -> Tensor:
        return adaptive_avg_pool2d(images, 2).flatten(1)


class Weighed(ganlab.Features):
    """The colours, each times a weight that is read from a file: (N, 3)."""

    size = 8

    def __init__(self, file: str) -> None:
        super().__init__()
        self._file = Path(file)
        self.weight = nn.Parameter(torch.tensor(json.loads(self._file.read_text())))

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) * self.weight

    def files(self) -> Sequence[Path]:
        return [self._file]


class Brightness(ganlab.Metric):
    """How bright the outputs are, of 255; not to be had on the way `unavailable`."""

    def __init__(
        self, better: Literal["lower", "higher", ""] = "higher", unavailable: str = "no way", broken: bool = False
    ) -> None:
        self.numbers = {"brightness": Number("how bright an image is", better)}
        # as one does that makes a layer
        torch.rand(1)
        self.unavailable, self.broken = unavailable, broken

    def measure(self, evidence: Evidence) -> dict[str, Estimate]:
        if evidence.way == self.unavailable:
            raise ganlab.Unavailable("needs another way")
        if self.broken:
            raise KeyError("no such thing")
        values = [float(image.mean()) for image in evidence.outputs.pixels]
        return {"brightness": Estimate(sum(values) / len(values), min(values), max(values), {"outputs": len(values)})}


class Numberless(ganlab.Metric):
    """Forgets to say what it measures."""

    def measure(self, evidence: Evidence) -> dict[str, Estimate]:
        return {}


@ganlab.hookimpl
def ganlab_features() -> dict[str, type[ganlab.Features]]:
    return {"averages": Averages, "weighed": Weighed}


@ganlab.hookimpl
def ganlab_metrics() -> dict[str, type[ganlab.Metric]]:
    return {"brightness": Brightness, "numberless": Numberless}


@ganlab.hookimpl
def ganlab_generators() -> dict[str, type[ganlab.Generator]]:
    return {"sharing": Sharing}


@ganlab.hookimpl
def ganlab_discriminators() -> dict[str, type[ganlab.Discriminator]]:
    return {"forgetful": Forgetful, "plain": Plain}


@ganlab.hookimpl
def ganlab_losses() -> dict[str, type[ganlab.Loss]]:
    return {"learned": Learned, "scripted": Scripted}


@ganlab.hookimpl
def ganlab_schedules() -> dict[str, type[ganlab.Schedule]]:
    return {"exploding": Exploding}
