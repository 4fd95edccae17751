"""A plugin whose components fail in the ways that their options name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from ganlab_cyclegan.schedules import Alternating
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

import ganlab
from ganlab import Domain, Translation, Turn
from helpers.systems import Around


class Late(ganlab.Loss):
    """Fails at its `at`-th call. The dry run calls it once before the first step."""

    def __init__(self, how: str = "shapes", at: int = 3) -> None:
        super().__init__()
        self.how, self.left = how, at

    def prepare(self, t: Translation) -> None:
        if self.how == "prepare":
            torch.zeros(2, 3) @ t.source.flatten(1)

    def generator(self, t: Translation) -> Any:
        self.left -= t.direction == "ab"
        fake = t.fake
        if self.left > 0 or t.direction == "ba":
            return fake.mean()
        if self.how == "shapes":
            weights = torch.ones(5)
            return (weights * fake).mean()
        if self.how == "encode":
            return t.encode(fake[:, :2]).mean()
        if self.how == "missing":
            return t.discriminator().cam
        if self.how == "tensor":
            return _fails(t, KeyError(torch.ones(4, 4)))
        if self.how == "printed":
            return _fails(t, ValueError(f"odd: {torch.ones(4, 4)}, even"))
        if self.how == "name":
            return t.score(fake, torch.ones(4, 4))  # type: ignore[arg-type]
        if self.how == "no tensors":
            return _fails(t, KeyError())
        if self.how == "long":
            return _fails(t, ValueError("long  \n" * 200))
        if self.how == "mute":
            return _fails(t, Mute())
        if self.how == "assertion":
            return _fails(t, AssertionError("no colours"))
        if self.how == "greedy":
            fake.mean().backward()
            return fake.mean()
        if self.how == "half":
            return t.score(fake[:, :2]).mean()
        if self.how == "single":
            return t.score(fake.float()).mean()
        if self.how == "alone":
            return t.score(fake[0, 0]).mean()
        if self.how == "small":
            return t.score(avg_pool2d(fake, 2)).mean()
        if self.how == "shallow":
            return t.score_embedding(t.features()[0]).mean()
        if self.how == "vector":
            return fake.mean((1, 2, 3))
        if self.how == "number":
            return fake.mean().item()
        if self.how == "list":
            return [fake.mean(), fake.mean()]
        if self.how == "labels":
            return t.source_labels
        if self.how == "whole":
            return fake.sum().long()
        return Backward.apply(fake).mean()  # type: ignore[no-untyped-call]


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError


def _fails(t: Translation, error: Exception) -> Tensor:
    raise error


class Forgetful(ganlab.Loss):
    def __init__(self, weights: float = 1.0) -> None:
        self.weights = weights


class Early(Forgetful):
    """Sets a layer, as a helper of a component may, before torch's constructor has run."""

    def __init__(self, weights: float = 1.0) -> None:
        class Block(nn.Module):
            def __init__(self) -> None:
                self.layer = nn.Linear(1, 1)

        ganlab.Loss.__init__(self)
        self.block = Block()


class Hasty(ganlab.Discriminator):
    def __init__(self, size: int = 1) -> None:
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return x


class Scales(ganlab.Discriminator):
    def forward(self, x: Tensor) -> Any:
        return [x, x[:, :, ::2, ::2]]


