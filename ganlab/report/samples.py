"""Samples: held-out images and their translations."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ganlab.data.dataset import Dataset
from ganlab.data.sampler import to_device
from ganlab.determinism import untouched_randomness
from ganlab.system.build import System
from ganlab.torch_utils import as_float, evaluating


def sample(
    generators: Mapping[str, nn.Module], datasets: Mapping[str, Dataset], system: System, count: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """{direction: (inputs, outputs)} for `count` held-out images, both (N, C, H, W) in [-1, 1] on the CPU.

    The images are spread evenly over the held-out ones, because a source may order its images by class.
    """
    found = {}
    with torch.no_grad(), untouched_randomness(system.device):
        for direction, generator in generators.items():
            dataset = datasets[direction[0]]
            shown = min(count, len(dataset.holdout))
            inputs = dataset.pixels(dataset.holdout[torch.arange(shown) * len(dataset.holdout) // shown])
            with evaluating(generator), system.networks.computing():
                outputs = [
                    as_float(generator, generator(to_device(piece, system.device).to(system.dtype))).float().cpu()
                    for piece in torch.split(inputs, system.spec.data.batch)
                ]
            found[direction] = inputs, torch.cat(outputs)
    return found
