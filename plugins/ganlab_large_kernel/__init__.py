"""The residual generator with larger kernels, dense as in face2comic or depthwise."""

import ganlab
from ganlab_large_kernel.generator import LargeKernel


@ganlab.hookimpl
def ganlab_generators() -> dict[str, type[ganlab.Generator]]:
    return {"large_kernel": LargeKernel}
