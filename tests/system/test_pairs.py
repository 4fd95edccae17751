"""Discriminators that see pairs, and paired data. This module is a plugin itself."""

from __future__ import annotations

import copy
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ganlab_cyclegan.discriminator import Patch
from PIL import Image
from torch import Tensor
from torch.nn.functional import l1_loss

import ganlab
from ganlab import Translation
from ganlab.components.registry import Registry, installed
from ganlab.data.sampler import Sampler
from ganlab.engine.summary import describe_networks
from ganlab.engine.trainer import Trainer
from ganlab.errors import SpecError
from ganlab.evaluation.splits import split
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from ganlab.spec.resolve import resolve
from ganlab.system.build import build, build_data
from ganlab.system.forward_cache import ForwardCache
from helpers.plain_loop import LR, PlainLoop, check_training, images
from helpers.systems import DIRECTIONS, TINY, Around, RandomImages, make_trainer, stir


class OnPairs(Patch):
    sees = "pairs"


class Forgetting(Around):
    """A wrapper that does not set `sees`."""

    def __init__(self, of: ganlab.Discriminator) -> None:
        super().__init__(of)


class ToTarget(ganlab.Loss):
    """The distance of the translation from its pair."""

    def generator(self, t: Translation) -> Tensor:
        return l1_loss(t.fake, t.target)


@ganlab.hookimpl
def ganlab_discriminators() -> dict[str, type[ganlab.Discriminator]]:
    return {"on_pairs": OnPairs, "forgetting": Forgetting}


@ganlab.hookimpl
def ganlab_losses() -> dict[str, type[ganlab.Loss]]:
    return {"to_target": ToTarget}


REGISTRY = Registry([*installed(), EntryPoint("probes", __name__, "ganlab")])
PAIRS = {"type": "on_pairs", "width": 4, "layers": 1}


def make(patch: dict[str, Any] | None = None) -> Trainer:
    """Returns a trainer in float64 with a discriminator on pairs."""
    trainer = make_trainer({"discriminators": {"image": PAIRS}} | (patch or {}), known=REGISTRY)
    stir(trainer)
    return trainer


