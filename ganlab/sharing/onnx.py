"""Writes a generator as ONNX, and compares it with PyTorch."""

from __future__ import annotations

import copy
import io
import warnings
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ganlab.determinism import keyed
from ganlab.errors import RunError, SpecError, text_of
from ganlab.inference.sizes import Needs
from ganlab.spec.models import Json
from ganlab.torch_utils import stateful

OPSET = 18
"""The version of ONNX's operators: the one that torch's exporter writes without a conversion."""

TOLERANCE = 1e-4
"""The largest allowed difference from PyTorch's values, which are in [-1, 1], in float32, or else in float64.

Where an image is nearly flat, PyTorch's own norms in float32 round by more than this.
"""

BATCHES = (1, 7)
"""The numbers of images with which a file is compared."""


class Exported(NamedTuple):
    """A generator as ONNX."""

    content: bytes
    """The content of the file."""
    opset: int
    """The version of ONNX's operators."""
    checked: list[str]
    """The batches of the comparison with PyTorch: "1 x 3 x 64 x 64"."""
    difference: float
    """The largest difference of a value from PyTorch's in float32."""
    exact: float
    """The largest difference of a value from PyTorch's in float64."""

    def as_json(self) -> Json:
        """Returns {field: value} without the content."""
        return {"opset": self.opset, "checked": self.checked, "difference": self.difference, "exact": self.exact}


def check_installed() -> None:
    """Raises SpecError if a package that the export needs is missing."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            import_module(name)
        except ImportError as error:
            raise SpecError(f"--onnx needs the package {name}; pip install 'ganlab[onnx]'") from error


def export(generator: nn.Module, channels: int, size: int, needs: Needs | None) -> Exported:
    """Returns a generator, in float32 on the CPU and in eval mode, as ONNX.

    The input `images` and the output `translations` are (N, C, H, W) with any N. H and W are those that `needs` allows,
    or `size` if `needs` is None. Raises SpecError if torch can't export it, or if it draws random numbers; RunError if
    ONNX Runtime's outputs differ from PyTorch's by more than `TOLERANCE`, in float32 and in float64 too.
    """
    if _draws(generator, channels, size):
        raise SpecError("the generator draws random numbers in eval mode, so it can't be compared with PyTorch as ONNX")
    sizes = [(size, size)]
    if needs is not None:
        # two lengths that are not equal, so that neither stands for the other
        sizes.append((needs.of(size + 1), needs.of(size + 1 + needs.multiple)))
    content = _exported(generator, channels, sizes[-1], needs)
    checked, differences = list[str](), list[tuple[float, float]]()
    for shape in [(count, channels, *size) for count in BATCHES for size in sizes]:
        differences.append(compared(content, generator, example(shape)))
        checked.append(" x ".join(map(str, shape)))
    # written so that NaN is an error
    if not all(difference <= TOLERANCE or exact <= TOLERANCE for difference, exact in differences):
        worst = max(difference for difference, _ in differences)
        raise RunError(
            f"the ONNX file differs from PyTorch by {worst:.2g}, more than {TOLERANCE:g}; nothing is written"
        )
    difference, exact = (max(values) for values in zip(*differences, strict=True))
    return Exported(content, OPSET, checked, difference, exact)


def compared(content: bytes, generator: nn.Module, images: Tensor) -> tuple[float, float]:
    """Returns the largest differences of the outputs of an ONNX file from the generator's in float32 and in float64."""
    import onnxruntime

    # errors alone: it warns of every file that it optimises
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        expected = generator(images), copy.deepcopy(generator).double()(images.double())
    single, double = (float(np.abs(found - outputs.numpy()).max()) for outputs in expected)
    return single, double


def example(shape: tuple[int, int, int, int]) -> Tensor:
    """Returns images (N, C, H, W) in [-1, 1]: smooth ones, noise, and drawings of two colours."""
    random = keyed("onnx", *shape)
    noise = torch.from_numpy(random.uniform(-1, 1, shape).astype(np.float32))
    rows, columns = (torch.linspace(-3, 3, length) for length in shape[2:])
    smooth = torch.sin(rows[:, None] + 2 * columns + 3 * noise[:, :, :1, :1])
    drawing = torch.where(rows[:, None] ** 2 + columns**2 < 1, noise[:, :, :1, :1], noise[:, :, -1:, -1:])
    kind = torch.arange(shape[0])[:, None, None, None] % 3
    return torch.where(kind == 0, smooth, torch.where(kind == 1, noise, drawing))


def _draws(generator: nn.Module, channels: int, size: int) -> bool:
    if not stateful(generator):
        return False
    images = example((1, channels, size, size))
    with torch.no_grad():
        return not torch.equal(generator(images), generator(images))


def _exported(generator: nn.Module, channels: int, size: tuple[int, int], needs: Needs | None) -> bytes:
    shapes: dict[int, object] = {0: torch.export.Dim("batch", min=1)}
    if needs is not None:
        for place, name in ((2, "height"), (3, "width")):
            shapes[place] = _length(name, needs)
    images = torch.zeros(2, channels, *size)
    printed = io.StringIO()
    try:
        with warnings.catch_warnings(), redirect_stdout(printed), redirect_stderr(printed), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                generator,
                (images,),
                input_names=["images"],
                output_names=["translations"],
                dynamic_shapes=(shapes,),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
        if program is None:
            raise ValueError("torch returned no program")
        for part in (program.model.graph, *program.model.functions.values()):
            for node in part.all_nodes():
                # stack traces, with paths of this machine
                node.metadata_props.clear()
        return bytes(program.model_proto.SerializeToString())
    # the exporter, ONNX and protobuf raise errors of many kinds
    except Exception as error:
        raise SpecError(f"the generator can't be written as ONNX: {text_of(error)}") from error


def _length(name: str, needs: Needs) -> object:
    least = -(-needs.least // needs.multiple)
    if needs.multiple == 1:
        return torch.export.Dim(name, min=least)
    # torch gives such a dimension no name of its own
    return needs.multiple * torch.export.Dim(f"{name}_by_{needs.multiple}", min=least)
