"""What tests share: small systems, and a folder of pictures."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import ganlab
from ganlab.build import build
from ganlab.data.sampler import Batch
from ganlab.engine import Engine
from ganlab.interfaces import Domain
from ganlab.options import signature
from ganlab.registry import Component, registry
from ganlab.spec import Json, merge, resolve

SIZE = 16

TINY: Json = {
    "name": "tiny",
    "data": {
        "a": {"type": "folder", "path": "a"},
        "b": {"type": "folder", "path": "b"},
        "size": SIZE,
        "batch": 4,
        "holdout": 0.25,
    },
    "generator": {"type": "resnet", "width": 4, "blocks": 2},
    "discriminators": {"image": {"type": "patch", "width": 4, "layers": 1}},
    "losses": {"adversarial": {"type": "lsgan"}, "cycle": {"type": "cycle", "weight": 10}},
    "schedule": {"type": "simultaneous", "steps": 6},
    "samples": {"every": 3, "count": 2},
    "checkpoints": {"every": 2},
    "runtime": {"device": "cpu", "threads": 1, "log_every": 1},
}
"""A whole experiment in hundredths of a second a step; patch it with `merge`."""


SHIPPED = [component for component in registry().components if component.package == "ganlab"]


def choices(component: Component) -> list[tuple[str, Any]]:
    """(option, value) for each value of the options that have few: of a `Literal`, or true and false."""
    fields = {name: field.annotation for name, field in signature(component.cls).model.model_fields.items()}
    few = {name: (False, True) if kind is bool else get_args(kind) for name, kind in fields.items()}
    return [(name, value) for name, values in few.items() for value in values if isinstance(value, bool | int | str)]


class RandomImages:
    """Stands where a sampler does: batches of noise that depend on the draw's number alone."""

    def __init__(
        self,
        batch: int = 4,
        size: int = SIZE,
        dtype: torch.dtype = torch.float64,
        classes: int | Mapping[str, int] = 0,
        channels: int | Mapping[str, int] = 3,
    ) -> None:
        """Classes and channels of both domains, or {domain: those of each}."""
        self.batch, self.dtype = batch, dtype

        def of(name: str, count: int | Mapping[str, int]) -> int:
            return count if isinstance(count, int) else count[name]

        self.domains = {name: Domain(name, of(name, channels), size, size, of(name, classes)) for name in "ab"}

    def __call__(self, draw: int) -> Batch:
        random = torch.Generator().manual_seed(1000 + draw)
        images = {
            name: torch.rand((self.batch, *domain[1:4]), generator=random, dtype=self.dtype) * 2 - 1
            for name, domain in self.domains.items()
        }
        labels = {
            name: torch.randint(domain.classes, (self.batch,), generator=random)
            for name, domain in self.domains.items()
            if domain.classes
        }
        return Batch(images, labels, {name: domain.classes for name, domain in self.domains.items()})


def write_mnist(root: Path, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> Path:
    """The same images (N, H, W) and labels (N,), uint8, as both of MNIST's sets, in the IDX format
    (http://yann.lecun.com/exdb/mnist/), where torchvision looks for them below `root`. Gives their folder."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for split in ("train", "t10k"):
        for name, values in (("images-idx3", images), ("labels-idx1", labels)):
            # 8: unsigned bytes; the sides follow, big-endian
            head = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
            (folder / f"{split}-{name}-ubyte").write_bytes(head + values.tobytes())
    return folder


@contextmanager
def serving(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """An address at which a handler of requests answers."""
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


class Around(ganlab.Discriminator):
    """A wrapper that says nothing of its own."""

    def __init__(self, of: ganlab.Discriminator) -> None:
        super().__init__()
        self.of = of

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.of(x)
        return scores


@pytest.fixture
def make_engine() -> Callable[..., Engine]:
    """An engine on noise, in float64: `make_engine(patch)` patches TINY."""

    def make(patch: dict[str, Any] | None = None, batch: int = 4, classes: int | Mapping[str, int] = 0) -> Engine:
        spec = resolve(registry(), merge(merge(TINY, {"runtime": {"precision": "float64"}}), patch or {}))
        images = RandomImages(batch, spec.data.size, classes=classes)
        return Engine(build(registry(), spec, images.domains), images)  # type: ignore[arg-type]

    return make


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, Path]:
    """{domain: a folder of a dozen small pictures}."""
    folders = {}
    for index, domain in enumerate("ab"):
        folders[domain] = tmp_path / f"pictures-{domain}"
        folders[domain].mkdir()
        random = np.random.default_rng(index)
        for number in range(12):
            pixels = random.integers(0, 256, (SIZE + 4, SIZE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folders[domain] / f"{number:02}.png")
    return folders


@pytest.fixture
def tiny(pictures: dict[str, Path]) -> Json:
    """TINY on those pictures."""
    sources = {domain: {"path": str(folder)} for domain, folder in pictures.items()}
    patched: Json = merge(TINY, {"data": sources})
    return patched
