"""The weights of a shared model: a file of tensors for each direction, read without running its code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NotRequired

import torch
from pydantic import TypeAdapter
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

# pydantic reads no TypedDict of Python 3.11's typing
from typing_extensions import TypedDict

from ganlab.errors import RunError, text_of
from ganlab.runs.models import Fingerprint
from ganlab.system.module_state import load_own_state, own_state

DIRECTIONS = ("ab", "ba")

_METADATA = "ganlab"
"""The metadata key of a file that holds the `About`. It is the only one, because the order of several would vary."""


class Imported(TypedDict):
    """A checkpoint of another program."""

    program: str
    """The program's name and address."""
    file: str
    """The file's name."""
    sha256: str


class Trained(TypedDict):
    """The circumstances of a training."""

    packages: dict[str, str | None]
    """{package: its version}."""
    device_name: str


class About(TypedDict):
    """The description of the weights in a file, from its metadata."""

    step: int
    """The step of the checkpoint; 0 if it is not known."""
    averaged: bool
    """True if the weights are averages over the training."""
    data: dict[str, Fingerprint]
    """{domain: the images of the training}; empty if they are not known."""
    trained: NotRequired[Trained]
    imported: NotRequired[Imported]
    """The origin of the weights, if another program trained them."""


_ABOUT = TypeAdapter(About)


def weights(folder: Path, direction: str) -> Path:
    """Returns the path of a direction's weights in the folder of a shared model."""
    return folder / f"{direction}.safetensors"


def is_shared(folder: Path) -> bool:
    """True if the folder holds weights of a shared model."""
    return any(weights(folder, direction).is_file() for direction in DIRECTIONS)


def content(generator: nn.Module, about: About) -> bytes:
    """Returns the content of a file of weights."""
    # copies: a tensor that a network holds under two names is refused
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in own_state(generator).items()}
    return save(tensors, {_METADATA: json.dumps(about, sort_keys=True)})


def about(folder: Path, direction: str) -> About:
    """Returns what a direction's file says of itself. Raises RunError if it is missing or damaged."""
    path = weights(folder, direction)
    try:
        _check_file(path)
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_METADATA)
        if text is None:
            raise ValueError("it has no metadata of ganlab")
        return _ABOUT.validate_json(text, strict=True)
    # nothing that a file holds may end in a traceback
    except Exception as error:
        raise RunError(f"{path} can't be read: {_reason(error)}") from error


def step(folder: Path) -> int:
    """Returns the step of a shared model's checkpoint. Raises RunError if a file is damaged."""
    return max(about(folder, direction)["step"] for direction in DIRECTIONS if weights(folder, direction).is_file())


def load(folder: Path, generators: Mapping[str, nn.Module]) -> None:
    """Loads {direction: generator} in place.

    Raises RunError if a file is missing, damaged or of another network, or if a value is not finite.
    """
    for direction, generator in generators.items():
        path = weights(folder, direction)
        try:
            _check_file(path)
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            if wrong := [name for name, value in tensors.items() if not torch.isfinite(value).all()]:
                raise ValueError(f"{wrong[0]} is not finite")
            load_own_state(generator, tensors)
        # nothing that a file holds may end in a traceback
        except Exception as error:
            raise RunError(f"{path} can't be read: {_reason(error)}") from error


def _check_file(path: Path) -> None:
    if not path.is_file():
        # opening a pipe would block
        raise ValueError("it is not a file" if path.exists() else "it does not exist")


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else text_of(error)