@pytest.mark.parametrize("player", ["generator", "discriminator"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_scores_are_those_of_source_and_image(player: str, wrapped: bool) -> None:
    image = {"type": "forgetting", "of": PAIRS, "width": None, "layers": None} if wrapped else PAIRS
    networks = make({"discriminators": {"image": image}}).system.networks
    cache = ForwardCache(networks, RandomImages()(0), {}, 0)
    cache.begin(player, (0, 0), with_graph=True)
    for direction in DIRECTIONS:
        t = Translation(direction, cache)
        own = networks.discriminator(f"discriminator/image/{direction[1]}")
        for shown in (t.target, t.fake):
            expected = own(torch.cat([t.source, shown], dim=1))
            torch.testing.assert_close(t.score(shown), expected, rtol=0, atol=1e-14)
            assert t.activations(shown)[-1] is t.score(shown)
            if shown.requires_grad:
                (gradient,) = torch.autograd.grad(t.score(shown).sum(), shown, retain_graph=True)
                assert gradient.abs().sum() > 0
        with pytest.raises(SpecError, match="shows images of domain"):
            t.score(t.source)


def test_pix2pix() -> None:
    """The conditional adversarial loss and L1 of arXiv:1611.07004, eq. 1 and 3, with least squares."""
    losses = {"cycle": None, "pair": {"type": "to_target", "weight": 100}}
    trainer = make({"losses": losses, "schedule": {"type": "alternating", "lr": LR}})
    plain = PlainLoop(copy.deepcopy(trainer.system.networks.modules))

    def step(number: int) -> None:
        x = images(number)
        for direction in DIRECTIONS:
            g, _, d = plain.direction(direction)
            a, b = x[direction[0]], x[direction[1]]

            def discriminator(g: Any = g, d: Any = d, a: Tensor = a, b: Tensor = b) -> Tensor:
                return torch.mean((d(torch.cat([a, b], 1)) - 1) ** 2) + torch.mean(d(torch.cat([a, g(a)], 1)) ** 2)

            def generator(g: Any = g, d: Any = d, a: Tensor = a, b: Tensor = b) -> Tensor:
                return torch.mean((d(torch.cat([a, g(a)], 1)) - 1) ** 2) + 100 * torch.mean(abs(g(a) - b))

            plain.update([f"discriminator/image/{direction[1]}"], discriminator)
            plain.update([f"generator/{direction}"], generator)

    check_training(trainer, plain, step, rtol=1e-9)
    assert trainer.system.networks.forwards["discriminator/image/b.forward"] == 3 * 3


def test_a_pair_has_the_channels_of_both_domains() -> None:
    source = RandomImages(channels={"a": 1, "b": 3})
    patch = {"discriminators": {"image": PAIRS}, "runtime": {"precision": "float64"}}
    system = build(resolve(merge(TINY, patch), registry=REGISTRY), source.domains)
    described = {network["name"]: network for network in describe_networks(system, source.domains)}
    for domain in "ab":
        assert described[f"discriminator/image/{domain}"]["input"] == "4x16x16"
    trainer = Trainer(system, source)
    trainer.step()
    assert trainer.log.read(trainer.state)[0]["gradient/discriminator/ab+ba"] > 0


def test_only_trainable_parameters_are_counted() -> None:
    trainer = make()
    frozen = trainer.system.networks.discriminator("discriminator/image/b").net[0]  # type: ignore[index]
    frozen.requires_grad_(False)
    described = {n["name"]: n["parameters"] for n in describe_networks(trainer.system, RandomImages().domains)}
    apart = described["discriminator/image/a"] - described["discriminator/image/b"]
    assert apart == 6 * 4 * 4 * 4 + 4


def test_a_pool_keeps_no_sources() -> None:
    with pytest.raises(SpecError) as failed:
        make({"schedule": {"pool": 3}})
    assert str(failed.value) == (
        "schedule's pool of direction ab: its pool of past fakes keeps no sources, and discriminator/image/b sees pairs"
        " of a source and a fake: use a schedule without a pool (schedule 'simultaneous' of plugin 'cyclegan' of ganlab"
        " 0.1.0)"
    )


# paired data


@pytest.fixture
def numbered(tmp_path: Path) -> Json:
    """TINY on pictures whose colour is their number, three times as bright in domain b, dark on the left."""
    for domain, factor in (("a", 4), ("b", 12)):
        folder = tmp_path / domain
        folder.mkdir()
        for number in range(20):
            pixels = np.full((16, 16, 3), number * factor, np.uint8)
            pixels[:, :8] = 0
            Image.fromarray(pixels).save(folder / f"{number:02}.png")
    found: Json = merge(
        TINY, {"data": {domain: {"path": str(tmp_path / domain)} for domain in "ab"} | {"paired": True, "batch": 5}}
    )
    return found


def test_pairs_are_drawn_and_mirrored_together(numbered: Json) -> None:
    spec = resolve(numbered)
    datasets = build_data(spec)
    assert torch.equal(datasets["a"].holdout, datasets["b"].holdout)
    sampler = Sampler(datasets, 5, True, 0, torch.device("cpu"), torch.float64)
    mirrored = []
    for draw in range(9):
        a, b = ((sampler(draw).images[domain] + 1) * 127.5 for domain in "ab")
        torch.testing.assert_close(3 * a, b, rtol=0, atol=1e-9)
        mirrored += (a[:, 0, 0, 0] > a[:, 0, 0, -1]).tolist()
    assert {True, False} == set(mirrored)
    parts = split(datasets)
    for part in (parts.validation, parts.test, parts.train):
        a, b = ((part[domain].tensor() + 1) * 127.5 for domain in "ab")
        torch.testing.assert_close(3 * a, b, rtol=0, atol=1e-3)


def test_without_pairs_each_domain_has_an_order_of_its_own(numbered: Json) -> None:
    spec = resolve(merge(numbered, {"data": {"paired": False}}))
    sampler = Sampler(build_data(spec), 5, True, 0, torch.device("cpu"), torch.float64)
    assert sampler.indices("a", 0) != sampler.indices("b", 0)


def test_pairs_need_as_many_images(numbered: Json) -> None:
    (Path(numbered["data"]["b"]["path"]) / "07.png").unlink()
    with pytest.raises(SpecError, match=r"^data\.paired: domain a has 20 images and b has 19; pairs need as many$"):
        build_data(resolve(numbered))


def test_an_image_that_cannot_be_read_loses_its_pair(numbered: Json) -> None:
    (Path(numbered["data"]["b"]["path"]) / "07.png").write_text("no picture")
    with pytest.raises(SpecError, match=r"^data\.paired: an image of b has lost its pair: 07\.png"):
        build_data(resolve(numbered))
