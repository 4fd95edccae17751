"""Random numbers that depend on a key alone, and torch's settings that results depend on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def reproducible(device: torch.device, precision: str, threads: int) -> Iterator[None]:
    """Sets the number of CPU threads, TF32 (only for the precision "tf32") and deterministic cuDNN algorithms.

    Restores torch's global random generators and these settings afterwards; the environment variable
    CUBLAS_WORKSPACE_CONFIG stays set.
    """
    threads_before, precision_before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    tf32 = precision == "tf32"
    # cuBLAS reads it when it is first used
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        with (
            untouched_randomness(device),
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=tf32),
        ):
            yield
    finally:
        torch.set_num_threads(threads_before)
        torch.set_float32_matmul_precision(precision_before)
