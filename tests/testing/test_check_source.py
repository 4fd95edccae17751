"""`check_source` and each requirement that an image source can fail."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch

import ganlab
from ganlab import testing
from ganlab.testing import sources
from helpers.broken import Broken, names_of, verify_every_condition_fails, verify_sentence


class Squares(ganlab.Source):
    """Passes the check; the broken ones derive from it."""

    classes = 2

    def keys(self, domain: str) -> list[str]:
        return [f"{domain}{i}" for i in range(9)]

    def image(self, key: str, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        return np.full((size, size, 3), 20 * int(key[1:]), np.uint8)

    def label(self, key: str) -> int:
        return int(key[1:]) % 2


class NoPictures(Squares):
    def __init__(self) -> None:
        raise LookupError("there are none")


class Numbered(Squares):
    def keys(self, domain: str) -> Any:
        return list(range(9))


class Repeats(Squares):
    def keys(self, domain: str) -> list[str]:
        return ["a1", "a2", "a1"]


class Shuffles(Squares):
    order = itertools.count()

    def keys(self, domain: str) -> list[str]:
        keys = super().keys(domain)
        start = next(self.order) % 2
        return keys[start:] + keys[:start]


class Floats(Squares):
    def image(self, key: str, size: int) -> Any:
        return super().image(key, size) / 255


class Stream(Squares):
    count = 0

    def image(self, key: str, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        self.count += 1
        return np.full((size, size, 3), self.count, np.uint8)


class OneTooFar(Squares):
    def label(self, key: str) -> int:
        return int(key[1:]) % 3


class NoLabels(Squares):
    def label(self, key: str) -> Any:
        return None


class HoldsOutAll(Squares):
    divided = True

    def is_held_out(self, key: str) -> bool:
        return True


class NumberedAttributes(Squares):
    def attributes(self, key: str) -> Any:
        return {"grey": 20}


class FourChannels(Squares):
    channels = 4

    def image(self, key: str, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        return np.zeros((size, size, 4), np.uint8)


class OneImage(Squares):
    def keys(self, domain: str) -> list[str]:
        return [f"{domain}0"]


class Masked(Squares):
    """A mask with the grey of the image as its class, and a second picture."""

    extras: Mapping[str, ganlab.Extra] = {"mask": ganlab.Extra(1, "classes"), "negative": ganlab.Extra(3)}

    def extra(self, name: str, key: str, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        image = self.image(key, size)
        return 255 - image if name == "negative" else image[..., :1]


class NamesOnly(Masked):
    extras: Mapping[str, Any] = {"mask": 1}


class FlatMask(Masked):
    def extra(self, name: str, key: str, size: int) -> Any:
        return super().extra(name, key, size)[..., 0]


class StreamOfMasks(Masked):
    count = 0

    def extra(self, name: str, key: str, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        self.count += 1
        return np.full((size, size, self.extras[name].channels), self.count, np.uint8)


BROKEN: list[Broken] = [
    (testing.check_source, NoPictures, "built from its options.* LookupError: there are none"),
    (testing.check_source, Numbered, r"fixed order.* has the keys \[0, 1, "),
    (testing.check_source, Repeats, "different keys.* 1 of 3 keys are repeated"),
    (testing.check_source, Shuffles, "fixed order.*'a0', .* and then .'a1'"),
    (testing.check_source, Floats, "uint8.* of float64"),
    (testing.check_source, Stream, "same image.* differs in 768 values"),
    (testing.check_source, OneTooFar, r"labels.* classes is 2, and the labels are \[0, 1, 2\]"),
    (testing.check_source, NoLabels, "labels.* TypeError: 'NoneType' object cannot be interpreted as an integer"),
    (testing.check_source, HoldsOutAll, "holds out some of its images.* is_held_out gives {True}"),
    (testing.check_source, FourChannels, r"a run can read.* has 4 channels; 1 \(grey\) and 3 \(RGB\) are allowed"),
    (testing.check_source, OneImage, "a run can read.* 1 of 1 images can be read; at least two are needed"),
    (testing.check_source, NumberedAttributes, "attributes.* {'grey': 20}"),
    (testing.check_source, NamesOnly, "declares its extras.* the extra 'mask' is 1"),
    (testing.check_source, FlatMask, r"declares its extras.* the 'mask' of 'a0' is \(16, 16\) of uint8, expected"),
    (testing.check_source, StreamOfMasks, "the same extra.* the 'mask' of 'a0' differs in 256 values"),
]


@pytest.mark.parametrize(("check", "cls", "sentence"), BROKEN, ids=names_of)
def test_a_failed_requirement_is_named(check: Callable[..., None], cls: type, sentence: str) -> None:
    verify_sentence(check, cls, sentence)


def test_every_requirement_and_condition_fails_for_one_of_them() -> None:
    verify_every_condition_fails([sources], BROKEN)


def test_the_source_that_they_derive_from_passes() -> None:
    testing.check_source(Squares)


def test_a_source_with_extras_passes() -> None:
    testing.check_source(Masked)


class Divided(Squares):
    divided = True

    def is_held_out(self, key: str) -> bool:
        return key.endswith("0")


def test_a_source_with_a_split_passes() -> None:
    testing.check_source(Divided)


class Seeds(Squares):
    def keys(self, domain: str) -> list[str]:
        torch.manual_seed(5)
        return super().keys(domain)


def test_torchs_generator_is_restored_after_a_component_seeds_it() -> None:
    before = torch.manual_seed(99).get_state()
    with suppress(AssertionError):
        testing.check_source(Seeds)
    assert torch.equal(torch.get_rng_state(), before)


class NumpyLabels(Squares):
    def label(self, key: str) -> Any:
        return np.int64(super().label(key))


def test_labels_are_what_torch_takes_for_whole_numbers() -> None:
    testing.check_source(NumpyLabels)
