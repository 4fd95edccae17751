"""The hacks of soumith/ganhacks, "How to Train a GAN?", that are not options of other components."""

import ganlab
from ganlab_ganhacks.dropout import Dropout
from ganlab_ganhacks.instance_noise import InstanceNoise
from ganlab_ganhacks.interpolation import Interpolation
from ganlab_ganhacks.layer_noise import LayerNoise
from ganlab_ganhacks.minibatch import MinibatchDiscrimination
from ganlab_ganhacks.sgd_discriminator import SGDDiscriminator


@ganlab.hookimpl
def ganlab_generators() -> dict[str, type[ganlab.Generator]]:
    return {"layer_noise": LayerNoise, "dropout": Dropout}


@ganlab.hookimpl
def ganlab_discriminators() -> dict[str, type[ganlab.Discriminator]]:
    return {"instance_noise": InstanceNoise, "minibatch_discrimination": MinibatchDiscrimination}


@ganlab.hookimpl
def ganlab_schedules() -> dict[str, type[ganlab.Schedule]]:
    return {"sgd_discriminator": SGDDiscriminator}


@ganlab.hookimpl
def ganlab_sources() -> dict[str, type[ganlab.Source]]:
    return {"interpolation": Interpolation}
