"""Checkpoints: complete or absent after a crash, and read without running code from the file."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ganlab.errors import RunError
from ganlab.system.module_state import load_own_state, own_state

_NAME = re.compile(r"step-(\d{6,})")

_ALIASES = "aliases"
"""The metadata key of networks.safetensors that maps a shared tensor's other names to the stored one."""


def save(
    folder: Path,
    step: int,
    modules: Mapping[str, nn.Module],
    state: dict[str, Any],
    keep: int,
    spared: Collection[int] = (),
) -> Path:
    """Writes `folder/step-NNNNNN` and returns its path.

    Removes the other checkpoints, except the newest `keep` and those of the steps in `spared`.
    Raises RunError if the disk fails.
    """
    final = path_of(folder, step)
    unfinished = folder / f".{final.name}"
    try:
        # left unfinished by killed processes
        for left in folder.glob(".step-*"):
            shutil.rmtree(left)
        if not final.exists():
            unfinished.mkdir(parents=True)
            _save_networks(unfinished / "networks.safetensors", modules)
            _save_state(unfinished / "state.pt", state)
            for path in (*unfinished.iterdir(), unfinished):
                _sync(path)
            unfinished.rename(final)
            _sync(folder)
        for old in steps(folder)[:-keep]:
            if old in spared:
                continue
            # renamed first: a half removed checkpoint would look complete
            shutil.rmtree(path_of(folder, old).rename(folder / f".{name_of(old)}"))
    except (OSError, SafetensorError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise RunError(f"step {step} can't be saved to {folder}: {why}") from error
    return final


def steps(folder: Path) -> list[int]:
    """Returns the steps of the complete checkpoints, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(int(m[1]) for path in folder.iterdir() if (m := _NAME.fullmatch(path.name)))


def name_of(step: int) -> str:
    """Returns the name of a step's checkpoint and sample, without a suffix: "step-000500"."""
    return f"step-{step:06d}"


def path_of(folder: Path, step: int) -> Path:
    """Returns the path of a step's checkpoint in the folder of checkpoints."""
    return folder / name_of(step)


def load_networks(checkpoint: Path, modules: Mapping[str, nn.Module]) -> None:
    """Loads {name in the file: module} in place. Raises RunError if the file is damaged or of other networks."""
    path = checkpoint / "networks.safetensors"
    try:
        with safe_open(path, framework="pt") as file:
            aliases = json.loads((file.metadata() or {}).get(_ALIASES, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        tensors |= {alias: tensors[name] for alias, name in aliases.items()}
        for prefix, module in modules.items():
            start = f"{prefix}."
            load_own_state(module, {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)})
    except (OSError, SafetensorError, RuntimeError, KeyError, ValueError) as error:
        raise RunError(f"{path} can't be read: {_first_lines(error)}") from error


def load_state(checkpoint: Path) -> dict[str, Any]:
    """Returns what `save` was given as `state`, on the CPU. Raises RunError if the file is damaged."""
    path = checkpoint / "state.pt"
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise RunError(f"{path} can't be read: {error.strerror}") from error
    # torch.load raises many types for a damaged file, and some of its messages advise to run code from the file
    except Exception as error:
        raise RunError(f"{path} can't be read: it is damaged, or holds more than tensors and plain values") from error
    return state


def _first_lines(error: Exception) -> str:
    """Returns the error's first two lines as one; torch's list of wrong tensors begins on the second."""
    text = " ".join(line.strip() for line in (str(error) or type(error).__name__).splitlines()[:2])
    return text if len(text) < 200 else text[:197] + "..."


def _save_networks(path: Path, modules: Mapping[str, nn.Module]) -> None:
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[tuple[Any, ...], str] = {}
    for prefix, module in modules.items():
        # keep_vars gives the tensors themselves, so that a shared one is recognised
        for key, tensor in own_state(module, keep_vars=True).items():
            name = f"{prefix}.{key}"
            # strides too: a transposed view has the same address
            place = (tensor.data_ptr() or id(tensor), tensor.shape, tensor.stride(), tensor.dtype)
            known = first.setdefault(place, name)
            if known != name:
                aliases[name] = known
            else:
                tensors[name] = tensor.detach().contiguous()
    # a single metadata key: the order of several would differ from run to run
    save_file(tensors, path, {_ALIASES: json.dumps(aliases, sort_keys=True)})


def _save_state(path: Path, state: dict[str, Any]) -> None:
    # in memory first: torch's own writer doesn't report a full disk
    buffer = io.BytesIO()
    torch.save(state, buffer)
    path.write_bytes(buffer.getbuffer())


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
