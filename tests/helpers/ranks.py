"""Starts the processes of one run, as torchrun does, in forks: python ranks.py COUNT FOLDER WORD...

The words are ganlab's, or `systems`: trains those in TRAINED, or `pieces`: shares pieces of work. What the process of
rank N prints is FOLDER/rank-N.txt.
Prints the exit codes as JSON, minus the signal's number for a process that a signal ended.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import nn

import ganlab
from ganlab import distributed, workers
from ganlab.cli.commands import main
from ganlab.components.registry import registry
from ganlab.engine.trainer import Trainer
from ganlab.errors import Elsewhere
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from ganlab.spec.resolve import resolve
from ganlab.system.build import build
from helpers.systems import TINY, RandomImages, stir

STEPS = 10
CRITICS = {"image": {"type": "critic", "clamp": 0, "of": {"type": "patch", "width": 4, "layers": 1}}}
SYSTEMS: dict[str, Json] = {
    # keyed draws, a pool that is full after the second step, clipped gradients, averaged weights
    "cyclegan": {
        "losses": {"adversarial": {"type": "noisy_lsgan", "flip": 0.2}, "identity": {"type": "identity", "weight": 5}},
        "schedule": {"pool": 20, "clip": 0.5},
        "ema_halflife_images": 30,
    },
    # new batches within a step, gradients of gradients, and a buffer that follows the images
    "wgan": {
        "discriminators": CRITICS,
        "losses": {
            "adversarial": {"type": "wasserstein"},
            "penalty": {"type": "gradient_penalty", "weight": 10},
            "following": {"type": "following"},
        },
        "schedule": {"type": "wgan", "pool": None},
    },
    # a turn of one direction, in which the losses' own parameters for the other direction have no gradient
    "cut": {
        "losses": {"cycle": None, "contrast": {"type": "patch_nce", "flip": True, "patches": 8, "layers": [1]}},
        "schedule": {"type": "alternating"},
    },
}


TRAINED = [("cyclegan", 1), ("cyclegan", 2), ("wgan", 1), ("cut", 2)]
"""(system, number of parts in each process)."""


def train(name: str, batch: int, accumulate: int = 1) -> dict[str, Any]:
    """Trains a system in this process, which may be one of several. Returns its weights, pools and records."""
    parts = {
        "data": {"batch": batch},
        "schedule": {"steps": STEPS},
        "runtime": {"precision": "float64", "accumulate": accumulate},
    }
    images = RandomImages(batch)
    trainer = Trainer(build(resolve(merge(merge(TINY, SYSTEMS[name]), parts)), images.domains), images)
    stir(trainer)
    for _ in range(STEPS):
        trainer.step()
    state = trainer.state
    kept = {name: module.state_dict() for name, module in (state.modules() | state.pools).items()}
    return {"state": kept, "records": trainer.log.read(state), "draws": state.draws}


def means() -> Json:
    """Averages gradients, buffers and records. Rank 1 alone has the second gradient and the second value, no rank the
    third."""
    rank = distributed.rank()
    parameters = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
    parameters[0].grad = torch.full((2,), float(rank))
    record = {"every": float(rank)}
    if rank == 1:
        parameters[1].grad, record["one"] = torch.ones(2), 5.0
    with distributed.averaged_gradients(parameters):
        pass
    buffers = nn.BatchNorm1d(2)
    buffers.running_mean = torch.tensor([float(rank), 0.1])
    buffers.num_batches_tracked = torch.tensor(10 + rank)
    buffers.register_buffer("first", torch.tensor([rank == 0, False]))
    distributed.average_buffers([buffers])
    return {
        "gradients": [p.grad for p in parameters],
        "buffers": dict(buffers.named_buffers()),
        "records": distributed.means([record]),
    }


def overlapping(lacking: int | None) -> Json:
    """Averages the gradients of four parameters, which are sent one by one, after two backward passes.

    Rank 1 has no gradient of the parameter `lacking`. Returns the gradients, and how many were sent within the last
    pass.
    """
    rank = distributed.rank()
    parameters = [nn.Parameter(torch.ones(1000)) for _ in range(4)]
    used = [p for index, p in enumerate(parameters) if (rank, index) != (1, lacking)]

    def backward() -> None:
        x = torch.tensor(rank + 1.0)
        for p in used:
            x = x * p
        torch.autograd.backward(x.sum(), inputs=parameters)

    backward()
    with (
        mock.patch.object(dist, "all_reduce", wraps=dist.all_reduce) as sending,
        distributed.averaged_gradients(parameters),
    ):
        backward()
        sent = sending.call_count
    return {"gradients": [p.grad for p in parameters], "sent": sent}


def train_all(folder: Path, batch: int) -> None:
    """Trains every system. Each process writes what it has."""
    # gradients of small networks go in several buckets too
    distributed.BUCKET = 2000
    with distributed.process_group():
        for found, of in ((means(), "means"), *((overlapping(p), f"lacking-{p}") for p in (None, 0, 2))):
            torch.save(found, folder / f"{of}-{distributed.rank()}.pt")
        with mock.patch.object(distributed._Group, "overlaps", True):
            distributed.send_after_backward()
            torch.save(overlapping(2), folder / f"after-{distributed.rank()}.pt")
        for name, accumulate in TRAINED:
            torch.save(train(name, batch, accumulate), folder / f"{name}-{accumulate}-{distributed.rank()}.pt")


class Tools:
    """Computes (number of the piece, rank, what was given)."""

    def __init__(self) -> None:
        self.given: list[tuple[int, str]] = []

    def receive(self, number: int, value: str) -> None:
        self.given = [(number, value)]

    def forget(self) -> None:
        self.given = []

    def __call__(self, task: str) -> Callable[[Iterable[int]], Iterator[Any]]:
        if task == "only in rank 0" and distributed.rank():
            raise KeyError(task)
        return partial(self._results, task)

    def _results(self, task: str, pieces: Iterable[int]) -> Iterator[Any]:
        for piece in pieces:
            if task == "nowhere" and piece > 2:
                raise ValueError(f"piece {piece} of rank {distributed.rank()}")
            yield piece, distributed.rank(), self.given


def share_pieces(folder: Path) -> None:
    """Rank 0 shares tasks with the others, then fails. Each process writes what it has."""
    tools, found = Tools(), dict[str, Any]()

    def share(task: str, count: int, at_once: int = 1) -> None:
        try:
            found[f"{task}, {count}"] = [*workers.each(task, tools(task), iter(range(count)), at_once)]
        except ValueError as error:
            found[f"{task}, {count}"] = str(error)

    with distributed.process_group():
        try:
            if distributed.rank():
                workers.serve(tools)
                found["forgotten"] = tools.given == []
                workers.serve(tools)
            else:
                share("before", 3)
                warned: list[str] = []
                with workers.served(warned.append):
                    share("everywhere", 11, 2)
                    found["numbers"] = [workers.give(lambda: "one"), workers.give(lambda: "two")]
                    share("everywhere", 3)
                    share("everywhere", 1)
                    share("only in rank 0", 8)
                    share("only in rank 0", 7)
                    share("nowhere", 8)
                    share("everywhere", 2)
                found["warned"] = warned
                with workers.served(warned.append):
                    raise ganlab.SpecError("the end")
        except ganlab.SpecError as error:
            found["end"] = str(error)
        except Elsewhere as error:
            found["end"] = [str(error), error.exit_code]
        (folder / f"pieces-{distributed.rank()}.json").write_text(json.dumps(found))


def in_ranks(count: int, folder: Path, words: list[str]) -> list[int]:
    """Does what the words say in `count` processes. Returns their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(count)}
    processes = []
    for rank in range(count):
        if (process := os.fork()) == 0:
            log = os.open(folder / f"rank-{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for number in (1, 2):
                os.dup2(log, number)
            os.environ |= {**address, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            code: Any = 70
            try:
                if words[0] == "systems":
                    code = train_all(folder, int(words[1]))
                else:
                    code = share_pieces(folder) if words[0] == "pieces" else main(words)
            except SystemExit as ended:
                code = ended.code
            except BaseException:
                sys.excepthook(*sys.exc_info())
            sys.stdout.flush()
            os._exit(int(code or 0))
        processes.append(process)
    return [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]


if __name__ == "__main__":
    # imports the plugins
    registry()
    print(json.dumps(in_ranks(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])))
