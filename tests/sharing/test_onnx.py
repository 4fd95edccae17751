"""Generators as ONNX: ONNX Runtime's outputs against PyTorch's."""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from ganlab import GanlabError, RunError, SpecError
from ganlab.data.dataset import normalised
from ganlab.inference.sizes import Needs, find_needs
from ganlab.sharing import onnx
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from ganlab.system.build import build_sources
from helpers import experiments
from helpers.generators import SMALL, built
from helpers.systems import SHIPPED

Array = np.ndarray[Any, np.dtype[Any]]

QUICK = ("large_kernel, folded", "ugatit, light", "xgan")
"""What the exporter has to write differs most between these; the others are long forms."""


def worst(content: bytes, generator: nn.Module, images: Tensor, batch: int) -> Array:
    """The largest differences of ONNX Runtime's outputs from PyTorch's in float32 and float64, and of those two."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    exactly, found = copy.deepcopy(generator).double(), []
    for piece in torch.split(images, batch):
        (outputs,) = session.run(["translations"], {"images": piece.numpy()})
        with torch.no_grad():
            expected, exact = generator(piece).numpy(), exactly(piece.double()).numpy()
        assert expected.std() > 0.05
        found.append([np.abs(x - y).max() for x, y in ((outputs, expected), (outputs, exact), (expected, exact))])
    largest: Array = np.max(found, axis=0)
    return largest


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.faults) for name in SMALL]
)
def test_onnx_runtime_gives_the_outputs_of_torch(name: str) -> None:
    generator, spec = built(SMALL[name])
    size, channels = spec.data.size, build_sources(spec)["a"].channels
    with torch.no_grad():
        needs = find_needs(generator, channels, size)
    assert (needs is None) == (name in ("ugatit", "xgan", "dcgan"))
    found = onnx.export(generator, channels, size, needs)
    sizes = [(size, size)] if needs is None else [(size, size), (size + 2 * needs.multiple, size + needs.multiple)]
    for height, width in sizes:
        images = torch.rand(8, channels, height, width, generator=torch.manual_seed(1)) * 2 - 1
        for batch in (1, 7):
            assert (worst(found.content, generator, images, batch) <= 1e-4).all()
    assert 0 < found.exact <= 1e-4
    assert (found.opset, len(found.checked)) == (18, 2 * len(sizes))
    # the stack traces of torch's exporter name files of this machine
    assert b".py" not in found.content
    (declared,) = onnxruntime.InferenceSession(found.content, providers=["CPUExecutionProvider"]).get_inputs()
    fixed = [length for length in declared.shape if isinstance(length, int)]
    assert fixed == ([channels] if needs is not None else [channels, size, size])


def test_the_small_generators_are_of_every_shipped_type() -> None:
    types = {patch["generator"]["type"] for patch in SMALL.values()}
    # one that draws in eval mode can't be compared
    assert types == {c.name for c in SHIPPED if c.kind == "generator"} - {"dropout"}


def test_a_generator_that_draws_is_refused() -> None:
    of = {"type": "resnet", "width": 2, "blocks": 1}
    generator, _ = built({"generator": {"type": "dropout", "of": of}})
    with pytest.raises(SpecError, match=r"^the generator draws random numbers in eval mode"):
        onnx.export(generator, 3, 16, Needs(4, 8))


class Elsewhere(nn.Module):
    """Computes something else while it is exported."""

    def forward(self, images: Tensor) -> Tensor:
        return images * (0.5 if torch.compiler.is_compiling() else 0.6)


class Branching(nn.Module):
    """Looks at its input's values, which no graph can."""

    def forward(self, images: Tensor) -> Tensor:
        return images if images.sum() > 0 else -images


@pytest.mark.parametrize(
    ("network", "kind", "sentence"),
    [
        (Elsewhere(), RunError, r"^the ONNX file differs from PyTorch by 0\.1, more than 0\.0001; nothing is written$"),
        (Branching(), SpecError, r"^the generator can't be written as ONNX: .+"),
    ],
)
def test_a_network_that_onnx_does_not_hold_is_refused(
    network: nn.Module, kind: type[GanlabError], sentence: str
) -> None:
    with pytest.raises(kind, match=sentence) as raised:
        onnx.export(network, 3, 8, Needs(1, 1))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SpecError, match=re.escape(f"--onnx needs the package {package}; pip install 'ganlab[onnx]'")):
        onnx.check_installed()


def _distinct() -> dict[str, str]:
    """{the generator of an experiment as JSON: the first experiment that has it}, without full-size ones."""
    found: dict[str, str] = {}
    for name in experiments.FILES:
        if "/" not in name:
            found.setdefault(repr(experiments.load(name).generator), name)
    return found


@pytest.mark.faults
@pytest.mark.parametrize("name", _distinct().values())
def test_a_hundred_held_out_images_of_every_experiment(name: str, record_property: Callable[[str, Any], None]) -> None:
    patch: Json = {"runtime": {"precision": "float32"}}
    asked = experiments.load(name).as_json()
    if asked["generator"]["type"] == "dropout":
        pytest.skip("it draws in eval mode")
    if asked["data"]["a"]["type"] == "folder":
        avatars = {"type": "avatars", "style": "big-ears", "count": 400}
        patch = merge(patch, {"data": {"a": avatars}})
    # the initial weights of these three give outputs near 0
    generator, spec = built(patch, asked, strong=asked["generator"]["type"] in ("dcgan", "digits", "unet"))
    source, size = build_sources(spec)["a"], spec.data.size
    with torch.no_grad():
        needs = find_needs(generator, source.channels, size)
    content = onnx.export(generator, source.channels, size, needs).content
    # of other keys than training begins with
    keys = source.keys("a")[-100:]
    found = []
    for side in (size,) if needs is None else (size, needs.of(size + 1)):
        pixels = torch.from_numpy(np.stack([source.image(key, side) for key in keys]))
        images = normalised(pixels.permute(0, 3, 1, 2), torch.float32)
        assert len(images) == 100
        found += [worst(content, generator, images, batch) for batch in (1, 7)]
    single, exact, rounding = np.max(found, axis=0)
    record_property(
        "counted",
        f"{name}: 100 images, batches 1 and 7: at most {single:.1e} from PyTorch in float32, {exact:.1e} in float64;"
        f" float32 is {rounding:.1e} from float64",
    )
    # PyTorch's norms in float32 round by more than the tolerance where an image is nearly flat
    assert exact <= 1e-4
    assert single <= 1e-4 + rounding
