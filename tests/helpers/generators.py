"""Generators of every shipped type, with weights that give images of strong contrast."""

from __future__ import annotations

import torch
from torch import nn

import ganlab
from ganlab.spec.files import merge
from ganlab.spec.models import Json, Spec
from ganlab.spec.resolve import resolve
from ganlab.system.build import build_domains, build_generators
from helpers.systems import TINY

LATENTS: Json = {"data": {"a": {"type": "gaussian", "count": 400}}}

SMALL: dict[str, Json] = {
    "resnet": {"generator": {"type": "resnet", "width": 2, "blocks": 1}},
    "resnet, blurred": {
        "generator": {"type": "resnet", "width": 2, "blocks": 1, "downsampling": "blurred", "upsampling": "blurred"}
    },
    "resnet, resized, batch norm": {
        "generator": {"type": "resnet", "width": 2, "blocks": 1, "upsampling": "resize", "norm": "batch"}
    },
    "resnet, folded": {
        "generator": {"type": "resnet", "width": 4, "blocks": 2, "ends": "folded", "form": "bottleneck"}
    },
    "large_kernel": {"generator": {"type": "large_kernel", "width": 2, "blocks": 1}},
    "large_kernel, folded": {
        "generator": {"type": "large_kernel", "width": 4, "blocks": 1, "ends": "folded", "form": "depthwise"}
    },
    "ugatit": {"generator": {"type": "ugatit", "width": 2, "blocks": 1}},
    "ugatit, light": {"generator": {"type": "ugatit", "width": 2, "blocks": 1, "light": True}},
    "xgan": {"generator": {"type": "xgan", "width": 2, "embedding": 8}, "data": {"size": 32}},
    "dcgan": {"generator": {"type": "dcgan", "latents": 8, "width": 2}, **LATENTS},
    "digits": {"generator": {"type": "digits", "width": 2}, "data": {"size": 32}},
    "unet": {"generator": {"type": "unet", "width": 2, "norm": "batch"}},
    "layer_noise": {"generator": {"type": "layer_noise", "of": {"type": "resnet", "width": 2, "blocks": 1}}},
}
"""{name: a patch of TINY} with small generators of every shipped type that can be written as ONNX."""


def built(patch: Json, base: Json = TINY, strong: bool = True) -> tuple[ganlab.Generator, Spec]:
    """The generator of "ab" in eval mode, and its spec. Its weights are the initial ones, or `strong` ones."""
    spec = resolve(merge(base, patch))
    torch.manual_seed(0)
    generator = build_generators(spec, build_domains(spec)).generator("ab").eval()
    if strong:
        strengthen(generator)
    return generator, spec


def strengthen(network: nn.Module) -> None:
    """Draws weights with which outputs depend on inputs strongly, and statistics of batch norms that are not trivial.

    With initial weights of N(0, 0.02) the outputs would be nearly 0, and any two networks alike.
    """
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    module.bias.uniform_(-0.2, 0.2)
            elif isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
                assert module.running_var is not None
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.2, 0.2)
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.5, 1.5)