class Backward(torch.autograd.Function):
    """The identity function, with a gradient of another shape."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient @ torch.zeros(2, 2, dtype=gradient.dtype)


class Shy(Around):
    """A wrapper that fails at the `at`-th call of forward or after_update."""

    def __init__(
        self,
        of: ganlab.Discriminator,
        how: Literal["forward", "tuple", "backward", "small", "after_update"] = "forward",
        at: int = 1,
    ) -> None:
        super().__init__(of)
        self.how, self.left = how, at

    def _count(self, how: str) -> bool:
        self.left -= self.how == how
        return self.left == 0

    def forward(self, x: Tensor) -> Any:
        if self._count("tuple"):
            return x, x
        if self.how == "backward":
            return super().forward(Backward.apply(x))  # type: ignore[no-untyped-call]
        if self._count("forward") or (x.shape[-1] == 8 and self._count("small")):
            pooled = x.mean((2, 3))
            return pooled @ torch.zeros(7, 7, dtype=x.dtype)
        return super().forward(x)

    def after_update(self) -> None:
        if self._count("after_update"):
            raise ValueError("enough\nof this")
        super().after_update()


class Odd(ganlab.Generator):
    """Fails at the `at`-th call of encode in train mode and, if `shy`, after `calls` calls of decode in eval mode."""

    def __init__(self, source: Domain, target: Domain, at: int = 100, shy: bool = False, calls: int = 0) -> None:
        super().__init__()
        self.shy, self.calls = shy, calls
        self.net = nn.Conv2d(source.channels, target.channels, 1)
        self.left = at

    def encode(self, images: Tensor) -> Tensor:
        self.left -= self.training
        if self.left == 0:
            half = images[:, :, ::2]
            return images + half
        return images

    def decode(self, embedding: Tensor) -> Tensor:
        self.calls -= self.shy and not self.training
        if self.shy and self.calls < 0:
            raise KeyError("nothing")
        images: Tensor = self.net(embedding).tanh()
        return images


class Bad(Alternating):
    """Returns something wrong, or fails, at a step."""

    def __init__(self, steps: int = 4, how: str = "") -> None:
        super().__init__(steps)
        self.how = how

    def turns(self, step: int) -> Any:
        if (self.how, step) == ("turns", 1):
            return None
        if (self.how, step) == ("no turn", 1):
            return [("generator", ("ab",))]
        if (self.how, step) == ("unknown", 1):
            return [Turn("generator", ("ab", "ac"))]
        return super().turns(step)

    def learning_rate(self, player: str, step: int) -> Any:
        return {"rate": "fast", "endless": math.inf}.get(self.how, 1) if step == 1 else 1

    def weight(self, loss: str, player: str, step: int) -> Any:
        if step == 1:
            return {"weight": None, "nan": math.nan}.get(self.how, 1.0)
        return 1.0

    def optimizer(self, player: str, parameters: list[tuple[str, nn.Parameter]]) -> Any:
        if self.how == "optimizer":
            return None
        if self.how == "closure":
            return torch.optim.LBFGS(parameters)
        return Sticky(parameters) if self.how == "step" else super().optimizer(player, parameters)

    def pool(self, target: Domain) -> nn.Module | None:
        if self.how == "pool":
            raise RuntimeError("no room")
        return {"pooled": Leaking(), "shrunk": Shrinking(), "spoilt": Spoiling()}.get(self.how)


class Sticky(torch.optim.SGD):
    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        super().__init__(parameters, lr=0.1)

    def step(self, closure: Any = None) -> Any:
        raise RuntimeError("it sticks")


class Leaking(nn.Module):
    def forward(self, fakes: Tensor, draws: Tensor) -> Tensor:
        return fakes @ draws


class Shrinking(nn.Module):
    def forward(self, fakes: Tensor, draws: Tensor) -> Tensor:
        return fakes[:2]


class Spoiling(nn.Module):
    def forward(self, fakes: Tensor, draws: Tensor) -> Tensor:
        return fakes.mul_(0.5)


@ganlab.hookimpl
def ganlab_losses() -> dict[str, type[ganlab.Loss]]:
    return {"late": Late, "forgetful": Forgetful, "early": Early}


@ganlab.hookimpl
def ganlab_discriminators() -> dict[str, type[ganlab.Discriminator]]:
    return {"shy": Shy, "hasty": Hasty, "scales": Scales}


@ganlab.hookimpl
def ganlab_generators() -> dict[str, type[ganlab.Generator]]:
    return {"odd": Odd}


@ganlab.hookimpl
def ganlab_schedules() -> dict[str, type[ganlab.Schedule]]:
    return {"bad": Bad}
