"""Training in a plain PyTorch loop, written from a paper, to compare with the trainer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ganlab.engine.trainer import Trainer
from helpers.systems import RandomImages, stir

Modules = dict[str, nn.Module]
Named = dict[str, Tensor]

LR = 2e-3


def images(draw: int) -> Named:
    return RandomImages()(draw).images


def stirred_copies(trainer: Trainer, critics: bool = True) -> Modules:
    """Enlarges the weights of the trainer's networks and returns copies of the networks."""
    stir(trainer, critics)
    return copy.deepcopy(trainer.system.networks.modules)


def networks_of(modules: Modules, direction: str) -> tuple[Any, Any, Any]:
    """Returns the direction's generator, the other direction's, and the discriminator of the target domain."""
    return (
        modules[f"generator/{direction}"],
        modules[f"generator/{direction[::-1]}"],
        modules[f"discriminator/image/{direction[1]}"],
    )


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=LR, betas=(0.5, 0.999), fused=False, foreach=False)


def rmsprop(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(parameters, lr=LR, foreach=False)


class PlainLoop:
    """Copies of a trainer's networks, and one optimizer for each of `groups`, or one for all networks."""

    def __init__(
        self,
        modules: Modules,
        optimizer: Callable[[Any], torch.optim.Optimizer] = adam,
        groups: Sequence[Sequence[str]] | None = None,
    ) -> None:
        self.modules = modules
        self.gradients: list[Named] = []
        self.optimizers: dict[tuple[str, ...], torch.optim.Optimizer] = {}
        for names in groups or [list(modules)]:
            # a dict holds a layer that two networks share only once
            unique = {id(p): p for name in names for p in modules[name].parameters()}
            self.optimizers[tuple(names)] = optimizer(list(unique.values()))

    def direction(self, direction: str) -> tuple[Any, Any, Any]:
        return networks_of(self.modules, direction)

    def update(self, moves: Iterable[str], loss: Callable[[], Tensor]) -> None:
        """Updates the networks named in `moves`; `requires_grad` freezes the others."""
        names = set(moves)
        for module in self.modules.values():
            module.requires_grad_(False)
        for name in names:
            self.modules[name].requires_grad_(True)
        moved = [optimizer for group, optimizer in self.optimizers.items() if names & set(group)]
        for optimizer in moved:
            optimizer.zero_grad()
        loss().backward()
        self.gradients.append(gradients(self.modules))
        for optimizer in moved:
            optimizer.step()
            optimizer.zero_grad()

    def update_player(self, player: str, loss: Callable[[], Tensor]) -> None:
        """Updates all networks of a player."""
        self.update([name for name in self.modules if name.startswith(player)], loss)


def gradients(modules: Modules) -> Named:
    return {
        f"{name} {key}": p.grad.clone()
        for name, module in modules.items()
        for key, p in module.named_parameters()
        if p.grad is not None
    }


def record_gradients(trainer: Trainer) -> list[Named]:
    """Returns a list that receives the gradients of all networks at each update of the trainer."""
    seen: list[Named] = []
    for optimizer in trainer.state.optimizers.values():
        optimizer.register_step_pre_hook(lambda *_: seen.append(gradients(trainer.system.networks.modules)))
    return seen


def check_training(
    trainer: Trainer, plain: PlainLoop, step: Callable[[int], None], steps: int = 3, rtol: float = 1e-8
) -> None:
    """Trains both and compares the gradients of every update and the weights at the end.

    Running statistics are not compared, because they depend on the number of forwards.
    """
    before = copy.deepcopy(plain.modules)
    seen = record_gradients(trainer)
    for number in range(steps):
        trainer.step()
        step(number)
    assert len(seen) == len(plain.gradients)
    for mine, theirs in zip(seen, plain.gradients, strict=True):
        assert mine.keys() == theirs.keys()
        torch.testing.assert_close(mine, theirs, rtol=rtol, atol=rtol)
    for name, module in trainer.system.networks.modules.items():
        mine, theirs = (dict(m.named_parameters()) for m in (module, plain.modules[name]))
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-8)
        assert any(not torch.equal(p, q) for p, q in zip(module.parameters(), before[name].parameters(), strict=True))
