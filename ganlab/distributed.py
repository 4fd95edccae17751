"""The processes of one run, as torchrun starts them. Each is a rank; rank 0 decides, writes and shows.

Without torchrun there is one rank, and every function is the identity or does nothing. Every rank has to call the same
functions in the same order: each function waits for the other ranks.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar
from uuid import uuid4

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from ganlab.determinism import keyed
from ganlab.errors import Elsewhere, GanlabError, Lost, SpecError, one_line, plural, text_of

BUCKET = 25 * 2**20
"""The bytes of gradients that are sent at once, as in DDP (Li et al., arXiv:2006.15704, section 5.3)."""

_PATIENCE = timedelta(days=365)
"""How long a rank waits for another that reads images or measures. A rank that ends is noticed at once."""

_SET_BY_TORCHRUN = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}

Value = TypeVar("Value")


class _Group:
    """Holds how this process is connected to the other ranks."""

    hosts: Any = None
    """The process group for values of the host. None if there is one rank."""
    attempt = 1
    """How often torchrun has started the ranks."""
    overlaps = True
    """True if gradients are sent during the backward pass that computes them."""


@contextmanager
def process_group() -> Iterator[None]:
    """Joins the other ranks, if torchrun started this process, and leaves them afterwards.

    Raises SpecError if they can't be reached.
    """
    if not launched():
        yield
        return
    try:
        store, number, count = next(rendezvous("env://"))
        _Group.attempt = agree_on_attempt(store, number, count)
        # torchrun may keep the store when it starts the processes again, with the addresses of those that have ended
        fresh = dist.PrefixStore(f"attempt-{_Group.attempt}", store)  # type: ignore[attr-defined]
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=fresh, rank=number, world_size=count)
        _Group.hosts = dist.new_group(backend="gloo", timeout=_PATIENCE)
    except (RuntimeError, ValueError, OSError) as error:
        raise SpecError(
            f"the processes that torchrun started can't connect: {one_line(error)}; if they are on several machines,"
            " set GLOO_SOCKET_IFNAME to the network interface that connects them"
        ) from error
    try:
        yield
    except Elsewhere:
        # torchrun ends all processes when the first one ends: that should be the one that says why
        with suppress(Lost):
            gather(None)
        raise
    # rank 0 may still measure, and destroying a group may need all ranks
    with suppress(Lost):
        gather(None)
    # after an error the group is left open, so that the others see this process end
    _Group.hosts = None
    dist.destroy_process_group()


def launched() -> bool:
    """True if torchrun started this process as one of several."""
    return os.environ.keys() >= _SET_BY_TORCHRUN and os.environ["WORLD_SIZE"] != "1"


def rank() -> int:
    """Returns the number of this process, from 0."""
    return 0 if _Group.hosts is None else dist.get_rank()


def size() -> int:
    """Returns the number of processes of the run, on all machines."""
    return 1 if _Group.hosts is None else dist.get_world_size()


def local_rank() -> int:
    """Returns the number of this process among those of its machine, from 0."""
    return 0 if _Group.hosts is None else int(os.environ["LOCAL_RANK"])


def restarted() -> bool:
    """True if torchrun has started the processes again, after one of them ended."""
    # torchrun does not count a restart on a machine whose own processes were still alive
    return _Group.attempt > 1 or os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def agree_on_attempt(store: Any, number: int, count: int) -> int:
    """Returns how often torchrun has started the ranks. All ranks get the same number.

    `number` is this rank, and `count` the number of ranks. They meet in `store`, which may still hold the entries of
    earlier processes, because torchrun may keep it. Raises RuntimeError if rank 0 does not come within the timeout of
    the store.
    """
    if number == 0:
        attempt = store.add("attempts", 1)
        for other in range(1, count):
            store.set(store.get(f"attempts/{attempt}/{other}"), str(attempt))
        return int(attempt)
    own, end = uuid4().hex, time.monotonic() + store.timeout.total_seconds()
    # only this attempt's rank 0 answers to the name; until then, the store has the number of the last attempt, so the
    # name has to be written again
    while not store.check([own]):
        if time.monotonic() > end:
            raise RuntimeError(f"process 0 of {count} does not answer")
        store.set(f"attempts/{store.add('attempts', 0)}/{number}", own)
        time.sleep(0.05)
    return int(store.get(own))


def device(asked: str, where: str) -> str:
    """Returns the device of this rank, of the kind that a resolved spec asks for: a CUDA device of its own, or the CPU.

    Raises SpecError, with a message that begins with `where`, if there is none.
    """
    if size() == 1 or asked == "cpu":
        return asked
    if not asked.startswith("cuda"):
        raise SpecError(f"{where}: {asked!r} is not allowed for several processes; allowed are 'cpu' and 'cuda'")
    if local_rank() >= torch.cuda.device_count():
        there = plural(torch.cuda.device_count(), "CUDA device")
        raise SpecError(f"{where}: each process needs a CUDA device of its own, and this machine has {there}")
    torch.cuda.set_device(local_rank())
    return f"cuda:{local_rank()}"


# -- tensors of the device


@contextmanager
def averaged_gradients(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Replaces each gradient by its mean over the ranks. The block is the backward pass that completes them.

    Sends a bucket of gradients as soon as they are complete, while the pass computes others (Li et al.,
    arXiv:2006.15704, section 3.2.3), unless `send_after_backward` was called.

    A rank that has no gradient of a parameter counts as one with zeros. If no rank has a gradient of a parameter, none
    is set. To find this out, a rank that lacks a gradient waits for its device.
    """
    if size() == 1 or not parameters:
        yield
        return
    average = _GradientAverage(parameters)
    hooks: list[Any] = [
        p.register_post_accumulate_grad_hook(average.add)  # type: ignore[no-untyped-call]
        for p in parameters
        if _Group.overlaps
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    average.finish()


def send_after_backward() -> None:
    """Sends gradients after the backward pass from now on, for modules that communicate during it, as SyncBatchNorm.

    The order of both would depend on which gradients a rank has, and every rank needs the same order.
    """
    _Group.overlaps = False


class _GradientAverage:
    """Sends gradients in buckets. Every rank sends the same buckets in the same order.

    A backward pass computes the gradients of the last parameters first, so the first bucket has those.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._parameters = parameters
        self._buckets = list(_buckets(reversed(parameters)))
        self._bucket_of = {p: number for number, bucket in enumerate(self._buckets) for p in bucket}
        self._incomplete = [set(bucket) for bucket in self._buckets]
        self._sent: list[tuple[list[Tensor], Tensor, Any]] = []
        """(tensors, their values in one tensor, handle that waits for the other ranks) of each bucket that was sent."""

    def add(self, p: nn.Parameter) -> None:
        """Notes that a parameter's gradient is complete. Sends the next buckets if they are complete."""
        self._incomplete[self._bucket_of[p]].remove(p)
        # the last bucket also says which gradients this rank has, which is known at the end of the pass
        while len(self._sent) < len(self._buckets) - 1 and not self._incomplete[len(self._sent)]:
            self._send()

    def _send(self, *also: Tensor) -> None:
        gradients = [p.grad for p in self._buckets[len(self._sent)] if p.grad is not None]
        tensors = [*gradients, *also]
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with _connected():
            self._sent.append((tensors, flat, dist.all_reduce(flat, async_op=True)))

    def finish(self) -> None:
        """Sends what is left, and replaces the gradients by the means."""
        missing = [(index, p) for index, p in enumerate(self._parameters) if p.grad is None]
        has = self._parameters[0].new_ones(len(self._parameters))
        for index, p in missing:
            has[index] = 0
            p.grad = torch.zeros_like(p)
        while len(self._sent) < len(self._buckets) - 1:
            self._send()
        self._send(has)
        with _connected():
            for _, _, work in self._sent:
                work.wait()
        for tensors, flat, _ in self._sent:
            means = torch.split(flat.div_(size()), [tensor.numel() for tensor in tensors])
            for tensor, mean in zip(tensors, means, strict=True):
                tensor.copy_(mean.view(tensor.shape))
        if missing:
            shares = has.tolist()
            for index, p in missing:
                if not shares[index]:
                    p.grad = None


def _buckets(parameters: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    bucket: list[nn.Parameter] = []
    for p in parameters:
        if bucket and sum(each.nbytes for each in bucket) + p.nbytes > BUCKET:
            yield bucket
            bucket = []
        bucket.append(p)
    yield bucket


def average_buffers(modules: Iterable[nn.Module]) -> None:
    """Gives every rank the same buffers: the means over the ranks, and for integers and booleans the values of rank 0.

    Buffers may differ before, because each rank computes other images. A value that all ranks have keeps its bits.
    """
    if size() == 1:
        return
    of_kind: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for part in (part for module in modules for part in module.modules() if part.training):
        for buffer in (b for b in part.buffers(recurse=False) if b.layout == torch.strided):
            of_kind.setdefault((buffer.dtype, buffer.device), []).append(buffer)
    with torch.no_grad():
        for (dtype, _), buffers in of_kind.items():
            own_values = torch.cat([buffer.reshape(-1) for buffer in buffers])
            # as bytes, because gloo does not send every type
            every = gather_rows(own_values.view(torch.uint8)[None]).view(dtype)  # (ranks, values)
            values = every[0]
            if dtype.is_floating_point:
                values = torch.where((every == values).all(dim=0), values, every.mean(dim=0))
            for buffer, own in zip(buffers, torch.split(values, [b.numel() for b in buffers]), strict=True):
                buffer.copy_(own.view(buffer.shape))


def gather_rows(rows: Tensor) -> Tensor:
    """Returns the rows of all ranks, those of rank 0 first. Every rank has as many."""
    if size() == 1:
        return rows
    every = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(size())]
    with _connected():
        dist.all_gather(every, rows.contiguous())
    return torch.cat(every)


# -- values of the host


def broadcast(value: Value) -> Value:
    """Returns rank 0's value. Values are pickled."""
    if size() == 1:
        return value
    values = [value]
    with _connected():
        dist.broadcast_object_list(values, 0, _Group.hosts)
    return values[0]


def gather(value: Value) -> list[Value]:
    """Returns the values of all ranks, in their order. Values are pickled."""
    values: list[Any] = [value] * size()
    if size() > 1:
        with _connected():
            dist.all_gather_object(values, value, _Group.hosts)
    return values


def scatter(*values: Value) -> Value:
    """Returns this rank's value. Rank 0 gives one value for each rank; those of other ranks are ignored. Values are
    pickled."""
    if size() == 1:
        return values[0]
    found: list[Any] = [None]
    with _connected():
        dist.scatter_object_list(found, list(values) if rank() == 0 else None, 0, _Group.hosts)
    return found[0]  # type: ignore[no-any-return]


def collect(value: Value) -> list[Value]:
    """Returns the values of all ranks, in their order, on rank 0, and an empty list on the others. Values are
    pickled."""
    if size() == 1:
        return [value]
    values: list[Any] | None = [None] * size() if rank() == 0 else None
    with _connected():
        dist.gather_object(value, values, 0, _Group.hosts)
    return values or []


def highest(number: int) -> int:
    """Returns the highest number of all ranks."""
    if size() == 1:
        return number
    found = torch.tensor(number)
    with _connected():
        dist.all_reduce(found, dist.ReduceOp.MAX, _Group.hosts)
    return int(found)


def means(records: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """Returns the mean of each value over the ranks that have it. Every rank has as many records."""
    every = gather(records)
    return [
        {
            name: sum(found) / len(found)
            for name in dict.fromkeys(name for record in same for name in record)
            if (found := [record[name] for record in same if name in record])
        }
        for same in zip(*every, strict=True)
    ]


def wait() -> None:
    """Waits until every rank calls this. Raises Elsewhere if another one fails in `together` instead."""
    with together():
        pass


@contextmanager
def together() -> Iterator[Callable[[], None]]:
    """Waits until every rank has done the block inside. If it fails in one rank, it fails in all of them.

    Yields a function that ends the block before its last line. Until then the block must not call the other functions
    of this module. The rank that failed raises its own error, the others raise Elsewhere.
    """
    ended = False

    def end() -> None:
        nonlocal ended
        ended = True
        _agree(None)

    try:
        yield end
    except Exception as error:
        if not ended:
            with suppress(Lost):
                _agree(error)
        raise
    if not ended:
        _agree(None)


def _agree(error: Exception | None) -> None:
    """Raises Elsewhere if another rank reports an error. Of the ranks with the same error, the first reports it."""
    own = None if error is None else told(error)
    every = gather(own)
    if own is None or every.index(own) != rank():
        for other in every:
            if other is not None:
                raise Elsewhere(*other) from error


def told(error: Exception) -> tuple[str, int]:
    """Returns the arguments of the `Elsewhere` that other ranks raise if this one fails."""
    if isinstance(error, GanlabError):
        return str(error), error.exit_code
    return text_of(error), GanlabError.exit_code


def reseed(seed: int, step: int) -> None:
    """Gives torch's generator another state on every rank but 0 in each step.

    Networks that draw from it, as dropout does, would otherwise draw the same for the images of all ranks. Rank 0 draws
    as a run with one process does, and checkpoints keep its state. The other ranks' states depend on the run's random
    seed, the rank and the step, so that a resumed run draws the same.
    """
    if rank():
        torch.manual_seed(int(keyed(seed, "rank", rank(), step).integers(2**63)))


@contextmanager
def _connected() -> Iterator[None]:
    """Raises Lost if another rank has ended."""
    try:
        yield
    except RuntimeError as error:
        raise Lost(
            "another process of this run was killed or has failed, so this one stops; the same command resumes from"
            " the newest checkpoint"
        ) from error
