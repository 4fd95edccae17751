"""Turns what was seen of the pictures into findings: what would spoil a training, and the files to leave out."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import torch

from ganlab.data.dataset import Dataset
from ganlab.data.reading import Progress
from ganlab.inspection.near_duplicates import CLOSE, groups, near_duplicates
from ganlab.inspection.pictures import Look, LookedAt

FLAT = 8.0
"""The contrast, a standard deviation of grey values of 255, below which an image shows nearly nothing."""

SMALL = 2
"""An image is tiny if it has to be enlarged more than this to reach the size of the training."""

Part = Literal["train", "held out", ""]
"""The part of its domain that an image is in; "" if the domain is not divided, or if the image can't be read."""


class Image(NamedTuple):
    """An image of a domain."""

    domain: str
    key: str
    part: Part = ""
    why: str = ""
    """What is wrong with this image, if that differs between the images of a finding."""


@dataclass(frozen=True)
class Finding:
    """The images with one kind of fault: in groups that show the same picture, or each image by itself."""

    kind: str
    title: str
    about: str
    groups: Sequence[Sequence[Image]]
    """Groups of several images, or groups of one."""
    spoiled: Sequence[Image]
    """The images that the finding counts: all but one of a group of duplicates, or the images with the fault."""


@dataclass(frozen=True)
class Domain:
    """The pictures of one domain, as they were seen."""

    dataset: Dataset
    """Thumbnails, (n, 3, SIDE, SIDE), with the division into training and held-out images."""
    source: LookedAt
    divided: bool
    """False if the images are a folder without a spec, which divides nothing."""
    looks: Sequence[Look] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "looks", [self.source.looks[key] for key in self.dataset.keys])

    @property
    def name(self) -> str:
        return self.dataset.domain.name

    def images(self) -> Iterator[Image]:
        """Yields the readable images in order."""
        held = set(self.dataset.holdout.tolist())
        for index, key in enumerate(self.dataset.keys):
            yield Image(self.name, key, ("held out" if index in held else "train") if self.divided else "")


class Findings(NamedTuple):
    found: Sequence[Finding]
    left_out: Sequence[Image]
    """The images to leave out, each once: of a group of duplicates all but one."""
    bits: int
    """The most bits in which the hashes of pictures differed that were compared."""


def findings(domains: Sequence[Domain], size: int, progress: Progress) -> Findings:
    """Returns the findings on all domains, those without an image too. `size` is that of the training's images."""
    images = [image for domain in domains for image in domain.images()]
    looks = [look for domain in domains for look in domain.looks]

    def best(group: Iterable[int]) -> int:
        return min(group, key=lambda one: (*_worth(images[one], looks[one]), one))

    equal = _equal([look.digest for look in looks])
    doubles = {one for group in equal for one in group} - {best(group) for group in equal}
    near, bits = _near(domains, looks, [one for one in range(len(looks)) if one not in doubles], progress)
    alike = groups(len(looks), [pair for group in (*equal, *near) for pair in itertools.pairwise(group)])
    found = [
        *_unreadable(domains),
        Finding(
            "exact",
            "Exact duplicates",
            "The same pixels as another image. It is drawn more often than others, and a network may memorise it.",
            [[images[one] for one in group] for group in equal],
            [images[one] for one in sorted(doubles)],
        ),
        Finding(
            "near",
            "Near duplicates",
            "The same picture as another image: compressed, resized, cropped, mirrored, brighter or darker.",
            [[images[one] for one in group] for group in near],
            [images[one] for group in near for one in group if one != best(group)],
        ),
        *_across([[images[one] for one in group] for group in alike], [images[best(group)] for group in alike]),
        _each(
            "repeated",
            "Repeated edges",
            "A side ends in copies of one row or column and looks smeared, for example because a square was cut around"
            " a face near the edge of its picture. A generator learns to draw the stripes.",
            _where(images, [look.repeated for look in looks]),
        ),
        _each(
            "letterbox",
            "Bars",
            "Bars of one colour lie beside the picture. A generator learns to draw them.",
            _where(images, [look.letterbox for look in looks]),
        ),
        _each(
            "flat",
            "Hardly any contrast",
            f"The grey values have a standard deviation below {FLAT:g} of 255: the image shows nearly nothing.",
            _where(images, [look.contrast < FLAT for look in looks]),
        ),
        _each(
            "tiny",
            "Tiny images",
            f"The shorter side is enlarged more than {SMALL} times to {size} pixels: the image is blurred.",
            _where(images, [min(look.size) * SMALL < size for look in looks]),
        ),
    ]
    return Findings(found, list(dict.fromkeys(image for finding in found for image in finding.spoiled)), bits)


