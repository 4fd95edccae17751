"""Imports generators of junyanz/pytorch-CycleGAN-and-pix2pix and of taesungp/contrastive-unpaired-translation (CUT).

Their checkpoints are state dicts of a `Sequential` named `model`: a 7x7 convolution, two that halve the resolution,
residual blocks named `conv_block`, two that double it, a 7x7 convolution (arXiv:1703.10593, 2007.15651). Layers without
weights are numbered too, so the numbers of the others tell the architecture.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ganlab import files
from ganlab.errors import SpecError
from ganlab.inference.run import Run, load_run
from ganlab.inference.sizes import find_needs
from ganlab.runs import shared
from ganlab.runs.shared import About
from ganlab.sharing.card import Model
from ganlab.sharing.folder import check_target, contents, write
from ganlab.spec.files import merge, read
from ganlab.spec.models import Json
from ganlab.spec.resolve import resolve
from ganlab.spec.shipped import experiments
from ganlab.system.build import build_domains, build_generators
from ganlab.system.module_state import load_own_state, own_state

PROGRAM = "pytorch-CycleGAN-and-pix2pix or CUT"

BASE, METRICS = "zhu2017", "own"
"""The shipped experiments that lend the spec what a checkpoint does not hold: losses and a schedule; and metrics."""

_FILTERS = {"down": ((1, 2, 1), 1), "up": ((1, 3, 3, 1), 4)}
"""{side: (one row of the blur of an antialiased network, sum of all its values)}."""

_NUMBERS = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64)
"""The types of a checkpoint's tensors."""

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class Layout(NamedTuple):
    """The architecture of a generator, as its keys and shapes tell it."""

    inputs: int
    """The channels of its inputs."""
    outputs: int
    """The channels of its outputs."""
    width: int
    """The channels after the first convolution."""
    blocks: int
    """The number of residual blocks."""
    norm: str
    """"instance" or "batch"."""
    blurred: Mapping[str, bool]
    """{"down", "up"}: True if the resolution changes with blurs (arXiv:1904.11486)."""
    weights: list[str]
    """The keys of the weights, in the order of computation."""
    filters: Mapping[str, list[str]]
    """{"down", "up"}: the keys of the blurs."""
    unused: set[str]
    """Further keys of old files: statistics of instance norms, which nothing reads."""

    def options(self) -> Json:
        """Returns the generator for a spec."""
        return {
            "type": "resnet",
            "width": self.width,
            "blocks": self.blocks,
            "norm": self.norm,
            "downsampling": "blurred" if self.blurred["down"] else "strided",
            "upsampling": "blurred" if self.blurred["up"] else "transposed",
        }


def import_cyclegan(paths: Sequence[str | Path], out: str | Path, size: int = 256, overwrite: bool = False) -> Run:
    """Makes a shared model of checkpoints, which translates, exports and is measured as an exported run is.

    A file whose name ends with net_G_A.pth translates a into b, net_G_B.pth b into a, any other a into b. Instance
    norms use the statistics of each image. Batch norms use those of the training, as the authors' option --eval does.

    Args:
        paths: One or two files, or a folder with latest_net_G_A.pth and latest_net_G_B.pth, or with latest_net_G.pth.
        out: The folder of the model.
        size: The height and width in pixels to which pictures are cropped and resized.
        overwrite: Replace a shared model in the folder.

    Raises SpecError, before anything is written, if a file can't be read without running code from it, or is of another
    network; it names the first key that does not fit.
    """
    target = files.home_expanded(out)
    check_target(target, overwrite)
    found = _directions(paths)
    states = {direction: _state(path) for direction, path in found.items()}
    layouts = {direction: _layout(state, found[direction]) for direction, state in states.items()}
    spec = resolve(_spec(target, found, layouts, size), "import")
    domains = build_domains(spec)
    networks = build_generators(spec, domains)
    generators: dict[str, nn.Module] = {}
    about: dict[str, About] = {}
    for direction, path in found.items():
        generators[direction] = networks.generator(direction).cpu().eval()
        _fill(generators[direction], states[direction], layouts[direction], path)
        origin = shared.Imported(program=PROGRAM, file=path.name, sha256=files.digest(path))
        about[direction] = About(step=0, averaged=False, data={}, imported=origin)
    first = next(iter(found))
    with torch.no_grad():
        needs = find_needs(generators[first], layouts[first].inputs, size)
    model = Model(spec, domains, generators, needs, about, evaluation=None, grid="", onnx={}, license=None)
    write(target, contents(model))
    return load_run(target)


