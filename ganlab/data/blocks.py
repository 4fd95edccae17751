"""Reads images block by block in processes, which put the pixels into memory that they share with this process."""

from __future__ import annotations

import gc
import math
import mmap
import multiprocessing
import os
import pickle
import signal
import sys
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import torch

from ganlab.data.reading import in_threads, read
from ganlab.errors import RunError, text_of

T = TypeVar("T")
Pixels = np.ndarray[Any, np.dtype[np.uint8]]

AHEAD = 2
"""The blocks that a process is given at a time, so that it never waits for the next one."""

FORKS = sys.platform == "linux"
"""True where forking a process with threads is safe if the child uses none of them. Elsewhere threads read: a process
that is not forked imports torch first, which takes as long as reading thousands of images."""


class Block(NamedTuple):
    """What reading some images of a set gave, besides their pixels."""

    kept: list[str]
    """The keys of the images that could be read."""
    skipped: list[str]
    """"key: reason" for each of the others."""
    notes: dict[str, list[str]]
    """{warning: keys of the images that it was given for}."""
    brightest: int
    """The largest value of the images; 0 if there are none."""
    constant: bool
    """True if no image has two different colours."""


def read_block(one: Callable[[str], Pixels], keys: Sequence[str], room: Pixels, channels: int) -> Block:
    """Reads `one(key)`, each (L, H, W), into the first places of `room`, at least (len(keys), L, H, W).

    The first `channels` layers are an image, and the others its extras.
    """
    kept: list[str] = []
    skipped: list[str] = []
    notes: dict[str, list[str]] = {}
    constant = True
    for key in keys:
        layers, noted = read(one, key)
        if isinstance(layers, Exception):
            skipped.append(f"{key}: {layers}")
            continue
        for note in dict.fromkeys(noted):
            notes.setdefault(note, []).append(key)
        room[len(kept)] = layers
        image = layers[:channels]
        constant = constant and bool((image == image[:, :1, :1]).all())
        kept.append(key)
    return Block(kept, skipped, notes, int(room[: len(kept), :channels].max(initial=0)), constant)


def cores() -> int:
    """Returns the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_processes(
    work: Callable[[int, Pixels], T], count: int, shape: tuple[int, ...], processes: int
) -> Generator[tuple[T, Pixels]]:
    """Yields (work(place, room), room) for the places 0 to count - 1, in their order.

    `work` fills `room`, a uint8 array of `shape` that this process shares with the one that runs `work`. It may be
    filled again as soon as the next item is asked for. An error of `work` is raised here. Raises RunError if a process
    is killed.
    """
    if processes < 2 or not FORKS:
        yield from in_threads(lambda place: _alone(work, place, shape), range(count), processes)
        return
    rooms = [np.frombuffer(mmap.mmap(-1, math.prod(shape)), np.uint8).reshape(shape) for _ in range(4 * processes)]
    context = multiprocessing.get_context("fork")
    workers: dict[Connection, Any] = {}
    try:
        for _ in range(min(processes, count)):
            ours, theirs = context.Pipe()
            workers[ours] = context.Process(target=_serve, args=(theirs, work, rooms), daemon=True)
            with warnings.catch_warnings():
                # Python 3.12 warns of the threads of this process, which the child doesn't use
                warnings.simplefilter("ignore", DeprecationWarning)
                workers[ours].start()
            theirs.close()
        yield from _in_order([*workers], rooms, count)
    finally:
        for connection, worker in workers.items():
            connection.close()
            if worker.pid is not None:
                worker.kill()
                worker.join()


def _alone(work: Callable[[int, Pixels], T], place: int, shape: tuple[int, ...]) -> tuple[T, Pixels]:
    room = np.empty(shape, np.uint8)
    return work(place, room), room


def _in_order(workers: Sequence[Connection], rooms: Sequence[Pixels], count: int) -> Iterator[tuple[Any, Pixels]]:
    idle, free = deque([*workers] * AHEAD), deque(range(len(rooms)))
    places = iter(range(count))
    done: dict[int, tuple[int, Any, BaseException | None]] = {}
    for due in range(count):
        while True:
            while idle and free and (place := next(places, None)) is not None:
                worker = idle.popleft()
                with _killed():
                    worker.send((place, free.popleft()))
            if due in done:
                break
            for ready in cast(list[Connection], wait(workers)):
                with _killed():
                    place, *outcome = ready.recv()
                done[place] = (outcome[0], outcome[1], outcome[2])
                idle.append(ready)
        room, found, error = done.pop(due)
        if error is not None:
            raise error
        yield found, rooms[room]
        free.append(room)


@contextmanager
def _killed() -> Iterator[None]:
    """Raises RunError instead of the error of a connection to a process that was killed."""
    try:
        yield
    except (EOFError, ConnectionError) as error:
        raise RunError("a process that reads images was killed, perhaps because the memory is full") from error


def _serve(connection: Connection, work: Callable[[int, Pixels], Any], rooms: Sequence[Pixels]) -> None:
    """Works in a child process until the parent ends it, or has ended."""
    # Ctrl-C reaches the child too; the parent ends it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # a source may use torch, which would wait for ever for the threads that the parent had
    torch.set_num_threads(1)
    # what was made before the fork is never collected here, and so never copied
    gc.freeze()
    parent = multiprocessing.parent_process()
    assert parent is not None
    while connection in wait([connection, parent.sentinel]):
        try:
            place, room = connection.recv()
        except (EOFError, ConnectionError):
            return
        answer: tuple[int, int, Any, BaseException | None]
        try:
            answer = (place, room, work(place, rooms[room]), None)
        # a source may raise what is no Exception
        except BaseException as error:
            answer = (place, room, None, _sendable(error))
        try:
            connection.send(answer)
        except ConnectionError:
            return


def _sendable(error: BaseException) -> BaseException:
    """Returns an error that another process can receive, with the traceback as a note."""
    error.add_note("".join(traceback.format_exception(error)))
    # an error of a plugin may fail in any way
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {text_of(error)}")
    return error
