"""`plain_state` sees every form of state that a checkpoint does not keep, and takes a warm cache for none."""

from __future__ import annotations

import itertools
import logging
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ganlab.system.plain_state import moved_by


@dataclass
class Record:
    count: int = 0
    best: float = float("nan")


class Critic(nn.Module):
    calls = 0


BANK: list[int] = []


class Component(nn.Module):
    """Keeps something of every kind."""

    shared: ClassVar[list[int]] = []

    def remember(self, value: int) -> None:
        BANK.append(value)

    def __init__(self) -> None:
        super().__init__()
        self.count, self.rate = 0, 1.0
        self.bank: list[Tensor] = []
        self.queue = deque([0.0], 4)
        self.seen: set[int] = set()
        self.votes: Counter[str] = Counter()
        self.mean, self.array = torch.zeros(3), np.zeros(3)
        self.python, self.numpy = random.Random(0), np.random.default_rng(0)
        self.torch = torch.Generator()
        self.numbers, self.turns = itertools.count(), itertools.cycle("abc")
        self.made, self.items = (i for i in range(9)), iter([1, 2, 3])
        self.record, self.space = Record(), SimpleNamespace(epoch=0)
        self.listed = [nn.Linear(1, 1)]
        self.critic = Critic()
        self.layer = nn.Linear(2, 2)
        self.register_buffer("kept", torch.zeros(()))
        self.register_buffer("lost", torch.zeros(()), persistent=False)
        self.cache: dict[tuple[int, ...], Tensor] = {}
        self.last: Tensor | None = None
        self.log = logging.getLogger("component")
        self.around = [self]


def increase(component: Any, name: str) -> None:
    setattr(component, name, getattr(component, name) + 1)


STATE: dict[str, tuple[str, Callable[[Component], object]]] = {
    "number": ("'count' (1, then 2)", lambda c: increase(c, "count")),
    "tiny change": ("'rate' (1.0000000000000002, then 1.0000000000000004)", lambda c: increase_little(c)),
    "list": ("'bank' (list of 1, then list of 2)", lambda c: c.bank.append(torch.zeros(2))),
    "full queue": ("'queue' (deque of 4, then other values)", lambda c: c.queue.extend([c.queue[-1] + 1] * 4)),
    "set": ("'seen' (set of 1, then set of 2)", lambda c: c.seen.add(len(c.seen))),
    "counter": ("'votes' (Counter of 1, then other values)", lambda c: c.votes.update("a")),
    "tensor": ("'mean' (an array (3), then other values)", lambda c: c.mean.add_(1)),
    "array": ("'array' (an array (3), then other values)", lambda c: np.add(c.array, 1, out=c.array)),
    "Python's generator": ("'python' (Random, then other values)", lambda c: c.python.random()),
    "numpy's generator": ("'numpy' (Generator, then other values)", lambda c: c.numpy.random()),
    "torch's generator": ("'torch' (Generator, then other values)", lambda c: torch.rand(1, generator=c.torch)),
    "generator": ("'made' (generator, then other values)", lambda c: next(c.made)),
    "items": ("'items' (list_iterator, then other values)", lambda c: next(c.items)),
    "cycle": ("'turns' (cycle, then other values)", lambda c: next(c.turns)),
    "iterator": ("'numbers' (count, then other values)", lambda c: next(c.numbers)),
    "object": ("'record.count' (1, then 2)", lambda c: increase(c.record, "count")),
    "namespace": ("'space.epoch' (1, then 2)", lambda c: increase(c.space, "epoch")),
    "module in a list": ("'listed' (list of 1, then other values)", lambda c: c.listed[0].bias.data.add_(1)),
    "submodule": ("'critic.calls' (1, then 2)", lambda c: increase(c.critic, "calls")),
    "lost buffer": ("'lost' (an array (), then other values)", lambda c: c.lost.add_(1)),
    "attribute of the class": ("'shared' (list of 1, then list of 2)", lambda c: c.shared.append(1)),
    "global variable": ("'BANK' (list of 1, then list of 2)", lambda c: c.remember(1)),
    "new attribute": ("'new' (1, then 2)", lambda c: setattr(c, "new", getattr(c, "new", 0) + 1)),
}


def increase_little(component: Component) -> None:
    component.rate = float(np.nextafter(component.rate, 2))


@pytest.mark.parametrize("what", STATE)
def test_state_is_found(what: str) -> None:
    expected, use = STATE[what]
    Component.shared.clear()
    BANK.clear()
    component = Component()
    assert moved_by(lambda: use(component), component) == [expected]


NO_STATE: dict[str, Callable[[Component], object]] = {
    "nothing": lambda c: None,
    "a cache by shape": lambda c: c.cache.setdefault((4, 4), torch.zeros(4, 4)),
    "the last value": lambda c: setattr(c, "last", torch.ones(2, requires_grad=True).exp()),
    "a buffer": lambda c: c.kept.add_(1),
    "a parameter": lambda c: c.layer.weight.data.add_(1),
    "a mode": lambda c: c.train(not c.training),
    "a function": lambda c: setattr(c, "decay", lambda step: step),
    "a logger": lambda c: c.log.isEnabledFor(len(c.log.name)),
}


@pytest.mark.parametrize("what", NO_STATE)
def test_what_is_no_state_is_not(what: str) -> None:
    component = Component()
    assert moved_by(lambda: NO_STATE[what](component), component) == []


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("norm", [nn.utils.spectral_norm, nn.utils.weight_norm])
def test_torchs_old_norms_are_no_state(norm: Callable[[nn.Module], nn.Module]) -> None:
    class Layer(nn.Linear):
        pass

    layer = norm(Layer(3, 2))
    assert moved_by(lambda: layer(torch.ones(1, 3)), layer) == []
