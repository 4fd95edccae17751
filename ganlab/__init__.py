"""ganlab: a laboratory for adversarial image-to-image translation.

The public names are loaded when they are first used, so that the command line starts without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ganlab.errors import GanlabError, Interrupted, RunError, SpecError, Unavailable
    from ganlab.evaluation.evidence import Evidence, Images
    from ganlab.hookspecs import hookimpl
    from ganlab.interfaces import (
        Discriminator,
        Domain,
        Estimate,
        Features,
        Generator,
        Loss,
        Metric,
        Number,
        Schedule,
        Source,
        Turn,
    )
    from ganlab.laboratory import Run, evaluate, load_run, load_spec, run
    from ganlab.spec import Spec
    from ganlab.translation import Translation

_HOMES = {
    "ganlab.errors": ("GanlabError", "Interrupted", "RunError", "SpecError", "Unavailable"),
    "ganlab.hookspecs": ("hookimpl",),
    "ganlab.evaluation.evidence": ("Evidence", "Images"),
    "ganlab.interfaces": (
        "Discriminator",
        "Domain",
        "Estimate",
        "Features",
        "Generator",
        "Loss",
        "Metric",
        "Number",
        "Schedule",
        "Source",
        "Turn",
    ),
    "ganlab.laboratory": ("Run", "evaluate", "load_run", "load_spec", "run"),
    "ganlab.spec": ("Spec",),
    "ganlab.translation": ("Translation",),
}

__all__ = [
    "Discriminator",
    "Domain",
    "Estimate",
    "Evidence",
    "Features",
    "GanlabError",
    "Generator",
    "Images",
    "Interrupted",
    "Loss",
    "Metric",
    "Number",
    "Run",
    "RunError",
    "Schedule",
    "Source",
    "Spec",
    "SpecError",
    "Translation",
    "Turn",
    "Unavailable",
    "evaluate",
    "hookimpl",
    "load_run",
    "load_spec",
    "run",
]


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            value = globals()[name] = getattr(import_module(home), name)
            return value
    raise AttributeError(f"module 'ganlab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
