"""Reads many images in threads, and describes what a person should know about them before they are used."""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

import torch

S = TypeVar("S")
T = TypeVar("T")

Progress = Callable[[Iterable[Any], str, int], Iterable[Any]]
"""(items, a name for them, their number) -> the items. Shows the progress of an iteration over the items."""


def silent(items: Iterable[Any], what: str, total: int) -> Iterable[Any]:
    """Returns the items without showing progress."""
    return items


SHOWN = 3
"""The most images that a warning names."""

DARK = 16
"""A set is reported as dark if its brightest value, of 255, is below this. Its files may hold fewer bits than they
declare."""

_thread = threading.local()


@contextmanager
def noting_warnings() -> Iterator[None]:
    """Gives Python warnings, which name no file, to the `read` of the same thread that raised them."""
    with warnings.catch_warnings():
        for category in (UserWarning, RuntimeWarning):
            warnings.simplefilter("always", category)
        show = warnings.showwarning

        def note(message: Warning | str, *rest: Any, **named: Any) -> None:
            notes = getattr(_thread, "notes", None)
            if notes is None:
                show(message, *rest, **named)
            else:
                notes.append(" ".join(str(message).split()))

        warnings.showwarning = note
        yield


def read(one: Callable[[str], T], key: str) -> tuple[T | OSError | ValueError, Sequence[str]]:
    """Returns `one(key)`, or the error that it raised, and the warnings that it gave inside `noting_warnings`."""
    notes: list[str] = []
    _thread.notes = notes
    try:
        return one(key), notes
    except (OSError, ValueError) as error:
        return error, notes
    finally:
        _thread.notes = None


def read_all(
    one: Callable[[str], T], keys: Sequence[str]
) -> Generator[tuple[str, T | OSError | ValueError, Sequence[str]]]:
    """Yields (key, *read(one, key)) of all keys, in their order."""
    for key, found in zip(keys, in_threads(lambda key: read(one, key), keys, torch.get_num_threads()), strict=True):
        yield key, *found


def in_threads(one: Callable[[S], T], items: Iterable[S], threads: int) -> Iterator[T]:
    """Yields `one(item)` of all items, in their order, computed in `threads` threads."""
    left = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        # few ahead: what comes after an interrupt or an error waits for them
        ahead = deque(pool.submit(one, item) for item in islice(left, 2 * threads))
        while ahead:
            yield ahead.popleft().result()
            ahead.extend(pool.submit(one, item) for item in islice(left, 1))


def describe(
    where: str,
    kept: Sequence[str],
    skipped: Sequence[str],
    notes: Mapping[str, Sequence[str]],
    brightest: int,
    constant: bool,
) -> Iterator[str]:
    """Yields the warnings about a set of images.

    Args:
        where: the set.
        kept: the keys of its images.
        skipped: "key: reason" of each file that could not be read.
        notes: {warning: keys of the images that it was given for}.
        brightest: the largest value of all images.
        constant: whether no image has two different colours.
    """
    if skipped:
        yield unreadable(where, len(kept), skipped)
    for note, keys in list(notes.items())[:3]:
        yield f"{where}: {_some(keys, ', ')}: {note}"
    if others := list(notes.values())[3:]:
        yield f"{where}: {len(others)} other warnings were given, the first for {others[0][0]}"
    if brightest < DARK:
        yield (
            f"{where}: the brightest value of all {len(kept)} images is {brightest} of 255; if the files declare more"
            " bits than they use, give their black and white as the option `range: [low, high]` of `folder`"
        )
    if constant:
        yield f"{where}: each of the {len(kept)} images has one colour only"


def unreadable(where: str, kept: int, skipped: Sequence[str]) -> str:
    """Returns the warning about files that are left out of a set of `kept` images."""
    files = f"{len(skipped)} of {len(skipped) + kept} files"
    return f"{where}: {files} are no readable images and are left out: {_some(skipped, '; ')}"


def without_partner(where: str, keys: Sequence[str]) -> str:
    """Returns the warning about images that are left out of paired data."""
    are = "image has no readable partner and is" if len(keys) == 1 else "images have no readable partner and are"
    return f"{where}: {len(keys)} {are} left out: {_some(keys, ', ')}"


def _some(items: Sequence[str], separator: str) -> str:
    return separator.join([*items[:SHOWN], *(["..."] if len(items) > SHOWN else [])])
