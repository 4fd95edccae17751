"""Measures the cost of a run: parameters, FLOPs and images per second of its generators, memory of its process.

Times differ between measurements, so they are kept apart from the reproducible results, in speed.json.
"""

from __future__ import annotations

import functools
import statistics
import sys
from collections.abc import Mapping

import torch
from torch.utils.flop_counter import FlopCounterMode

from ganlab.determinism import untouched_randomness
from ganlab.evaluation.translators import BATCH
from ganlab.interfaces.networks import Domain
from ganlab.spec.models import Json
from ganlab.system.build import System
from ganlab.torch_utils import evaluating, timed, trainable

ROUNDS = 5
"""The number of timed forwards."""


def measure(system: System, domains: Mapping[str, Domain]) -> Json:
    """Returns {"directions": {direction: costs}, "batch", "device", "threads"}.

    The costs are {"parameters", "flops_an_image", "images_a_second"}. Parameters are the trainable ones. FLOPs count
    convolutions and matrix products; a multiplication and an addition are two. Images per second is the median over
    `ROUNDS` forwards of one batch.
    """
    device = system.device
    directions: Json = {}
    for direction in system.spec.directions:
        generator, source = system.networks.generator(direction), domains[direction[0]]
        batch = torch.zeros(BATCH, source.channels, source.height, source.width, device=device, dtype=system.dtype)
        with torch.no_grad(), untouched_randomness(device), evaluating(generator), system.networks.computing():
            with FlopCounterMode(display=False) as counter:
                generator(batch[:1])
            seconds = timed(functools.partial(generator, batch), ROUNDS, device)
        directions[direction] = {
            "parameters": sum(p.numel() for p in trainable([generator])),
            "flops_an_image": counter.get_total_flops(),
            "images_a_second": round(BATCH / statistics.median(seconds), 1),
        }
    return {"directions": directions, "batch": BATCH, "device": str(device), "threads": torch.get_num_threads()}


def peak_memory(device: torch.device) -> int | None:
    """Returns the most memory in bytes that this process has held: memory of the device for a CUDA device, otherwise
    memory of the machine. Returns None on systems that do not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:
        # Windows has no such module
        return None
    # kilobytes, but bytes on macOS
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
