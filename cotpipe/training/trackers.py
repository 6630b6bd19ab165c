"""Experiment trackers: what a training tells them, beside its log in the store.

All of them take part through transformers' own integrations; each is told where to write by its own
variables (`TRACKIO_DIR`, `WANDB_MODE`, `MLFLOW_TRACKING_URI`, ...), for which these are defaults.
"""

import json
from pathlib import Path
from typing import Any

from cotpipe.training.job import Job

_PROJECT = "cotpipe"


def tracking_arguments(job: Job) -> dict[str, Any]:
    """The arguments of a trainer that say what it reports to, and under which name."""
    return {"report_to": list(job.trackers), "project": _PROJECT, "run_name": job.tracked_as}


def tracking_variables(job: Job) -> dict[str, str]:
    """Defaults of the trackers' variables for a training process."""
    return {
        # Beside the store's folder: what a training writes to its own is removed with it.
        "TENSORBOARD_LOGGING_DIR": str(Path("tensorboard", job.tracked_as).absolute()),
        "WANDB_PROJECT": _PROJECT,
        "WANDB_RUN_ID": job.tracked_as,  # a resumed training goes on in the same run
        "WANDB_RESUME": "allow",
        "MLFLOW_EXPERIMENT_NAME": _PROJECT,
        "MLFLOW_TAGS": json.dumps({"stage": job.stage.name}),
    }
