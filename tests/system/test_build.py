"""Names become objects: wrappers, pairs, directions, seeds."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest
import torch
from torch import Tensor, nn

import ganlab
from ganlab.components.registry import Registry, installed
from ganlab.errors import SpecError
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from ganlab.spec.resolve import resolve
from ganlab.system.build import System, build
from helpers.systems import TINY, RandomImages


class Brighter(ganlab.Generator):
    """Wraps a generator and makes its images brighter."""

    def __init__(self, of: ganlab.Generator, by: float = 0.25) -> None:
        super().__init__()
        self.of = of
        self.by = by

    def encode(self, images: Tensor) -> Tensor:
        return self.of.encode(images)

    def decode(self, embedding: Tensor) -> Tensor:
        return (self.of.decode(embedding) + self.by).clamp(-1, 1)


class Negated(ganlab.Discriminator):
    """Wraps a discriminator, of images or of embeddings."""

    def __init__(self, of: ganlab.Discriminator) -> None:
        super().__init__()
        self.of = of

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = -self.of(x)
        return scores


class OneForBoth(ganlab.Generator):
    """One convolution that both directions share."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.net = nn.Conv2d(3, 3, width, padding=width // 2)

    @classmethod
    def pair(  # type: ignore[override]
        cls, domains: dict[str, ganlab.Domain], directions: tuple[str, ...], width: int
    ) -> dict[str, ganlab.Generator]:
        one = cls(width)
        if width == 5:
            return [one, one]  # type: ignore[return-value]
        return dict.fromkeys(directions[:1] if width == 7 else directions, one)

    def encode(self, images: Tensor) -> Tensor:
        return images

    def decode(self, embedding: Tensor) -> Tensor:
        return self.net(embedding).tanh()


class Lazy(ganlab.Generator):
    """Has lazy layers, which get their shapes and weights in a first forward."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.LazyConv2d(4, 1), nn.LazyBatchNorm2d(), nn.LazyConv2d(3, 1))

    def encode(self, images: Tensor) -> Tensor:
        return images

    def decode(self, embedding: Tensor) -> Tensor:
        return self.net(embedding).tanh()


class LazyCritic(ganlab.Discriminator):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.LazyConv2d(1, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


@ganlab.hookimpl
def ganlab_generators() -> dict[str, type[ganlab.Generator]]:
    return {"brighter": Brighter, "one_for_both": OneForBoth, "lazy": Lazy}


@ganlab.hookimpl
def ganlab_discriminators() -> dict[str, type[ganlab.Discriminator]]:
    return {"negated": Negated, "lazy": LazyCritic}


def system(patch: Json) -> System:
    registry = Registry([*installed(), EntryPoint("wrappers", __name__, "ganlab")])
    assert registry.broken == []
    return build(resolve(merge(TINY, patch), registry=registry), RandomImages().domains)


def test_a_generator_wraps_the_generator_of_its_own_direction() -> None:
    wrapped = system({"generator": {"type": "brighter", "of": TINY["generator"], "by": 0.5}}).networks
    plain = system({}).networks
    images = RandomImages(2, dtype=torch.float32)(0).images["a"]
    for direction in ("ab", "ba"):
        expected = (plain.generator(direction)(images) + 0.5).clamp(-1, 1)
        torch.testing.assert_close(wrapped.generator(direction)(images), expected)


@pytest.mark.parametrize(("inner", "sees", "count"), [("patch", "images", 2), ("embedding", "embeddings", 1)])
def test_a_wrapped_discriminator_sees_what_the_inner_one_does(inner: str, sees: str, count: int) -> None:
    options = {"type": "negated", "of": {"type": "negated", "of": {"type": inner, "width": 4, "layers": 1}}}
    networks = system({"discriminators": {"image": None, "other": options}}).networks
    assert len(networks.discriminators(sees)) == count
    assert len(networks.discriminators("images")) + len(networks.discriminators("embeddings")) == count


def test_one_generator_can_serve_both_directions() -> None:
    networks = system({"generator": {"type": "one_for_both", "width": 3}}).networks
    assert networks.generator("ab") is networks.generator("ba")
    networks.updated(networks.generator("ab").parameters())
    assert networks.versions["generator/ab"] == networks.versions["generator/ba"] == 1
    assert networks.versions["discriminator/image/a"] == 0


@pytest.mark.parametrize(("width", "gives"), [(5, "a list"), (7, "the directions ab")])
def test_a_pair_that_is_none_is_named(width: int, gives: str) -> None:
    with pytest.raises(SpecError) as failed:
        system({"generator": {"type": "one_for_both", "width": width}})
    said = f"pair: expected a generator for each direction, ab, ba, got {gives}"
    assert str(failed.value).startswith("generator: generator 'one_for_both' of plugin ")
    assert str(failed.value).endswith(said)


def test_lazy_layers_have_shapes_and_the_seeds_weights() -> None:
    lazy: Json = {"generator": {"type": "lazy"}, "discriminators": {"image": {"type": "lazy"}}}

    def weights(seed: int, dtype: str) -> dict[str, Tensor]:
        made = system(merge(lazy, {"seed": seed, "runtime": {"precision": dtype}})).networks.modules
        return {f"{name}.{key}": value for name, m in made.items() for key, value in m.state_dict().items()}

    one, again, other = weights(1, "float32"), weights(1, "float64"), weights(2, "float32")
    assert one["discriminator/image/a.net.weight"].shape == (1, 3, 2, 2)
    assert one["generator/ab.net.1.running_mean"].tolist() == [0.0] * 4
    assert one.keys() == again.keys() == other.keys()
    assert all(torch.equal(value, again[name].to(value.dtype)) for name, value in one.items())
    assert not torch.equal(one["generator/ab.net.0.weight"], one["generator/ba.net.0.weight"])
    assert not torch.equal(one["generator/ab.net.0.weight"], other["generator/ab.net.0.weight"])


def test_a_one_direction_spec_builds_one_generator_and_one_discriminator() -> None:
    networks = system({"directions": ["ba"], "losses": {"cycle": None}}).networks
    assert list(networks.modules) == ["generator/ba", "discriminator/image/a"]


def test_initial_weights_are_a_function_of_the_seed() -> None:
    def weights(seed: int) -> Tensor:
        torch.rand(seed + 1)  # earlier draws have no effect
        return torch.cat([p.flatten() for p in system({"seed": seed}).networks.generator("ab").parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))
