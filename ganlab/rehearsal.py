"""A dry pass over every loss before training: what each asks for, and whether the parts fit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ganlab.build import System
from ganlab.data.sampler import Batch
from ganlab.errors import SpecError
from ganlab.interfaces import PLAYERS, Domain, Generator, Loss, Term
from ganlab.modules import evaluating, trainable
from ganlab.networks import full
from ganlab.translation import Memo, Translation
from ganlab.watched import Saved, Watched, check_saved, ends, kept_bytes, saving


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
    idle: list[str]
    """A sentence for each loss whose terms are numbers that move nothing now."""


@contextmanager
def untouched_randomness(device: torch.device) -> Iterator[None]:
    """Leave torch's global generators as they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else [], device_type=device.type):
        yield


def prepare(system: System, batch: Batch) -> None:
    """Let every loss make its lazy parameters."""
    memo = Memo(system.networks, batch, {}, system.spec.seed)
    moving = list(trainable(system.networks.modules.values()))
    with _buffers_kept(system), torch.no_grad():
        for label, loss in system.losses.items():
            for way in system.schedule.ways:
                with system.parts.blamed(f"losses.{label}", f"losses.{label}'s preparation on way {way}"):
                    loss.prepare(Translation(way, memo))
                    _refuse_frozen(system, moving)
            _check_own(system, label, loss)
            loss.to(system.device, system.dtype)


def rehearse(system: System, batch: Batch) -> Rehearsal:
    """Compute every term once; nothing moves. Raises SpecError where something doesn't fit."""
    networks, losses, ways = system.networks, system.losses, system.schedule.ways
    asked: dict[tuple[str, str, str], Asked] = {}
    saved_bytes: dict[str, int] = {}
    idle: list[str] = []
    moving = list(trainable(networks.modules.values()))
    parameters = list(trainable([*networks.modules.values(), *losses.values()]))
    with _buffers_kept(system), untouched_randomness(system.device):
        for way in ways:
            _check_shapes(system, way, batch)
            _check_forward(system, way, batch)
        for turn, player in enumerate(PLAYERS):
            memo = Watched(networks, batch, system.spec.seed)
            memo.begin(player, (0, turn), graph=player == "generator")
            saved: list[Saved] = []
            minimised: list[Tensor] = []
            learnt: dict[str, set[int]] = {label: set() for label in losses}
            given: dict[str, dict[str, Tensor]] = {label: {} for label in losses}
            for way in ways:
                for label, loss in losses.items():
                    memo.asked = set()
                    with blamed(system, label, player, way):
                        with saving(saved):
                            parts = terms(loss, player, Translation(way, memo))
                        _refuse_frozen(system, moving)
                        if changed := memo.changed(way):
                            raise SpecError(f"changes {changed[0]} in place")
                        if system.spec.weight(label)[player]:
                            minimised += parts.values()
                            given[label] |= {f"{way}/{part}".rstrip("/"): value for part, value in parts.items()}
                            learnt[label].update(*(_reached(system, loss, player, value) for value in parts.values()))
                    asked[player, way, label] = Asked(tuple(parts), frozenset(memo.asked))
                    gradients = f"the {player}'s gradients of {label} on way {way}"
                    with system.parts.blamed("gradients", gradients, of=[f"losses.{label}"]):
                        check_saved(saved, minimised, parameters)
            for label in losses:
                _check_learnt(system, label, player, learnt[label])
                idle += _idle(system, label, player, given[label])
            count = len(next(iter(batch.images.values())))
            saved_bytes[player] = kept_bytes(saved) // count
    networks.forwards.clear()
    return Rehearsal(asked, saved_bytes, idle)


def _check_own(system: System, label: str, loss: Loss) -> None:
    if not any(getattr(type(loss), player) is not getattr(Loss, player) for player in PLAYERS):
        raise _unfit(system, f"losses.{label}", f"has no term: it is to have a method {' or '.join(PLAYERS)}")
    if held := system.networks.holding(map(id, loss.parameters())):
        how = f"keeps {', '.join(held)} as its own, which the {loss.trains}s' turn would move: t gives it each time"
        raise _unfit(system, f"losses.{label}", how)


def _refuse_frozen(system: System, moving: list[nn.Parameter]) -> None:
    """Raises SpecError where some of what was trainable isn't any longer."""
    if named := system.networks.holding(id(p) for p in moving if not p.requires_grad):
        raise SpecError(f"freezes parameters of {', '.join(named)}, which the {named[0].split('/')[0]}s' turn moves")


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


