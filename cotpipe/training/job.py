"""The job file: the complete input of a training process, as JSON."""

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from cotpipe.recipe.stages import Stage
from cotpipe.settings import Parallel, Precision, Tracker


class Job(BaseModel):
    """One stage to train."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: Stage
    answers: str  # answer kind, for rewards
    student: Path  # directory of the initial checkpoint
    examples: Path  # Parquet of `rows.Example`, in training order
    validation: Path | None = None  # Parquet of `rows.Example`; None: the last state is kept
    output: Path  # directory for the final checkpoint
    work: Path  # scratch directory of this process
    seed: int
    launcher: int = Field(default_factory=os.getpid)  # training exits when this process is gone
    resume: Path | None = None  # directory of the training state to resume from
    precision: Precision = "auto"
    parallel: Parallel = "ddp"
    trackers: tuple[Tracker, ...] = ()
    tracked_as: str = "training"  # the name of the run in a tracker
    training_state_seconds: float  # time between training states; 0 saves after each optimizer step

    @property
    def rollouts(self) -> Path:
        """Where a GRPO stage writes its rollouts, as Parquet: beside its checkpoint."""
        return self.output.with_name("rollouts.parquet")
