"""Recognises an image size that is too small for a network: the same network takes larger images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from ganlab.errors import SpecError
from ganlab.interfaces.networks import Domain
from ganlab.system.error_attribution import Components
from ganlab.system.networks import Networks

FACTORS = (2, 4, 8, 16)
"""The multiples of an image size that are tried."""


def refuse_too_small(size: int, who: str, takes: Callable[[int], object]) -> None:
    """Raises SpecError, which names the network as `who`, if `takes` fails at `size` and succeeds at a multiple."""
    if _succeeds(takes, size):
        return
    for larger in (factor * size for factor in FACTORS):
        # the size again, because a network may fail at one call alone
        if _succeeds(takes, larger) and not _succeeds(takes, size):
            raise SpecError(f"data.size: {size} is too small for {who}, which takes {larger}")


@contextmanager
def explaining_size(networks: Networks, domains: Mapping[str, Domain], components: Components) -> Iterator[None]:
    """Replaces an error inside by one that names `data.size`, if the network takes larger images only."""
    try:
        yield
    except SpecError as error:
        for name in networks.modules:
            kind, *rest = name.split("/")
            place = kind if kind == "generator" else f"discriminators.{rest[0]}"
            try:
                refuse_too_small(
                    domains["a"].height,
                    components.at(place).name,
                    lambda size, name=name: _use(networks, name, domains, size),  # type: ignore[misc]
                )
            except SpecError as clearer:
                raise clearer from error
        raise


def _succeeds(takes: Callable[[int], object], size: int) -> bool:
    try:
        with torch.no_grad():
            takes(size)
    # a network refuses a size with an error of any kind
    except Exception:
        return False
    return True


def _use(networks: Networks, name: str, domains: Mapping[str, Domain], size: int) -> None:
    """Calls a network on blank images of a size, or on their embeddings."""
    like = next(networks.modules[name].parameters())

    def blank(domain: str) -> Tensor:
        return like.new_zeros((2, domains[domain].channels, size, size))

    kind, *rest = name.split("/")
    direction = next(of.partition("/")[2] for of in networks.modules if of.startswith("generator/"))
    if kind == "generator":
        networks.decode(rest[0], networks.features(rest[0], blank(rest[0][0]))[-1])
    elif len(rest) == 1:
        networks.score(name, networks.features(direction, blank(direction[0]))[-1])
    else:
        source = "b" if rest[1] == "a" else "a"
        networks.score(name, networks.seen(name, blank(source), blank(rest[1])))
