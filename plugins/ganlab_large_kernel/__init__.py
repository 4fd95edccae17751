"""Generators with larger kernels: the seed's, and the modern depthwise form."""

import ganlab
from ganlab_large_kernel.generator import LargeKernel


@ganlab.hookimpl
def ganlab_generators() -> dict[str, type[ganlab.Generator]]:
    return {"large_kernel": LargeKernel}
