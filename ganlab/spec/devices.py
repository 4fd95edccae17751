"""The devices of this machine, and what "auto" means on it in a spec's `runtime`."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch

from ganlab.errors import SpecError
from ganlab.spec import tuning
from ganlab.spec.models import Json


def moved_here(spec: Json) -> Json:
    """Returns a resolved spec, perhaps of another machine, that this machine can compute.

    A device that is missing here becomes "auto". The precision "tf32" becomes "float32" if the device has no tf32.
    """
    if not isinstance(runtime := spec.get("runtime", {}), dict):
        # refused with the rest of the spec
        return spec
    runtime = {**runtime}
    if runtime.get("device") not in devices():
        runtime["device"] = "auto"
    if runtime.get("precision") == "tf32" and not device(str(runtime["device"]), "runtime").startswith("cuda"):
        runtime["precision"] = "float32"
    return {**spec, "runtime": runtime}


def devices() -> list[str]:
    """Returns the names of this machine's devices, the best first."""
    available = ["cpu"]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available[:0] = ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    return available


def precisions(runs_on: str) -> list[str]:
    """Returns the precisions that a device computes with, the most exact first; float64 is not among them.

    CUDA devices have TF32; bfloat16 if their hardware has it. Processors have bfloat16 if they have AMX or AVX512-BF16;
    other processors emulate it, which is slower. A torch older than 2.10 can't tell.
    """
    if runs_on.startswith("cuda"):
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return ["float32", "tf32", *["bfloat16"] * has_bfloat16]
    capabilities: Mapping[str, bool | int] = getattr(torch.cpu, "get_capabilities", dict)()
    has_bfloat16 = bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
    return ["float32", *["bfloat16"] * (runs_on == "cpu" and has_bfloat16)]


def precision(runs_on: str) -> str:
    """Returns the precision that "auto" means on a device: the one that `ganlab bench --tune` has found to be the
    fastest, or else "tf32" on CUDA devices and the last of `precisions` on others."""
    if (found := tuning.tuned(device_name(runs_on), precisions(runs_on))) is not None:
        return found.precision
    return "tf32" if runs_on.startswith("cuda") else precisions(runs_on)[-1]


def compiles(runs_on: str, precision: str) -> bool:
    """Returns what "auto" means for `runtime.compile`: True if `ganlab bench --tune` has found compiled networks to be
    the fastest on a device, in this precision."""
    return tuning.tuned(device_name(runs_on), precisions(runs_on)) == tuning.Tuned(precision, compiled=True)


def device_name(runs_on: str) -> str:
    """Returns the maker's name of a device; of a CPU, the kind of processor if the system doesn't tell the name."""
    if runs_on.startswith("cuda"):
        return torch.cuda.get_device_name(runs_on)
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def device(asked: str, where: str) -> str:
    """Returns `asked`, or the best device for "auto". Raises SpecError if the machine doesn't have it."""
    available = devices()
    if asked == "auto":
        return available[0]
    if asked not in available:
        raise SpecError(f"{where}.device: {asked!r} is not available here; known are: {', '.join(available)}")
    return asked


def memory(runs_on: str) -> int | None:
    """Returns the memory of a device in bytes, in a container at most its limit; None on systems that do not tell."""
    if runs_on.startswith("cuda"):
        return torch.cuda.get_device_properties(runs_on).total_memory
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        # Windows has no sysconf
        return None
    with suppress(OSError, ValueError):
        # "max" if there is no limit
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return total
