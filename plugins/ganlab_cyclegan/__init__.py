"""CycleGAN (arXiv:1703.10593): its discriminator, losses, schedules and pool of past fakes."""

import ganlab
from ganlab_cyclegan.discriminator import Patch
from ganlab_cyclegan.losses import LSGAN, Cycle, Identity
from ganlab_cyclegan.schedules import Alternating, Simultaneous


@ganlab.hookimpl
def ganlab_discriminators() -> dict[str, type[ganlab.Discriminator]]:
    return {"patch": Patch}


@ganlab.hookimpl
def ganlab_losses() -> dict[str, type[ganlab.Loss]]:
    return {"lsgan": LSGAN, "cycle": Cycle, "identity": Identity}


@ganlab.hookimpl
def ganlab_schedules() -> dict[str, type[ganlab.Schedule]]:
    return {"simultaneous": Simultaneous, "alternating": Alternating}
