"""Projected discriminators (arXiv:2111.01007): real images and fakes are compared in a pretrained feature space."""

import ganlab
from ganlab_projected.discriminator import Projected


@ganlab.hookimpl
def ganlab_discriminators() -> dict[str, type[ganlab.Discriminator]]:
    return {"projected": Projected}
