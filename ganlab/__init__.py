"""ganlab trains, measures and compares adversarial image-to-image translation.

The public names are loaded when they are first used, so that the command line starts without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ganlab.comparison.compare import compare as compare
    from ganlab.comparison.compare import compare_runs as compare_runs
    from ganlab.comparison.diff import diff as diff
    from ganlab.comparison.page import write_report as write_report
    from ganlab.comparison.running import TrialCallback as TrialCallback
    from ganlab.comparison.search import Search as Search
    from ganlab.comparison.search import search as search
    from ganlab.comparison.trials import Comparison as Comparison
    from ganlab.comparison.trials import Trial as Trial
    from ganlab.errors import GanlabError as GanlabError
    from ganlab.errors import Interrupted as Interrupted
    from ganlab.errors import RunError as RunError
    from ganlab.errors import SpecError as SpecError
    from ganlab.errors import Unavailable as Unavailable
    from ganlab.experiment.measuring import evaluate as evaluate
    from ganlab.experiment.specs import load_spec as load_spec
    from ganlab.experiment.training import run as run
    from ganlab.inference.files import translate as translate
    from ganlab.inference.run import Run as Run
    from ganlab.inference.run import load_run as load_run
    from ganlab.inspection.inspecting import inspect_data as inspect_data
    from ganlab.interfaces.callbacks import Callback as Callback
    from ganlab.interfaces.callbacks import Measurement as Measurement
    from ganlab.interfaces.callbacks import TrainingEnd as TrainingEnd
    from ganlab.interfaces.callbacks import TrainingStart as TrainingStart
    from ganlab.interfaces.hooks import hookimpl as hookimpl
    from ganlab.interfaces.losses import Loss as Loss
    from ganlab.interfaces.losses import Translation as Translation
    from ganlab.interfaces.metrics import Estimate as Estimate
    from ganlab.interfaces.metrics import Images as Images
    from ganlab.interfaces.metrics import Metric as Metric
    from ganlab.interfaces.metrics import MetricInfo as MetricInfo
    from ganlab.interfaces.metrics import MetricInputs as MetricInputs
    from ganlab.interfaces.networks import Discriminator as Discriminator
    from ganlab.interfaces.networks import Domain as Domain
    from ganlab.interfaces.networks import Features as Features
    from ganlab.interfaces.networks import Generator as Generator
    from ganlab.interfaces.schedules import Schedule as Schedule
    from ganlab.interfaces.schedules import ScheduleWrapper as ScheduleWrapper
    from ganlab.interfaces.schedules import Turn as Turn
    from ganlab.interfaces.sources import Extra as Extra
    from ganlab.interfaces.sources import Source as Source
    from ganlab.sharing.export import export as export
    from ganlab.sharing.import_cyclegan import import_cyclegan as import_cyclegan
    from ganlab.spec.models import Spec as Spec


_NAMES = {
    "ganlab.comparison.compare": ("compare", "compare_runs"),
    "ganlab.comparison.diff": ("diff",),
    "ganlab.comparison.page": ("write_report",),
    "ganlab.comparison.running": ("TrialCallback",),
    "ganlab.comparison.search": ("Search", "search"),
    "ganlab.comparison.trials": ("Comparison", "Trial"),
    "ganlab.errors": ("GanlabError", "Interrupted", "RunError", "SpecError", "Unavailable"),
    "ganlab.experiment.measuring": ("evaluate",),
    "ganlab.experiment.specs": ("load_spec",),
    "ganlab.experiment.training": ("run",),
    "ganlab.inference.files": ("translate",),
    "ganlab.inference.run": ("Run", "load_run"),
    "ganlab.inspection.inspecting": ("inspect_data",),
    "ganlab.interfaces.callbacks": ("Callback", "Measurement", "TrainingEnd", "TrainingStart"),
    "ganlab.interfaces.hooks": ("hookimpl",),
    "ganlab.interfaces.losses": ("Loss", "Translation"),
    "ganlab.interfaces.metrics": ("Estimate", "Images", "Metric", "MetricInfo", "MetricInputs"),
    "ganlab.interfaces.networks": ("Discriminator", "Domain", "Features", "Generator"),
    "ganlab.interfaces.schedules": ("Schedule", "ScheduleWrapper", "Turn"),
    "ganlab.interfaces.sources": ("Extra", "Source"),
    "ganlab.sharing.export": ("export",),
    "ganlab.sharing.import_cyclegan": ("import_cyclegan",),
    "ganlab.spec.models": ("Spec",),
}

__all__ = sorted(name for names in _NAMES.values() for name in names)


def __getattr__(name: str) -> Any:
    for module, names in _NAMES.items():
        if name in names:
            value = globals()[name] = getattr(import_module(module), name)
            return value
    raise AttributeError(f"module 'ganlab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
