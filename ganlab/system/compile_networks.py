"""Compiles the networks of a system, if its spec says so."""

from __future__ import annotations

from collections.abc import Callable, Collection

from ganlab import distributed
from ganlab.data.sampler import Batch
from ganlab.system.batch_norms import batch_norms
from ganlab.system.build import System
from ganlab.system.compiling import TRACER, compiler_for
from ganlab.system.dry_run import check_forwards


def compile_networks(system: System, twice: Collection[str], example: Batch, warn: Callable[[str], object]) -> None:
    """Compiles the networks of a system, except those in `twice`, which a loss differentiates twice. In several
    processes, networks with batch norms are not compiled either: they communicate.

    A network is compiled when it is first called with a batch. `example` is a batch of two images, and `warn` receives
    a sentence about what is compiled. Raises SpecError if the example shows that a network can't be compiled.
    """
    modules = system.networks.modules
    why = dict.fromkeys(twice, "a loss differentiates it twice")
    if distributed.size() > 1:
        why |= {name: "its batch norms communicate" for name, module in modules.items() if batch_norms(module)}
    names = [name for name in modules if name not in why]
    left = ", ".join(f"{name} ({reason})" for name, reason in sorted(why.items()))
    if not names:
        warn(f"runtime.compile: no network is compiled: {left}")
        return
    compiler = compiler_for(system.device, system.spec.runtime.deterministic)
    system.networks.compile(names, TRACER)
    check_forwards(system, example)
    system.networks.compile(names, compiler)
    warn(f"the first steps take up to a few minutes, to compile {', '.join(names)}{left and f'; not {left}'}")
