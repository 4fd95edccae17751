"""XGAN (arXiv:1711.05139): two autoencoders with shared inner layers, and losses on their embeddings."""

import ganlab
from ganlab_xgan.generator import XGAN
from ganlab_xgan.losses import DomainAdversarial, Reconstruction, SemanticConsistency, Teacher


@ganlab.hookimpl
def ganlab_generators() -> dict[str, type[ganlab.Generator]]:
    return {"xgan": XGAN}


@ganlab.hookimpl
def ganlab_losses() -> dict[str, type[ganlab.Loss]]:
    return {
        "reconstruction": Reconstruction,
        "domain_adversarial": DomainAdversarial,
        "semantic_consistency": SemanticConsistency,
        "teacher": Teacher,
    }
