"""Experiment trackers: Weights & Biases (https://wandb.ai), MLflow (https://mlflow.org) and Trackio
(https://huggingface.co/docs/trackio)."""

import ganlab
from ganlab_trackers.mlflow_runs import MLflow
from ganlab_trackers.trackio_runs import Trackio
from ganlab_trackers.wandb_runs import WandB


@ganlab.hookimpl
def ganlab_callbacks() -> dict[str, type[ganlab.Callback]]:
    return {"wandb": WandB, "mlflow": MLflow, "trackio": Trackio}
