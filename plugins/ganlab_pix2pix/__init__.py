"""pix2pix (arXiv:1611.07004): its U-Net, conditional discriminator and L1 loss, and pairs made from single pictures."""

import ganlab
from ganlab_pix2pix.edges import Edges
from ganlab_pix2pix.loss import L1Pair
from ganlab_pix2pix.networks import ConditionalPatch, UNet


@ganlab.hookimpl
def ganlab_generators() -> dict[str, type[ganlab.Generator]]:
    return {"unet": UNet}


@ganlab.hookimpl
def ganlab_discriminators() -> dict[str, type[ganlab.Discriminator]]:
    return {"conditional_patch": ConditionalPatch}


@ganlab.hookimpl
def ganlab_losses() -> dict[str, type[ganlab.Loss]]:
    return {"l1_pair": L1Pair}


@ganlab.hookimpl
def ganlab_sources() -> dict[str, type[ganlab.Source]]:
    return {"edges": Edges}
