"""The check for image sources."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from ganlab.data.dataset import load
from ganlab.interfaces.sources import Extra, Source
from ganlab.testing.building import build, check_class
from ganlab.testing.requirement import keeps_random_state, requirement

__tracebackhide__ = True


@keeps_random_state
def check_source(cls: type[Source], /, *, size: int = 16, **options: Any) -> None:
    """Checks a source on the first eight images of each domain, `size` pixels high and wide."""
    check_class(cls, "source", options)

    def make() -> Source:
        source: Source = build(cls, options)
        return source

    with requirement(cls, "can be built from its options"):
        source = make()
    for domain in "ab":
        with requirement(cls, "gives its images different keys in a fixed order") as check:
            keys = source.keys(domain)
            check(bool(keys) and all(type(key) is str for key in keys), f"domain {domain} has the keys {keys[:8]}")
            check(len(set(keys)) == len(keys), f"{len(keys) - len(set(keys))} of {len(keys)} keys are repeated")
            again = make().keys(domain)
            check(again == keys, f"domain {domain} has the keys {keys[:8]}, and then {again[:8]}")
        some = keys[:8]
        with requirement(cls, "gives images (size, size, channels) of uint8") as check:
            pictures = [source.image(key, size) for key in some]
            expected = (size, size, source.channels)
            for key, picture in zip(some, pictures, strict=True):
                fits = picture.shape == expected and picture.dtype == np.uint8
                check(fits, f"{key!r} is {picture.shape} of {picture.dtype}, expected {expected} of uint8")
        with requirement(cls, "gives the same image for the same key, from several threads too") as check:
            others = _in_threads(partial(make().image, size=size), some)
            for key, picture, other in zip(some, pictures, others, strict=True):
                check(np.array_equal(picture, other), f"{key!r} differs in {(picture != other).sum()} values")
        # no loss reads those of held-out images
        _check_extras(source, make(), [key for key in some if not (source.divided and source.is_held_out(key))], size)
        if source.classes:
            with requirement(cls, "gives labels from 0 to classes - 1") as check:
                labels = [operator.index(source.label(key)) for key in some]
                fits = all(0 <= label < source.classes for label in labels)
                check(fits, f"classes is {source.classes}, and the labels are {sorted(set(labels))}")
        if source.divided:
            with requirement(cls, "holds out some of its images, and not all") as check:
                held = {source.is_held_out(key) for key in keys}
                check(held == {True, False}, f"is_held_out gives {held}")
        with requirement(cls, "gives attributes {text: text}") as check:
            for key in some:
                known = source.attributes(key)
                check(all(type(part) is str for pair in known.items() for part in pair), f"{key!r} has {known}")
        with requirement(cls, "gives images that a run can read"):
            load(source, domain, size, holdout=0.5, most=len(some))


def _check_extras(source: Source, again: Source, keys: Sequence[str], size: int) -> None:
    """Checks the extras of some images. `again` is the same source, built once more."""
    for name, extra in source.extras.items():
        with requirement(type(source), "declares its extras, and gives them as declared") as check:
            fits = isinstance(extra, Extra) and extra.channels > 0 and extra.values in ("picture", "classes")
            check(fits, f"the extra {name!r} is {extra!r}")
            arrays = [source.extra(name, key, size) for key in keys]
            expected = (size, size, extra.channels)
            for key, array in zip(keys, arrays, strict=True):
                fits = array.shape == expected and array.dtype == np.uint8
                check(fits, f"the {name!r} of {key!r} is {array.shape} of {array.dtype}, expected {expected} of uint8")
        with requirement(type(source), "gives the same extra for the same key, from several threads too") as check:
            others = _in_threads(partial(again.extra, name, size=size), keys)
            for key, array, other in zip(keys, arrays, others, strict=True):
                check(
                    np.array_equal(array, other), f"the {name!r} of {key!r} differs in {(array != other).sum()} values"
                )


def _in_threads(one: Callable[[str], Any], keys: Sequence[str]) -> list[Any]:
    """Returns `one(key)` of all keys, called in the reverse order by several threads."""
    with ThreadPoolExecutor(4) as pool:
        return [*pool.map(one, keys[::-1])][::-1]
