"""A file of arrays of one shape: mapped into memory, and read array by array."""

from __future__ import annotations

import mmap
import os
import warnings
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ganlab import files
from ganlab.errors import RunError


class PixelFile:
    """The uint8 arrays of a file, which begin at byte `start` and have the shape (n, ...). Raises OSError."""

    def __init__(self, path: Path, start: int, shape: Sequence[int]) -> None:
        self._path, self._start = path, start
        with files.opened(path) as file:
            self._mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._handle = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._handle)
        with warnings.catch_warnings():
            # nothing writes to the map
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            self.mapped = torch.from_numpy(np.frombuffer(self._mapping, np.uint8)[start:].reshape(*shape))
            """The arrays, (n, ...). The pages of memory that are read count as memory of this process until they are
            released."""

    def read(self, indices: Sequence[int]) -> Tensor:
        """Returns a copy of the arrays at `indices`, (len(indices), ...). Raises RunError if they can't be read.

        Unlike reading the map, this leaves no pages in the memory of the process and causes no page faults of the map.
        """
        if not hasattr(os, "preadv"):
            return self.mapped[list(indices)]
        found = torch.empty((len(indices), *self.mapped.shape[1:]), dtype=torch.uint8)
        for index, array in zip(indices, found.numpy(), strict=True):
            try:
                whole = os.preadv(self._handle, [array], self._start + index * array.nbytes) == array.nbytes
            except OSError as error:
                raise RunError(f"{self._path} can't be read: {error.strerror or error}") from error
            if not whole:
                raise RunError(f"{self._path} can't be read: it has become shorter")
        return found

    def release(self) -> None:
        """Gives the pages of the map back to the system, which keeps them in its cache as long as it has room."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._mapping.madvise(mmap.MADV_DONTNEED)
