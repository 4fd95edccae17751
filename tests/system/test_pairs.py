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
from ganlab.data.dataset import Dataset
from ganlab.data.folder import Folder
from ganlab.data.sampler import Sampler
from ganlab.engine.summary import describe_networks
from ganlab.engine.trainer import Trainer
from ganlab.errors import SpecError
from ganlab.evaluation.splits import split
from ganlab.experiment import check
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from ganlab.spec.resolve import resolve
from ganlab.system.build import build, build_data
from ganlab.system.forward_cache import ForwardCache
from helpers.callbacks import Recording
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


def test_partners_have_equal_names_apart_from_the_suffix(numbered: Json) -> None:
    folder = Path(numbered["data"]["b"]["path"])
    for picture in sorted(folder.iterdir()):
        Image.open(picture).save(picture.with_suffix(".bmp"))
        picture.unlink()
    datasets = build_data(resolve(numbered))
    assert [len(dataset.train) for dataset in datasets.values()] == [15, 15]
    assert pairs_shown(datasets) == [(f"{n:02}.png", f"{n:02}.bmp") for n in range(20)]


def test_pairs_do_not_depend_on_the_order_of_the_sources(monkeypatch: pytest.MonkeyPatch, numbered: Json) -> None:
    straight = Folder.keys
    monkeypatch.setattr(Folder, "keys", lambda self, domain: straight(self, domain)[:: 1 if domain == "a" else -1])
    datasets = build_data(resolve(numbered))
    assert datasets["b"].keys[0] == "00.png"
    for part in ("train", "holdout"):
        assert torch.equal(getattr(datasets["a"], part), getattr(datasets["b"], part))


@pytest.mark.parametrize("how", ["missing", "unreadable"])
def test_what_has_no_partner_is_named_and_left_out(how: str, numbered: Json) -> None:
    path = Path(numbered["data"]["b"]["path"]) / "07.png"
    if how == "missing":
        path.unlink()
    else:
        path.write_text("no picture")
    extra = path.with_name("extra.png")
    Image.new("RGB", (16, 16), "red").save(extra)
    spec = resolve(numbered)
    datasets = build_data(spec)
    assert pairs_shown(datasets) == [(f"{n:02}.png",) * 2 for n in range(20) if n != 7]
    a, b = (dataset.warnings() for dataset in datasets.values())
    assert a == ["data.a: 1 image has no readable partner and is left out: 07.png"]
    assert b[0] == "data.b: 1 image has no readable partner and is left out: extra.png"
    assert len(b) == (1 if how == "missing" else 2)
    assert datasets["a"].fingerprint()["skipped"] == ["07.png: no partner"]
    sampler = Sampler(datasets, 5, True, 0, torch.device("cpu"), torch.float64)
    for draw in range(9):
        images_a, images_b = ((sampler(draw).images[domain] + 1) * 127.5 for domain in "ab")
        torch.testing.assert_close(3 * images_a, images_b, rtol=0, atol=1e-9)


def test_an_unreadable_image_of_a_leaves_out_its_partner(numbered: Json) -> None:
    (Path(numbered["data"]["a"]["path"]) / "00.png").write_text("no picture")
    datasets = build_data(resolve(numbered))
    assert pairs_shown(datasets) == [(f"{n:02}.png",) * 2 for n in range(1, 20)]
    assert [dataset.alone for dataset in datasets.values()] == [(), ("00.png",)]
    some = build_data(resolve(numbered), most=4)
    assert [dataset.alone for dataset in some.values()] == [(), ("00.png",)]
    assert pairs_shown(some) == [(f"{n:02}.png",) * 2 for n in range(1, 5)]


def test_a_pair_must_be_left_to_hold_out(numbered: Json) -> None:
    spec = resolve(merge(numbered, {"data": {"holdout": 0.01}}))
    (held,) = (dataset.keys[dataset.holdout[0]] for name, dataset in build_data(spec).items() if name == "a")
    (Path(numbered["data"]["b"]["path"]) / held).write_text("no picture")
    with pytest.raises(SpecError) as refused:
        build_data(spec)
    assert str(refused.value) == (
        "data.paired: 19 readable pairs to train on and 0 to hold out; at least one of each is needed"
    )


@pytest.mark.parametrize("where", ["a", "b"])
def test_a_split_that_holds_no_pair_is_refused_only_for_a(where: str, numbered: Json, tmp_path: Path) -> None:
    (tmp_path / "held").mkdir()
    Image.new("RGB", (16, 16), "red").save(tmp_path / "held" / "alone.png")
    spec = resolve(merge(numbered, {"data": {where: {"held_out": str(tmp_path / "held")}}}))
    if where == "a":
        with pytest.raises(SpecError, match=r"^data\.paired: 20 readable pairs to train on and 0 to hold out; "):
            build_data(spec)
    else:
        datasets = build_data(spec)
        assert [len(dataset.holdout) for dataset in datasets.values()] == [5, 5]
        assert datasets["b"].alone == ("held_out//alone.png",)


def test_check_names_what_has_no_partner_and_counts_pairs(numbered: Json) -> None:
    (Path(numbered["data"]["b"]["path"]) / "07.png").unlink()
    told = Recording()
    assert check(numbered, callback=told)["images"] == {"a": 19, "b": 19}
    assert "data.a: 1 image has no readable partner and is left out: 07.png" in told.warned


def test_without_two_pairs_the_names_of_both_domains_are_shown(numbered: Json) -> None:
    folder = Path(numbered["data"]["b"]["path"])
    for picture in folder.iterdir():
        picture.rename(picture.with_name(f"b-{picture.name}"))
    with pytest.raises(SpecError) as refused:
        build_data(resolve(numbered))
    assert str(refused.value) == (
        "data.paired: 0 pairs found, and at least two are needed, one to train on and one to hold out; the images of a"
        " pair have equal names, apart from the suffix, and a has '00.png', '01.png', ... and b has 'b-00.png',"
        " 'b-01.png', ..."
    )


def test_a_partner_that_is_not_clear_is_refused(numbered: Json) -> None:
    folder = Path(numbered["data"]["b"]["path"])
    for suffix in (".bmp", ".gif"):
        Image.new("RGB", (16, 16)).save(folder / f"07{suffix}")
    (folder / "07.png").unlink()
    with pytest.raises(SpecError) as refused:
        build_data(resolve(numbered))
    assert str(refused.value) == (
        "the partner of '07.png' is not clear: data.a holds 07.png, and data.b holds 07.bmp, 07.gif; give both images"
        " of a pair the same name"
    )


def pairs_shown(datasets: dict[str, Dataset]) -> list[tuple[str, ...]]:
    """Returns the keys of all pairs, sorted; none is both trained on and held out."""
    each = [
        [dataset.keys[i] for part in (dataset.train, dataset.holdout) for i in part] for dataset in datasets.values()
    ]
    assert all(len(set(keys)) == len(keys) for keys in each)
    return sorted(zip(*each, strict=True))
