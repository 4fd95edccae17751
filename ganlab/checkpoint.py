"""Checkpoints: complete or absent whatever happens, read without running anybody's code."""

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
from ganlab.modules import load_own_state, own_state

_NAME = re.compile(r"step-(\d{6,})")
_ALIASES = "aliases"


def save(
    folder: Path,
    step: int,
    modules: Mapping[str, nn.Module],
    state: dict[str, Any],
    keep: int,
    spared: Collection[int] = (),
) -> Path:
    """Write `folder/step-NNNNNN`, then drop all but the newest `keep` and the `spared`. Raises RunError where the disk
    won't."""
    final = path_of(folder, step)
    unfinished = folder / f".{final.name}"
    try:
        for left in folder.glob(".step-*"):
            # by a process that was killed
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
            # half removed, it would pass for complete
            shutil.rmtree(path_of(folder, old).rename(folder / f".{name_of(old)}"))
    except (OSError, SafetensorError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise RunError(f"step {step} can't be saved to {folder}: {why}") from error
    return final


def steps(folder: Path) -> list[int]:
    """The steps of the complete checkpoints, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(int(m[1]) for path in folder.iterdir() if (m := _NAME.fullmatch(path.name)))


def name_of(step: int) -> str:
    return f"step-{step:06d}"


def path_of(folder: Path, step: int) -> Path:
    return folder / name_of(step)


def load_networks(checkpoint: Path, modules: Mapping[str, nn.Module]) -> None:
    """Fill the modules. Raises RunError where the file is damaged or holds other networks."""
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
        raise RunError(f"{path} can't be read: {_told(error)}") from error


def load_state(checkpoint: Path) -> dict[str, Any]:
    """The rest of a checkpoint's state, on the CPU."""
    path = checkpoint / "state.pt"
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise RunError(f"{path} can't be read: {error.strerror}") from error
    # torch.load has no error of its own for damaged files, and for others it advises to run their code
    except Exception as error:
        raise RunError(f"{path} can't be read: it is damaged, or holds more than tensors and plain values") from error
    return state


def _told(error: Exception) -> str:
    """An error in a line; torch's list of unfit tensors begins on the second."""
    text = " ".join(line.strip() for line in (str(error) or type(error).__name__).splitlines()[:2])
    return text if len(text) < 200 else text[:197] + "..."


def _save_networks(path: Path, modules: Mapping[str, nn.Module]) -> None:
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[tuple[Any, ...], str] = {}
    for prefix, module in modules.items():
        # keep_vars: the tensors themselves, so that a shared one is recognised
        for key, tensor in own_state(module, keep_vars=True).items():
            name = f"{prefix}.{key}"
            # by its strides too: a transposed view lies at the same place
            place = (tensor.data_ptr() or id(tensor), tensor.shape, tensor.stride(), tensor.dtype)
            known = first.setdefault(place, name)
            if known != name:
                aliases[name] = known
            else:
                tensors[name] = tensor.detach().contiguous()
    # one key of metadata only: the order of several is not the same from run to run
    save_file(tensors, path, {_ALIASES: json.dumps(aliases, sort_keys=True)})


def _save_state(path: Path, state: dict[str, Any]) -> None:
    # in memory first: torch's own writer doesn't say that a disk is full
    buffer = io.BytesIO()
    torch.save(state, buffer)
    path.write_bytes(buffer.getbuffer())


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
