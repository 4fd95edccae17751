"""What a run's generators cost: parameters, FLOPs and images a second. Times differ from one measurement to the next,
so they stand apart from the figures, in speed.json."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping

import torch
from torch.utils.flop_counter import FlopCounterMode

from ganlab.build import System
from ganlab.evaluation.material import BATCH
from ganlab.interfaces import Domain
from ganlab.modules import evaluating
from ganlab.rehearsal import untouched_randomness
from ganlab.spec import Json

ROUNDS = 5


def measure(system: System, domains: Mapping[str, Domain]) -> Json:
    """{way: {"parameters", "flops_an_image", "images_a_second"}}: FLOPs of convolutions and matrix products, a
    multiplication and an addition being two; images a second is the median of some forwards of a whole batch."""
    device = system.device
    ways: Json = {}
    for way in system.spec.translations:
        generator, source = system.networks.generator(way), domains[way[0]]
        batch = torch.zeros(BATCH, source.channels, source.height, source.width, device=device, dtype=system.dtype)
        with torch.no_grad(), untouched_randomness(device), evaluating(generator), system.networks.computing():
            with FlopCounterMode(display=False) as counter:
                generator(batch[:1])
            seconds = []
            # the first is a warm-up
            for _ in range(ROUNDS + 1):
                _wait(device)
                started = time.perf_counter()
                generator(batch)
                _wait(device)
                seconds.append(time.perf_counter() - started)
        ways[way] = {
            "parameters": sum(p.numel() for p in generator.parameters()),
            "flops_an_image": counter.get_total_flops(),
            "images_a_second": round(BATCH / statistics.median(seconds[1:]), 1),
        }
    return {"ways": ways, "batch": BATCH, "device": str(device), "threads": torch.get_num_threads()}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
