"""Components for the tests of runs: small networks with every kind of state, and components that fail at a set step."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

import ganlab
from ganlab import Domain, Estimate, MetricInfo, MetricInputs, Translation, Turn


class Sharing(ganlab.Generator):
    """An encoder, a middle layer that both directions share (as in XGAN) and a decoder.

    One of the batch norms is always in eval mode.
    """

    def __init__(self, source: Domain, target: Domain, width: Annotated[int, Field(ge=1)] = 2) -> None:
        super().__init__()
        self.frozen = nn.BatchNorm2d(source.channels).eval()
        self.encoder = nn.Sequential(nn.Conv2d(source.channels, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.middle = nn.Conv2d(width, width, 3, 1, 1)
        self.decoder = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(width, target.channels, 3, 1, 1), nn.Tanh())

    @classmethod
    def pair(
        cls, domains: Mapping[str, Domain], directions: Sequence[str], **options: Any
    ) -> dict[str, ganlab.Generator]:
        made = super().pair(domains, directions, **options)
        for generator in made.values():
            generator.middle = made[directions[0]].middle
        return made

    def encode(self, images: Tensor) -> Tensor:
        embedding: Tensor = self.middle(self.encoder(self.frozen(images)))
        return embedding

    def decode(self, embedding: Tensor) -> Tensor:
        images: Tensor = self.decoder(embedding)
        return images


def _note(what: str, images: Tensor) -> None:
    """Adds a line with the process's rank to the file that the variable TRIAL_LOG names, if it is set."""
    if path := os.environ.get("TRIAL_LOG"):
        with open(path, "a") as file:
            file.write(f"{os.environ.get('RANK', 0)} {what} {len(images)}\n")


class Restless(ganlab.Generator):
    """Two convolutions. In eval mode its embeddings are noisy, and what it computes is noted."""

    def __init__(self, source: Domain, target: Domain) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(source.channels, 4, 3, 1, 1)
        self.decoder = nn.Conv2d(4, target.channels, 3, 1, 1)

    def encode(self, images: Tensor) -> Tensor:
        embedding: Tensor = self.encoder(images)
        if self.training:
            return embedding
        _note("embeddings", images)
        if len(images) == 32 and "dark" in os.environ.get("TRIAL_TROUBLE", ""):
            raise ValueError("too dark")
        return embedding + torch.rand_like(embedding)

    def decode(self, embedding: Tensor) -> Tensor:
        if not self.training:
            _note("translations", embedding)
        images: Tensor = self.decoder(embedding).tanh()
        return images


class Forgetful(ganlab.Discriminator):
    """Has batch norm, and dropout, which draws from torch's global generator."""

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
    """Draws the direction's embedding towards a constant that is learned with the generators."""

    def __init__(self) -> None:
        super().__init__()
        self.constants = nn.ParameterDict()

    def prepare(self, t: Translation) -> None:
        self.constants[t.direction] = nn.Parameter(torch.ones_like(t.embedding[0]))

    def generator(self, t: Translation) -> Tensor:
        return (t.embedding - self.constants[t.direction]).square().mean()


class Scripted(ganlab.Loss):
    """A term with the value `values[step]`, or that of the latest earlier step in `values`. At step `not_finite_at` the
    value is finite and the gradient is not."""

    calls: Tensor

    def __init__(
        self,
        values: dict[int, Literal["nan", "inf", "-inf"] | float],
        player: Literal["generator", "discriminator", "both"] = "both",
        not_finite_at: int = 0,
    ) -> None:
        super().__init__()
        self.player, self.values, self.not_finite_at = player, values, not_finite_at
        # a buffer is kept in checkpoints and restored after the dry run, so it counts steps
        self.register_buffer("calls", torch.zeros(2, 2, dtype=torch.long))

    def generator(self, t: Translation) -> Tensor | None:
        return self._scripted(t.direction, t.score(t.fake), 0) if self.player != "discriminator" else None

    def discriminator(self, t: Translation) -> Tensor | None:
        return self._scripted(t.direction, t.score(t.target), 1) if self.player != "generator" else None

    def _scripted(self, direction: str, scores: Tensor, player: int) -> Tensor:
        count = self.calls[player, ("ab", "ba").index(direction)]
        count += 1
        step = int(count)
        began = max((known for known in self.values if known <= step), default=None)
        value = 0.0 if began is None else float(self.values[began])
        mean = scores.mean()
        if step == self.not_finite_at:
            # the slope of the square root at 0 is infinite
            return value + (mean - mean.detach()).sqrt()
        return value + 0 * mean


class Painted(ganlab.Loss):
    """The distance of a translation from 1 where an extra of its source has class 1, and from -1 elsewhere."""

    def __init__(self, extra: str = "parts", spoils: bool = False) -> None:
        super().__init__()
        self.extra, self.spoils = extra, spoils

    def generator(self, t: Translation) -> Tensor:
        mask = t.source_extras[self.extra]
        term = (t.fake - (2.0 * (mask == 1) - 1)).abs().mean()
        if self.spoils:
            mask.zero_()
        return term


class Troubled(ganlab.Loss):
    """In the process of rank 1 something happens at a step: its term is no number, it raises an error, it is killed or
    interrupted, or torchrun, which started it, gets a signal. Nothing happens if torchrun has started the processes
    again."""

    def __init__(self, step: int, how: Literal["nan", "error", "kill", "interrupt", "stop"]) -> None:
        super().__init__()
        self.step, self.how = step, how

    def generator(self, t: Translation) -> Tensor:
        term = 0 * t.fake.mean()
        again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
        if os.environ.get("RANK") != "1" or t.step != self.step or t.direction != "ab" or again:
            return term
        if self.how == "error":
            raise ValueError("trouble")
        if self.how == "interrupt":
            raise KeyboardInterrupt
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "stop":
            # waits until torchrun has passed the signal on, so that it comes in this step; not with `sigwait`, because
            # another thread may get the signal
            came: list[int] = []
            before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
            os.kill(os.getppid(), signal.SIGTERM)
            while not came:
                time.sleep(0.01)
            signal.signal(signal.SIGTERM, before)
            os.kill(os.getpid(), signal.SIGTERM)
        return term * float("nan") if self.how == "nan" else term