def _reached(system: System, loss: Loss, player: str, value: Tensor) -> set[int]:
    """The ids of the parameters that a term's gradients reach. Raises SpecError where the player moves none of them;
    a term that is constant now may not be so later."""
    networks = system.networks.modules
    moving = [network for name, network in networks.items() if name.startswith(f"{player}/")]
    moved = {id(p) for p in trainable([*moving, loss] if loss.trains == player else moving)}
    reached = _leaves(value)
    if value.requires_grad and moved and moved.isdisjoint(reached):
        others = system.networks.holding(reached)
        if any(id(p) in reached for p in loss.parameters()):
            others.append(f"its own parameters, which it gives to the {loss.trains}")
        found = f"only for {', '.join(others)}" if others else "nor for anything else"
        raise SpecError(f"has no gradients for any {player}, {found}")
    return reached


def _leaves(value: Tensor) -> set[int]:
    """The ids of the tensors at which a value's graph ends."""
    return {id(leaf) for leaf in ends(value)}


def _check_held(system: System, place: str, given: Tensor) -> None:
    """That a network which has given this holds all that it is made of."""
    held = {id(p) for module in system.networks.modules.values() for p in module.parameters()}
    lost = [leaf for leaf in ends(given) if isinstance(leaf, nn.Parameter) and id(leaf) not in held]
    if lost:
        shapes = ", ".join(map(str, sorted(tuple(leaf.shape) for leaf in lost)))
        how = (
            f"uses parameters {shapes} that no module holds, so that they are not trained; is a layer in a plain list?"
        )
        raise _unfit(system, place, how)


def _check_learnt(system: System, label: str, player: str, learnt: set[int]) -> None:
    loss = system.losses[label]
    if loss.trains != player or not learnt:
        return
    own = {name: parameter for name, parameter in loss.named_parameters() if parameter.requires_grad}
    # some may be for the other way, or another step
    if own and learnt.isdisjoint(map(id, own.values())):
        raise _unfit(system, f"losses.{label}", f"no {player} term has gradients for its own {', '.join(own)}")


def _idle(system: System, label: str, player: str, given: dict[str, Tensor]) -> list[str]:
    """What is to be said of a player's terms if none has a gradient and yet one has a value: zeros wait for a later
    step, and of several terms one may only be logged."""
    if any(value.requires_grad for value in given.values()) or not any(given.values()):
        return []
    values = ", ".join(f"{name} {value.item():.3g}" for name, value in given.items())
    how = f"its {player} terms are {values} and have no gradient: while that is so, no {player} learns from them"
    return [str(_unfit(system, f"losses.{label}", how))]


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
    versions = real._version
    with system.parts.blamed("generator", translating):
        embedding = networks.features(way, real)[-1]
        versions += embedding._version
        fake = networks.decode(way, embedding)
    _check_held(system, "generator", fake)
    embedding, fake = embedding.detach(), fake.detach()
    if real._version + embedding._version != versions:
        raise _unfit(system, "generator", "changes in place the images or the embedding that it is given")
    for name in [*networks.discriminators("images", way[1]), *networks.discriminators("embeddings")]:
        place = f"discriminators.{name.split('/')[1]}"
        seen = target if name.count("/") == 2 else embedding
        version = seen._version
        with system.parts.blamed(place, f"{place}: can't score what is {_side(seen)}"):
            scores = networks.score(name, seen)
        _check_held(system, place, scores)
        if seen._version != version:
            raise _unfit(system, place, "changes in place what it is given")
        if scores.dim() != 4 or len(scores) != len(seen):
            raise _unfit(system, place, f"gives scores of shape {tuple(scores.shape)}, not (N, K, h, w)")
    if len(fake) != len(real):
        raise _unfit(system, "generator", f"makes {len(fake)} images of {len(real)}")
    if fake.shape != target.shape:
        how = f"makes images of {_side(fake)} of {_side(real)}; those of domain {way[1]} are {_side(target)}"
        raise _unfit(system, "generator", f"{how}; is data.size a multiple of its downsampling?")


def _check_forward(system: System, way: str, batch: Batch) -> None:
    """That what makes samples is what is trained."""
    generator, real = system.networks.generator(way), batch.images[way[0]]
    cls = type(generator)
    inherited = cls.encode is Generator.encode or cls.features is Generator.features
    if cls.forward is Generator.forward and inherited:
        return
    with evaluating(generator), torch.no_grad(), system.parts.blamed("generator", "generator: can't translate"):
        torch.manual_seed(0)
        trained = generator.decode(generator.features(real)[-1])
        torch.manual_seed(0)
        sampled = full(generator, generator(real))
    apart = float((sampled - trained).abs().max()) if sampled.shape == trained.shape else math.inf
    # the same, computed in another order, may differ in its last digits
    if not apart <= 1e-3 * float(trained.abs().max()):
        how = f"forward, which makes samples, differs by up to {apart:.3g} from decode of features, which is trained"
        raise _unfit(system, "generator", f"{how}, on way {way}")


def _unfit(system: System, place: str, how: str) -> SpecError:
    return SpecError(f"{place}: {how} ({system.parts.of(place).what})")


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
