"""Spreads the pieces of a task over the ranks. Rank 0 deals them and collects the results; the others are its workers.

Rank 0 enters `served`, and the other ranks call `serve` at the same time. The number of ranks decides only who computes
a piece: the pieces and their results are the same. Without `served`, or with one rank, rank 0 computes all of them.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain, islice
from typing import Any, NamedTuple, Protocol, TypeVar

from ganlab import distributed
from ganlab.errors import Elsewhere, Lost, text_of

Piece = TypeVar("Piece")
Result = TypeVar("Result")


class Tools(Protocol):
    """Computes pieces in a worker."""

    def receive(self, number: int, value: Any) -> None:
        """Keeps a value that rank 0 gave with `give`, and the number that `give` returned. Must not fail."""

    def forget(self) -> None:
        """Drops what `receive` kept. Called when rank 0 leaves `served`."""

    def __call__(self, task: Any) -> Callable[[Iterable[Any]], Iterable[Any]]:
        """Returns the function that computes the results of pieces of a task, in their order."""


class _Given(NamedTuple):
    """A message: rank 0 gives a value to all workers."""

    number: int
    value: Any


class _Dealt(NamedTuple):
    """A message: rank 0 deals pieces of a task."""

    task: Any


class _Ended(NamedTuple):
    """A message: rank 0 needs no more pieces. `error` holds the arguments of `Elsewhere` if it failed."""

    error: tuple[str, int] | None


class _Failure(NamedTuple):
    """What a rank returns instead of results if it could not compute them."""

    why: str


class _Served:
    """Holds what rank 0 knows about its workers."""

    warn: Callable[[str], object] | None = None
    """Receives a sentence if a worker can't compute its pieces. None if there are no workers."""
    warned = ""
    """The last of these sentences. It is not repeated in each evaluation of a run."""
    given = 0
    """The number of values that the workers were given."""


@contextmanager
def served(warn: Callable[[str], object]) -> Iterator[None]:
    """Lets the other ranks, which call `serve`, compute pieces inside the block. Rank 0 calls it.

    If the block fails, the other ranks raise Elsewhere. `warn` receives one sentence if a rank can't compute its pieces
    and rank 0 can.
    """
    if distributed.size() == 1:
        yield
        return
    _Served.warn = warn
    try:
        yield
    except Lost:
        # the others find out themselves
        raise
    except Exception as error:
        with suppress(Lost):
            distributed.broadcast(_Ended(distributed.told(error)))
        raise
    finally:
        _Served.warn = None
    distributed.broadcast(_Ended(None))


def serve(tools: Tools) -> None:
    """Computes pieces for rank 0 until it leaves `served`. Every other rank calls it.

    Raises Elsewhere if rank 0 failed, Lost if another rank has ended.
    """
    nothing: Any = None
    while not isinstance(message := distributed.broadcast(nothing), _Ended):
        if isinstance(message, _Given):
            tools.receive(*message)
        else:
            pieces = distributed.scatter(list[bytes]())
            distributed.collect(_attempt(partial(_results, tools, message.task), pieces))
    tools.forget()
    if message.error is not None:
        raise Elsewhere(*message.error)


def _results(tools: Tools, task: Any, pieces: Iterable[bytes]) -> Iterable[Any]:
    return tools(task)(map(pickle.loads, pieces))


def _attempt(compute: Callable[[Any], Iterable[Any]], pieces: Any) -> list[Any] | _Failure:
    # the other ranks wait for the results, whatever happens in a plugin
    try:
        return [*compute(pieces)]
    except Exception as error:
        return _Failure(text_of(error))


def give(make: Callable[[], Any]) -> int:
    """Gives the workers the value that `make` returns. Returns its number, which is 0 if there are no workers."""
    if _Served.warn is None:
        return 0
    value = make()
    _Served.given += 1
    distributed.broadcast(_Given(_Served.given, value))
    return _Served.given


def each(
    task: Any, compute: Callable[[Iterable[Piece]], Iterable[Result]], pieces: Iterable[Piece], at_once: int = 1
) -> Iterator[Result]:
    """Yields the result of each piece, in their order, as `compute(pieces)` does.

    Inside `served`, each rank computes up to `at_once` pieces at a time: rank 0 with `compute`, a worker with the
    function that its tools return for `task`. Tasks and pieces are pickled. If a rank fails, rank 0 computes the rest
    alone, and so raises the error that it would raise without workers.
    """
    ranks = 1 if _Served.warn is None else distributed.size()
    left, taken = iter(pieces), list[Piece]()
    failure = ""
    while ranks > 1 and len(taken := [*islice(left, at_once * ranks)]) > 1:
        shares = [taken[rank::ranks] for rank in range(ranks)]
        # pickled before the workers wait for them, because a piece may be read only now, which takes time and may fail
        with ThreadPoolExecutor(at_once) as pool:
            pickled = [[*pool.map(pickle.dumps, share)] for share in shares[1:]]
        distributed.broadcast(_Dealt(task))
        distributed.scatter([], *pickled)
        every: list[Any] = distributed.collect(_attempt(compute, shares[0]))
        if failure := _first_failure(every):
            break
        for place in range(len(taken)):
            yield every[place % ranks][place // ranks]
    yield from compute(chain(taken, left))
    if failure and failure != _Served.warned and _Served.warn is not None:
        _Served.warned = failure
        _Served.warn(failure)


def _first_failure(every: Sequence[list[Any] | _Failure]) -> str:
    for rank, found in enumerate(every):
        if isinstance(found, _Failure):
            return (
                f"process {rank} of {len(every)}, counted from 0, failed to compute its share, so process 0 does:"
                f" {found.why}"
            )
    return ""
