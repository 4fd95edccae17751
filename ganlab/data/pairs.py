"""Pairs of images: the images of two sets that have equal names, or names that differ in their suffix alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

import torch
from torch import Tensor

from ganlab.data.dataset import Dataset
from ganlab.errors import SpecError, plural


def partners(keys: Sequence[str], others: Sequence[str], meant: str, places: tuple[str, str]) -> dict[str, str]:
    """Returns {key: its partner among `others`}, without the keys that have none.

    A partner is the equal key, or else the only other key that differs in its suffix alone. `meant` and `places` name
    the partner and the two sets in messages. Raises SpecError if several keys could be partners.
    """
    equal, alike = set(others), [_by_stem(side) for side in (keys, others)]
    found: dict[str, str] = {}
    for key in keys:
        ours, theirs = (side.get(_stem(key), []) for side in alike)
        if key in equal:
            found[key] = key
        elif len(ours) == len(theirs) == 1:
            found[key] = theirs[0]
        elif theirs:
            raise SpecError(
                f"the {meant} of {key!r} is not clear: {places[0]} holds {', '.join(ours)}, and {places[1]} holds"
                f" {', '.join(theirs)}; give both images of a pair the same name"
            )
    return found


def _stem(key: str) -> PurePosixPath:
    return PurePosixPath(key).with_suffix("")


def _by_stem(keys: Iterable[str]) -> dict[PurePosixPath, list[str]]:
    found: dict[PurePosixPath, list[str]] = {}
    for key in keys:
        found.setdefault(_stem(key), []).append(key)
    return found


def pairs_of(keys: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Returns {key of a: key of b} of all pairs, in the order of a. `keys` is {domain: keys}.

    Raises SpecError if there are fewer than two pairs, or if several keys could be a key's partner.
    """
    found = partners(keys["a"], keys["b"], "partner", ("data.a", "data.b"))
    if len(found) < 2:
        some = " and ".join(f"{domain} has {', '.join(map(repr, keys[domain][:2]))}, ..." for domain in "ab")
        raise SpecError(
            f"data.paired: {plural(len(found), 'pair')} found, and at least two are needed, one to train on and one to"
            f" hold out; the images of a pair have equal names, apart from the suffix, and {some}"
        )
    return found


def joined(a: Dataset, b: Dataset, pairs: Mapping[str, str], keys: Mapping[str, Sequence[str]]) -> dict[str, Dataset]:
    """Returns {domain: dataset} of pairs: image i of `train` in a and image i of `train` in b are partners, and so are
    images i of `holdout`.

    A pair is held out if its image of a is. `pairs` is {key of a: key of b}. `a` was read from the keys of `pairs`, and
    `b` from the partners of the images of a that could be read. `keys` is {domain: all keys}.
    """
    place = {key: index for index, key in enumerate(b.keys)}
    partner = {index: place[pairs[key]] for index, key in enumerate(a.keys) if pairs[key] in place}
    # `most` may have left the others unread
    tried = list(pairs)[: len(a.keys) + len(a.skipped)]
    unreadable = set(tried).difference(a.keys)
    without = {
        "a": set(keys["a"]).difference(pairs) | {key for index, key in enumerate(a.keys) if index not in partner},
        "b": set(keys["b"]).difference(pairs.values()) | {pairs[key] for key in unreadable},
    }
    alone = {domain: tuple(key for key in keys[domain] if key in without[domain]) for domain in "ab"}

    train, holdout = ([i for i in part.tolist() if i in partner] for part in (a.train, a.holdout))

    def of_b(indices: list[int]) -> Tensor:
        return _indices([partner[index] for index in indices])

    return {
        "a": replace(a, train=_indices(train), holdout=_indices(holdout), alone=alone["a"]),
        "b": replace(b, train=of_b(train), holdout=of_b(holdout), alone=alone["b"]),
    }


def _indices(indices: list[int]) -> Tensor:
    return torch.tensor(indices, dtype=torch.long)


def refuse_none_left(dataset: Dataset) -> None:
    """Raises SpecError if no pair is left to train on, or none to hold out."""
    if not (len(dataset.train) and len(dataset.holdout)):
        raise SpecError(
            f"data.paired: {plural(len(dataset.train), 'readable pair')} to train on and {len(dataset.holdout)} to hold"
            " out; at least one of each is needed"
        )
