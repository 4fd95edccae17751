"""Says what to do if a training step needs more memory than there is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from ganlab import distributed
from ganlab.engine.summary import activation_bytes
from ganlab.engine.trainer import Trainer
from ganlab.errors import GanlabError, OutOfMemory, SpecError
from ganlab.spec import devices
from ganlab.spec.models import Runtime
from ganlab.torch_utils import trainable

ROOM = 0.8
"""The share of the memory beside weights and optimizers that activations may take: allocators leave gaps."""

_SAID = re.compile(
    "out of memory|can't allocate memory|not enough memory|bad_alloc|_STATUS_ALLOC_FAILED"
    "|could not create a (primitive(?! descriptor)|memory)",
    re.IGNORECASE,
)
"""Parts of the messages of torch's allocators and of oneDNN in a RuntimeError. oneDNN computes convolutions on CPUs and
gives no reason for an error. If it can't compute an operation, the descriptor fails, so the reason for other errors is
taken to be memory."""


@contextmanager
def explaining_memory(trainer: Trainer) -> Iterator[None]:
    """Raises OutOfMemory instead of an error that a failed allocation has caused."""
    try:
        yield
    except Exception as error:
        if _is_out_of_memory(error):
            raise OutOfMemory(_advice(trainer)) from error
        raise


@contextmanager
def explaining_memory_of_two(runtime: Runtime) -> Iterator[None]:
    """Raises SpecError instead of an error that a failed allocation has caused. The block builds the networks and tries
    them on two images."""
    try:
        yield
    except Exception as error:
        if _is_out_of_memory(error):
            said = "out of memory when the networks are tried on two images: lower data.size or the networks' widths"
            raise SpecError(_with_recomputing(said, runtime)) from error
        raise


def _is_out_of_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError | torch.OutOfMemoryError):
            return True
        if isinstance(error, RuntimeError) and not isinstance(error, GanlabError) and _SAID.search(str(error)):
            return True
        error = error.__cause__
    return False


def _advice(trainer: Trainer) -> str:
    spec = trainer.system.spec
    batch, parts = spec.data.batch, spec.runtime.accumulate
    share = batch // distributed.size()
    kept = {count: activation_bytes(trainer, share, count) for count in range(1, share + 1) if share % count == 0}
    said = (
        f"out of memory at step {trainer.state.step + 1}: data.batch {batch}{f' in {parts} parts' if parts > 1 else ''}"
        f" keeps about {kept[parts] / 2**20:,.0f} MiB of activations at a time"
    )
    if (more := parts_that_fit(parts, kept, _room(trainer))) is None:
        way_out = "lower data.size or the networks' widths"
    else:
        way_out = (
            f"--set runtime.accumulate={more} makes the same update in {more} parts, with about"
            f" {kept[more] / 2**20:,.0f} MiB"
        )
    return _with_recomputing(f"{said}; {way_out}", spec.runtime)


def _with_recomputing(said: str, runtime: Runtime) -> str:
    if runtime.checkpoint_activations:
        return said
    return f"{said}; --set runtime.checkpoint_activations=true keeps fewer activations and takes more time"


def parts_that_fit(parts: int, kept: Mapping[int, int], room: int | None) -> int | None:
    """Returns the fewest equal parts of a batch that fit, at least twice as many as the parts that do not.

    Args:
        parts: The number of parts that did not fit.
        kept: {number of parts: the bytes of activations that are kept at a time}.
        room: The bytes that there are for activations; None if this is not known.

    Returns None if no number of parts fits, or if more parts do not keep less.
    """
    fit = [more for more in kept if more >= 2 * parts and kept[more] < kept[parts]]
    return min((more for more in fit if room is None or kept[more] <= room), default=None)


def _room(trainer: Trainer) -> int | None:
    """Returns the bytes that a device has for activations, beside weights, gradients and two moments of each."""
    if (memory := devices.memory(trainer.system.spec.runtime.device)) is None:
        return None
    modules = [*trainer.state.modules().values(), *trainer.system.losses.values()]
    return int(ROOM * (memory - 4 * sum(p.nbytes for p in trainable(modules))))
