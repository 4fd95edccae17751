"""CUT and FastCUT (arXiv:2007.15651): translation in one direction, with a contrastive loss instead of a cycle."""

import ganlab
from ganlab_cut.patch_nce import PatchNCE


@ganlab.hookimpl
def ganlab_losses() -> dict[str, type[ganlab.Loss]]:
    return {"patch_nce": PatchNCE}