def _worth(image: Image, look: Look) -> tuple[bool, bool, int]:
    """Sorts the images of a group: one that is held out first, so that no training image repeats it; then one without a
    border; then the largest."""
    return image.part != "held out", look.repeated or look.letterbox, -look.size[0] * look.size[1]


def _equal(digests: Sequence[bytes]) -> list[list[int]]:
    """Returns the groups of places with equal digests."""
    places: dict[bytes, list[int]] = {}
    for place, digest in enumerate(digests):
        places.setdefault(digest, []).append(place)
    return [group for group in places.values() if len(group) > 1]


def _near(
    domains: Sequence[Domain], looks: Sequence[Look], different: Sequence[int], progress: Progress
) -> tuple[list[list[int]], int]:
    """Returns the groups of near duplicates among images with different pixels, and the bits of `near_duplicates`.

    Images with hardly any contrast are left out: they all look alike.
    """
    shows = [one for one in different if looks[one].contrast >= FLAT]
    if not shows:
        return [], CLOSE
    thumbnails = torch.cat([domain.dataset.images for domain in domains])[shows].permute(0, 2, 3, 1).numpy()
    pairs, bits = near_duplicates(np.stack([looks[one].hashes for one in shows]), thumbnails, progress)
    connected = groups(len(shows), zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    return [[shows[one] for one in group] for group in connected], bits


def _unreadable(domains: Sequence[Domain]) -> Iterator[Finding]:
    unreadable: list[Image] = []
    damaged: list[Image] = []
    for domain in domains:
        keys = (key for key in domain.source.keys(domain.name) if key not in domain.source.looks)
        for key, text in zip(keys, domain.dataset.skipped, strict=True):
            image = Image(domain.name, key, why=text.removeprefix(f"{key}: "))
            (damaged if domain.source.is_picture(key) else unreadable).append(image)
    yield _each("unreadable", "Unreadable files", "The file is not an image in a format that ganlab reads.", unreadable)
    yield _each(
        "damaged", "Damaged images", "The file begins as an image, but ends too early or holds wrong data.", damaged
    )


def _across(groups: Sequence[Sequence[Image]], kept: Sequence[Image]) -> Iterator[Finding]:
    """Yields the findings on groups of equal or similar images that are in two parts of a domain, or in two domains."""
    of_domains = [[image for image in group if image.domain == domain] for group in groups for domain in "ab"]
    leaks = [group for group in of_domains if len({image.part for image in group}) > 1]
    yield Finding(
        "leaks",
        "Held-out images that are trained on",
        "A training image shows the same picture as a held-out image: the results look better than they are.",
        leaks,
        [image for group in leaks for image in group if image.part == "train"],
    )
    shared = [(group, one) for group, one in zip(groups, kept, strict=True) if len({i.domain for i in group}) > 1]
    yield Finding(
        "shared",
        "Images of both domains",
        "An image is in both domains, or is a near duplicate of one in the other domain.",
        [group for group, _ in shared],
        [image for group, one in shared for image in group if image.domain != one.domain],
    )


def _each(kind: str, title: str, about: str, images: Iterable[Image]) -> Finding:
    """Returns the finding on images that are no group."""
    spoiled = list(images)
    return Finding(kind, title, about, [[image] for image in spoiled], spoiled)


def _where(images: Sequence[Image], holds: Sequence[bool]) -> list[Image]:
    return list(itertools.compress(images, holds))
