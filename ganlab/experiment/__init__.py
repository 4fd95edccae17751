"""Trains, measures and checks specs and runs: the functions behind the command line."""

from ganlab.experiment.benching import bench, tune
from ganlab.experiment.checking import check
from ganlab.experiment.measuring import asked_evaluation, evaluate, evaluate_together, newest_run
from ganlab.experiment.processes import follow
from ganlab.experiment.shared_evaluation import follow_evaluation
from ganlab.experiment.specs import layout, load_spec, spec_json
from ganlab.experiment.training import is_complete, run

__all__ = [
    "asked_evaluation",
    "bench",
    "check",
    "evaluate",
    "evaluate_together",
    "follow",
    "follow_evaluation",
    "is_complete",
    "layout",
    "load_spec",
    "newest_run",
    "run",
    "spec_json",
    "tune",
]
