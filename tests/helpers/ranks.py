"""Starts the processes of one run, as torchrun does, in forks: python ranks.py COUNT FOLDER WORD...

The words are ganlab's, or `systems`: trains those in TRAINED. What the process of rank N prints is FOLDER/rank-N.txt.
Prints the exit codes as JSON, minus the signal's number for a process that a signal ended.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ganlab import distributed
from ganlab.cli.commands import main
from ganlab.components.registry import registry
from ganlab.engine.trainer import Trainer
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
    distributed.average_gradients(parameters)
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


def train_all(folder: Path, batch: int) -> None:
    """Trains every system. Each process writes what it has."""
    # gradients of small networks go in several buckets too
    distributed.BUCKET = 2000
    with distributed.process_group():
        torch.save(means(), folder / f"means-{distributed.rank()}.pt")
        for name, accumulate in TRAINED:
            torch.save(train(name, batch, accumulate), folder / f"{name}-{accumulate}-{distributed.rank()}.pt")


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
                code = train_all(folder, int(words[1])) if words[0] == "systems" else main(words)
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
