"""Random numbers as a function of what they are for, never of what was drawn before."""

from __future__ import annotations

import hashlib

import numpy as np


def keyed(*key: int | str) -> np.random.Generator:
    """A generator for this key alone (Philox 4x64: Salmon et al., SC 2011), the same on every machine."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(digest, "<u8").astype(np.uint64)))