class Following(ganlab.Loss):
    """The distance of a translation from the moving mean of its direction's targets, kept in a buffer."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(2))

    def generator(self, t: Translation) -> Tensor:
        mean = self.mean[("ab", "ba").index(t.direction)]
        term = (t.fake - mean.clone()).square().mean()
        mean.lerp_(t.target.mean(), 0.5)
        return term


class Exploding(ganlab.Schedule):
    """Updates both generators, then both discriminators, by gradient descent. At step `at` the weights of `player`
    become infinite."""

    def __init__(
        self,
        steps: Annotated[int, Field(ge=1)] = 6,
        lr: Annotated[float, Field(gt=0)] = 0.001,
        player: Literal["generator", "discriminator"] = "generator",
        at: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        self.steps, self.lr, self.player, self.at = steps, lr, player, at

    def turns(self, step: int) -> list[Turn]:
        return [Turn("generator", self.directions), Turn("discriminator", self.directions)]

    def optimizer(self, player: str, parameters: list[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
        return _Bursting(parameters, lr=self.lr)

    def learning_rate(self, player: str, step: int) -> float:
        return 2.0 if (player, step + 1) == (self.player, self.at) else 1.0


class _Bursting(torch.optim.SGD):
    """Makes the weights infinite if the learning rate is above its initial value."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"] if group["lr"] > self.defaults["lr"] else []:
                parameter.fill_(float("inf"))


class Averages(ganlab.Features):
    """The mean colours of an image's four quarters, (N, 12)."""

    size = 8
    shipped = True

    def forward(self, images: Tensor) -> Tensor:
        return adaptive_avg_pool2d(images, 2).flatten(1)


class Noted(Averages):
    """The same vectors, which are noted. TRIAL_TROUBLE, "RANKS BATCH HOW", says what happens at which batch."""

    def __init__(self) -> None:
        super().__init__()
        self.batches = 0

    def forward(self, images: Tensor) -> Tensor:
        _note("vectors", images)
        self.batches += 1
        rank, batch, how = os.environ.get("TRIAL_TROUBLE", "0 0 nothing").split()
        if self.batches == int(batch) and os.environ.get("RANK", "0") in rank:
            if how == "error":
                raise ValueError("trouble")
            os.kill(os.getpid(), signal.Signals[how])
        return super().forward(images)


class Weighed(ganlab.Features):
    """The mean colour of an image, multiplied by weights that are read from a file, (N, 3)."""

    size = 8

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = Path(file)
        self.weight = nn.Parameter(torch.tensor(json.loads(self._file.read_text())))

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) * self.weight

    def files(self) -> Sequence[Path]:
        return [self._file]


class Brightness(ganlab.Metric):
    """The mean brightness of the outputs, 0 to 255; Unavailable in the direction `unavailable`."""

    def __init__(
        self, better: Literal["lower", "higher", ""] = "higher", unavailable: str = "no way", broken: bool = False
    ) -> None:
        self.numbers = {"brightness": MetricInfo("how bright an image is", better)}
        # as a metric does that builds a layer
        torch.rand(1)
        self.unavailable, self.broken = unavailable, broken

    def measure(self, data: MetricInputs) -> dict[str, Estimate]:
        if data.direction == self.unavailable:
            raise ganlab.Unavailable("needs another direction")
        if self.broken:
            raise KeyError("no such thing")
        values = [float(image.mean()) for image in data.outputs.pixels]
        return {"brightness": Estimate(sum(values) / len(values), min(values), max(values), {"outputs": len(values)})}


class Embedded(ganlab.Metric):
    """The mean of the embeddings of the inputs."""

    numbers = {"embedded": MetricInfo("the mean activation", "")}  # noqa: RUF012  (an interface's attribute)

    def measure(self, data: MetricInputs) -> dict[str, Estimate]:
        assert data.inputs is not None
        value = float(data.encode(data.direction, data.inputs).mean())
        return {"embedded": Estimate(value, value, value, {})}


class Numberless(ganlab.Metric):
    """Has no `numbers`."""

    def measure(self, data: MetricInputs) -> dict[str, Estimate]:
        return {}


@ganlab.hookimpl
def ganlab_features() -> dict[str, type[ganlab.Features]]:
    return {"averages": Averages, "noted": Noted, "weighed": Weighed}


@ganlab.hookimpl
def ganlab_metrics() -> dict[str, type[ganlab.Metric]]:
    return {"brightness": Brightness, "embedded": Embedded, "numberless": Numberless}


@ganlab.hookimpl
def ganlab_generators() -> dict[str, type[ganlab.Generator]]:
    return {"restless": Restless, "sharing": Sharing}


@ganlab.hookimpl
def ganlab_discriminators() -> dict[str, type[ganlab.Discriminator]]:
    return {"forgetful": Forgetful, "plain": Plain}


@ganlab.hookimpl
def ganlab_losses() -> dict[str, type[ganlab.Loss]]:
    return {"following": Following, "learned": Learned, "painted": Painted, "scripted": Scripted, "troubled": Troubled}


@ganlab.hookimpl
def ganlab_schedules() -> dict[str, type[ganlab.Schedule]]:
    return {"exploding": Exploding}