def _directions(paths: Sequence[str | Path]) -> dict[str, Path]:
    """Returns {direction: its file}. Raises SpecError."""
    found: dict[str, Path] = {}
    for path in [file for asked in paths for file in _files(files.home_expanded(asked))]:
        direction = "ba" if re.search(r"net_G_B\.\w+$", path.name) else "ab"
        if direction in found:
            raise SpecError(
                f"{found[direction]} and {path} are both taken for the direction {direction}; the names of two files"
                " end with net_G_A.pth and net_G_B.pth"
            )
        found[direction] = path
    if not found:
        raise SpecError("import cyclegan: names no file")
    return dict(sorted(found.items()))


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        if not path.is_file():
            raise SpecError(f"{path} {'is not a file' if path.exists() else 'does not exist'}")
        return [path]
    both = [path / f"latest_net_G_{end}.pth" for end in "AB"]
    found = [file for file in both if file.is_file()] or [
        file for file in (path / "latest_net_G.pth",) if file.is_file()
    ]
    if not found:
        raise SpecError(f"{path} holds none of latest_net_G_A.pth, latest_net_G_B.pth and latest_net_G.pth")
    return found


def _state(path: Path) -> dict[str, Tensor]:
    """Returns the state dict in a file, without the prefix of DataParallel. Raises SpecError."""
    try:
        found: Any = torch.load(path, weights_only=True, map_location="cpu")
    # torch.load raises many types for a damaged file, and some of its messages advise to run code from the file
    except Exception as error:
        raise SpecError(
            f"{path} can't be read: it is damaged, or holds more than tensors and plain values, which could run code"
        ) from error
    if not isinstance(found, Mapping) or not found:
        raise SpecError(f"{path} holds a {type(found).__name__}; a checkpoint is a dict of tensors")
    for key, value in found.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise SpecError(f"{path}: {key!r} is a {type(value).__name__}; a checkpoint is a dict of tensors")
        if not _is_plain(value):
            raise SpecError(f"{path}: {key!r} is no plain tensor of numbers: {value.dtype}, {value.layout}")
    prefix = "module." if all(key.startswith("module.") for key in found) else ""
    return {key.removeprefix(prefix): value for key, value in found.items()}


def _is_plain(value: Tensor) -> bool:
    """True if each element of a tensor is a number with a place of its own in memory.

    A file of a few bytes can hold a tensor that becomes gigabytes as soon as it is copied.
    """
    if value.layout is not torch.strided or value.device.type != "cpu" or value.dtype not in _NUMBERS:
        return False
    return value.nbytes <= value.untyped_storage().nbytes()


def _layout(state: Mapping[str, Tensor], path: Path) -> Layout:
    """Returns the architecture. Raises SpecError if it is not the one described above, or if a key is left over."""
    missing = partial(_missing, path, state)
    if "model.1.weight" not in state:
        raise missing("model.1.weight", "; it is no generator resnet_6blocks or resnet_9blocks")
    norm = "batch" if "model.2.weight" in state else "instance"
    blurred = {"down": "model.7.filt" in state}
    weights, filters, unused = list[str](), {"down": list[str](), "up": list[str]()}, set[str]()

    def normed(before: str, convolution: int) -> None:
        """Adds a convolution without a bias and a batch norm, or one with a bias and an instance norm."""
        here, after = f"{before}.{convolution}", f"{before}.{convolution + 1}"
        statistics = [f"{after}.{name}" for name in _STATISTICS]
        if norm == "batch":
            weights.extend([f"{here}.weight", f"{after}.weight", f"{after}.bias", *statistics])
        else:
            weights.extend([f"{here}.weight", f"{here}.bias"])
            unused.update(statistics)

    normed("model", 1)
    layer = 4
    for _ in range(2):
        normed("model", layer)
        layer += 3
        if blurred["down"]:
            filters["down"].append(f"model.{layer}.filt")
            layer += 1
    blocks = 0
    while f"model.{layer}.conv_block.1.weight" in state:
        normed(f"model.{layer}.conv_block", 1)
        normed(f"model.{layer}.conv_block", 5)
        blocks, layer = blocks + 1, layer + 1
    if not blocks:
        raise missing(f"model.{layer}.conv_block.1.weight")
    blurred["up"] = f"model.{layer}.filt" in state
    for _ in range(2):
        if blurred["up"]:
            filters["up"].append(f"model.{layer}.filt")
            layer += 1
        normed("model", layer)
        layer += 3
    weights += [f"model.{layer + 1}.weight", f"model.{layer + 1}.bias"]
    for key in (*weights, *filters["down"], *filters["up"]):
        # files of PyTorch before 0.4 do not count the batches
        if key not in state and not key.endswith("num_batches_tracked"):
            raise missing(key)
    known = {*weights, *filters["down"], *filters["up"], *unused}
    if extra := [key for key in state if key not in known]:
        raise SpecError(f"{path}: the key {extra[0]!r} is of no layer of resnet_6blocks or resnet_9blocks")
    first, last = (state[key] for key in ("model.1.weight", weights[-2]))
    for key, value in (("model.1.weight", first), (weights[-2], last)):
        if value.ndim != 4 or value.shape[2:] != (7, 7):
            raise SpecError(f"{path}: {key} has the shape {tuple(value.shape)}; expected that of a 7x7 convolution")
    return Layout(first.shape[1], last.shape[0], first.shape[0], blocks, norm, blurred, weights, filters, unused)


