"""Fails when an operation makes the host wait for the device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode


class NoWaiting(TorchDispatchMode):
    """Fails on the operations that bring a value to the host."""

    WAITS = ("_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "allclose", "masked_select")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.split("::")[1]
        masked = (
            name.startswith("index")
            and isinstance(args[1], list | tuple)
            and any(getattr(i, "dtype", None) == torch.bool for i in args[1])
        )
        if masked or name in self.WAITS:
            raise AssertionError(f"aten::{name} makes the host wait")
        return func(*args, **(kwargs or {}))


class NoReading(TorchFunctionMode):
    """Fails on the methods that read a tensor without an operation that the dispatcher sees."""

    READS = (
        "item",
        "tolist",
        "numpy",
        "cpu",
        "__bool__",
        "__float__",
        "__int__",
        "__index__",
        "__array__",
        "__contains__",
    )

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in self.READS:
            raise AssertionError(f"Tensor.{func.__name__} makes the host wait")
        return func(*args, **(kwargs or {}))


@contextmanager
def no_synchronisation() -> Iterator[None]:
    with NoReading(), NoWaiting():
        yield
