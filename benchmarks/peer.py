"""CycleGAN at the defaults of junyanz/pytorch-CycleGAN-and-pix2pix, the field's reference code: in ganlab and there.

Resnet of width 64, six blocks, 3-layer PatchGAN of width 64, LSGAN, cycle 10, identity 5, pool of 50, noise images.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from systems import MakeBatches, RandomImages, make_trainer
from torch import Tensor

from ganlab.engine.trainer import Trainer
from ganlab.spec.files import merge


def ours(batch: int, size: int, patch: dict[str, Any], batches: MakeBatches = RandomImages.of) -> Trainer:
    """Returns ganlab's trainer of the system, with a spec that is changed by `patch`."""
    system = {
        "data": {"size": size, "batch": batch},
        "generator": {"width": 64, "blocks": 6, "kernel": 3, "upsampling": "transposed"},
        "discriminators": {"image": {"type": "patch", "width": 64, "layers": 3}},
        "ema_halflife_images": None,
    }
    return make_trainer("zhu2017.json", merge(system, patch), batches)


def peers(checkout: Path, draw: Callable[[], Mapping[str, Tensor]], work: Path, width: int = 64) -> Callable[[], None]:
    """Returns a step of the peer's code, in a checkout of its repository, on the images {domain: batch} of `draw`.

    It writes nothing into `work`, the folder that it has for its checkpoints.
    """
    # its packages have the names `models` and `util`
    sys.path.insert(0, str(checkout))
    from models.cycle_gan_model import CycleGANModel

    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    options = SimpleNamespace(
        gpu_ids=[0] if device.type == "cuda" else [],
        device=device,
        isTrain=True,
        checkpoints_dir=str(work),
        name="peer",
        preprocess="none",
        input_nc=3,
        output_nc=3,
        ngf=width,
        netG="resnet_6blocks",
        ndf=width,
        netD="basic",
        n_layers_D=3,
        norm="instance",
        no_dropout=True,
        init_type="normal",
        init_gain=0.02,
        gan_mode="lsgan",
        lambda_identity=0.5,
        lambda_A=10.0,
        lambda_B=10.0,
        pool_size=50,
        lr=2e-4,
        beta1=0.5,
        direction="AtoB",
    )
    model = CycleGANModel(options)

    def step() -> None:
        drawn = draw()
        model.set_input({"A": drawn["a"], "B": drawn["b"], "A_paths": [], "B_paths": []})
        model.optimize_parameters()

    return step
