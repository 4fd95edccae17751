"""The residual generator of Johnson et al. (arXiv:1603.08155) as CycleGAN uses it."""

import ganlab
from ganlab_resnet.generator import Resnet


@ganlab.hookimpl
def ganlab_generators() -> dict[str, type[ganlab.Generator]]:
    return {"resnet": Resnet}
