"""The networks of a run by name, and the version of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ganlab.errors import SpecError, text_of
from ganlab.interfaces.networks import Discriminator, Generator
from ganlab.system.compiling import Compiler, settings, watched
from ganlab.system.recomputing import recomputed
from ganlab.torch_utils import as_float, checked_activations


class _TensorKind(NamedTuple):
    """The properties of a tensor, without its batch size."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: str


class Networks:
    """Networks named `generator/DIRECTION`, `discriminator/LABEL/DOMAIN`, and `discriminator/LABEL` on embeddings.

    With `recomputes`, the activations inside a network are not kept for the backward pass, which computes them again.

    A network's version counts the updates of its parameters, including those it shares with other networks.
    """

    def __init__(
        self,
        generators: dict[str, Generator],
        image_discriminators: dict[tuple[str, str], Discriminator],
        embedding_discriminators: dict[str, Discriminator],
        autocast: str | None = None,
        recomputes: bool = False,
    ) -> None:
        self.modules: dict[str, nn.Module] = {}
        self.modules |= {f"generator/{direction}": g for direction, g in generators.items()}
        self.modules |= {f"discriminator/{label}/{domain}": d for (label, domain), d in image_discriminators.items()}
        self.modules |= {f"discriminator/{label}": d for label, d in embedding_discriminators.items()}
        self.versions = dict.fromkeys(self.modules, 0)
        self.forwards: Counter[str] = Counter()
        """The number of calls of each network's `features`, `decode` or `forward`, by "NAME.METHOD"."""
        self._known: dict[tuple[str, str], dict[_TensorKind, None]] = {}
        """{(network, verb): the kinds of tensors that it has been given for it}."""
        self._autocast = autocast
        self._recomputes = recomputes
        self._compiled: dict[tuple[str, str], Callable[[Tensor], Any]] = {}
        """{(network, method): the compiled method}."""
        self._twice: set[str] | None = None
        """Receives the names of networks that are differentiated twice. None outside `noting_second_derivatives`."""

    def __getitem__(self, name: str) -> Generator | Discriminator:
        module = self.modules[name]
        assert isinstance(module, Generator | Discriminator)
        return module

    def generator(self, direction: str) -> Generator:
        module = self.modules[f"generator/{direction}"]
        assert isinstance(module, Generator)
        return module

    def discriminator(self, name: str) -> Discriminator:
        module = self.modules[name]
        assert isinstance(module, Discriminator)
        return module

    def discriminators(self, sees: str, domain: str | None = None) -> list[str]:
        """The names of the discriminators that see "embeddings", or "images" (of one domain, if given) or pairs."""
        slashes = 2 if sees == "images" else 1
        return [
            name
            for name in self.modules
            if name.startswith("discriminator/")
            and name.count("/") == slashes
            and (domain is None or name.endswith(f"/{domain}"))
        ]

    def seen(self, name: str, source: Tensor, images: Tensor) -> Tensor:
        """Returns the input of a discriminator for images of its domain; a pair has their sources' channels first."""
        return torch.cat([source, images], dim=1) if self.discriminator(name).sees == "pairs" else images

    def computing(self) -> torch.autocast | nullcontext[None]:
        """Returns the context for the networks' computations alone: autocast if the precision requires it."""
        if self._autocast is None:
            return nullcontext()
        return torch.autocast(self._autocast, torch.bfloat16)

    def features(self, direction: str, images: Tensor) -> list[Tensor]:
        """The activations of a generator's encoder, the last of them the embedding. Raises SpecError as `activations`
        does."""
        name, network = f"generator/{direction}", self.generator(direction)
        self.forwards[f"{name}.features"] += 1
        with self._asked(name, "encode", images), self.computing():
            activations = checked_activations(network, self._apply(name, "features", images))
            return [as_float(network, activation) for activation in activations]

    def decode(self, direction: str, embedding: Tensor) -> Tensor:
        name = f"generator/{direction}"
        self.forwards[f"{name}.decode"] += 1
        with self._asked(name, "decode", embedding), self.computing():
            return as_float(self.generator(direction), self._apply(name, "decode", embedding))

    def score(self, name: str, x: Tensor) -> Tensor:
        """A discriminator's scores. Raises SpecError as `activations` does."""
        return as_float(self.modules[name], self.activations(name, x)[-1])

    def activations(self, name: str, x: Tensor) -> list[Tensor]:
        """A discriminator's activations in the precision of the computation; the last of them are the scores.

        Raises SpecError if the network fails at a tensor unlike all that it has been given before. The loss is then at
        fault.
        """
        self.forwards[f"{name}.forward"] += 1
        network = self.discriminator(name)
        with self._asked(name, "score", x), self.computing():
            return checked_activations(network, self._apply(name, "features", x))

    def _apply(self, name: str, method: str, x: Tensor) -> Any:
        if (name, method) in self._compiled:
            return self._compiled[name, method](x)
        network = self.modules[name]
        ordinary = getattr(network, method)
        outputs = recomputed(network, ordinary, x) if self._recomputes and torch.is_grad_enabled() else ordinary(x)
        if (twice := self._twice) is not None:
            watched(outputs, lambda: twice.add(name))
        return outputs

    def compile(self, names: Iterable[str], compiler: Compiler) -> None:
        """Compiles networks for the methods of this class. The modules stay as they are."""
        for name in names:
            network = self[name]
            for method in ("features", "decode") if isinstance(network, Generator) else ("features",):
                self._compiled[name, method] = compiler(name, network, method)

    def settings(self) -> AbstractContextManager[object]:
        """Returns a context with the settings of torch for a step."""
        return settings() if self._compiled else nullcontext()

    @contextmanager
    def uncompiled(self) -> Iterator[None]:
        """Computes inside as if no network were compiled."""
        before, self._compiled = self._compiled, {}
        try:
            yield
        finally:
            self._compiled = before

    @contextmanager
    def noting_second_derivatives(self) -> Iterator[set[str]]:
        """Yields a set that receives the names of the networks that are differentiated twice inside."""
        self._twice = found = set[str]()
        try:
            yield found
        finally:
            self._twice = None

    @contextmanager
    def keeping_activations(self) -> Iterator[None]:
        """Keeps all activations inside, even if the backward pass is to compute them again."""
        before, self._recomputes = self._recomputes, False
        try:
            yield
        finally:
            self._recomputes = before

    @contextmanager
    def _asked(self, name: str, verb: str, x: Tensor) -> Iterator[None]:
        known = self._known.setdefault((name, verb), {})
        kind = _TensorKind(tuple(x.shape[1:]), x.dtype, x.device.type)
        try:
            yield
        except Exception as error:
            if not known or kind in known:
                raise
            # ordered: the first is the dry run's, which fits
            what = _contrast(x, next(iter(known)), f"{verb}d")
            raise SpecError(f"asks {name} to {verb} {what}: {text_of(error)}") from error
        known[kind] = None

    def used(self) -> set[str]:
        """The names of the networks with a forward since `forwards` was cleared."""
        return {key.rpartition(".")[0] for key in self.forwards}

    def updated(self, parameters: Iterable[nn.Parameter]) -> list[str]:
        """Raises the version of every network that holds one of the parameters. Returns the networks' names."""
        changed = self.holding(map(id, parameters))
        for name in changed:
            self.versions[name] += 1
        return changed

    def holding(self, ids: Iterable[int]) -> list[str]:
        """Returns the names of the networks that hold a parameter with one of the ids."""
        asked = set(ids)
        return [name for name, module in self.modules.items() if any(id(p) in asked for p in module.parameters())]


def _contrast(x: Tensor, known: _TensorKind, done: str) -> str:
    """Returns a sentence's part that says how a tensor differs from a known kind."""
    if x.shape[1:] != known.shape:
        return f"{tuple(x.shape)}, unlike the (N, {', '.join(map(str, known.shape))}) that it has {done} before"
    return f"{x.dtype} on {x.device.type}, unlike the {known.dtype} on {known.device} that it has {done} before"
