"""The weights of AlexNet (torchvision's) and of the shift-tolerant AlexNet (inside the package stlpips-pytorch)."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ganlab.errors import Unavailable
from ganlab.evaluation.lpips import Trunk
from ganlab.files import digest, download

URL = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
"""The weights of torchvision's AlexNet. The file's name ends with the first digits of its SHA-256."""


class Weights(NamedTuple):
    """A trunk and the linear weights of its layers."""

    trunk: Trunk
    layers: list[Tensor]
    """The weights of the five layers, each (C,)."""
    files: tuple[Path, ...]
    """The files that hold them."""


def alex() -> Weights:
    """Returns torchvision's AlexNet and the weights of lpips. Raises Unavailable if a file is missing and can't be
    downloaded."""
    path = downloaded()
    if str(path).startswith("~"):
        raise Unavailable("lpips-alex has no folder for its weights: the user has no home folder; set $TORCH_HOME")
    if not path.exists():
        try:
            download(URL, path, _sha256())
        except OSError as error:
            raise Unavailable(
                f"lpips-alex needs {URL} at {path}, and downloading it failed ({error}); put it there, or use the"
                " network stlpips-alex, whose weights come with pip install 'ganlab[stlpips]'"
            ) from error
    if not digest(path).startswith(_sha256()):
        raise Unavailable(f"{path} is not the complete file of {URL}; delete it, and it is downloaded again")
    linear = _shipped("lpips", "weights/v0.1/alex.pth")
    if linear is None:
        raise Unavailable("lpips-alex needs the weights inside the package lpips; pip install lpips")
    trunk = _trunk(shift_tolerant=False)
    # without the classifier, which the trunk does not have
    features = {name: value for name, value in _read(path).items() if name.startswith("features.")}
    trunk.features.load_state_dict({name.removeprefix("features."): value for name, value in features.items()})
    return Weights(trunk, _layers(_read(linear)), (path, linear))


def stlpips_alex() -> Weights:
    """Returns the shift-tolerant AlexNet (arXiv:2207.13686). Raises Unavailable if its package is not installed."""
    path = _shipped("stlpips_pytorch", "weights/vST0.0/alex_shift_tolerant.pth")
    if path is None:
        raise Unavailable(
            "stlpips-alex needs the weights inside a package, pip install 'ganlab[stlpips]';"
            f" or, for lpips-alex, put {URL} at {downloaded()}"
        )
    state = _read(path)
    layers = _layers(state)
    trunk = _trunk(shift_tolerant=True)
    trunk.load_state_dict(
        {re.sub(r"^net\.slice\d", "features", name).removeprefix("scaling_layer."): state[name] for name in state}
    )
    return Weights(trunk, layers, (path,))


def _trunk(shift_tolerant: bool) -> Trunk:
    # the layers draw their first weights from torch's global generator
    with torch.random.fork_rng(devices=[]):
        trunk = Trunk(shift_tolerant).eval().requires_grad_(False)
    # measured on one CPU core: 1.4 to 1.7 times as fast
    return trunk.to(memory_format=torch.channels_last)


def _layers(state: dict[str, Tensor]) -> list[Tensor]:
    """Removes the linear weights of the five layers from `state` and returns them, each (C,)."""
    return [state.pop(f"lin{layer}.model.1.weight").flatten() for layer in range(5)]


def _read(path: Path) -> dict[str, Tensor]:
    return dict(torch.load(path, map_location="cpu", weights_only=True))


def _shipped(package: str, name: str) -> Path | None:
    """Returns a file of a package, None if it is missing. Importing stlpips_pytorch would need undeclared packages."""
    spec = find_spec(package)
    folders = (spec.submodule_search_locations if spec else None) or ()
    return next((path for folder in folders if (path := Path(folder) / name).exists()), None)


def downloaded() -> Path:
    """Returns the path at which torchvision stores AlexNet's weights."""
    return Path(torch.hub.get_dir()) / "checkpoints" / URL.rpartition("/")[2]


def _sha256() -> str:
    """Returns the first digits of the SHA-256 of AlexNet's weights."""
    return downloaded().stem.rpartition("-")[2]
