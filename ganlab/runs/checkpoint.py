"""Checkpoints: complete or absent after a crash, verified before they are read, and read without running their code."""

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

from ganlab import files
from ganlab.errors import RunError, SpecError, text_of
from ganlab.runs.lengthening import in_steps_alone, obstacle
from ganlab.runs.models import MANIFEST, FileContent, Manifest, Origin, read
from ganlab.spec.models import Json, changes
from ganlab.system.module_state import load_own_state, own_state

NETWORKS, STATE = "networks.safetensors", "state.pt"

_NAME = re.compile(r"step-(\d{6}|[1-9]\d{6,})", re.ASCII)

_ALIASES = "aliases"
"""The name of {another name of a shared tensor: its stored name}, in the metadata of networks.safetensors."""

_METADATA = "ganlab"
"""The only metadata key of networks.safetensors: the order of several would differ from run to run. Its value is JSON:
"aliases", and "samples", {direction: the prefix of the tensors that make samples and are measured}."""


def save(
    folder: Path,
    step: int,
    modules: Mapping[str, nn.Module],
    state: dict[str, Any],
    origin: Origin,
    keep: int,
    spared: Collection[int] = (),
) -> Path:
    """Writes `folder/step-NNNNNN` and returns its path; its manifest comes last. The folder's parent must exist.

    Removes the other checkpoints, except the newest `keep` and those of the steps in `spared`.
    Raises RunError if the disk fails.
    """
    final = path_of(folder, step)
    unfinished = folder / f".{final.name}"
    try:
        folder.mkdir(exist_ok=True)
        remove_unfinished(folder)
        if not final.exists():
            unfinished.mkdir()
            _save_networks(unfinished / NETWORKS, modules)
            _save_state(unfinished / STATE, state)
            # safetensors lets only the owner read it
            shutil.copymode(unfinished / STATE, unfinished / NETWORKS)
            content = {name: _content(unfinished / name) for name in (NETWORKS, STATE)}
            manifest = Manifest(**origin, step=step, files=content)
            (unfinished / "manifest.json").write_bytes(json.dumps(manifest).encode())
            for path in (*unfinished.iterdir(), unfinished):
                _sync(path)
            unfinished.rename(final)
            _sync(folder)
        for old in steps(folder)[:-keep]:
            if old not in spared:
                remove(folder, old)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise RunError(f"step {step} can't be saved to {folder}: {_reason(error)}") from error
    return final


def remove(folder: Path, step: int) -> None:
    """Removes a checkpoint. Raises OSError."""
    # renamed first: a half removed checkpoint would look complete
    _remove(path_of(folder, step).rename(folder / f".{name_of(step)}"))


def remove_unfinished(folder: Path) -> None:
    """Removes what killed processes left of checkpoints. Raises OSError."""
    for left in folder.glob(".step-*"):
        _remove(left)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def steps(folder: Path) -> list[int]:
    """Returns the steps of the complete checkpoints, oldest first.

    Raises SpecError if `folder` is a link to what is not there: without its checkpoints a run would start over.
    """
    if folder.is_symlink() and not folder.exists():
        raise SpecError(f"{folder} is a link to {folder.readlink()}, which is not there; is its disk mounted?")
    if not folder.is_dir():
        return []
    return sorted(int(m[1]) for path in folder.iterdir() if (m := _NAME.fullmatch(path.name)))


def name_of(step: int) -> str:
    """Returns the name of a step's checkpoint and sample, without a suffix: "step-000500"."""
    return f"step-{step:06d}"


def path_of(folder: Path, step: int) -> Path:
    """Returns the path of a step's checkpoint in the folder of checkpoints."""
    return folder / name_of(step)


