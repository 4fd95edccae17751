"""Writes MNIST's files."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np


def write_mnist(root: Path, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> Path:
    """Writes images (N, H, W) and labels (N,), uint8, in the IDX format (http://yann.lecun.com/exdb/mnist/), as both
    MNIST's train and test set, where torchvision looks for them below `root`. Returns their folder."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for split in ("train", "t10k"):
        for name, values in (("images-idx3", images), ("labels-idx1", labels)):
            # 8: unsigned bytes; the sides follow, big-endian
            head = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
            (folder / f"{split}-{name}-ubyte").write_bytes(head + values.tobytes())
    return folder
