"""Regularisers: gradient penalties, spectral norm, augmentation, total variation and perceptual distance."""

import ganlab
from ganlab_regularisers.losses import R1, R2, Perceptual, TotalVariation
from ganlab_regularisers.wrappers import DiffAugment, SpectralNorm


@ganlab.hookimpl
def ganlab_discriminators() -> dict[str, type[ganlab.Discriminator]]:
    return {"spectral_norm": SpectralNorm, "diff_augment": DiffAugment}


@ganlab.hookimpl
def ganlab_losses() -> dict[str, type[ganlab.Loss]]:
    return {"r1": R1, "r2": R2, "total_variation": TotalVariation, "perceptual": Perceptual}