def verify(folder: Path, step: int, spec: Json, steps: int) -> Manifest:
    """Returns the manifest of a checkpoint after comparing both files with it.

    `spec` is what the run trains, `Spec.trains`, and `steps` its number of steps. Raises RunError if a file is missing
    or damaged, or if the checkpoint is another run's or another step's.
    """
    checkpoint = path_of(folder, step)
    path = checkpoint / "manifest.json"
    try:
        manifest = read(path, MANIFEST)
        if manifest["step"] != step:
            raise ValueError(f"it is the manifest of step {manifest['step']}")
        if step > steps:
            raise ValueError(f"the run ends at step {steps}")
        differing = changes(manifest["spec"], spec)
        # a run may have been trained to another number of steps since
        if differing and not (in_steps_alone(differing) and obstacle(manifest["spec"], spec, step) is None):
            raise ValueError(f"another spec saved it (there / here): {'; '.join(differing)}")
        for path in (checkpoint / NETWORKS, checkpoint / STATE):
            if _content(path) != manifest["files"].get(path.name):
                raise ValueError("its content is not what was saved")
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path} can't be used: {_reason(error)}; remove {checkpoint} to resume from the checkpoint before it, or"
            " start over with --fresh"
        ) from error
    return manifest


def manifest(folder: Path, step: int) -> Manifest:
    """Returns the manifest of a checkpoint that is verified already. Raises RunError if it can't be read."""
    path = path_of(folder, step) / "manifest.json"
    try:
        return read(path, MANIFEST)
    except (OSError, ValueError) as error:
        raise RunError(f"{path} can't be read: {_reason(error)}") from error


def load_networks(checkpoint: Path, modules: Mapping[str, nn.Module]) -> None:
    """Loads {name in the file: module} in place.

    Raises RunError if the file is damaged or of other networks, or if a value is not finite.
    """
    path = checkpoint / NETWORKS
    try:
        with safe_open(path, framework="pt") as file:
            aliases = _aliases(file.metadata())
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        tensors |= {alias: tensors[name] for alias, name in aliases.items()}
        for prefix, module in modules.items():
            start = f"{prefix}."
            own = {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
            if not all(torch.isfinite(value).all() for value in own.values()):
                raise ValueError(f"weights of {prefix} are not finite")
            load_own_state(module, own)
    # nothing that a file holds may end in a traceback
    except Exception as error:
        raise RunError(f"{path} can't be read: {_reason(error)}") from error


def network_names(checkpoint: Path) -> set[str]:
    """Returns the names of the networks in a checkpoint that have tensors. Raises RunError if the file is damaged."""
    path = checkpoint / NETWORKS
    try:
        with safe_open(path, framework="pt") as file:
            keys = {*file.keys(), *_aliases(file.metadata())}
    # nothing that a file holds may end in a traceback
    except Exception as error:
        raise RunError(f"{path} can't be read: {_reason(error)}") from error
    return {key.partition(".")[0] for key in keys}


def load_generators(checkpoint: Path, generators: Mapping[str, nn.Module], averaged: bool) -> None:
    """Loads {direction: generator} in place: the averaged weights, or those that were trained.

    Raises RunError as `load_networks` does.
    """
    kind = "ema" if averaged else "generator"
    load_networks(checkpoint, {f"{kind}/{direction}": generator for direction, generator in generators.items()})


def load_state(checkpoint: Path) -> dict[str, Any]:
    """Returns what `save` was given as `state`, on the CPU. Raises RunError if the file is damaged."""
    path = checkpoint / STATE
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    # torch.load raises many types for a damaged file, and some of its messages advise to run code from the file
    except Exception as error:
        raise RunError(f"{path} can't be read: it is damaged, or holds more than tensors and plain values") from error
    return state


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else text_of(error)


def _content(path: Path) -> FileContent:
    return {"size": path.stat().st_size, "sha256": files.digest(path)}


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
    directions = [prefix.removeprefix("generator/") for prefix in modules if prefix.startswith("generator/")]
    samples = {way: f"ema/{way}" if f"ema/{way}" in modules else f"generator/{way}" for way in directions}
    save_file(tensors, path, {_METADATA: json.dumps({_ALIASES: aliases, "samples": samples}, sort_keys=True)})


def _aliases(metadata: Mapping[str, str] | None) -> dict[str, str]:
    found = metadata or {}
    # files of before the key _METADATA have the aliases alone
    aliases: dict[str, str] = json.loads(found.get(_METADATA, "{}")).get(_ALIASES) or json.loads(
        found.get(_ALIASES, "{}")
    )
    return aliases


def _save_state(path: Path, state: dict[str, Any]) -> None:
    # in memory first: torch's own writer doesn't report a full disk
    buffer = io.BytesIO()
    torch.save(state, buffer)
    path.write_bytes(buffer.getbuffer())


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        # Windows opens no folders
        return
    # Windows flushes only what can be written
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
