"""The images that a run is measured on: the halves of the held-out images, and their translations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ganlab import Unavailable
from ganlab.data.dataset import Dataset, load
from ganlab.evaluation.splits import split, too_few
from ganlab.evaluation.translators import BATCH, Translators
from ganlab.interfaces.metrics import Images
from ganlab.interfaces.networks import Generator
from ganlab.interfaces.sources import Source
from ganlab.spec.files import merge
from ganlab.spec.models import Json, Spec
from ganlab.spec.resolve import resolve
from ganlab.system.build import build, build_data


class Numbered(Source):
    """Image number i is all i."""

    classes = 3

    def __init__(self, count: int) -> None:
        self.count = count

    def keys(self, domain: str) -> list[str]:
        return [str(number) for number in range(self.count)]

    def image(self, key: str, size: int) -> np.ndarray:
        return np.full((size, size, 3), int(key), np.uint8)

    def label(self, key: str) -> int:
        return int(key) % 3

    def attributes(self, key: str) -> dict[str, str]:
        return {"parity": "odd" if int(key) % 2 else "even"}


def datasets(a: int, b: int, holdout: float = 0.25) -> dict[str, Dataset]:
    return {name: load(Numbered(count), name, 4, holdout) for name, count in (("a", a), ("b", b))}


def numbers(images: Images) -> list[int]:
    return [int(pixels[0, 0, 0]) for pixels in images.pixels]


def test_the_parts_share_no_image_and_each_domain_is_halved_by_itself() -> None:
    found = datasets(40, 61)
    parts = split(found)
    for domain, count, half in (("a", 40, 5), ("b", 61, 7)):
        validation, test, train = (set(numbers(part[domain])) for part in parts)
        # of 10 and 15 held-out images
        assert len(validation) == len(test) == half
        assert len(train) == count - round(count * 0.25)
        assert not validation & test
        assert not (validation | test) & train
        assert validation | test <= set(found[domain].holdout.tolist())
        assert train == set(found[domain].train.tolist())


def test_the_split_depends_on_domain_and_count_alone() -> None:
    first, again, other = (split(datasets(*counts)) for counts in ((40, 61), (40, 44), (48, 61)))
    assert numbers(first.test["a"]) == numbers(again.test["a"])
    assert numbers(first.test["a"]) != numbers(other.test["a"])


def test_each_image_has_its_attributes_and_its_label() -> None:
    parts = split(datasets(40, 40))
    for images in (parts.test["a"], parts.train["b"]):
        assert images.attributes is not None
        for number, known in zip(numbers(images), images.attributes, strict=True):
            assert known == {"label": str(number % 3), "parity": "odd" if number % 2 else "even"}


def test_too_few_held_out_images_are_refused() -> None:
    with pytest.raises(Unavailable, match=r"two held-out images of each domain, and b has 1; hold out more$"):
        split(datasets(40, 4))


def test_the_metrics_that_need_more_test_images_are_named() -> None:
    fewest = {"kid": 4, "prdc": 7, "content": 1}
    (said,) = too_few({"a": 8, "b": 15}, fewest)
    assert said.startswith("data.a: 8 images are held out and half of them are measured, but prdc needs 7: add images")
    (said,) = too_few({"a": 7}, fewest)
    assert ", but kid needs 4, prdc needs 7: " in said


@pytest.fixture
def spec(tiny: Json) -> Spec:
    # in train mode, batch norm would give other images and change its statistics
    return resolve(merge(tiny, {"generator": {"norm": "batch"}}))


def test_translations_are_the_generators_own_in_eval_mode_rounded_to_8_bits(spec: Spec) -> None:
    found = build_data(spec)
    system = build(spec, {name: dataset.domain for name, dataset in found.items()})
    generators = {direction: system.networks.generator(direction) for direction in ("ab", "ba")}
    images = split(found).train["a"]
    before = {name: value.clone() for name, value in generators["ab"].state_dict().items()}
    torch.manual_seed(3)
    drawn = torch.get_rng_state()
    translators = Translators(system, generators, {"a": 3, "b": 3})
    outputs, cycled = translators.translate("ab", images)
    embedding = translators.encode("ab", images)
    assert torch.equal(drawn, torch.get_rng_state())
    assert all(module.training for module in generators["ab"].modules())
    assert all(torch.equal(value, before[name]) for name, value in generators["ab"].state_dict().items())

    for generator in generators.values():
        generator.eval()
    with torch.no_grad():
        real = torch.from_numpy(np.stack(list(images.pixels))).permute(0, 3, 1, 2) / 127.5 - 1
        fake = generators["ab"](real)
        back = generators["ba"](fake)
        code = generators["ab"].encode(real)
    for made, expected, domain in ((outputs, fake, "b"), (cycled, back, "a")):
        assert made is not None
        assert made.domain == domain
        assert not made.real
        exact = (expected.permute(0, 2, 3, 1).numpy() + 1) * 127.5
        assert np.abs(np.stack(list(made.pixels)) - exact).max() <= 0.5 + 1e-3
    torch.testing.assert_close(embedding, code)


def test_the_bytes_do_not_depend_on_how_many_are_asked_for_at_once(spec: Spec) -> None:
    found = build_data(spec)
    system = build(spec, {name: dataset.domain for name, dataset in found.items()})
    translators = Translators(system, {"ab": system.networks.generator("ab")}, {"a": 3, "b": 3})
    images = split(found).train["a"]
    many = images.take([i % len(images) for i in range(BATCH + 5)])
    outputs, cycled = translators.translate("ab", many)
    assert cycled is None
    first, _ = translators.translate("ab", many.take(range(BATCH)))
    assert all(np.array_equal(one, other) for one, other in zip(first.pixels, outputs.pixels[:BATCH], strict=True))


class Draws(Generator):
    """Its output is noise, in eval mode too."""

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return images

    def decode(self, embedding: torch.Tensor) -> torch.Tensor:
        return torch.rand(embedding.shape) * 2 - 1


def test_what_generators_draw_is_the_same_whatever_was_drawn_before_and_differs_in_reverse(spec: Spec) -> None:
    found = build_data(spec)
    system = build(spec, {name: dataset.domain for name, dataset in found.items()})
    images = split(found).train["a"]
    images = images.take([i % len(images) for i in range(2 * BATCH)])
    made = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        both = Translators(system, {"ab": Draws(), "ba": Draws()}, {"a": 3, "b": 3}).translate("ab", images)
        made.append([np.stack(list(side.pixels)) for side in both if side is not None])
    (outputs, cycled), again = made
    assert np.array_equal(outputs, again[0])
    assert np.array_equal(cycled, again[1])
    # by chance 1 of 256 values is equal
    assert (outputs == cycled).mean() < 0.02
    assert (outputs[:BATCH] == outputs[BATCH:]).mean() < 0.02


def test_a_direction_that_is_left_out_can_not_encode(spec: Spec) -> None:
    found = build_data(spec)
    system = build(spec, {name: dataset.domain for name, dataset in found.items()})
    translators = Translators(system, {"ab": system.networks.generator("ab")}, {"a": 3, "b": 3})
    images = split(found).test["b"]
    with pytest.raises(Unavailable, match="needs the direction ba, which `directions` leaves out"):
        translators.encode("ba", images)


def test_a_grey_domain_is_translated_from_one_channel(tiny: Json, tmp_path: Path) -> None:
    spec = resolve(merge(tiny, {"data": {"a": {"channels": 1}}}))
    found = build_data(spec)
    system = build(spec, {name: dataset.domain for name, dataset in found.items()})
    images = split(found).train["a"]
    assert images.pixels[0].shape == (16, 16, 3)
    generators = {direction: system.networks.generator(direction) for direction in ("ab", "ba")}
    outputs, cycled = Translators(system, generators, {"a": 1, "b": 3}).translate("ab", images)
    assert outputs.pixels[0].shape == (16, 16, 3)
    assert cycled is not None
    assert np.ptp(cycled.pixels[0], axis=2).max() == 0
