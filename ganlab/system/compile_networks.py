"""Compiles the networks of a system, if its spec says so."""

from __future__ import annotations

from collections.abc import Callable, Collection

from ganlab.data.sampler import Batch
from ganlab.system.build import System
from ganlab.system.compiling import TRACER, compiler_for
from ganlab.system.dry_run import check_forwards


def compile_networks(system: System, twice: Collection[str], example: Batch, warn: Callable[[str], object]) -> None:
    """Compiles the networks of a system, except those in `twice`, which a loss differentiates twice.

    A network is compiled when it is first called with a batch. `example` is a batch of two images, and `warn` receives
    a sentence about what is compiled. Raises SpecError if the example shows that a network can't be compiled.
    """
    names = [name for name in system.networks.modules if name not in twice]
    if not names:
        warn("runtime.compile: no network is compiled, because losses differentiate all of them twice")
        return
    compiler = compiler_for(system.device, system.spec.runtime.deterministic)
    system.networks.compile(names, TRACER)
    check_forwards(system, example)
    system.networks.compile(names, compiler)
    left = f"; not {', '.join(sorted(twice))}, which a loss differentiates twice" if twice else ""
    warn(f"the first steps take up to a few minutes, to compile {', '.join(names)}{left}")
