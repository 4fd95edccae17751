"""U-GAT-IT (arXiv:1907.10830): attention by class activation maps, and AdaLIN."""

import ganlab
from ganlab_ugatit.discriminator import CAMPatch
from ganlab_ugatit.generator import UGATIT
from ganlab_ugatit.losses import CAM, CAMLSGAN


@ganlab.hookimpl
def ganlab_generators() -> dict[str, type[ganlab.Generator]]:
    return {"ugatit": UGATIT}


@ganlab.hookimpl
def ganlab_discriminators() -> dict[str, type[ganlab.Discriminator]]:
    return {"cam_patch": CAMPatch}


@ganlab.hookimpl
def ganlab_losses() -> dict[str, type[ganlab.Loss]]:
    return {"cam": CAM, "cam_lsgan": CAMLSGAN}
