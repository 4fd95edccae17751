"""Translates single pictures with the generators of one checkpoint."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, overload

import torch
from PIL import Image
from torch import Tensor, nn

from ganlab.data.dataset import normalised
from ganlab.data.folder import Folder, fitted, pixels
from ganlab.data.image_files import picture, to_uint8, upright_rgb
from ganlab.determinism import keyed, reproducible
from ganlab.errors import SpecError, text_of
from ganlab.files import home_expanded
from ganlab.inference.sizes import Needs, find_needs, reflected
from ganlab.interfaces.networks import Generator
from ganlab.runs import checkpoint, shared
from ganlab.runs.folder import RunFolder
from ganlab.spec.models import Spec
from ganlab.system.build import build_domains, build_generators, build_schedule, build_sources, dtype_of
from ganlab.torch_utils import as_float

SIZES = ("run", "keep")
"""The sizes at which pictures are translated."""


class Translated(NamedTuple):
    """A picture and its translation."""

    source: Image.Image
    """The picture as the generator sees it: upright, RGB, cropped and resized if the size is "run"."""
    output: Image.Image
    """The translation, as large as `source`; grey if the target domain is."""
    back: Image.Image | None
    """The translation of `output` back, if it is asked for."""


class Translator:
    """The generators of one checkpoint of a run, with the run's preprocessing and number format.

    Each picture is translated by itself, so its translation does not depend on other pictures. What a generator draws
    at random is seeded alike for each picture. `spec` is the run's, for this machine. `domains` is {name: domain}.
    Raises RunError if the checkpoint is damaged.
    """

    def __init__(self, folder: RunFolder, spec: Spec, step: int) -> None:
        self.spec, self.step, self._folder = spec, step, folder
        if not folder.shared:
            steps = build_schedule(spec).steps
            checkpoint.verify(folder.checkpoints, step, folder.trained(spec), steps)
        self.domains = build_domains(spec)
        sources = build_sources(spec)
        self._ranges = {name: source.range for name, source in sources.items() if isinstance(source, Folder)}
        self._fits = {name: source.fit for name, source in sources.items() if isinstance(source, Folder)}
        self._device, self._dtype = torch.device(spec.runtime.device), dtype_of(spec)
        with self._reproducible():
            self._networks = build_generators(spec, self.domains)
            generators: dict[str, nn.Module] = {d: self._networks.generator(d) for d in spec.directions}
            if folder.shared:
                shared.load(folder.path, generators)
            else:
                averaged = spec.ema_halflife_images is not None
                checkpoint.load_generators(checkpoint.path_of(folder.checkpoints, step), generators, averaged)
            for generator in generators.values():
                generator.eval()
        self._needs: dict[str, Needs | None] = {}

    def direction(self, to: str) -> str:
        """Returns the direction into a domain. Raises SpecError if the run has none."""
        found = {direction[1]: direction for direction in self.spec.directions}
        if to not in found:
            raise SpecError(f"to: {to!r} is not allowed: this run translates to {' and to '.join(sorted(found))}")
        return found[to]

    def generator(self, direction: str) -> Generator:
        """Returns a copy of a generator, in eval mode. Raises SpecError if the run has no such direction."""
        if direction not in self.spec.directions:
            known = ", ".join(self.spec.directions)
            raise SpecError(f"direction: {direction!r} is not allowed: this run has {known}")
        return copy.deepcopy(self._networks.generator(direction))

    @overload
    def translate(self, image: Tensor, to: str, size: str = "run") -> Tensor: ...

    @overload
    def translate(self, image: str | Path | Image.Image, to: str, size: str = "run") -> Image.Image: ...

    def translate(self, image: str | Path | Image.Image | Tensor, to: str, size: str = "run") -> Image.Image | Tensor:
        """Returns the translation of a picture, or of a batch of images (N, C, H, W) in [-1, 1].

        See `Run.translate`.
        """
        direction = self.direction(to)
        self.check_size(direction, size)
        if isinstance(image, Tensor):
            with self._reproducible():
                return self._batch(direction, image)
        try:
            return self.pictures(direction, image, size).output
        # an image that is open may turn out to be cut off
        except (OSError, ValueError) as error:
            name = "the image" if isinstance(image, Image.Image) else image
            raise SpecError(f"{name} can't be translated: {error}") from error

    def pictures(self, direction: str, image: str | Path | Image.Image, size: str, back: bool = False) -> Translated:
        """Translates one picture, and with `back` the translation back, after it is rounded to 8 bits.

        Raises ValueError if the picture can't be read, or if the generator fails at its size.
        """
        range = self._ranges.get(direction[0])
        upright = upright_rgb(image, range) if isinstance(image, Image.Image) else picture(home_expanded(image), range)
        source = self._fitted(direction[0], upright) if size == "run" else upright
        with self._reproducible():
            output = self._picture(direction, source)
            return Translated(source, output, self._picture(direction[::-1], output) if back else None)

    def prepared(self, domain: str, path: Path) -> Image.Image:
        """Returns the picture of a file as the run reads those of a domain: upright, cropped, resized; as RGB.

        Raises ValueError if it can't be read.
        """
        read = self._fitted(domain, picture(path, self._ranges.get(domain)))
        return read.convert("L").convert("RGB") if self.domains[domain].channels == 1 else read

    def check_size(self, direction: str, size: str) -> None:
        """Raises SpecError if the generator can't translate pictures of this size: "run" or "keep"."""
        if size not in SIZES:
            raise SpecError(f"size: {size!r} is not allowed: it should be 'run' or 'keep'")
        if size == "keep":
            with self._reproducible():
                self._padded_to(direction, 1, 1)

    def files(self) -> list[Path]:
        """Returns the files that hold the weights."""
        if self._folder.shared:
            return [shared.weights(self._folder.path, direction) for direction in self.spec.directions]
        return [checkpoint.path_of(self._folder.checkpoints, self.step) / checkpoint.NETWORKS]

    def needs(self, direction: str) -> Needs | None:
        """Returns the heights and widths that a generator takes; None if it takes the run's size alone."""
        with self._reproducible():
            return self._found_needs(direction)

    def _fitted(self, domain: str, image: Image.Image) -> Image.Image:
        return fitted(image, self.spec.data.size, self._fits.get(domain, "cover"))

    def _picture(self, direction: str, source: Image.Image) -> Image.Image:
        channels = {end: self.domains[end].channels for end in direction}
        image = torch.from_numpy(pixels(source, channels[direction[0]])).permute(2, 0, 1)
        try:
            output = self._translated(direction, normalised(image[None], self._dtype))
        # a generator may fail in any way, most likely for want of memory
        except Exception as error:
            what = f"{source.width} x {source.height} pixels"
            raise ValueError(f"the generator fails at {what}: {text_of(error)}") from error
        shown = Image.fromarray(to_uint8(output)[0])
        return shown.convert("L") if channels[direction[1]] == 1 else shown

    def _batch(self, direction: str, images: Tensor) -> Tensor:
        channels = self.domains[direction[0]].channels
        if images.ndim != 4 or images.shape[1] != channels or not images.is_floating_point():
            raise SpecError(
                f"expected images (N, {channels}, H, W) of floats in [-1, 1], got {images.dtype} {tuple(images.shape)}"
            )
        return self._translated(direction, images.detach().to(self._dtype)).to(images.device)

    def _translated(self, direction: str, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H, W) float32 in [-1, 1]. Other sizes than the run's are padded as is needed."""
        height, width = images.shape[2:]
        if (height, width) != (self.spec.data.size, self.spec.data.size):
            images = reflected(images, *self._padded_to(direction, height, width))
        return self._forward(direction, images)[:, :, :height, :width].float()

    def _padded_to(self, direction: str, height: int, width: int) -> tuple[int, int]:
        size = self.spec.data.size
        if (needs := self._found_needs(direction)) is None:
            name = self.spec.components["generator"].component.full_name
            raise SpecError(f"{name} translates images of {size} x {size} pixels only; choose the size 'run'")
        return needs.of(height), needs.of(width)

    def _found_needs(self, direction: str) -> Needs | None:
        if direction not in self._needs:
            channels, size = self.domains[direction[0]].channels, self.spec.data.size
            self._needs[direction] = find_needs(lambda images: self._forward(direction, images), channels, size)
        return self._needs[direction]

    def _forward(self, direction: str, images: Tensor) -> Tensor:
        generator = self._networks.generator(direction)
        # a generator may draw in eval mode too
        torch.manual_seed(int(keyed("translations", direction).integers(2**63)))
        with torch.no_grad(), self._networks.computing():
            return as_float(generator, generator(images.to(self._device, self._dtype)))

    @contextmanager
    def _reproducible(self) -> Iterator[None]:
        runtime = self.spec.runtime
        with reproducible(self._device, runtime.precision, int(runtime.threads)):
            yield
