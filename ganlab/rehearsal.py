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
from ganlab.networks import Networks
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


class Watched(Memo):
    """One that notices what losses change in place of what they are given."""

    def __init__(self, networks: Networks, batch: Batch, seed: int) -> None:
        super().__init__(networks, batch, {}, seed)
        # layers may work in place: what counts is the version at which a value was first given
        self._given = {("images", domain): [(x, x._version)] for domain, x in batch.images.items()}

    def keep(self, key: tuple[Any, ...], through: tuple[str, ...], value: Any) -> None:
        super().keep(key, through, value)
        given = value[1:] if key[0] == "score" else [value] if isinstance(value, Tensor) else value
        self._given[key] = [(x, x._version) for x in given]

    def changed(self, way: str) -> list[str]:
        """What was changed, by the names that it has on a way."""
        changed = (key for key, given in self._given.items() if any(x._version != before for x, before in given))
        return [_called(key, way) for key in changed]


def _called(key: tuple[Any, ...], way: str) -> str:
    what, of = key[:2]
    if what == "images":
        return "t.real" if of == way[0] else "t.target"
    if what == "score":
        return f"the scores of {of}"
    names = {
        ("decoded", "real"): "fake",
        ("decoded", "target"): "identity",
        ("encoded_back", of): "fake_embedding",
        ("features", of): f"features({of!r})",
        ("features", "real"): "embedding or features()",
    }
    return f"{'t' if key[-1] == way else 't.back'}.{names.get((what, of), what)}"


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
            _check_forward(system, way, batch)
        for turn, player in enumerate(PLAYERS):
            memo = Watched(networks, batch, system.spec.seed)
            memo.begin(player, (0, turn), graph=player == "generator")
            kept: dict[int, int] = {}
            learnt: dict[str, set[int]] = {label: set() for label in losses}
            # what is freed may give its address to another
            held: list[Tensor] = []
            for way in ways:
                for label, loss in losses.items():
                    memo.asked = set()
                    with blamed(system, label, player, way):
                        with _counting_saved_bytes(kept):
                            parts = terms(loss, player, Translation(way, memo))
                        if changed := memo.changed(way):
                            raise SpecError(f"changes {changed[0]} in place")
                    asked[player, way, label] = Asked(tuple(parts), frozenset(memo.asked))
                    held += parts.values()
                    if system.spec.weight(label)[player]:
                        for value in parts.values():
                            learnt[label] |= _learnt(system, label, player, way, value)
            for label in losses:
                _check_learnt(system, label, player, learnt[label])
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


def _learnt(system: System, label: str, player: str, way: str, value: Tensor) -> set[int]:
    """The ids of the parameters that a term moves. Raises SpecError where its gradients reach none of its player's."""
    loss, networks = system.losses[label], system.networks.modules
    moving = [network for name, network in networks.items() if name.startswith(f"{player}/")]
    if not (parameters := list(trainable([*moving, loss] if loss.trains == player else moving))):
        return set()
    with system.parts.blamed("gradients", f"the {player}'s gradients of {label} on way {way}"):
        reached = _reached(value, parameters)
    if not reached:
        others = [name for name, network in networks.items() if _reached(value, list(trainable([network])))]
        found = f"only for {', '.join(others)}" if others else "nor any others"
        with blamed(system, label, player, way):
            raise SpecError(f"has gradients for no {player}, {found}")
    return reached


def _reached(value: Tensor, parameters: list[nn.Parameter]) -> set[int]:
    if not value.requires_grad or not parameters:
        return set()
    gradients = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    return {id(p) for p, gradient in zip(parameters, gradients, strict=True) if gradient is not None}


def _check_learnt(system: System, label: str, player: str, learnt: set[int]) -> None:
    loss = system.losses[label]
    if loss.trains != player or not system.spec.weight(label)[player]:
        return
    own = {name: parameter for name, parameter in loss.named_parameters() if parameter.requires_grad}
    if missed := [name for name, parameter in own.items() if id(parameter) not in learnt]:
        raise _unfit(system, f"losses.{label}", f"no {player} term has gradients for its own {', '.join(missed)}")


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
    with system.parts.blamed("generator", translating), torch.no_grad():
        embedding = networks.features(way, real)[-1]
        versions += embedding._version
        fake = networks.decode(way, embedding)
    if real._version + embedding._version != versions:
        raise _unfit(system, "generator", "changes the images or the embedding that it is given in place")
    for name in [*networks.discriminators("images", way[1]), *networks.discriminators("embeddings")]:
        place = f"discriminators.{name.split('/')[1]}"
        seen = target if name.count("/") == 2 else embedding
        version = seen._version
        with torch.no_grad(), system.parts.blamed(place, f"{place}: can't score what is {_side(seen)}"):
            scores = networks.score(name, seen)
        if seen._version != version:
            raise _unfit(system, place, "changes what it is given in place")
        if scores.dim() != 4 or len(scores) != len(seen):
            raise _unfit(system, place, f"gives scores of shape {tuple(scores.shape)}, not (N, K, h, w)")
    if fake.shape != target.shape:
        raise SpecError(
            f"generator: makes images of {_side(fake)} of {_side(real)}; those of domain {way[1]} are {_side(target)}"
            " (is data.size a multiple of its downsampling?)"
        )


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
        sampled = generator(real)
    apart = float((sampled - trained).abs().max()) if sampled.shape == trained.shape else math.inf
    # computed otherwise, the same may differ in its last digits
    if apart > 1e-3 * float(trained.abs().max()):
        how = f"forward, by which samples are made, differs by up to {apart:.3g} from decode of features, by which it"
        raise _unfit(system, "generator", f"{how} is trained, on way {way}")


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


def _counting_saved_bytes(kept: dict[int, int]) -> torch.autograd.graph.saved_tensors_hooks:
    """Within it what autograd keeps is added to {address: bytes}."""

    def pack(tensor: Tensor) -> tuple[Tensor, int]:
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        # an output that is saved with its own graph would keep itself alive
        return tensor.detach(), tensor._version

    def unpack(packed: tuple[Tensor, int]) -> Tensor:
        tensor, version = packed
        # where there are hooks, autograd doesn't look itself
        if tensor._version != version:
            raise RuntimeError(f"one of shape {tuple(tensor.shape)} that they need was changed in place")
        return tensor

    return torch.autograd.graph.saved_tensors_hooks(pack, unpack)
