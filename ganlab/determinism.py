"""Random numbers that depend on a key alone, and torch's settings that results depend on."""

from __future__ import annotations

import functools
import hashlib
import operator
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def keyed(*key: int | str) -> np.random.Generator:
    """Returns a generator that depends on the key alone, on every machine (Philox 4x64: Salmon et al., SC 2011)."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(digest, "<u8").astype(np.uint64)))


@contextmanager
def untouched_randomness(device: torch.device) -> Iterator[None]:
    """Restores torch's global random generators afterwards."""
    with torch.random.fork_rng([device] if device.type == "cuda" else [], device_type=device.type):
        yield


def _attribute(owner: object, name: str) -> tuple[Callable[[], Any], Callable[[Any], None]]:
    return functools.partial(getattr, owner, name), functools.partial(setattr, owner, name)


def _fp32_precisions() -> Iterator[tuple[Callable[[], Any], Callable[[Any], None]]]:
    # since torch 2.9; each inherits from those before it
    if hasattr(torch.backends, "fp32_precision"):
        yield _attribute(torch.backends, "fp32_precision")
        parts = (
            "cuda.matmul",
            "cudnn",
            "cudnn.conv",
            "cudnn.rnn",
            "mkldnn",
            "mkldnn.matmul",
            "mkldnn.conv",
            "mkldnn.rnn",
        )
        for part in parts:
            yield _attribute(operator.attrgetter(part)(torch.backends), "fp32_precision")


def _differs(get: Callable[[], Any], value: Any) -> bool:
    try:
        return bool(get() != value)
    except RuntimeError:
        # torch reads an older setting of the precision only if it agrees with the newer ones
        return True


def _flushes_denormals() -> bool:
    return (torch.tensor(1e-310, dtype=torch.float64, device="cpu") * 1.0).item() == 0.0


_SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    # None instead of "cpu", which would put a mode around every call of torch
    (lambda: None if (device := torch.get_default_device()).type == "cpu" else device, torch.set_default_device),
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    (torch.is_grad_enabled, torch._C._set_grad_enabled),
    (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    (_flushes_denormals, torch.set_flush_denormal),
    *(_attribute(torch.backends.cudnn, name) for name in ("enabled", "benchmark", "deterministic", "allow_tf32")),
    _attribute(torch.backends.mkldnn, "enabled"),
    # after the older settings, which write to them
    *_fp32_precisions(),
    (np.geterr, lambda errors: np.seterr(**errors)),
)
"""(get, set) for each setting of a process that results depend on."""


@contextmanager
def untouched_settings() -> Iterator[None]:
    """Restores afterwards the settings and random generators of torch, numpy and Python that results depend on."""
    before = [get() for get, _ in _SETTINGS]
    python, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002 (plugins may use numpy's global generator)
    started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count()) if started else ()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)  # noqa: NPY002
        for (get, put), value in zip(_SETTINGS, before, strict=True):
            if _differs(get, value):
                put(value)


@contextmanager
def reproducible(device: torch.device, precision: str, threads: int, deterministic: bool = True) -> Iterator[None]:
    """Sets the number of CPU threads, TF32 (only for the precision "tf32") and cuDNN's algorithms.

    With `deterministic`, cuDNN takes deterministic algorithms, otherwise those that it measures to be the fastest.

    Restores the global random generators and these settings afterwards; the environment variable
    CUBLAS_WORKSPACE_CONFIG stays set.
    """
    tf32 = precision == "tf32"
    # cuBLAS reads it when it is first used
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with (
        untouched_settings(),
        untouched_randomness(device),
        torch.backends.cudnn.flags(
            enabled=True, benchmark=not deterministic, deterministic=deterministic, allow_tf32=tf32
        ),
    ):
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Lets torch compute each operation with one thread, so that the last bits do not depend on their number.

    It holds for the calling thread and for threads that it starts. Restores the number afterwards.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
