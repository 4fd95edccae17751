"""On what a run ran: versions and machine, and of which code."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from ganlab.provenance import code, trains
from ganlab.registry import Registry
from ganlab.spec import Json, Spec

_PACKAGES = ("ganlab", "torch", "torchvision", "numpy", "pillow", "safetensors", "pydantic", "pluggy")


def describe(registry: Registry, spec: Spec) -> Json:
    """Versions, device, threads, commit, plugins and their owners, code."""
    device = torch.device(spec.runtime.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "python": platform.python_version(),
        "packages": versions(*_PACKAGES),
        "platform": platform.platform(),
        "device": str(device),
        "device_name": name,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "threads": spec.runtime.threads,
        "commit": _commit(),
        "plugins": sorted({(c.plugin, c.package, c.version) for c in registry.components}),
        "components": {f"{c.kind}/{c.name}": c.plugin for c in registry.components},
        "broken_plugins": [b._asdict() for b in registry.broken],
        "code": code(registry, trains(registry, spec)),
    }


def versions(*packages: str) -> dict[str, str | None]:
    """{package: its version, or None where it isn't installed}."""
    return {package: _version(package) for package in packages}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the source tree that ganlab runs from; None for an installed package."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit + ("-modified" if _git(root, "status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
