"""Those hacks of soumith/ganhacks, "How to Train a GAN?", that are no options of other components."""

import ganlab
from ganlab_ganhacks.instance_noise import InstanceNoise


@ganlab.hookimpl
def ganlab_discriminators() -> dict[str, type[ganlab.Discriminator]]:
    return {"instance_noise": InstanceNoise}
