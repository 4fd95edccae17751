"""A dry pass over every loss before training: what each asks for, and whether the parts fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ganlab.build import System
from ganlab.data.sampler import Batch
from ganlab.errors import SpecError
from ganlab.interfaces import PLAYERS, Domain, Loss, Term
from ganlab.translation import Memo, Translation


class Asked(NamedTuple):
    """What one loss did for one player on one way."""

    parts: tuple[str, ...]
    """The names of its terms: one that is "" for a plain scalar, none where it had none."""
    names: frozenset[str]
    """What it asked the translation for, discriminators by their names."""


class Rehearsal(NamedTuple):
    asked: dict[tuple[str, str, str], Asked]
    """By player, way, loss."""
    saved_bytes: dict[str, int]
    """{player: bytes that autograd kept, per image, for all ways at once}."""


@contextmanager
def untouched_randomness(device: torch.device) -> Iterator[None]:
    """Leave torch's global generators as they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else [], device_type=device.type):
        yield


def prepare(system: System, batch: Batch) -> None:
    """Let every loss make its lazy parameters."""
    memo = Memo(system.networks, batch, {}, system.spec.seed)
    with _buffers_kept(system), torch.no_grad():
        for label, loss in system.losses.items():
            for way in system.schedule.ways:
                with system.parts.blamed(f"losses.{label}", f"losses.{label}'s preparation on way {way}"):
                    loss.prepare(Translation(way, memo))
            loss.to(system.device, system.dtype)


def rehearse(system: System, batch: Batch) -> Rehearsal:
    """Compute every term once; nothing moves. Raises SpecError where something doesn't fit."""
    networks, losses, ways = system.networks, system.losses, system.schedule.ways
    asked: dict[tuple[str, str, str], Asked] = {}
    saved: dict[str, int] = {}
    with _buffers_kept(system), untouched_randomness(system.device):
        for way in ways:
            _check_shapes(system, way, batch)
        for turn, player in enumerate(PLAYERS):
            memo = Memo(networks, batch, {}, system.spec.seed)
            memo.begin(player, (0, turn), graph=player == "generator")
            with _counting_saved_bytes() as kept:
                for way in ways:
                    for label, loss in losses.items():
                        memo.asked = set()
                        with blamed(system, label, player, way):
                            parts = terms(loss, player, Translation(way, memo))
                        asked[player, way, label] = Asked(tuple(parts), frozenset(memo.asked))
            count = len(next(iter(batch.images.values())))
            saved[player] = sum(kept.values()) // count
    networks.forwards.clear()
    return Rehearsal(asked, saved)


def terms(loss: Loss, player: str, t: Translation) -> dict[str, Tensor]:
    """{part: scalar} that a loss gives a player on a way; a plain scalar's part is ""."""
    given: Term = loss.generator(t) if player == "generator" else loss.discriminator(t)
    if given is None:
        return {}
    parts = dict(given) if isinstance(given, Mapping) else {"": given}
    for part, value in parts.items():
        if not isinstance(value, Tensor) or value.numel() != 1:
            shape = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise SpecError(f"gives {f'{part!r} ' if part else ''}a {shape} where a scalar tensor is due")
        if not value.is_floating_point():
            raise SpecError(f"gives {f'{part!r} ' if part else ''}a {value.dtype} where a floating-point scalar is due")
    return {part: value.reshape(()) for part, value in parts.items()}


def blamed(system: System, label: str, player: str, way: str, step: int | None = None) -> AbstractContextManager[None]:
    """An error in a loss's term becomes a sentence that says where and whose."""
    place = f"losses.{label}"
    return system.parts.blamed(place, f"{place}'s {player} term on way {way}", step)


def describe_networks(system: System, domains: Mapping[str, Domain]) -> dict[str, dict[str, Any]]:
    """{network: {"parameters", "input", "output"}}, the shapes as "CxHxW"."""
    networks = system.networks
    described: dict[str, dict[str, Any]] = {}

    def images(domain: str) -> Tensor:
        shape = domains[domain]
        return torch.zeros(2, shape.channels, shape.height, shape.width, device=system.device, dtype=system.dtype)

    with _buffers_kept(system), torch.no_grad():
        for name, module in networks.modules.items():
            kind, *rest = name.split("/")
            if kind == "generator":
                x = images(rest[0][0])
                y = networks.decode(rest[0], networks.features(rest[0], x)[-1])
            else:
                way = system.schedule.ways[0]
                x = images(rest[1]) if len(rest) == 2 else networks.features(way, images(way[0]))[-1]
                y = networks.score(name, x)
            described[name] = {
                "parameters": sum(p.numel() for p in module.parameters()),
                "input": "x".join(map(str, x.shape[1:])),
                "output": "x".join(map(str, y.shape[1:])),
            }
    return described


def _check_shapes(system: System, way: str, batch: Batch) -> None:
    networks, real, target = system.networks, batch.images[way[0]], batch.images[way[1]]
    translating = f"generator: can't translate images of {_side(real)}"
    with system.parts.blamed("generator", translating), torch.no_grad():
        fake = networks.decode(way, networks.features(way, real)[-1])
    for name in [*networks.discriminators("images", way[1]), *networks.discriminators("embeddings")]:
        place = f"discriminators.{name.split('/')[1]}"
        with torch.no_grad():
            seen = target if name.count("/") == 2 else networks.features(way, real)[-1]
            with system.parts.blamed(place, f"{place}: can't score what is {_side(seen)}"):
                scores = networks.score(name, seen)
        if scores.dim() != 4 or len(scores) != len(seen):
            what = system.parts.of(place).what
            raise SpecError(f"{place}: gives scores of shape {tuple(scores.shape)}, not (N, K, h, w) ({what})")
    if fake.shape != target.shape:
        raise SpecError(
            f"generator: makes images of {_side(fake)} of {_side(real)}; those of domain {way[1]} are {_side(target)}"
            " (is data.size a multiple of its downsampling?)"
        )


def _side(images: Tensor) -> tuple[int, ...]:
    """Their shape but for how many they are."""
    return tuple(images.shape[1:])


@contextmanager
def _buffers_kept(system: System) -> Iterator[None]:
    """What forwards change in networks and losses, running statistics say, is put back."""
    modules = [*system.networks.modules.values(), *system.losses.values()]
    before = [{name: buffer.clone() for name, buffer in module.named_buffers()} for module in modules]
    yield
    with torch.no_grad():
        for module, buffers in zip(modules, before, strict=True):
            for name, buffer in module.named_buffers():
                if name in buffers:
                    buffer.copy_(buffers[name])


@contextmanager
def _counting_saved_bytes() -> Iterator[dict[int, int]]:
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        # an output that is saved with its own graph would keep itself alive
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept
