"""DCGAN (arXiv:1511.06434): generation without a condition, as a translation of noise images."""

import ganlab
from ganlab_dcgan.gaussian import Gaussian
from ganlab_dcgan.networks import DCGANDiscriminator, DCGANGenerator


@ganlab.hookimpl
def ganlab_sources() -> dict[str, type[ganlab.Source]]:
    return {"gaussian": Gaussian}


@ganlab.hookimpl
def ganlab_generators() -> dict[str, type[ganlab.Generator]]:
    return {"dcgan": DCGANGenerator}


@ganlab.hookimpl
def ganlab_discriminators() -> dict[str, type[ganlab.Discriminator]]:
    return {"dcgan": DCGANDiscriminator}
