"""Divides the images of a run into validation, test and training images."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ganlab.data.dataset import Dataset
from ganlab.determinism import keyed
from ganlab.errors import Unavailable
from ganlab.interfaces.metrics import Images, Pixels


class Split(NamedTuple):
    """The images of a run, each part {domain: images}. No image is in two parts."""

    validation: dict[str, Images]
    """Held-out images that pick the best checkpoint. They are also the real images of the reference "real"."""
    test: dict[str, Images]
    """Held-out images from which the results come: of each domain as many as in `validation`."""
    train: dict[str, Images]
    """The training images."""


def split(datasets: Mapping[str, Dataset]) -> Split:
    """Divides the held-out images of each domain into two halves of one size; the domains may differ in size.

    The division depends on the domain and the number of held-out images alone, so that runs with different random seeds
    are measured on the same images. Raises Unavailable if a domain has fewer than two held-out images.
    """
    fewest = min(datasets, key=lambda domain: len(datasets[domain].holdout))
    if len(datasets[fewest].holdout) < 2:
        raise Unavailable(
            f"an evaluation needs two held-out images of each domain, and {fewest} has {len(datasets[fewest].holdout)};"
            " hold out more"
        )
    parts = Split({}, {}, {})
    for domain, dataset in datasets.items():
        half = len(dataset.holdout) // 2
        shuffled = torch.from_numpy(
            keyed("halves", dataset.order, len(dataset.holdout)).permutation(len(dataset.holdout))
        )
        members = (dataset.holdout[shuffled[:half]], dataset.holdout[shuffled[half : 2 * half]], dataset.train)
        for part, indices in zip(parts, members, strict=True):
            part[domain] = _images(dataset, indices.sort().values)
    return parts


def too_few(held_out: Mapping[str, int], fewest: Mapping[str, int]) -> list[str]:
    """Returns a sentence for each domain with too few test images for some of the metrics.

    `held_out` is {domain: number of held-out images}, and `fewest` is {key of a metric: its `Metric.fewest`}.
    """
    return [
        f"data.{domain}: {count} images are held out and half of them are measured, but {', '.join(short)}: add images"
        " or hold out more"
        for domain, count in held_out.items()
        if (short := [f"{metric} needs {least}" for metric, least in fewest.items() if count // 2 < least])
    ]


def every_image(datasets: Mapping[str, Dataset]) -> dict[str, Images]:
    """Returns {domain: its images}."""
    return {domain: _images(dataset, torch.arange(len(dataset.keys))) for domain, dataset in datasets.items()}


def _images(dataset: Dataset, indices: Tensor) -> Images:
    has_attributes = dataset.labels is not None or any(map(dataset.source.attributes, dataset.keys))
    attributes = _Attributes(dataset, indices) if has_attributes else None
    return Images(_Pixels(dataset.images, indices), dataset.domain.name, attributes, real=True)


class _Pixels(Sequence[Pixels]):
    """Images of a dataset as (H, W, 3), without a copy."""

    def __init__(self, images: Tensor, indices: Tensor) -> None:
        # read-only, so that a metric cannot change the training data
        self._images, self._indices = images.numpy().view(), indices.tolist()
        self._images.setflags(write=False)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, place: Any) -> Any:
        chw = self._images[self._indices[place]]
        return np.broadcast_to(chw, (3, *chw.shape[1:])).transpose(1, 2, 0)


class _Attributes(Sequence[Mapping[str, str]]):
    """The attributes of each image. The source is asked on first use, because some sources draw the image to answer."""

    def __init__(self, dataset: Dataset, indices: Tensor) -> None:
        self._dataset, self._indices = dataset, indices.tolist()

    @functools.cached_property
    def _known(self) -> list[Mapping[str, str]]:
        return [self._of(index) for index in self._indices]

    def _of(self, index: int) -> Mapping[str, str]:
        label = {} if self._dataset.labels is None else {"label": str(int(self._dataset.labels[index]))}
        return {**label, **self._dataset.source.attributes(self._dataset.keys[index])}

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, place: Any) -> Any:
        return self._known[place]
