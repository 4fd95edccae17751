"""What the data store relies on in a source."""

from __future__ import annotations

import operator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from ganlab.interfaces import (
    Source,
)
from ganlab.testing.making import check_class, made_of
from ganlab.testing.promise import promise, unseen

__tracebackhide__ = True


@unseen
def check_source(cls: type[Source], /, *, size: int = 16, **options: Any) -> None:
    """A source's promises, on the first eight images of each domain."""
    check_class(cls, "source", options)

    def make() -> Source:
        source: Source = made_of(cls, options)
        return source

    with promise(cls, "is made of its options"):
        source = make()
    for domain in "ab":
        with promise(cls, "names its images in a fixed order, each by a key of its own") as so:
            keys = source.keys(domain)
            so(bool(keys) and all(type(key) is str for key in keys), f"domain {domain} has the keys {keys[:8]}")
            so(len(set(keys)) == len(keys), f"of {len(keys)} keys {len(keys) - len(set(keys))} come again")
            again = make().keys(domain)
            so(again == keys, f"domain {domain} has the keys {keys[:8]}, and then {again[:8]}")
        some = keys[:8]
        with promise(cls, "gives images (size, size, channels) of uint8") as so:
            pictures = [source.image(key, size) for key in some]
            for key, picture in zip(some, pictures, strict=True):
                fit = picture.shape == (size, size, source.channels) and picture.dtype == np.uint8
                so(fit, f"{key!r} is {picture.shape} of {picture.dtype}, where {(size, size, source.channels)} is due")
        with promise(cls, "gives the same image for the same key, from several threads too") as so:
            with ThreadPoolExecutor(4) as pool:
                others = list(pool.map(partial(make().image, size=size), some[::-1]))
            for key, picture, other in zip(some, pictures, others[::-1], strict=True):
                so(np.array_equal(picture, other), f"{key!r} differs in {(picture != other).sum()} values")
        if source.classes:
            with promise(cls, "has labels from 0 to less than classes") as so:
                labels = [operator.index(source.label(key)) for key in some]
                fit = all(0 <= label < source.classes for label in labels)
                so(fit, f"of {source.classes} classes there are the labels {sorted(set(labels))}")
        with promise(cls, "has attributes that are {text: text}") as so:
            for key in some:
                known = source.attributes(key)
                so(all(type(part) is str for pair in known.items() for part in pair), f"{key!r} has {known}")