def _missing(path: Path, state: Mapping[str, Tensor], key: str, why: str = "") -> SpecError:
    return SpecError(f"{path}: the key {key!r} is missing{why}; its first key is {next(iter(state))!r}")


def _spec(target: Path, found: Mapping[str, Path], layouts: Mapping[str, Layout], size: int) -> Json:
    """Returns the spec of the model. Raises SpecError if the generators can't be of one."""
    first, *others = layouts
    options = layouts[first].options()
    channels = {first[0]: layouts[first].inputs, first[1]: layouts[first].outputs}
    for other in others:
        layout = layouts[other]
        if layout.options() != options or {other[0]: layout.inputs, other[1]: layout.outputs} != channels:
            raise SpecError(
                f"{found[first]} and {found[other]} are of two architectures; import each into a folder of its own"
            )
    for domain, count in channels.items():
        if count not in (1, 3):
            raise SpecError(f"{found[first]}: images of {domain} have {count} channels; allowed are 1 and 3")
    paths = {experiment.name: experiment.path for experiment in experiments()}
    one_way: Json = {"cycle": None, "identity": None} if not others else {}
    spec: Json = merge(
        read(paths[BASE]),
        {
            "name": target.name,
            "about": f"{' and '.join(path.name for path in found.values())} of {PROGRAM}",
            # the pictures of the training are not known
            "data": {
                **{d: {"type": "folder", "path": d, "channels": count} for d, count in channels.items()},
                "size": size,
                "batch": 1,
            },
            "directions": list(layouts),
            "generator": {"type": "none"},
            "losses": one_way,
            "evaluation": {"metrics": read(paths[METRICS])["evaluation"]["metrics"]},
            "runtime": {"precision": "float32"},
        },
    )
    return {**spec, "generator": options}


def _fill(generator: nn.Module, state: Mapping[str, Tensor], layout: Layout, path: Path) -> None:
    """Loads the weights. Raises SpecError that names the first key with a wrong shape, type or value."""
    for side, keys in layout.filters.items():
        for key in keys:
            _check_filter(state[key], side, key, path)
    own = own_state(generator)
    # both lists are in the order of computation
    loaded = dict(_fitted(list(zip(layout.weights, own.items(), strict=True)), state, path))
    load_own_state(generator, loaded)


def _fitted(
    pairs: Sequence[tuple[str, tuple[str, Tensor]]], state: Mapping[str, Tensor], path: Path
) -> Iterator[tuple[str, Tensor]]:
    for key, (name, here) in pairs:
        value = state.get(key, here)
        if value.shape != here.shape:
            raise SpecError(f"{path}: {key} has the shape {tuple(value.shape)}; expected {tuple(here.shape)}")
        if value.is_floating_point() != here.is_floating_point():
            raise SpecError(f"{path}: {key} is of the type {value.dtype}; expected {here.dtype}")
        if not torch.isfinite(value).all():
            raise SpecError(f"{path}: {key} is not finite")
        yield name, value.to(here.dtype)


def _check_filter(value: Tensor, side: str, key: str, path: Path) -> None:
    values, total = _FILTERS[side]
    row = torch.tensor(values, dtype=torch.float32)
    due = torch.outer(row, row) * (total / row.sum() ** 2)
    if value.ndim != 4 or value.shape[2:] != due.shape or not torch.allclose(value.float(), due, rtol=0, atol=1e-5):
        raise SpecError(f"{path}: {key} is another filter than ({', '.join(map(str, values))}) in both directions")
