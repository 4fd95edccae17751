"""The networks of a run by name, and at which version each is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ganlab.errors import SpecError, text_of
from ganlab.interfaces import Discriminator, Generator
from ganlab.modules import per_image, stateful


class _Kind(NamedTuple):
    """Of tensors, whatever their number is."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: str


class Networks:
    """Names are `generator/WAY`, `discriminator/LABEL/DOMAIN`, and `discriminator/LABEL` for one on embeddings.

    A network's version counts the updates of its parameters, its own or shared ones.
    """

    def __init__(
        self,
        generators: dict[str, Generator],
        image_discriminators: dict[tuple[str, str], Discriminator],
        embedding_discriminators: dict[str, Discriminator],
        autocast: str | None = None,
    ) -> None:
        self.modules: dict[str, nn.Module] = {}
        self.modules |= {f"generator/{way}": g for way, g in generators.items()}
        self.modules |= {f"discriminator/{label}/{to}": d for (label, to), d in image_discriminators.items()}
        self.modules |= {f"discriminator/{label}": d for label, d in embedding_discriminators.items()}
        self.versions = dict.fromkeys(self.modules, 0)
        self.forwards: Counter[str] = Counter()
        """How often each network's `features`, `decode` or `forward` ran, by "NAME.METHOD"."""
        self._scored: dict[str, dict[_Kind, None]] = {name: {} for name in self.modules}
        self._autocast = autocast

    def generator(self, way: str) -> Generator:
        module = self.modules[f"generator/{way}"]
        assert isinstance(module, Generator)
        return module

    def discriminator(self, name: str) -> Discriminator:
        module = self.modules[name]
        assert isinstance(module, Discriminator)
        return module

    def discriminators(self, sees: str, to: str | None = None) -> list[str]:
        """Names of the discriminators that see "images" (of domain `to`), or "embeddings"."""
        slashes = 2 if sees == "images" else 1
        return [
            name
            for name in self.modules
            if name.startswith("discriminator/")
            and name.count("/") == slashes
            and (to is None or name.endswith(f"/{to}"))
        ]

    def joinable(self, name: str) -> bool:
        """Whether the network makes the same of an image in whatever batch it comes."""
        return not self.stateful(name) and per_image(self.modules[name])

    def stateful(self, name: str) -> bool:
        """Whether each use of the network is its own."""
        return stateful(self.modules[name])

    def computing(self) -> torch.autocast | nullcontext[None]:
        """The context in which networks, and networks alone, compute."""
        if self._autocast is None:
            return nullcontext()
        return torch.autocast(self._autocast, torch.bfloat16)

    def features(self, way: str, images: Tensor) -> list[Tensor]:
        self.forwards[f"generator/{way}.features"] += 1
        with self.computing():
            network = self.generator(way)
            return [full(network, f) for f in network.features(images)]

    def decode(self, way: str, embedding: Tensor) -> Tensor:
        self.forwards[f"generator/{way}.decode"] += 1
        with self.computing():
            network = self.generator(way)
            return full(network, network.decode(embedding))

    def score(self, name: str, x: Tensor) -> Tensor:
        """Raises SpecError where the discriminator fails at what is unlike all that it has scored before: that is not
        its fault."""
        self.forwards[f"{name}.forward"] += 1
        network, scored = self.discriminator(name), self._scored[name]
        kind = _Kind(tuple(x.shape[1:]), x.dtype, x.device.type)
        try:
            with self.computing():
                scores = full(network, network(x))
        except Exception as error:
            if not scored or kind in scored:
                raise
            raise SpecError(f"asks {name} to score {_unlike(x, next(iter(scored)))}: {text_of(error)}") from error
        # in the order in which they came: the first is what the dry pass begins with
        scored[kind] = None
        return scores

    def updated(self, parameters: Iterable[nn.Parameter]) -> None:
        """Their values have changed: every network that holds one of them is at a new version."""
        for name in self.holding(map(id, parameters)):
            self.versions[name] += 1

    def holding(self, ids: Iterable[int]) -> list[str]:
        """The networks that hold one of the parameters with these ids, their own or shared ones."""
        asked = set(ids)
        return [name for name, module in self.modules.items() if any(id(p) in asked for p in module.parameters())]


def _unlike(x: Tensor, known: _Kind) -> str:
    """What is other about a tensor."""
    if x.shape[1:] != known.shape:
        return f"{tuple(x.shape)}, unlike the (N, {', '.join(map(str, known.shape))}) that it has scored before"
    return f"{x.dtype} on {x.device.type}, unlike the {known.dtype} on {known.device} that it has scored before"


def full(network: nn.Module, given: Tensor) -> Tensor:
    """What a network has given, in float32 at least. Raises TypeError where that is no tensor."""
    # by the first argument the error is known as the network's
    if not isinstance(given, Tensor):
        raise TypeError(f"gives a {type(given).__name__} where a tensor is due")
    return given.float() if given.dtype == torch.bfloat16 else given
