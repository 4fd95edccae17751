"""The versions, the device and the plugins that a run uses."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import distributions
from pathlib import Path

import torch

from ganlab import distributed
from ganlab.components.registry import registry
from ganlab.spec import devices
from ganlab.spec.models import Json, Runtime

_PACKAGES = ("ganlab", "torch", "torchvision", "numpy", "pillow", "safetensors", "pydantic", "pluggy")


def describe(runtime: Runtime) -> Json:
    """Returns what environment.json says of the machine and of what is installed."""
    components = registry().components
    return {
        "python": platform.python_version(),
        "packages": versions(*_PACKAGES),
        "platform": platform.platform(),
        **_device(runtime),
        "deterministic": runtime.deterministic,
        "processes": distributed.size(),
        "accumulate": runtime.accumulate,
        "commit": _commit(),
        "plugins": sorted({(c.plugin, c.package, c.version) for c in components}),
        "components": {f"{c.kind}/{c.name}": c.plugin for c in components},
        "broken_plugins": [broken._asdict() for broken in registry().broken],
    }


def describe_hardware(runtime: Runtime) -> Json:
    """Returns what the speed of a machine depends on: its device and the versions of what drives it."""
    return {
        **_device(runtime),
        "driver": _driver() if runtime.device.startswith("cuda") else None,
        "torch": torch.__version__,
        "platform": platform.platform(),
    }


def _device(runtime: Runtime) -> Json:
    return {
        "device": runtime.device,
        "device_name": devices.device_name(runtime.device),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.version.cuda if runtime.device.startswith("cuda") else None,
        "threads": runtime.threads,
    }


def _driver() -> str | None:
    """Returns the version of NVIDIA's driver; None if `nvidia-smi` does not tell it."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.splitlines()), None)


def versions(*packages: str) -> dict[str, str | None]:
    """Returns {package: version}, None for a package that is not installed."""
    return {package: next((found.version for found in distributions(name=package)), None) for package in packages}


def _commit() -> str | None:
    """Returns the commit of the source tree, with "-modified" if files differ; None for an installed package."""
    root = Path(__file__).parents[2]
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
